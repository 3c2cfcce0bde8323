r"""Estimators that anneal: wide pseudo-derivatives first, faithful ones at the end.

Each starts wide, so that most latent weights receive a gradient, and narrows
towards the derivative of the sign itself as ``progress`` goes from 0 to 1.
"""

from __future__ import annotations

import math

import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _maths
from bitjax.quantizers import _relative
from bitjax.quantizers import _written

__all__ = ['error_decay', 'rbnn', 'reste', 'shrinking_window']


def error_decay(
  t_min: types.Scalar = 0.1, t_max: types.Scalar = 10.0
) -> _attach.Estimator:
  r"""Multiplies the gradient by the derivative of an ever steeper tanh (IR-Net).

  .. math:: \bar x = g \, k t \, (1 - \tanh^2(t x)), \quad
    t = t_\min (t_\max / t_\min)^p, \quad k = \max(1 / t, 1)

  where p is the progress. While t <= 1, the factor on g has a peak of 1 and a
  mass (its integral over x) that falls from ``2 / t_min`` to 2; after that the mass
  stays 2 and the peak rises to ``t_max``.

  Args:
    t_min: the tanh's slope t at progress 0, > 0. The paper uses 0.1, the authors'
      code for ResNet-20 with binary activations 1e-3.
    t_max: t at progress 1, > 0.

  Returns:
    An estimator. An infinite ``x`` gets a gradient of 0, a NaN ``x`` one of NaN.

  Raises:
    BadInput: if a concrete ``t_min`` or ``t_max`` is not positive.

  References:
    Qin et al., IR-Net, 2020, the error decay estimator
    (https://arxiv.org/abs/1909.10788).
  """
  types.check_positive('t_min', t_min, finite=True)
  types.check_positive('t_max', t_max, finite=True)
  return _written.rule(error_decay, _error_decay, t_min, t_max)


def _error_decay(t_min, t_max, g, x, x_q, progress):
  del x_q
  t = _maths.geometric(t_min, t_max, progress)
  # k t = max(1 / t, 1) t = max(1, t).
  return g * jnp.maximum(t, 1.0) * _maths.sech2(t * types.widened(x))


def rbnn(
  t_min: types.Scalar = 0.01,
  t_max: types.Scalar = 10.0,
  *,
  activations: bool = False,
) -> _attach.Estimator:
  r"""Multiplies the gradient by a triangle that becomes ever steeper (RBNN).

  .. math:: \bar x = g \max(0, k (\sqrt2 \, t - t^2 |x|)), \quad
    t = t_\min (t_\max / t_\min)^p, \quad k = \max(1 / t, 1)

  where p is the progress. The triangle's half-width is :math:`\sqrt2 / t`, its mass
  (its integral over x) 2 k.

  Args:
    t_min: t at progress 0, > 0.
    t_max: t at progress 1, > 0.
    activations: whether to use the rule of the authors' code for activations:
      k = 1, and max(t, 1) in place of t, so that nothing anneals before t = 1.

  Returns:
    An estimator. An infinite ``x`` gets a gradient of 0, a NaN ``x`` one of NaN.

  Raises:
    BadInput: if a concrete ``t_min`` or ``t_max`` is not positive.

  References:
    Lin et al., Rotated binary neural network, 2020, training-aware approximation
    (https://arxiv.org/abs/2009.13055).
  """
  types.check_positive('t_min', t_min, finite=True)
  types.check_positive('t_max', t_max, finite=True)
  rule = _rbnn_activations if activations else _rbnn
  return _written.rule(rbnn, rule, t_min, t_max, activations=bool(activations))


def _rbnn(t_min, t_max, g, x, x_q, progress):
  del x_q
  t = _maths.geometric(t_min, t_max, progress)
  # k t = max(1 / t, 1) t = max(1, t).
  return g * jnp.maximum(t, 1.0) * _triangle(t, x)


def _rbnn_activations(t_min, t_max, g, x, x_q, progress):
  del x_q
  t = jnp.maximum(_maths.geometric(t_min, t_max, progress), 1.0)
  return g * t * _triangle(t, x)


