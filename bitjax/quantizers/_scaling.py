r"""Scales that a layer computes from its own latent weights.

A binary kernel is often multiplied by a scale such as the mean of ``|w|``. Such
a scale *couples* the weights: moving one changes the value of others. Exact scans
need to know how far the coupling reaches, so each scaling states it as a static
attribute.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _written

__all__ = [
  'COUPLINGS',
  'Constant',
  'Scaling',
  'max_abs',
  'mean_abs',
  'power_of_two',
]

COUPLINGS = ('none', 'column', 'tensor')


class Scaling(Protocol):
  """A function that computes a scale from a kernel, and says which weights share it.

  Attributes:
    coupling: ``'column'`` if the weights of one unit share a scale,
      ``'tensor'`` if all do, ``'none'`` if it does not depend on the kernel.
  """

  @property
  def coupling(self) -> str:
    """Which weights share a scale."""
    ...

  def __call__(self, kernel: types.Array) -> types.Array:
    """Returns the scale, [units] or [], of a kernel [..., units]."""
    ...


def mean_abs(coupling: str = 'column', *, detached: bool = True) -> Scaling:
  r"""Returns the scaling by the weights' mean magnitude, a scaled sign's best l2 fit.

  .. math:: \alpha_j = \frac1n \sum_i |w_{ij}|

  Args:
    coupling: ``'column'`` for one scale per unit (of a convolution: per output
      channel), ``'tensor'`` for a single scale.
    detached: whether the gradient stops at the scale, as in most training code;
      else :math:`\partial \alpha_j / \partial w_{ij} = \mathrm{sgn}(w_{ij}) / n`,
      with sgn(0) = +1 (as JAX differentiates ``|w|``).

  Returns:
    A callable pytree that maps a kernel [..., units] to its scale, [units] or []. A
    scale is infinite or NaN if one of its weights is.

  Raises:
    BadInput: for any other coupling.

  References:
    Rastegari et al., XNOR-Net, 2016, the optimal scale of binary weights
    (https://arxiv.org/abs/1603.05279).
  """
  types.check_choice('coupling', coupling, COUPLINGS[1:])
  return _MeanAbs(coupling, detached)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _MeanAbs:
  coupling: str = dataclasses.field(metadata={'static': True})
  detached: bool = dataclasses.field(metadata={'static': True})

  def __call__(self, kernel):
    kernel = jax.lax.stop_gradient(kernel) if self.detached else kernel
    axes = tuple(range(kernel.ndim - 1)) if self.coupling == 'column' else None
    return jnp.mean(jnp.abs(kernel), axis=axes)

  def __repr__(self):
    return _written.call(mean_abs, **vars(self))


def max_abs(
  coupling: str = 'column',
  *,
  factor: types.Scalar = 1.0,
  power_of_two: bool = False,
  detached: bool = True,
) -> Scaling:
  r"""Returns the scaling by the weights' largest magnitude, the end of a range.

  .. math:: \alpha_j = f \max_i |w_{ij}|

  With it, `calibrated` takes a grid's step from the weights, as AQT, qwix and
  brevitas do.

  Args:
    coupling: ``'column'`` for one scale per unit (of a convolution: per output
      channel), ``'tensor'`` for a single scale.
    factor: f > 0; below 1 it clips the largest weights.
    power_of_two: whether to round the scale up to a power of two, so that levels are
      fixed-point numbers.
    detached: whether the gradient stops at the scale; else the largest weight gets it
      (shared equally by ties).

  Returns:
    A callable pytree that maps a kernel [..., units] to its scale, [units] or []. A
    scale is 0 if its weights are all zero, and infinite or NaN if one of them is.

  Raises:
    BadInput: for any other coupling, a factor that is not positive and finite, or a
      power of two that is not detached.
  """
  types.check_choice('coupling', coupling, COUPLINGS[1:])
  types.check_positive('factor', factor, finite=True)
  if power_of_two and not detached:
    raise types.BadInput(
      'detached must be True for a power of two, which is piecewise constant; got '
      'False.'
    )
  return _MaxAbs(factor, coupling, power_of_two, detached)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _MaxAbs:
  factor: types.Scalar
  coupling: str = dataclasses.field(metadata={'static': True})
  power_of_two: bool = dataclasses.field(metadata={'static': True})
  detached: bool = dataclasses.field(metadata={'static': True})

  def __call__(self, kernel):
    wide = types.widened(kernel)
    wide = jax.lax.stop_gradient(wide) if self.detached else wide
    axes = tuple(range(wide.ndim - 1)) if self.coupling == 'column' else None
    scale = self.factor * jnp.max(jnp.abs(wide), axis=axes, initial=0)
    if self.power_of_two:
      fraction, exponent = jnp.frexp(scale)
      exponent = jnp.where(fraction == 0.5, exponent - 1, exponent)
      power = jnp.ldexp(jnp.ones_like(scale), exponent)
      scale = jnp.where((scale > 0) & jnp.isfinite(scale), power, scale)
    return scale.astype(kernel.dtype)

  def __repr__(self):
    return _written.call(max_abs, **vars(self))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Constant:
  """The scaling by numbers that do not depend on the kernel."""

  scale: types.Array

  coupling = 'none'

  def __call__(self, kernel: types.Array) -> types.Array:
    """Returns the scale, [units] or []."""
    del kernel
    return self.scale

  def __repr__(self) -> str:
    return _written.call(Constant, **vars(self))


def power_of_two(coupling: str = 'column') -> Scaling:
  r"""Returns the scaling by the power of two nearest to the mean magnitude: a shift.

  .. math:: \alpha_j = 2^{\mathrm{round}(\log_2 \frac1n \sum_i |w_{ij}|)}

  The gradient stops at the scale. A scale is 0 if its weights are all zero, and
  infinite or NaN if one of them is. IR-Net computes it from standardised weights:
  pass ``scaled(quantize, power_of_two())`` to `standardized`.

  Args:
    coupling: ``'column'`` for one scale per unit, ``'tensor'`` for a single scale.

  Returns:
    A callable pytree that maps a kernel [..., units] to its scale, [units] or [].

  Raises:
    BadInput: for any other coupling.

  References:
    Qin et al., IR-Net, 2020, the bit-shift scales
    (https://arxiv.org/abs/1909.10788).
  """
  types.check_choice('coupling', coupling, COUPLINGS[1:])
  return _PowerOfTwo(_MeanAbs(coupling, True))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _PowerOfTwo:
  mean: _MeanAbs

  @property
  def coupling(self):
    return self.mean.coupling

  def __call__(self, kernel):
    mean = self.mean(types.widened(kernel))
    ordinary = (mean > 0) & jnp.isfinite(mean)
    exponent = jnp.round(jnp.log2(jnp.where(ordinary, mean, 1)))
    # ldexp is exact, while compiled code may round exp2.
    power = jnp.ldexp(jnp.ones_like(mean), exponent.astype(jnp.int32))
    return jnp.where(ordinary, power, mean).astype(kernel.dtype)

  def __repr__(self):
    return _written.call(power_of_two, coupling=self.coupling)
