"""TTQ: ternary weights whose two non-zero levels are learned."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _channels
from bitjax.quantizers import _domains
from bitjax.quantizers import _estimators
from bitjax.quantizers import _learned
from bitjax.quantizers import _staircases
from bitjax.quantizers import _written

__all__ = ['ttq']


def ttq(
  factor: types.Scalar = 0.05, *, channel_axis: int | None = None
) -> _learned.Quantizer:
  r"""Returns a quantizer to -W_n, 0 or W_p, with learned W_n and W_p (TTQ).

  With :math:`\Delta = t \max |x|`

  .. math::
    y = \begin{cases} W_p \\ 0 \\ -W_n \end{cases} \qquad
    \bar x = \bar y \begin{cases} W_p \\ 1 \\ W_n \end{cases} \qquad
    \begin{array}{l} x > \Delta \\ |x| \le \Delta \\ x < -\Delta \end{array}
    \qquad
    \bar W_p = \sum_{x > \Delta} \bar y, \quad
    \bar W_n = -\sum_{x < -\Delta} \bar y

  (The minus sign comes from -W_n; some ports leave it out.) The levels are
  initialised to the mean magnitude of the weights that they stand for, or to 1 where
  there are none. They stay positive: they are the magnitudes of what is stored, at
  least 2^-40.

  Args:
    factor: t > 0, the factor of the threshold.
    channel_axis: the axis of ``x`` with levels and a threshold for each entry; None
      for a single pair of levels.

  Returns:
    A `Quantizer` with the parameters ``'positive'`` (W_p) and ``'negative'``
    (W_n), [] or [channels]. An infinite or NaN value makes all values that share its
    threshold 0.

  Raises:
    BadInput: for a factor that is not positive, and, when called, a
      ``channel_axis`` that ``x`` does not have.

  References:
    Zhu et al., Trained ternary quantization, 2017, the gradients of
    the scales and the threshold of the largest weight
    (https://arxiv.org/abs/1612.01064).
  """
  types.check_positive('factor', factor, finite=True)
  channel_axis = types.check_axis('channel_axis', channel_axis)
  return _learned.from_rule(_TTQ(factor, channel_axis), 2)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _TTQ:
  factor: types.Scalar
  channel_axis: int | None = dataclasses.field(metadata={'static': True})

  def init(self, x):
    codes = self._codes(x)
    size = jnp.abs(types.widened(x))
    axes = _channels.reduced_axes(x, self.channel_axis)
    shape = _channels.shape_of_channels(x, self.channel_axis)

    def level(mask):
      mean = _staircases.mean_where(size, mask, axes).reshape(shape)
      return jnp.where(mean > 0, mean, 1)

    return {'negative': level(codes < 0), 'positive': level(codes > 0)}

  def effective(self, qparams):
    names = ('negative', 'positive')
    return {name: _domains.positive(qparams[name]) for name in names}

  def apply(self, qparams, x, progress):
    del progress
    codes = self._codes(types.widened(x))
    positive, negative = (
      _channels.align(name, qparams[name], x, self.channel_axis)
      for name in ('positive', 'negative')
    )
    # In the product below, the level is also the factor of x's gradient, so it is 1
    # where the code is 0.
    one = jnp.ones((), codes.dtype)
    level = jnp.where(codes > 0, positive, jnp.where(codes < 0, negative, one))
    return codes * level

  def _codes(self, x):
    staircase = _staircases.ternary(
      'max_abs', factor=self.factor, channel_axis=self.channel_axis
    )
    return _attach.attach(staircase, _estimators.identity())(x)

  def __repr__(self):
    return _written.call(ttq, **vars(self))
