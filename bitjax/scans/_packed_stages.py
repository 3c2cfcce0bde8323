r"""Runs what follows a layer many times, of which one channel has changed each time.

Entrywise stages change that channel only, and the sums of the next convolution change by
the products with it:

.. math::
  s'_p = s_p + \sum_k (x'_{p + k, c} - x_{p + k, c}) \, w_{k c}.

From there on all changes, and all is computed (`_packed_steps`), unless no sign of the
channel turned and nothing else sees it: then nothing is.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.scans import _packed_steps
from bitjax.scans import _stages

__all__ = ['Rest']

_MOST_SMALL = 1 << 14  # Sums below this, and their changes, fit in 16 bits.
innermost, outermost = _packed_steps.innermost, _packed_steps.outermost


@dataclasses.dataclass(frozen=True)
class _Base:
  """What is known of the unmoved network.

  Attributes:
    front: the layer's output behind the entrywise stages, [*spatial, channels, images].
    sums: sums of the convolution that follows, if it is binary and comes next; else
      None.
    logits: the logits, [images, classes].
  """

  front: types.Array
  sums: types.Array | None
  logits: types.Array


class Rest:
  """Stages behind a layer, ready to be run many times for the same images.

  Args:
    stages: the stages; what `_stages.Add` holds is for these images.
    z: shape and dtype of the layer's outputs, [images, *spatial, channels].
  """

  def __init__(
    self, stages: tuple[_stages.Stage, ...], z: jax.ShapeDtypeStruct
  ):
    steps, _ = _packed_steps.prepared(stages, z)
    count = 0
    while count < len(steps) and (
      isinstance(steps[count], _packed_steps.Plus)
      or (
        isinstance(steps[count], _packed_steps.Plain) and steps[count].entrywise
      )
    ):
      count += 1
    self._front, self._mean = steps[:count], None
    if count < len(stages) and isinstance(stages[count], _stages.Mean):
      self._mean, count = stages[count], count + 1
    self._rest = steps[count:]
    self._next, self._behind, self._shortcut = _first_binary(self._rest)

  def __call__(self, z: types.Array, always: types.Array) -> types.Array:
    """Returns the logits, [images, classes].

    Args:
      z: the layer's outputs, [*spatial, channels, images].
      always: a boolean that is true, which the compiler must not know.
    """
    mean = (
      () if self._mean is None else (_packed_steps.Plain(self._mean, False),)
    )
    stages = (*self._front, *mean, *self._rest)
    return outermost(
      _packed_steps.run(stages, _packed_steps.Value(lambda: z), always)()
    )

  def base(self, z: types.Array, logits: types.Array) -> _Base:
    """Returns what `moved` needs of the unmoved outputs ``z``, and of their logits."""
    front = self._of_front(z)
    if self._mean is not None:
      front = innermost(self._mean(outermost(front)))
    if self._next is None:
      return _Base(front, None, logits)
    sums = self._next.sums(_packed_steps.signs(front))
    small = math.prod(self._next.layer.kernel.shape[:3]) < _MOST_SMALL
    return _Base(front, sums.astype('int16' if small else 'int32'), logits)

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
      always: as for a call.
    """

    def channel():
      # Of a slice of entrywise functions, a compiler computes the slice only.
      found = _channel(self._of_front(whole()), unit)
      if self._mean is None:
        return found
      return innermost(self._mean(outermost(found[..., None, :])))[0]

    column = _packed_steps.Value(channel)
    column.made(always)

    def front():
      shape = base.front.shape
      number = jax.lax.broadcasted_iota(jnp.int32, shape, len(shape) - 2)
      return jnp.where(number == unit, column()[..., None, :], base.front)

    x = _packed_steps.Value(front)
    if self._next is None:
      return outermost(_packed_steps.run(self._rest, x, always)())
    assert base.sums is not None
    step, sums = self._next, base.sums
    before = _channel(base.front, unit)

    def turned():
      after, sign = column() >= 0, before >= 0
      zero, two = (jnp.asarray(n, sums.dtype) for n in (0, 2))
      return jnp.where(after == sign, zero, jnp.where(after, two, -two))

    turns = _packed_steps.Value(turned)
    turns.made(always)
    y = _packed_steps.Value(
      lambda: step.rescale(sums + step.change(turns(), unit))
    )
    if self._shortcut is None:
      return jax.lax.cond(
        jnp.any(turns() != 0),
        lambda: outermost(_packed_steps.run(self._behind, y, always)()),
        lambda: base.logits,
      )
    behind, shortcut = self._behind, self._shortcut
    if shortcut:
      x.made(always)
    body, other = (
      _packed_steps.run(behind, y, always),
      _packed_steps.run(shortcut, x, always),
    )
    y = _packed_steps.Value(lambda: body() + other())
    return outermost(_packed_steps.run(self._rest[1:], y, always)())

  def _of_front(self, x):
    for stage in self._front:
      x = stage.of(x)
    return x


def _first_binary(stages):
  """Returns the binary convolution that comes next, and what follows it.

  That is what follows in its branch, and the shortcut, if it begins a branch; else all
  that follows, and None.
  """
  if stages and isinstance(stages[0], _packed_steps.Binary):
    return stages[0], stages[1:], None
  if stages and isinstance(stages[0], _packed_steps.Branches):
    body = stages[0].body
    if body and isinstance(body[0], _packed_steps.Binary):
      return body[0], body[1:], stages[0].shortcut
  return None, (), None


def _channel(x, unit):
  """Returns one channel of [..., channels, images]."""
  return jax.lax.dynamic_index_in_dim(x, unit, x.ndim - 2, keepdims=False)