def _triangle(t, x):
  return jnp.maximum(math.sqrt(2) - t * jnp.abs(types.widened(x)), 0)


def reste(
  o_end: types.Scalar = 3.0,
  inner: types.Scalar = 0.1,
  outer: types.Scalar = 1.5,
) -> _attach.Estimator:
  r"""Multiplies the gradient by a power's derivative, cut at both ends (ReSTE).

  .. math:: \bar x = g \begin{cases}
    m^{1/o} / m & |x| \le m \\
    \tfrac1o |x|^{(1 - o) / o} & m < |x| \le t \\
    0 & |x| > t \end{cases}, \qquad
    o = 1 + (1 - \cos(\pi p / 2)) (o_{\mathrm{end}} - 1)

  where p is the progress. At progress 0 it equals ``window(t)``. The power is
  :math:`|x|^{1/o}` with the sign of x; its derivative is infinite at 0, so the
  first case is its difference quotient instead.

  Args:
    o_end: o at progress 1, >= 1.
    inner: m > 0, up to which the difference quotient is used.
    outer: t > m, beyond which nothing passes.

  Returns:
    An estimator. An infinite or NaN ``x`` gets a gradient of 0.

  Raises:
    BadInput: if a concrete ``o_end`` is below 1, ``inner`` is not positive,
      or ``outer`` does not exceed it.

  References:
    Wu et al., Rectified straight through estimator, 2023
    (https://arxiv.org/abs/2308.06689).
  """
  types.check_range('o_end', o_end, 1, math.inf)
  types.check_finite('o_end', o_end)
  types.check_positive('inner', inner, finite=True)
  types.check_finite('outer', outer)
  types.check_positive('outer - inner', outer - inner)
  return _written.rule(reste, _reste, o_end, inner, outer)


def _reste(o_end, inner, outer, g, x, x_q, progress):
  del x_q
  root = 1 + (1 - jnp.cos(0.5 * math.pi * progress)) * (o_end - 1)
  size = jnp.abs(types.widened(x))
  power = jnp.clip(size, inner, outer) ** ((1 - root) / root)
  slope = jnp.where(size <= inner, power, power / root)
  return jnp.where(size <= outer, g * slope, 0)


def shrinking_window(
  start: types.Scalar = 1.0, end: types.Scalar = 0.1, *, keep: str = 'mass'
) -> _attach.Estimator:
  r"""Passes the gradient in a window that shrinks but keeps its mass, or its height.

  .. math:: \bar x = \frac gc \, 1[|x| \le c] \quad \text{or} \quad
    g \, 1[|x| \le c], \qquad c = c_0 (c_1 / c_0)^p

  where p is the progress. The first is the true derivative of `progressive_hardtanh` with
  the same arguments; BoolNet trains its weights with it. The second is `window` with a
  half-width that shrinks.

  Args:
    start: c at progress 0, > 0, in the units of ``x``.
    end: c at progress 1, > 0.
    keep: ``'mass'`` or ``'height'``.

  Returns:
    An estimator. An infinite or NaN ``x`` gets a gradient of 0.

  Raises:
    BadInput: if a concrete argument is not positive, or for an unknown ``keep``.

  References:
    Guo et al., BoolNet, 2021 (https://arxiv.org/abs/2106.06991).
  """
  types.check_positive('start', start, finite=True)
  types.check_positive('end', end, finite=True)
  types.check_choice('keep', keep, _relative.RELATIVE_KEEPS)
  rule = _shrinking_window if keep == 'mass' else _lower_window
  return _written.rule(shrinking_window, rule, start, end, keep=keep)


def _shrinking_window(start, end, g, x, x_q, progress):
  del x_q
  half_width = _maths.geometric(start, end, progress)
  return jnp.where(jnp.abs(types.widened(x)) <= half_width, g / half_width, 0)


def _lower_window(start, end, g, x, x_q, progress):
  del x_q
  half_width = _maths.geometric(start, end, progress)
  inside = jnp.abs(types.widened(x)) <= half_width
  return jnp.where(inside, g, jnp.zeros_like(g))
