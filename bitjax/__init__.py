"""A JAX library about the gradients that binary and low-bit networks are trained with.

The namespaces listed in ``__all__`` are imported when they are first used, so that

  import bitjax
  quantize = bitjax.quantizers.sign()

works, and a program imports only what it uses.
"""

import importlib

from bitjax.version import __version__

__all__ = [
  '__version__',
  'cli',
  'data',
  'deploy',
  'descent',
  'evidence',
  'lanes',
  'measures',
  'memory',
  'nn',
  'packed',
  'quantizers',
  'scans',
  'studies',
  'sweeps',
  'training',
  'transforms',
  'tree',
  'types',
]


def __getattr__(name: str):
  """Imports a namespace on first use (PEP 562)."""
  if name in __all__:
    return importlib.import_module(f'bitjax.{name}')
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
