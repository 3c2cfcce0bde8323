"""LSQ and LSQ+: uniform grids with a learned step and, for LSQ+, a learned offset."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _channels
from bitjax.quantizers import _domains
from bitjax.quantizers import _estimators
from bitjax.quantizers import _learned
from bitjax.quantizers import _uniform
from bitjax.quantizers import _written

__all__ = ['lsq', 'rounded']


def lsq(
  bits: int,
  *,
  signed: bool = True,
  narrow: bool = False,
  channel_axis: int | None = None,
  batch_axes: int = 0,
  offset: bool = False,
  clip_codes: bool = False,
) -> _learned.Quantizer:
  r"""Returns a uniform quantizer with a learned step (LSQ), or also offset (LSQ+).

  With :math:`v = x / s`

  .. math::
    y = s \, \mathrm{round}(\mathrm{clip}(v, Q_n, Q_p)), \qquad
    \bar x = \bar y \, 1[Q_n < v < Q_p], \qquad
    \bar s = \frac{1}{\sqrt{N Q_p}} \sum \bar y \begin{cases}
      \mathrm{round}(v) - v & Q_n < v < Q_p \\ Q_n & v \le Q_n \\
      Q_p & v \ge Q_p \end{cases}

  where N elements share a step. With an ``offset`` b (LSQ+), :math:`v = (x - b) / s`,
  b is added to y, and
  :math:`\bar b = \sum \bar y \, 1[v \le Q_n \text{ or } v \ge Q_p]`. With
  ``clip_codes``, v is rounded before it is clipped, as in several frameworks: the
  forward pass is the same, but the condition :math:`Q_n < v < Q_p` of the gradients
  becomes :math:`Q_n \le \mathrm{round}(v) \le Q_p`, half a step wider at both ends.

  The step is initialised to :math:`2 \, \mathrm{mean} |x| / \sqrt{Q_p}` (1 where x is
  zero); with an offset, step and offset are initialised so that the grid spans x. The
  step stays positive: s is the magnitude of what is stored, at least 2^-40.

  Args:
    bits: in [1, 16]; at least 2 if signed.
    signed: whether the grid has negative levels; see `uniform`.
    narrow: whether to leave out the lowest level.
    channel_axis: the axis of ``x`` with a step for each entry; None for one step.
    batch_axes: the number of leading axes of ``x`` that hold examples, which N does
      not count: 0 for weights, 1 for activations [examples, ...]. (Some code counts
      examples as well: use 0 for both.)
    offset: whether to learn the offset of the grid too (LSQ+).
    clip_codes: whether to clip after rounding, which widens both gradients.

  Returns:
    A `Quantizer` with the parameter ``'step'``, and ``'offset'`` if it has one, [] or
    [channels]. Infinite values become the ends of the grid, NaN stays NaN.

  Raises:
    BadInput: for bits out of range, a narrow unsigned grid, negative
      ``batch_axes``, and, when called, for an ``x`` that is not floating or has no
      such axis, or steps of a wrong shape.

  References:
    Esser et al., Learned step size quantization, 2020, the step size
    gradient and its scale (https://arxiv.org/abs/1902.08153); Bhalgat et al.,
    LSQ+, 2020, the learned offset (https://arxiv.org/abs/2004.09576).
  """
  low, high = _uniform.code_range(bits, signed=signed, narrow=narrow)
  channel_axis = types.check_axis('channel_axis', channel_axis)
  batch_axes = types.check_integer('batch_axes', batch_axes, 0)
  rule = _LSQ(low, high, channel_axis, batch_axes, offset, clip_codes)
  return _learned.from_rule(rule, bits)


@_learned.static
class _LSQ:
  low: int
  high: int
  channel_axis: int | None
  batch_axes: int
  offset: bool
  clip_codes: bool

  def init(self, x):
    x = types.widened(x)
    axes = _channels.reduced_axes(x, self.channel_axis)
    if self.offset:
      least = jnp.min(x, axis=axes, initial=jnp.inf)
      span = jnp.max(x, axis=axes, initial=-jnp.inf) - least
      step = jnp.where(span > 0, span / (self.high - self.low), 1)
      least = jnp.where(jnp.isfinite(least), least, 0)
      return {'offset': least - self.low * step, 'step': step}
    count = max(_channels.num_per_channel(x, self.channel_axis), 1)
    size = jnp.sum(jnp.abs(x), axis=axes) / count
    return {'step': jnp.where(size > 0, 2 * size / math.sqrt(self.high), 1)}

  def effective(self, qparams):
    return {'step': _domains.positive(qparams['step'])}

  def apply(self, qparams, x, progress):
    wide = types.widened(x)
    size = _channels.num_per_channel(x, self.channel_axis, self.batch_axes)
    scale = 1 / math.sqrt(max(size, 1) * self.high)
    step = _scale_gradient(qparams['step'], scale)
    step = _channels.align('step', step, x, self.channel_axis)
    # Broadcast the parameters first, so that their gradients add each element's
    # terms before they sum over all elements.
    step = jnp.broadcast_to(step, x.shape)
    offset = None
    if self.offset:
      offset = _channels.align(
        'offset', qparams['offset'], x, self.channel_axis
      )
      offset = jnp.broadcast_to(offset, x.shape)
      wide = wide - offset
    v = jax.lax.stop_gradient(wide / step)
    inside = (v > self.low) & (v < self.high)
    if self.clip_codes:
      codes = jnp.round(v)
      inside = (codes >= self.low) & (codes <= self.high)
    outer = jnp.clip(v, self.low, self.high)
    # Mask x before the division: where it is infinite, 0 * inf would be NaN.
    clipped = jnp.where(inside, jnp.where(inside, wide, 0) / step, outer)
    y = rounded(clipped, progress) * step
    return y if offset is None else y + offset

  def levels(self, qparams):
    if self.offset:
      return None
    return _uniform.Grid(
      qparams['step'], self.low, self.high, self.channel_axis
    )

  def __repr__(self):
    return _written.call(lsq, **vars(self) | _uniform.codes(self))


def rounded(x, progress=1.0):
  """Rounds ``x``, ties to even, with the straight-through estimator."""
  nearest = _attach.attach(
    jax.tree_util.Partial(jnp.round), _estimators.identity()
  )
  return nearest(x, progress=progress)


def _scale_gradient(x, scale):
  """Returns ``x`` itself, and multiplies its gradient by ``scale``."""
  staircase = jax.tree_util.Partial(_itself)
  estimator = jax.tree_util.Partial(_times, scale)
  return _attach.attach(staircase, estimator)(x)


def _itself(x):
  return x


def _times(scale, g, x, x_q, progress):
  del x, x_q, progress
  return scale * g
