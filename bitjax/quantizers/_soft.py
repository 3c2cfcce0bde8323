r"""Differentiable soft quantization: the derivative of a staircase with soft steps.

Each of the equal intervals of [l, u] holds one soft step, a rescaled tanh. The step
becomes steeper as its parameter alpha, the gap by which the tanh would miss its level
without the rescaling, goes to 0. The gradient then passes only near the thresholds,
in windows that shrink.
"""

from __future__ import annotations

import math

import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _maths
from bitjax.quantizers import _written

__all__ = ['SOFT_STEPS', 'dsq']

SOFT_STEPS = ('tanh', 'hardtanh')


def dsq(
  alpha: types.Scalar = 0.2,
  alpha_end: types.Scalar | None = None,
  *,
  low: types.Scalar = -1.0,
  high: types.Scalar = 1.0,
  levels: types.Scalar = 2,
  step: str = 'tanh',
) -> _attach.Estimator:
  r"""Multiplies the gradient by the derivative of DSQ's soft staircase.

  With the interval's width :math:`\Delta = (u - l) / (n - 1)` for n levels, and its
  midpoint m,

  .. math:: \bar x = g \, \tfrac12 s k \Delta \, \mathrm{sech}^2(k (x - m)), \quad
    s = \frac1{1 - \alpha}, \quad k = \frac1\Delta \ln(\tfrac2\alpha - 1)

  in each interval, and 0 outside [l, u]. The mass of the factor on g over an interval
  is :math:`\Delta` for every alpha. With ``step='hardtanh'`` the step is piecewise
  linear, with the same slope :math:`a = \frac12 s k \Delta` at the midpoint, and the
  gradient passes in a window of the same mass that shrinks with alpha:

  .. math:: \bar x = g \, a \, 1[|x - m| \le \tfrac{\Delta}{2 a}]

  Both go from the clipped identity (alpha near 1) to the derivative of the
  staircase itself (alpha near 0).

  Args:
    alpha: in (0, 1). The paper learns it, starting at 0.2; other code fixes it at 0.4.
    alpha_end: if given, alpha goes from ``alpha`` to ``alpha_end`` by equal factors
      as progress goes from 0 to 1. The paper has no schedule.
    low: l, the lowest level.
    high: u > l, the highest level.
    levels: n >= 2, how many levels; 2 for a sign.
    step: ``'tanh'``, as in the paper, or ``'hardtanh'``, a shrinking window.

  Returns:
    An estimator. An infinite or NaN ``x`` gets a gradient of 0.

  Raises:
    BadInput: if a concrete alpha is outside (0, 1), ``high`` is not above
      ``low``, ``levels`` < 2, or ``step`` is unknown.

  References:
    Gong et al., Differentiable soft quantization, 2019, the DSQ function
    (https://arxiv.org/abs/1908.05033).
  """
  types.check_open_interval('alpha', alpha, 0, 1)
  if alpha_end is not None:
    types.check_open_interval('alpha_end', alpha_end, 0, 1)
  types.check_finite('low', low)
  types.check_finite('high', high)
  types.check_positive('high - low', high - low)
  types.check_range('levels', levels, 2, math.inf)
  types.check_finite('levels', levels)
  types.check_choice('step', step, SOFT_STEPS)
  rule = _tanh if step == 'tanh' else _hardtanh
  return _written.rule(
    dsq, rule, alpha, alpha_end, low, high, levels, step=step
  )


def _tanh(alpha, alpha_end, low, high, levels, g, x, x_q, progress):
  del x_q
  alpha = _annealed(alpha, alpha_end, progress)
  inside, position = _locate(low, high, levels, x)
  slope = _slope(alpha) * _maths.sech2(jnp.log(2 / alpha - 1) * position)
  return jnp.where(inside, g * slope, 0)


def _hardtanh(alpha, alpha_end, low, high, levels, g, x, x_q, progress):
  del x_q
  slope = _slope(_annealed(alpha, alpha_end, progress))
  inside, position = _locate(low, high, levels, x)
  return jnp.where(inside & (jnp.abs(position) <= 0.5 / slope), g * slope, 0)


def _annealed(alpha, alpha_end, progress):
  end = alpha if alpha_end is None else alpha_end
  return _maths.geometric(alpha, end, progress)


def _slope(alpha):
  return 0.5 * jnp.log(2 / alpha - 1) / (1 - alpha)


def _locate(low, high, levels, x):
  """Returns whether x is in [low, high], and its position in its interval.

  The position is counted from the interval's midpoint, in widths of an interval.
  """
  x = types.widened(x)
  width = (high - low) / (levels - 1)
  inside = (x >= low) & (x <= high)
  x = jnp.clip(x, low, high)
  index = jnp.clip(jnp.floor((x - low) / width), 0, levels - 2)
  return inside, (x - (low + (index + 0.5) * width)) / width
