"""ReActNet's learned shifts of the sign and of the PReLU between layers."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _channels
from bitjax.quantizers import _learned
from bitjax.quantizers import _staircases
from bitjax.quantizers import _written

__all__ = ['rprelu', 'rsign']


def rsign(
  estimator: _attach.Estimator, *, channel_axis: int = -1
) -> _learned.Quantizer:
  r"""Returns the sign around a learned threshold for each channel (RSign).

  .. math::
    y = \mathrm{sgn}(x - \beta_c), \qquad \bar x = e(\bar y, x - \beta_c), \qquad
    \bar \beta_c = -\sum \bar x

  where e is the estimator, and the sum runs over all elements of the channel. The
  thresholds are initialised to 0.

  Args:
    estimator: the estimator of the sign (in the paper Bi-Real Net's `polynomial`).
    channel_axis: the axis of ``x`` with a threshold for each entry.

  Returns:
    A `Quantizer` with the parameter ``'threshold'``, [channels]. NaN becomes -1.

  Raises:
    BadInput: when called, for a ``channel_axis`` that ``x`` does not have or a
      wrong number of thresholds.

  References:
    Liu et al., ReActNet, 2020, RSign (https://arxiv.org/abs/2003.03488).
  """
  channel_axis = types.check_axis('channel_axis', channel_axis, optional=False)
  sign = _attach.attach(_staircases.sign(), estimator)
  return _learned.from_rule(_RSign(sign, channel_axis), 1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _RSign:
  sign: _attach.Quantize
  channel_axis: int = dataclasses.field(metadata={'static': True})

  def init(self, x):
    return {'threshold': _per_channel(x, self.channel_axis, 0.0)}

  def apply(self, qparams, x, progress):
    threshold = _channels.align(
      'threshold', qparams['threshold'], x, self.channel_axis
    )
    return self.sign(types.widened(x) - threshold, progress=progress)

  def levels(self, qparams):
    return _staircases.Step(qparams['threshold'], -1, self.channel_axis)

  def __repr__(self):
    sign: Any = self.sign
    return _written.call(rsign, estimator=sign.args[1], **vars(self))


def rprelu(
  *, channel_axis: int = -1, slope: float = 0.25
) -> _learned.Quantizer:
  r"""Returns a PReLU with learned shifts before and after it, per channel (RPReLU).

  .. math::
    y = \begin{cases} x - \gamma_c + \zeta_c & x > \gamma_c \\
    \beta_c (x - \gamma_c) + \zeta_c & x \le \gamma_c \end{cases}

  Its derivatives are the true ones, and at the kink those of the lower side. It
  quantizes nothing, but has learned parameters as quantizers do.

  Args:
    channel_axis: the axis of ``x`` with parameters for each entry.
    slope: the initial beta.

  Returns:
    A `Quantizer` (``bits`` None) with the parameters ``'shift_in'`` (gamma),
    ``'slope'`` (beta) and ``'shift_out'`` (zeta), [channels] each. Infinite and
    NaN values stay what they are.

  Raises:
    BadInput: when called, for a ``channel_axis`` that ``x`` does not have or a
      wrong number of parameters.

  References:
    Liu et al., ReActNet, 2020, RPReLU (https://arxiv.org/abs/2003.03488).
  """
  channel_axis = types.check_axis('channel_axis', channel_axis, optional=False)
  types.check_finite('slope', slope)
  return _learned.from_rule(_RPReLU(channel_axis, slope), None)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _RPReLU:
  channel_axis: int = dataclasses.field(metadata={'static': True})
  slope: types.Scalar

  def init(self, x):
    return {
      'shift_in': _per_channel(x, self.channel_axis, 0.0),
      'shift_out': _per_channel(x, self.channel_axis, 0.0),
      'slope': _per_channel(x, self.channel_axis, self.slope),
    }

  def apply(self, qparams, x, progress):
    del progress
    shift_in, shift_out, slope = (
      _channels.align(name, qparams[name], x, self.channel_axis)
      for name in ('shift_in', 'shift_out', 'slope')
    )
    shifted = types.widened(x) - shift_in
    above = shifted > 0
    # Mask before the product: where x is infinite, 0 * inf would be NaN.
    below = slope * jnp.where(above, 0, shifted)
    return jnp.where(above, shifted, below) + shift_out

  def __repr__(self):
    return _written.call(rprelu, **vars(self))


def _per_channel(x, channel_axis, value):
  shape = _channels.shape_of_channels(x, channel_axis)
  return jnp.full(shape, value, types.widened(x).dtype)
