r"""Annealed staircases: forward passes that become quantized gradually.

The proximal family keeps latent weights y and evaluates the network at weights that
lie between y and their levels, and ever nearer to the levels:

.. math:: w = \mathrm{prox}_{\lambda R}(y)
  = \mathrm{arg} \, \min_w \tfrac12 (w - y)^2 + \lambda R(w)

with a regulariser R that is 0 at the levels. Here such a map is a forward pass that
takes the progress. With `identity` as the estimator it is the published method; any
other estimator may be attached. At progress 1 it is exactly the staircase itself.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _callables
from bitjax.quantizers import _maths
from bitjax.quantizers import _written

__all__ = [
  'DISTANCES',
  'SCHEDULES',
  'parq',
  'progressive_hardtanh',
  'proximal',
]

DISTANCES = ('l2', 'l1')
SCHEDULES = ('geometric', 'linear')


def progressive_hardtanh(
  start: types.Scalar = 1.0, end: types.Scalar = 4.0**-10
) -> _attach.Annealed:
  r"""Returns a hardtanh that becomes ever steeper, until it is the sign.

  .. math:: q(x) = \mathrm{clip}(x / c, -1, 1), \qquad
    c = c_0 (c_1 / c_0)^p, \qquad q(x) = \mathrm{sign}(x) \text{ at } p = 1

  where p is the progress. The defaults are bitorch's, :math:`c = 4^{-10 p}`, which
  is used with `identity`. BoolNet multiplies c by 0.965 in every epoch or step, which
  is ``end = 0.965**n`` for n of them, and uses the true derivative,
  `shrinking_window`.

  Args:
    start: c at progress 0, > 0, in the units of ``x``.
    end: c just before progress 1, > 0.

  Returns:
    An annealed staircase that keeps shape and dtype. NaN stays NaN before
    progress 1, and becomes -1 at progress 1.

  Raises:
    BadInput: if a concrete argument is not positive.

  References:
    Guo et al., BoolNet, 2021 (https://arxiv.org/abs/2106.06991).
  """
  types.check_positive('start', start, finite=True)
  types.check_positive('end', end, finite=True)
  rule = _written.rule(progressive_hardtanh, _progressive_hardtanh, start, end)
  return _attach.Annealed(rule, bits=1)


def _progressive_hardtanh(start, end, x, *, progress):
  half_width = _maths.geometric(start, end, progress)
  soft = jnp.clip(types.widened(x) / half_width, -1, 1)
  hard = jnp.where(x >= 0, 1, -1)
  return jnp.where(progress >= 1, hard, soft).astype(x.dtype)


def parq(
  steepness: types.Scalar = 10.0,
  *,
  low: types.Scalar = -1.0,
  high: types.Scalar = 1.0,
  levels: types.Scalar = 2,
) -> _attach.Annealed:
  r"""Returns PARQ's map: affine between two levels, and ever steeper.

  In the interval of x, with the midpoint m and the width :math:`\Delta`,

  .. math:: q(x) = m + \mathrm{clip}\left(\frac{x - m}{r},
    -\tfrac\Delta2, \tfrac\Delta2\right), \qquad
    r = \frac{\sigma(s (\frac12 - p)) - \sigma(-\frac s2)}
             {\sigma(\frac s2) - \sigma(-\frac s2)}

  where p is the progress. It is the prox of a piecewise affine regulariser. The
  inverse slope r falls from 1, where q is the identity on [l, u], to 0, where q is
  the nearest level, the upper one at a tie.

  Args:
    steepness: s > 0; the larger it is, the more abruptly r falls around p = 1/2.
    low: l, the lowest level.
    high: u > l, the highest level.
    levels: n >= 2, how many levels.

  Returns:
    An annealed staircase that keeps shape and dtype. Infinite ``x`` becomes the
    lowest or the highest level. NaN stays NaN before progress 1, and becomes the
    lowest level at progress 1.

  Raises:
    BadInput: if a concrete ``steepness`` is not positive, ``high`` not above
      ``low``, or ``levels`` < 2.

  References:
    Jin et al., PARQ, 2025 (https://arxiv.org/abs/2503.15748).
  """
  types.check_positive('steepness', steepness, finite=True)
  types.check_finite('low', low)
  types.check_finite('high', high)
  types.check_positive('high - low', high - low)
  types.check_range('levels', levels, 2, math.inf)
  types.check_finite('levels', levels)
  number = types.integer(levels)
  bits = None if number is None else (number - 1).bit_length()
  rule = _written.rule(parq, _parq, steepness, low, high, levels)
  return _attach.Annealed(rule, bits)


def _parq(steepness, low, high, levels, x, *, progress):
  wide = types.widened(x)
  width = (high - low) / (levels - 1)
  index = jnp.clip(jnp.floor((wide - low) / width), 0, levels - 2)
  # NaN is in no interval: the first one lets it become the lowest level at the end.
  index = jnp.where(jnp.isnan(wide), 0, index)
  midpoint = low + (index + 0.5) * width
  fall = jnp.tanh(steepness * (0.5 - progress) / 2)
  inverse_slope = 0.5 * (1 + fall / jnp.tanh(steepness / 4))
  steep = jnp.where(progress >= 1, 1, inverse_slope)
  soft = jnp.clip((wide - midpoint) / steep, -0.5 * width, 0.5 * width)
  hard = jnp.where(wide >= midpoint, 0.5 * width, -0.5 * width)
  step = jnp.where(progress >= 1, hard, soft)
  return (midpoint + step).astype(x.dtype)


def proximal(
  staircase: _attach.Staircase,
  start: types.Scalar = 1.0,
  end: types.Scalar = 100.0,
  *,
  distance: str = 'l2',
  schedule: str = 'geometric',
) -> _attach.Annealed:
  r"""Moves ``x`` towards its level by a proximal map (BinaryRelax, ProxQuant).

  With the level :math:`\Pi x` and the residual :math:`r = x - \Pi x`,

  .. math:: q(x) = \begin{cases}
    (x + \lambda \Pi x) / (1 + \lambda) & \text{l2: BinaryRelax} \\
    \Pi x + \mathrm{sgn}(r) \max(|r| - \lambda, 0) & \text{l1: ProxQuant}
    \end{cases}

  and :math:`q(x) = \Pi x` itself at progress 1. In ProxQuant the map acts on the
  weights after each step: ``proximal(...)(w, progress=p)``.

  Args:
    staircase: :math:`\Pi`, which maps x to the nearest level.
    start: :math:`\lambda` at progress 0: > 0, or >= 0 if the schedule is linear.
    end: :math:`\lambda` just before progress 1. With l1, :math:`\lambda` is a
      distance: with the levels of `sign`, every ``|x| <= 2`` is at its level once
      :math:`\lambda \ge 1`.
    distance: ``'l2'``, half the squared distance to the levels; ``'l1'``, the
      distance itself.
    schedule: ``'geometric'`` raises :math:`\lambda` by equal factors, as
      BinaryRelax does, ``'linear'`` by equal amounts, as ProxQuant does.

  Returns:
    An annealed staircase that keeps shape and dtype. Before progress 1 infinite
    ``x`` stays infinite and NaN stays NaN.

  Raises:
    BadInput: for a negative ``start`` or ``end`` (or 0 if the schedule is
      geometric), an unknown ``distance`` or ``schedule``, or a staircase that is
      not a function of x alone.

  References:
    Yin et al., BinaryRelax, 2018 (https://arxiv.org/abs/1801.06313);
    Bai et al., ProxQuant, 2018 (https://arxiv.org/abs/1810.00861).
  """
  staircase = _callables.as_pytree('staircase', staircase, ('x',))
  for keyword in ('key', 'state', 'progress'):
    if _callables.parameter(staircase, keyword) is not None:
      raise types.BadInput(
        f'staircase must be a function of x alone; got one of {keyword} too.'
      )
  types.check_choice('distance', distance, DISTANCES)
  types.check_choice('schedule', schedule, SCHEDULES)
  geometric = schedule == 'geometric'
  check = types.check_positive if geometric else types.check_non_negative
  check('start', start, finite=True)
  check('end', end, finite=True)
  options = {'distance': distance, 'schedule': schedule}
  rule = _shrunk if distance == 'l1' else _averaged
  interpolate = jax.tree_util.Partial(
    _maths.geometric if geometric else _maths.linear
  )
  rule = _written.rule(
    proximal, rule, staircase, start, end, interpolate, **options
  )
  return _attach.Annealed(rule)


def _averaged(staircase, start, end, interpolate, x, *, progress):
  level = staircase(x)
  share = 1 / (1 + interpolate(start, end, progress))
  soft = share * types.widened(x) + (1 - share) * level
  return jnp.where(progress >= 1, level, soft).astype(x.dtype)


def _shrunk(staircase, start, end, interpolate, x, *, progress):
  level = staircase(x)
  residual = types.widened(x) - level
  excess = jnp.abs(residual) - interpolate(start, end, progress)
  soft = level + jnp.sign(residual) * jnp.maximum(excess, 0)
  return jnp.where(progress >= 1, level, soft).astype(x.dtype)
