"""The progress of training, for models that do not pass it on themselves."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib

from flax import linen as nn

from bitjax import types
from bitjax.nn import _conv
from bitjax.nn import _layers

__all__ = ['training_progress']


@contextlib.contextmanager
def training_progress(progress: types.Scalar) -> Iterator[None]:
  """Calls all quantized layers with this ``progress``, wherever they are.

  ``with training_progress(0.3): model.apply(...)``, in whatever is jitted. It is for
  models that do not hand ``progress`` to their layers, such as a
  ``flax.linen.Sequential``. What a model passes itself takes precedence.

  Args:
    progress: of training, in [0, 1].
  """

  def inject(next_fun, args, kwargs, context):
    ours = isinstance(context.module, (_layers.QuantDense, _conv.QuantConv))
    if ours and context.method_name == '__call__':
      kwargs = {'progress': progress, **kwargs}
    return next_fun(*args, **kwargs)

  types.check_range('progress', progress, 0.0, 1.0)
  with nn.intercept_methods(inject):
    yield
