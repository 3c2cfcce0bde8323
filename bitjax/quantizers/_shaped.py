r"""Estimators of one fixed shape: smooth or tapered pseudo-derivatives.

All have the gradient mass of the sign's own step, which is 2, for every value of
their hyperparameter: they say *where* the gradient passes, not how much of it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _maths

__all__ = ['polynomial', 'swish_sign']


def polynomial(half_width: types.Scalar = 1.0) -> _attach.Estimator:
  r"""The derivative of a piecewise quadratic sign: a triangle.

  .. math:: \bar x = g \, \frac2c \max(0, 1 - |x| / c)

  Args:
    half_width: c > 0, in the units of ``x``; the paper's is 1.

  Returns:
    An estimator. An infinite ``x`` passes nothing; NaN passes on.

  Raises:
    ValueError: if a concrete ``half_width`` is not positive.

  References:
    Liu et al., Bi-Real Net, 2018, eq. 6 (https://arxiv.org/abs/1808.00278).
  """
  types.check_positive('half_width', half_width)
  return jax.tree_util.Partial(_polynomial, half_width)


def _polynomial(half_width, g, x, x_q, progress):
  del x_q, progress
  x = _maths.widen(x)
  triangle = jnp.maximum(1 - jnp.abs(x) / half_width, 0)
  return g * (2 / half_width) * triangle


def swish_sign(beta: types.Scalar = 5.0) -> _attach.Estimator:
  r"""The derivative of SignSwish: a bump with shallow negative lobes.

  .. math:: \bar x = g \, \beta \,
    \frac{2 - \beta x \tanh(\beta x / 2)}{1 + \cosh \beta x}

  Its peak is ``beta``.

  Args:
    beta: > 0, the inverse of a width. The paper's is 5, or learned.

  Returns:
    An estimator. An infinite ``x`` passes nothing; NaN passes on.

  Raises:
    ValueError: if a concrete ``beta`` is not positive.

  References:
    Darabi et al., BNN+, 2018, eq. 4 (https://arxiv.org/abs/1812.11800).
  """
  types.check_positive('beta', beta)
  return jax.tree_util.Partial(_swish_sign, beta)


def _swish_sign(beta, g, x, x_q, progress):
  del x_q, progress
  # Beyond 1000 all is 0 in any float, and inf * 0 would be NaN.
  z = jnp.minimum(jnp.abs(beta * _maths.widen(x)), 1000)
  e = jnp.exp(-z)  # 1 / (1 + cosh z) = 2 e / (1 + e)^2, without overflow.
  bump = (2 - z * jnp.tanh(z / 2)) * 2 * e / (1 + e) ** 2
  return g * beta * bump
