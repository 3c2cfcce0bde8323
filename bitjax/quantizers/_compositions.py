r"""Quantizers built from others: standardised, scaled, and DoReFa's two.

Each is a callable pytree like those that `attach` returns. All its gradients,
except those of attached estimators, come from automatic differentiation.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import tree
from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _channels
from bitjax.quantizers import _estimators
from bitjax.quantizers import _hysteresis
from bitjax.quantizers import _keywords
from bitjax.quantizers import _rescaled
from bitjax.quantizers import _scaling
from bitjax.quantizers import _staircases
from bitjax.quantizers import _uniform
from bitjax.quantizers import _written

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
  r"""Standardises each unit's weights to mean 0 and deviation 1, then quantizes them.

  .. math:: y = q(\hat w), \qquad \hat w_{ij} = \frac{w_{ij} - m_j}{\sigma_j},
    \qquad \sigma_j^2 = \frac{1}{n - 1} \sum_i (w_{ij} - m_j)^2

  The gradient passes through both statistics:

  .. math:: \bar w_{ij} = \frac{1}{\sigma_j} \left( \bar{\hat w}_{ij}
    - \frac1n \sum_k \bar{\hat w}_{kj}
    - \frac{\hat w_{ij}}{n - 1} \sum_k \hat w_{kj} \bar{\hat w}_{kj} \right),

  or, if ``detached``, through neither: :math:`\bar{\hat w}_{ij} / \sigma_j`.

  Args:
    quantize: q, a quantizer of kernels [..., units].
    detached: whether differentiation treats mean and deviation as constants.

  Returns:
    A quantizer of kernels. It needs a key or a state if ``quantize`` does. A unit
    whose weights are all equal becomes q(0), and has the gradient that it would have
    with a deviation of 1; a difference in the last bit is a difference. A unit with
    an infinite or NaN weight becomes q(NaN).

  Raises:
    BadInput: for a ``quantize`` that cannot be called with ``x``. The quantizer
      raises it for a kernel with fewer than two weights for each unit.

  References:
    Qin et al., IR-Net, 2020, balanced and standardized weights
    (https://arxiv.org/abs/1909.10788), whose code has n - 1.
  """
  return _Standardized(_keywords.as_quantize('quantize', quantize), detached)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Standardized:
  quantize: _attach.Quantize
  detached: bool = dataclasses.field(metadata={'static': True})

  def __call__(self, x, *, progress=1.0, key=None, state=None):
    standard = self._standard(_channels.check_floating(x))
    return _keywords.call(
      self.quantize, standard, progress, key=key, state=state
    )

  def initial(self, x):
    """Returns the initial state of the inner quantizer; see `initial_state`."""
    standard = self._standard(_channels.check_floating(x))
    return _hysteresis.initial_state(self.quantize, standard)

  def frozen(self, x):
    """Returns this quantizer with constant scales inside; see `freeze_scale`."""
    standard = self._standard(_channels.check_floating(x))
    inner = _rescaled.freeze_scale(self.quantize, standard)
    return dataclasses.replace(self, quantize=inner)

  def _standard(self, x):
    if not x.size:
      return x
    axes = _channels.reduced_axes(x, -1) if x.ndim else ()
    size = _channels.num_per_channel(x, -1 if x.ndim else None)
    if size < 2:
      raise types.BadInput(
        f'x must hold at least 2 weights for each unit; got shape {x.shape}.'
      )
    centred, scale = tree.centred(types.widened(x), axes)
    mean = self._mean(centred, axes)
    source = jax.lax.stop_gradient(centred) if self.detached else centred
    total = jnp.sum((source - mean) ** 2, axis=axes, keepdims=True)
    constant = total == 0
    variance = jnp.where(constant, size - 1, total) / (size - 1)
    standard = (centred - mean) / jnp.sqrt(variance)
    zero = centred * scale  # Its derivative is 1.
    zero = zero - self._mean(zero, axes)
    return jnp.where(constant, zero, standard).astype(x.dtype)

  def _mean(self, x, axes):
    x = jax.lax.stop_gradient(x) if self.detached else x
    return jnp.mean(x, axis=axes, keepdims=True)

  def __repr__(self):
    return _written.call(standardized, **vars(self))


def scaled(
  quantize: _attach.Quantize, scaling: _scaling.Scaling
) -> _attach.Quantize:
  r"""Multiplies quantized weights by a scale computed from the latent ones.

  .. math:: y = \alpha(w) \, q(w), \qquad
    \bar w = q'(\alpha \bar y) + \frac{\partial \alpha}{\partial w}
    \sum q \, \bar y,

  where the second term is absent if the scaling is detached. A layer that scales
  the *product* instead (``scaling=`` of `bitjax.nn`) computes the same and keeps
  sums of integers exact. A scale couples the weights that share it; `freeze_scale`
  holds it constant for exact scans.

  Args:
    quantize: q, a quantizer of kernels [..., units].
    scaling: alpha, from a kernel to a scale, [units] or [].

  Returns:
    A quantizer of kernels. It needs a key if ``quantize`` does. An infinite or NaN
    weight makes all weights that share its scale infinite or NaN.

  Raises:
    BadInput: for a ``quantize`` that cannot be called with ``x``, or that has
      memory: its state is its last output, which the product hides.

  References:
    Rastegari et al., XNOR-Net, 2016, the optimal scale of binary weights
    (https://arxiv.org/abs/1603.05279).
  """
  return _rescaled.rescaled(quantize, scaling, relative=False)


def dorefa_activations(bits: int) -> _attach.Quantize:
  r"""Clips activations to [0, 1] and rounds them to ``bits`` bits (DoReFa).

  .. math:: y = \frac1n \mathrm{round}(n \, \mathrm{clip}(x, 0, 1)), \qquad
    \bar x = \bar y \, 1[0 \le x \le 1], \qquad n = 2^b - 1

  Args:
    bits: b, in [1, 16].

  Returns:
    A quantizer. Infinite values become 0 or 1, NaN stays NaN. (Some libraries
    pass the gradient everywhere.)

  Raises:
    BadInput: for bits out of range.

  References:
    Zhou et al., DoReFa-Net, 2016, the quantization of activations
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

  def __repr__(self):
    return _written.call(dorefa_activations, **_uniform.arguments(self.grid))


def _rounded(grid, x, progress=1.0):
  round_ = _attach.attach(grid, _estimators.identity())
  return round_(x, progress=progress)


def dorefa_weights(bits: int, *, variant: str = 'authors') -> _attach.Quantize:
  r"""Squashes weights by tanh, then rounds them to ``bits`` bits (DoReFa).

  .. math:: y = 2 r(u) - 1, \qquad u = \frac{\tanh w}{2 m} + \frac12, \qquad
    m = \max |\tanh w|, \qquad r(u) = \frac1n \mathrm{round}(n u)

  The straight-through estimator is applied to the rounding only:

  .. math:: \bar w = (1 - \tanh^2 w) \left( \frac{\bar y}{m}
    - [\text{w attains } m] \, \frac{\mathrm{sgn}(w)}{m^2}
    \sum \bar y \tanh w \right)

  ==============  ========================================  ======================
  ``variant``     gradient                                  1 bit
  ==============  ========================================  ======================
  ``'authors'``   as above (shared equally by ties for m)   ``mean|w| * sign(w)``,
                                                            gradient 1
  ``'larq'``      m is a constant: without the last term    as for more bits
  ``'identity'``  :math:`\bar w = \bar y` (some ports)      as for more bits
  ==============  ========================================  ======================

  Args:
    bits: b, in [1, 16].
    variant: whose gradient and whose rule for one bit to use; see the table.

  Returns:
    A quantizer. u = 1/2 for weights that are all zero. A NaN weight makes all
    weights NaN. An infinite one counts as the largest, since its tanh is 1, but
    makes the scale infinite in the authors' rule for one bit.

  Raises:
    BadInput: for bits out of range or an unknown variant.

  References:
    Zhou et al., DoReFa-Net, 2016, the quantization of weights
    (https://arxiv.org/abs/1606.06160).
  """
  bits = _channels.check_bits(bits)
  types.check_choice('variant', variant, DOREFA_VARIANTS)
  if bits == 1 and variant == 'authors':
    rule: Any = _attach.attach(_MeanTimesSign(), _estimators.identity())
    return _written.rule(dorefa_weights, rule.func, *rule.args, bits=bits)
  return _DorefaWeights(_uniform.uniform(bits, signed=False), variant)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _MeanTimesSign:
  """``mean|w| * sign(w)`` as one staircase, so that its whole gradient is 1."""

  bits = 1

  def __call__(self, x):
    scale = _scaling.mean_abs('tensor')(types.widened(x))
    signs = _staircases.sign()(x).astype(scale.dtype)
    return (scale * signs).astype(x.dtype)


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

  def __repr__(self):
    grid = _uniform.arguments(self.grid)
    return _written.call(dorefa_weights, variant=self.variant, **grid)


def _squashed(x):
  squashed = jnp.tanh(types.widened(x))
  largest = jnp.max(jnp.abs(squashed), initial=0)
  # Only their ratio matters, and the square of a small one would underflow.
  scale = tree.power_of_two(largest)
  return squashed / scale, jnp.where(largest == 0, 1, largest / scale)


def _dorefa(grid, x):
  squashed, largest = _squashed(x)
  return (2 * grid(squashed / (2 * largest) + 0.5) - 1).astype(x.dtype)
