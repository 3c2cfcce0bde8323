r"""Quantizers made of others: standardised, scaled, and DoReFa's two.

Each is a callable pytree like those of `attach`, and all gradients beside the
attached ones are those of automatic differentiation.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _channels
from bitjax.quantizers import _estimators
from bitjax.quantizers import _scaling
from bitjax.quantizers import _staircases
from bitjax.quantizers import _uniform

__all__ = [
  'DOREFA_VARIANTS',
  'dorefa_activations',
  'dorefa_weights',
  'scaled',
  'standardized',
]

DOREFA_VARIANTS = ('authors', 'larq', 'identity')


def standardized(
  quantize: _attach.Quantize, *, detached: bool = False
) -> _attach.Quantize:
  r"""Quantizes weights after taking off each unit's mean and deviation.

  .. math:: y = q(\hat w), \qquad \hat w_{ij} = \frac{w_{ij} - m_j}{\sigma_j},
    \qquad \sigma_j^2 = \frac{1}{n - 1} \sum_i (w_{ij} - m_j)^2

  The gradient passes through both statistics:

  .. math:: \bar w_{ij} = \frac{1}{\sigma_j} \left( \bar{\hat w}_{ij}
    - \frac1n \sum_k \bar{\hat w}_{kj}
    - \frac{\hat w_{ij}}{n - 1} \sum_k \hat w_{kj} \bar{\hat w}_{kj} \right),

  or, ``detached``, through none: :math:`\bar{\hat w}_{ij} / \sigma_j`.

  Args:
    quantize: q, of kernels [..., units].
    detached: whether mean and deviation are constants of differentiation.

  Returns:
    A quantizer of kernels. A unit whose weights are all equal becomes q(0).

  Raises:
    ValueError: when called, for fewer than two weights for each unit.

  References:
    Qin et al., IR-Net, 2020, eq. 6 (https://arxiv.org/abs/1909.10788), whose code
    has n - 1.
  """
  return _Standardized(quantize, detached)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Standardized:
  quantize: _attach.Quantize
  detached: bool = dataclasses.field(metadata={'static': True})

  def __call__(self, x, *, progress=1.0, key=None):
    x = _channels.check_floating(x)
    axes = _channels.reduced_axes(x, -1) if x.ndim else ()
    size = _channels.num_per_channel(x, -1 if x.ndim else None)
    if size < 2:
      raise ValueError(
        f'x must hold at least 2 weights for each unit; got shape {x.shape}.'
      )
    wide = _channels.at_least_float32(x)
    source = jax.lax.stop_gradient(wide) if self.detached else wide
    mean = jnp.mean(source, axis=axes, keepdims=True)
    total = jnp.sum((source - mean) ** 2, axis=axes, keepdims=True)
    variance = jnp.where(total > 0, total, size - 1) / (size - 1)
    standard = (wide - mean) / jnp.sqrt(variance)
    return self.quantize(standard.astype(x.dtype), progress=progress, key=key)


def scaled(
  quantize: _attach.Quantize, scaling: _scaling.Scaling
) -> _attach.Quantize:
  r"""Multiplies quantized weights by a scale computed from the latent ones.

  .. math:: y = \alpha(w) \, q(w), \qquad
    \bar w = q'(\alpha \bar y) + \frac{\partial \alpha}{\partial w}
    \sum q \, \bar y,

  the second term only if the scaling is not detached. A layer that scales the
  *product* instead (``scaling=`` of `bitjax.nn`) computes the same and keeps sums
  of integers exact.

  Args:
    quantize: q, of kernels [..., units].
    scaling: alpha, to [units] or [].

  Returns:
    A quantizer of kernels.

  References:
    Rastegari et al., XNOR-Net, 2016, eq. 6 (https://arxiv.org/abs/1603.05279).
  """
  return _Scaled(quantize, scaling)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Scaled:
  quantize: _attach.Quantize
  scaling: _scaling.Scaling

  def __call__(self, x, *, progress=1.0, key=None):
    x = _channels.check_floating(x)
    x_q = self.quantize(x, progress=progress, key=key)
    scale = self.scaling(x)
    scale = _channels.align('scale', scale, x, -1 if x.ndim else None)
    return x_q * scale.astype(x_q.dtype)


def dorefa_activations(bits: int) -> _attach.Quantize:
  r"""DoReFa's activations: clipped to [0, 1] and rounded to ``bits`` bits.

  .. math:: y = \frac1n \mathrm{round}(n \, \mathrm{clip}(x, 0, 1)), \qquad
    \bar x = \bar y \, 1[0 \le x \le 1], \qquad n = 2^b - 1

  Args:
    bits: b, in [1, 16].

  Returns:
    A quantizer; NaN stays NaN. (Some libraries pass the gradient everywhere.)

  Raises:
    ValueError: for bits out of range.

  References:
    Zhou et al., DoReFa-Net, 2016, eqs. 5 and 11
    (https://arxiv.org/abs/1606.06160).
  """
  return _DorefaActivations(_uniform.uniform(bits, signed=False))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _DorefaActivations:
  grid: _uniform.Grid

  def __call__(self, x, *, progress=1.0, key=None):
    del key
    x = _channels.check_floating(x)
    one, zero = jnp.ones((), x.dtype), jnp.zeros((), x.dtype)
    clipped = jnp.where(x > 1, one, jnp.where(x < 0, zero, x))
    return _rounded(self.grid, clipped, progress)

  @property
  def staircase(self):
    return self.grid


def _rounded(grid, x, progress=1.0):
  round_ = _attach.attach(grid, _estimators.identity())
  return round_(x, progress=progress)


def dorefa_weights(bits: int, *, variant: str = 'authors') -> _attach.Quantize:
  r"""DoReFa's weights: squashed by tanh, then rounded to ``bits`` bits.

  .. math:: y = 2 r(u) - 1, \qquad u = \frac{\tanh w}{2 m} + \frac12, \qquad
    m = \max |\tanh w|, \qquad r(u) = \frac1n \mathrm{round}(n u)

  The straight-through estimator is on the rounding only:

  .. math:: \bar w = (1 - \tanh^2 w) \left( \frac{\bar y}{m}
    - [\text{w attains } m] \, \frac{\mathrm{sgn}(w)}{m^2}
    \sum \bar y \tanh w \right)

  ==============  ========================================  ==================
  ``variant``     gradient                                  1 bit
  ==============  ========================================  ==================
  ``'authors'``   as above (shared equally by ties for m)   mean|w| * sign(w),
                                                            gradient 1
  ``'larq'``      m is a constant: without the last term    as for more bits
  ``'identity'``  :math:`\bar w = \bar y` (some ports)      as for more bits
  ==============  ========================================  ==================

  Args:
    bits: b, in [1, 16].
    variant: whose.

  Returns:
    A quantizer. u = 1/2 for weights that are all zero; NaN makes all NaN.

  Raises:
    ValueError: for bits out of range or an unknown variant.

  References:
    Zhou et al., DoReFa-Net, 2016, eqs. 7-9 (https://arxiv.org/abs/1606.06160).
  """
  types.check_choice('variant', variant, DOREFA_VARIANTS)
  if bits == 1 and variant == 'authors':
    binary = _attach.attach(_staircases.sign(), _estimators.identity())
    return _MeanTimesSign(binary, _scaling.mean_abs('tensor'))
  return _DorefaWeights(_uniform.uniform(bits, signed=False), variant)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _MeanTimesSign:
  """E|w| sign(w) with the identity for the gradient of all of it."""

  binary: _attach.Quantize
  scaling: _scaling.Scaling

  def __call__(self, x, *, progress=1.0, key=None):
    x = _channels.check_floating(x)
    scale = self.scaling(x)
    # The identity for sign and scale together: scale * STE(x / scale).
    safe = jnp.where(scale > 0, scale, 1)
    return scale * self.binary(x / safe, progress=progress, key=key)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _DorefaWeights:
  grid: _uniform.Grid
  variant: str = dataclasses.field(metadata={'static': True})

  def __call__(self, x, *, progress=1.0, key=None):
    del key
    x = _channels.check_floating(x)
    if self.variant == 'identity':
      staircase = jax.tree_util.Partial(_dorefa, self.grid)
      return _rounded(staircase, x, progress)
    squashed, largest = _squashed(x)
    if self.variant == 'larq':
      largest = jax.lax.stop_gradient(largest)
    wide = _rounded(self.grid, squashed / (2 * largest) + 0.5, progress)
    return (2 * wide - 1).astype(x.dtype)


def _squashed(x):
  squashed = jnp.tanh(_channels.at_least_float32(x))
  largest = jnp.max(jnp.abs(squashed), initial=0)
  return squashed, jnp.where(largest == 0, 1, largest)


def _dorefa(grid, x):
  squashed, largest = _squashed(x)
  return (2 * grid(squashed / (2 * largest) + 0.5) - 1).astype(x.dtype)
