r"""Domains of learned parameters: the domain's boundary is a mirror.

A step, a scale or a clipping level must be positive, a range [l, u] must have l < u,
and the softness of DSQ lies in (0, 1). Papers learn such numbers directly, and an
optimiser may carry them across the boundary. The number that a quantizer computes with,
the *effective* parameter, is therefore the stored one, reflected at the boundary:

.. math::
  s = \max(|\hat s|, \epsilon), \qquad
  (l, u) = (\min(\hat l, \hat u), \max(\hat l, \hat u)), \qquad
  \alpha = |\hat\alpha - 2 \, \mathrm{round}(\hat\alpha / 2)|

Inside its domain a parameter is what is stored, and gets the paper's gradient, but for
a margin at the boundary: within 2^-40 of 0, or, for :math:`\alpha`, within 1e-3 of 0 and
of 1, it is the margin's edge, which is safe to divide by. Beyond the boundary the
gradient has the opposite sign, so that an optimiser that has crossed it goes on to push
the effective parameter as the loss asks; momentum does not keep that outside. On the
boundary (after a projection, say) the gradient is that of the inside. So there is no
value from which a parameter cannot return.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _estimators

__all__ = ['between_0_and_1', 'ordered', 'positive']

# Its inverse square, times 16-bit codes, is a finite float32.
_SMALLEST = 2.0**-40
# How near DSQ's alpha may come to 0, where its steps are hard, and to 1.
_MARGIN = 1e-3


def positive(value: types.Scalar) -> types.Array:
  """Returns ``|value|``, but at least 2^-40; its derivative at 0 is 1.

  The result is float32 at least: 2^-40 is no float16.
  """
  value = types.widened(value)
  return _clip(jnp.where(value >= 0, value, -value), _SMALLEST, jnp.inf)


def between_0_and_1(value: types.Scalar) -> types.Array:
  """Reflects ``value`` at 0 and at 1, and keeps a distance of 1e-3 from both.

  The result is float32 at least: 1 - 1e-3 is no bfloat16.
  """
  turned = jnp.mod(types.widened(value), 2)
  folded = jnp.where(turned <= 1, turned, 2 - turned)
  return _clip(folded, _MARGIN, 1 - _MARGIN)


def ordered(
  one: types.Scalar, other: types.Scalar
) -> tuple[types.Array, types.Array]:
  """Returns the smaller and the larger of two ends of a range; equal ones as given."""
  one, other = jnp.asarray(one), jnp.asarray(other)
  swapped = one > other
  return jnp.where(swapped, other, one), jnp.where(swapped, one, other)


def _clip(value, low, high):
  """Clips to [low, high]; the gradient passes everywhere."""
  rule = jax.tree_util.Partial(_clipped, low, high)
  return _attach.attach(rule, _estimators.identity())(value)


def _clipped(low, high, value):
  return jnp.clip(value, low, high)
