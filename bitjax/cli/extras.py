"""Checks for the optional packages that every study needs.

The library itself works without them, so they are an extra of the package.
"""

from __future__ import annotations

import importlib.util

from bitjax import types

__all__ = ['PACKAGES', 'check']

EXTRA = 'experiments'
PACKAGES = ('h5netcdf', 'h5py', 'matplotlib', 'scipy', 'tqdm', 'xarray')


def check() -> None:
  """Raises `types.BadInput`, which names the extra, if a package is missing."""
  missing = [
    name for name in PACKAGES if importlib.util.find_spec(name) is None
  ]
  if missing:
    raise types.BadInput(
      f'studies need {", ".join(missing)}, which this installation lacks; '
      f"install the extra: pip install 'bitjax[{EXTRA}]'."
    )
