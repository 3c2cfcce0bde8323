r"""Runs what follows a layer many times, of which one channel has changed, in floats.

Stages that keep channels apart, such as normalisation, ReLU or pooling, change that
channel only, by d at each position. The sums of the next convolution change by the products
with it, a matrix of rank 9 for a kernel of 3 x 3, whatever the activation is:

.. math::
  s'_p = s_p + \sum_k d_{p + k} \, w_{k c}, \qquad d = f(z'_c) - f(z_c),

so a convolution of one channel stands for that of all. A branch that begins with a
convolution changes in the same way, and so does a shortcut with one. From there on all
changes, and all is computed, unless d is zero: then nothing is. Integers, and multiples of
a power of two, are summed exactly; other sums are rounded once more than those of the
network.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.scans import _held
from bitjax.scans import _packed_steps
from bitjax.scans import _stages

__all__ = ['Rest', 'slides']

innermost, outermost = _packed_steps.innermost, _packed_steps.outermost


@dataclasses.dataclass(frozen=True)
class _Base:
  """What is known of the unmoved network: its parts, and the logits."""

  part: _Part
  logits: types.Array


class Rest:
  """Stages behind a layer, ready to be run many times for the same images.

  Args:
    stages: the stages; what `_stages.Add` holds is for these images.
  """

  def __init__(self, stages: tuple[_stages.Stage, ...]):
    self._stages = _held.stages(stages)

  def __call__(self, z: types.Array, always: types.Array) -> types.Array:
    """Returns the logits, [images, classes].

    Args:
      z: the layer's outputs, [*spatial, channels, images].
      always: not used here; see `_packed_stages.Rest`.
    """
    del always
    return _stages.apply(self._stages, outermost(z))

  def base(self, z: types.Array, logits: types.Array) -> _Base:
    """Returns what `moved` needs of the unmoved outputs ``z``, and of their logits."""
    return _Base(_Part(self._stages, outermost(z)), logits)

  def moved(
    self,
    base: _Base,
    unit: types.Array,
    whole: Callable[[], types.Array],
    always: types.Array,
  ) -> types.Array:
    """Returns the logits after a change of one channel of the layer's outputs.

    Args:
      base: that of the outputs before the change.
      unit: the number of the channel.
      whole: returns arrays of the shape of the outputs, of which this channel is what
        it becomes. The others are not computed.
      always: not used here; see `_packed_stages.Rest`.
    """
    del always
    # Of a slice of entrywise functions, a compiler computes the slice only.
    column = base.part.column(_channel(outermost(whole()), unit), unit)
    return jax.lax.cond(
      jnp.any(base.part.change(column, unit) != 0),
      lambda: base.part(column, unit),
      lambda: base.logits,
    )


class _Part:
  """Stages, and what they compute of the unmoved network.

  Args:
    stages: the stages.
    x: their inputs, [images, *spatial, channels].
  """

  def __init__(self, stages: tuple[_stages.Stage, ...], x: types.Array):
    count = 0
    while count < len(stages) and _stages.is_channelwise(stages[count]):
      count += 1
    self._front, self._rest = stages[:count], stages[count:]
    self._x = _stages.apply(self._front, x)
    self._channels = x.shape[-1]
    self._conv, self._branches = None, None
    first = self._rest[0] if self._rest else None
    if isinstance(first, _stages.Conv) and slides(first, self._x):
      self._sums = first.product(self._x, first.layer.kernel)
      # Sums of 16 bits would be rounded to as few again.
      self._conv = first if self._sums.dtype.itemsize > 2 else None
    elif isinstance(first, _stages.Residual):
      self._branches = [
        _Part(branch, self._x) for branch in (first.body, first.shortcut)
      ]

  def column(self, column: types.Array, unit: types.Array) -> types.Array:
    """Returns what a channel of the inputs becomes before channels are mixed."""
    for stage in self._front:
      shape = (*column.shape, self._channels)
      column = _channel(stage(jnp.broadcast_to(column[..., None], shape)), unit)
    return column

  def change(self, column: types.Array, unit: types.Array) -> types.Array:
    """Returns by how much that channel has changed."""
    return column - _channel(self._x, unit)

  def __call__(self, column: types.Array, unit: types.Array) -> types.Array:
    """Returns the outputs, for what a channel becomes before channels are mixed."""
    if self._conv is not None:
      x = self._conv.layer.rescale(self._moved_sums(column, unit))
    elif self._branches is not None:
      body, shortcut = (
        branch(branch.column(column, unit), unit) for branch in self._branches
      )
      x = body + shortcut
    else:
      shape = self._x.shape
      number = jax.lax.broadcasted_iota(jnp.int32, shape, len(shape) - 1)
      x = jnp.where(number == unit, column[..., None], self._x)
      return _stages.apply(self._rest, x)
    return _stages.apply(self._rest[1:], x)

  def _moved_sums(self, column, unit):
    assert self._conv is not None
    product = self._conv.product
    window = product.window(self._x.shape[1:-1])
    assert window is not None
    rounded = product.arithmetic.rounded
    change = rounded(column) - rounded(_channel(self._x, unit))
    kernel = rounded(self._conv.layer.kernel)
    kernel = jax.lax.dynamic_slice_in_dim(kernel, unit, 1, axis=2)
    dtype = types.promoted(change, kernel)
    # What pads the images does not change.
    more = jax.lax.conv_general_dilated(
      change[..., None].astype(dtype),
      kernel.astype(dtype),
      window.strides,
      window.padding,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      precision=jax.lax.Precision.HIGHEST,
    )
    return self._sums + more.astype(self._sums.dtype)


def slides(stage: _stages.Stage, x: types.Array | jax.ShapeDtypeStruct) -> bool:
  """Returns whether a stage is a convolution by a plain window; a static fact.

  Args:
    stage: the stage.
    x: its inputs, [images, *spatial, channels], of which only the shape matters.
  """
  if not isinstance(stage, _stages.Conv):
    return False
  find = getattr(stage.product, 'window', None)
  return find is not None and find(x.shape[1:-1]) is not None


def _channel(x, unit):
  """Returns one channel of [images, ..., channels]."""
  return jax.lax.dynamic_index_in_dim(x, unit, x.ndim - 1, keepdims=False)
