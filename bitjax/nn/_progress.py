"""Context managers that set an option of all layers of a model at once.

The option is part of the key under which JAX keeps programs, so that layers under
``nn.jit`` are traced again for another value.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses

from flax import linen as nn
import jax

from bitjax import types
from bitjax.nn import _conv
from bitjax.nn import _layers

__all__ = ['plain_convolutions', 'training_progress']

_progress = jax.make_user_context()
_plain = jax.make_user_context(False)


@contextlib.contextmanager
def training_progress(progress: types.Scalar) -> Iterator[None]:
  """Passes ``progress`` to all quantized layers that are called inside the context.

  Write ``with training_progress(0.3): model.apply(...)`` inside the function that is
  jitted. This is for models that do not pass ``progress`` to their layers, such as a
  ``flax.linen.Sequential``. A progress that a model passes itself takes precedence.

  Args:
    progress: progress of training, in [0, 1].
  """

  def inject(next_fun, args, kwargs, context):
    ours = isinstance(context.module, (_layers.QuantDense, _conv.QuantConv))
    if ours and context.method_name == '__call__':
      kwargs = {'progress': progress, **kwargs}
    return next_fun(*args, **kwargs)

  types.check_range('progress', progress, 0.0, 1.0)
  traced = isinstance(progress, jax.core.Tracer)
  value = object() if traced else float(progress)  # No two tracers are equal.
  with _progress(value), nn.intercept_methods(inject):
    yield


@contextlib.contextmanager
def plain_convolutions() -> Iterator[None]:
  """Leaves convolutions and their gradients to XLA on every platform.

  Write ``with plain_convolutions(): model.apply(...)`` inside the function that is
  jitted, for comparisons or for forward-mode derivatives (not of layers whose dtype
  has 16 bits). On the CPU these convolutions are slower, and very slow in loops.
  """

  def replace(next_fun, args, kwargs, context):
    found = next_fun(*args, **kwargs)
    return (
      dataclasses.replace(found, plain=True) if is_product(found) else found
    )

  def is_product(found):
    return isinstance(found, _conv.Product)

  with _plain(True), nn.intercept_methods(replace):
    yield
