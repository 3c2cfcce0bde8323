r"""Estimators of a fixed shape: smooth or tapered pseudo-derivatives.

`polynomial`, `swish_sign`, `dspike` and `gaussian` have the gradient mass of the sign's own
step, which is 2, for every value of their hyperparameters: they determine *where*
the gradient passes, not how much of it. `magnitude_aware` determines how much.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _maths
from bitjax.quantizers import _written

__all__ = ['dspike', 'gaussian', 'magnitude_aware', 'polynomial', 'swish_sign']


def dspike(
  temperature: types.Scalar = 1.0, half_width: types.Scalar = 1.0
) -> _attach.Estimator:
  r"""Multiplies the gradient by the derivative of a tanh that is cut at the levels.

  .. math:: \bar x = g \, \frac{b}{2c} \,
    \frac{\mathrm{sech}^2(b x / 2c)}{\tanh(b / 2)} \, 1[|x| \le c]

  The paper's function, a step from 0 to 1 on [0, 1], is rescaled to the step of the
  sign, from -1 to 1 on [-c, c]. The estimator tends to ``window(c, 1 / c)`` as b goes
  to 0, and to the derivative of the sign itself as b goes to infinity.

  Args:
    temperature: b > 0; the paper searches for the value whose gradient agrees best
      with a finite difference.
    half_width: c > 0, in the units of ``x``.

  Returns:
    An estimator. An infinite or NaN ``x`` gets a gradient of 0.

  Raises:
    BadInput: if a concrete argument is not positive.

  References:
    Li et al., Differentiable spike, 2021, the Dspike function
    (https://proceedings.neurips.cc/paper/2021/hash/c4ca4238a0b923820dcc509a6f75849b-Abstract.html).
  """
  types.check_positive('temperature', temperature, finite=True)
  types.check_positive('half_width', half_width, finite=True)
  return _written.rule(dspike, _dspike, temperature, half_width)


def _dspike(temperature, half_width, g, x, x_q, progress):
  del x_q, progress
  x = types.widened(x)
  rate = temperature / (2 * half_width)
  peak = rate / jnp.tanh(temperature / 2)
  spike = g * peak * _maths.sech2(rate * x)
  return jnp.where(jnp.abs(x) <= half_width, spike, 0)


def gaussian(sigma: types.Scalar = 1.0) -> _attach.Estimator:
  r"""Multiplies the gradient by the derivative of the sign, blurred by Gaussian noise.

  .. math:: \bar x = g \, \frac2\sigma \, \varphi\left( \frac x\sigma \right)
    = g \, \frac{\partial}{\partial x} \, \mathbb E_{u \sim N(0, 1)} \,
    \mathrm{sign}(x + \sigma u)

  Args:
    sigma: > 0, the deviation, in the units of ``x``.

  Returns:
    An estimator. An infinite ``x`` gets a gradient of 0, a NaN ``x`` one of NaN.

  Raises:
    BadInput: if a concrete ``sigma`` is not positive.

  References:
    Shekhovtsov and Yanush, Reintroducing straight-through estimators as principled
    methods for stochastic binary networks, 2021, where the density of the noise is the
    pseudo-derivative (https://arxiv.org/abs/2006.06880).
  """
  types.check_positive('sigma', sigma, finite=True)
  return _written.rule(gaussian, _gaussian, sigma)


def _gaussian(sigma, g, x, x_q, progress):
  del x_q, progress
  z = types.widened(x) / sigma
  peak = math.sqrt(2 / math.pi) / sigma
  return g * peak * jnp.exp(-z * z / 2)


def magnitude_aware(
  half_width: types.Scalar = 1.0,
  *,
  unit_axis: int | None = -1,
  mean_share: bool = False,
) -> _attach.Estimator:
  r"""Passes weights' gradients in a window, times the unit's mean magnitude.

  .. math:: \bar w_{ij} = g_{ij} \, \frac1n \sum_{i'} |w_{i'j}| \;
    1[|w_{ij}| \le c]

  This is Bi-Real Net's estimator for weights. With it, a sign without a scale learns
  like one with the scale mean ``|w|``: in both, large weights are hard to move. A
  layer that does multiply by that scale (`mean_abs`) already has the factor in ``g``:
  use `window` there. The authors' code multiplies by the scale but drops it from the
  gradient, which is `window` attached to the scaled staircase.

  XNOR-Net's rule for weights adds each weight's share of the mean (``mean_share``).
  It is meant to be attached to mean ``|w|`` times the sign:

  .. math:: \bar w_{ij} = g_{ij} \left( \frac1n + \frac1n \sum_{i'} |w_{i'j}| \;
    1[|w_{ij}| \le c] \right)

  (It is not the chain rule of that product, which sums g over the unit: for this
  see ``scaled(..., mean_abs(detached=False))``.)

  Args:
    half_width: c > 0, in the units of the weights.
    unit_axis: the axis of ``x`` that indexes units; the mean runs over all other
      axes. None for a single mean over all axes.
    mean_share: whether to add g / n.

  Returns:
    An estimator for weights [..., units]. An infinite or NaN weight makes its
    unit's gradients infinite or NaN, where they pass.

  Raises:
    BadInput: if a concrete ``half_width`` is not positive; when called, if
      ``x`` has no such axis.

  References:
    Liu et al., Bi-Real Net, 2018, the magnitude-aware gradient
    (https://arxiv.org/abs/1808.00278); Rastegari et al., XNOR-Net, 2016, the
    gradient of binary weights (https://arxiv.org/abs/1603.05279).
  """
  types.check_positive('half_width', half_width)
  unit_axis = types.check_axis('unit_axis', unit_axis)
  return _MagnitudeAware(half_width, unit_axis, mean_share)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _MagnitudeAware:
  half_width: types.Scalar
  unit_axis: int | None = dataclasses.field(metadata={'static': True})
  mean_share: bool = dataclasses.field(metadata={'static': True})

  def __call__(self, g, x, x_q, progress):
    del x_q, progress
    size = jnp.abs(types.widened(x))
    axes = set(range(x.ndim))
    if self.unit_axis is not None and x.ndim:
      types.check_range('unit_axis', self.unit_axis, -x.ndim, x.ndim - 1)
      axes -= {self.unit_axis % x.ndim}
    scale = jnp.mean(size, axis=tuple(axes), keepdims=True)
    passed = jnp.where(size <= self.half_width, g * scale, 0)
    share = scale.size / max(x.size, 1)
    return passed + g * share if self.mean_share else passed

  def __repr__(self):
    return _written.call(magnitude_aware, **vars(self))


def polynomial(half_width: types.Scalar = 1.0) -> _attach.Estimator:
  r"""Multiplies the gradient by a triangle, a piecewise quadratic sign's derivative.

  .. math:: \bar x = g \, \frac2c \max(0, 1 - |x| / c)

  Args:
    half_width: c > 0, in the units of ``x``; 1 in the paper.

  Returns:
    An estimator. An infinite ``x`` gets a gradient of 0, a NaN ``x`` one of NaN.

  Raises:
    BadInput: if a concrete ``half_width`` is not positive.

  References:
    Liu et al., Bi-Real Net, 2018, the approximation of the sign function
    (https://arxiv.org/abs/1808.00278).
  """
  types.check_positive('half_width', half_width, finite=True)
  return _written.rule(polynomial, _polynomial, half_width)


def _polynomial(half_width, g, x, x_q, progress):
  del x_q, progress
  x = types.widened(x)
  triangle = jnp.maximum(1 - jnp.abs(x) / half_width, 0)
  return g * (2 / half_width) * triangle


def swish_sign(beta: types.Scalar = 5.0) -> _attach.Estimator:
  r"""Multiplies the gradient by SignSwish's derivative: a bump with negative lobes.

  .. math:: \bar x = g \, \beta \,
    \frac{2 - \beta x \tanh(\beta x / 2)}{1 + \cosh \beta x}

  The peak of the bump is ``beta``; its lobes are shallow.

  Args:
    beta: > 0, the inverse of a width. The paper uses 5, or learns it.

  Returns:
    An estimator. An infinite ``x`` gets a gradient of 0, a NaN ``x`` one of NaN.

  Raises:
    BadInput: if a concrete ``beta`` is not positive.

  References:
    Darabi et al., BNN+, 2018, SignSwish (https://arxiv.org/abs/1812.11800).
  """
  types.check_positive('beta', beta, finite=True)
  return _written.rule(swish_sign, _swish_sign, beta)


def _swish_sign(beta, g, x, x_q, progress):
  del x_q, progress
  # Beyond 1000 the bump is 0 in any float; without the cap inf * 0 would be NaN.
  z = jnp.minimum(jnp.abs(beta * types.widened(x)), 1000)
  e = jnp.exp(-z)  # 1 / (1 + cosh z) = 2 e / (1 + e)^2, without overflow.
  bump = (2 - z * jnp.tanh(z / 2)) * 2 * e / (1 + e) ** 2
  return g * beta * bump
