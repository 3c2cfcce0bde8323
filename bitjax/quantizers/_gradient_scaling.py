r"""Element-wise gradient scaling: the distance of x from its level scales its gradient.

The straight-through estimator gives every x of an interval the same gradient. The
loss, however, was computed at the level: the gradient at x differs from that at the
level by the curvature times the distance. EWGS approximates this difference with
one factor delta for a whole tensor.
"""

from __future__ import annotations

import jax.numpy as jnp

from bitjax import tree
from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _written

__all__ = ['ewgs', 'ewgs_delta']


def ewgs(
  delta: types.Scalar = 1e-3,
  *,
  low: types.Scalar = -1.0,
  high: types.Scalar = 1.0,
) -> _attach.Estimator:
  r"""Scales gradients by the quantization error; passes none outside [low, high].

  .. math:: \bar x = g \, \left( 1 + \delta \, \mathrm{sgn}(g) \,
    \frac{x - x_q}{u - l} \right) 1[l \le x \le u]

  A gradient grows where a descent step moves x back towards its level, and shrinks
  where it moves x further away. The paper normalises x to [0, 1], and delta refers
  to that scale.

  Args:
    delta: the factor, >= 0: a scalar, or an array that broadcasts against ``x``. The
      paper's initial value is 1e-3; see `ewgs_delta`.
    low: l, the lowest level.
    high: u > l, the highest level.

  Returns:
    An estimator. An infinite or NaN ``x`` gets a gradient of 0.

  Raises:
    BadInput: if a concrete ``delta`` is negative, or ``high`` not above
      ``low``.

  References:
    Lee et al., Network quantization with element-wise gradient scaling, 2021
    (https://arxiv.org/abs/2104.00903).
  """
  types.check_non_negative('delta', delta, finite=True, arrays=True)
  types.check_finite('low', low)
  types.check_finite('high', high)
  types.check_positive('high - low', high - low)
  return _written.rule(ewgs, _ewgs, delta, low, high)


def _ewgs(delta, low, high, g, x, x_q, progress):
  del progress
  x = types.widened(x)
  inside = (x >= low) & (x <= high)
  error = (jnp.clip(x, low, high) - x_q) / (high - low)
  return jnp.where(inside, g * (1 + delta * jnp.sign(g) * error), 0)


def ewgs_delta(
  hessian_traces: types.Array, gradients: types.Array
) -> types.Array:
  r"""Returns EWGS's delta: the mean curvature over three deviations of the gradient.

  .. math:: \delta = \max \left( 0, \frac1B \sum_b
    \frac{\mathrm{Tr}(H_b) / N}{3 \, \mathrm{std}(g_b)} \right)

  The authors refresh it every 10 epochs, from 3 batches, with Hutchinson's
  estimate of the trace.

  Args:
    hessian_traces: [batches], traces of the Hessian of the loss with respect to
      the quantized tensor, which has N elements, in normalised units.
    gradients: [batches, ...], the gradients with respect to that tensor, in the
      same units.

  Returns:
    delta, []. A batch whose gradients do not vary counts as 0.

  References:
    Lee et al., 2021 (https://arxiv.org/abs/2104.00903); the average over batches
    is that of the authors' code.
  """
  gradients = types.widened(jnp.reshape(gradients, (len(gradients), -1)))
  spread = 3 * tree.deviation(gradients, 1)
  varies = spread > 0
  curvature = hessian_traces / gradients.shape[1]
  ratio = jnp.where(varies, curvature / jnp.where(varies, spread, 1), 0)
  return jnp.maximum(jnp.mean(ratio), 0)
