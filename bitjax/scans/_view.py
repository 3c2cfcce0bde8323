r"""Defines `LayerView`: a network as one of its layers sees it, all else frozen.

Only the layer's latent kernel moves; what comes before is a constant input, and what
comes after is a function of the layer's pre-activations:

.. math::
  z = s \, (x \, q(W)) + b, \qquad \ell = \mathrm{loss}(\mathrm{tail}(z), y).

The tail is a tuple of *stages* of known kinds, so that exact scans can look
inside: they see the next matrix, the kind of activation, the running statistics.
A stage of any other kind is `Opaque`, and only the generic paths accept it.

Products of quantized kernels with quantized or integer inputs are accumulated
*before* any scale is applied. Sums of integers below 2^24 are exact in float32,
whatever their order, so ties at zero are ties on every path and every device, in every
`sums.Arithmetic` in which a network may compute its products.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any, TypeAlias, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import optax

from bitjax import quantizers
from bitjax import sums
from bitjax import types

__all__ = [
  'ACTIVATIONS',
  'Activation',
  'Affine',
  'BatchNorm',
  'Dense',
  'LayerView',
  'Opaque',
  'Stage',
  'check_filled',
]

ACTIVATIONS = ('identity', 'relu', 'sign')


def _static(default: Any = dataclasses.MISSING) -> Any:
  return dataclasses.field(default=default, metadata={'static': True})


_T = TypeVar('_T')


@dataclass_transform(frozen_default=True, field_specifiers=(_static,))
def _stage(cls: type[_T]) -> type[_T]:
  return jax.tree_util.register_dataclass(
    dataclasses.dataclass(frozen=True)(cls)
  )


def _align(vector, x):
  """Returns ``vector`` with leading axes of size 1, to broadcast against ``x``."""
  missing = jnp.ndim(x) - jnp.ndim(vector)
  return jnp.expand_dims(vector, range(missing)) if jnp.ndim(vector) else vector


@_stage
class Affine:
  """The elementwise map ``x * scale + shift``.

  It stands for biases, thresholds and normalisation by running statistics.

  Attributes:
    scale: factor, scalar or [units].
    shift: offset, scalar or [units]; a threshold t is a shift of -t.
  """

  scale: types.Scalar = 1.0
  shift: types.Scalar = 0.0

  def __call__(self, x: types.Array) -> types.Array:
    """Returns ``x * scale + shift``."""
    return x * _align(self.scale, x) + _align(self.shift, x)


@_stage
class Dense:
  """A fully connected layer, ``affine(scaling(w) * (x @ q(w)))``.

  Attributes:
    kernel: latent weights, [fan_in, units].
    quantizer: maps the latent weights to quantized ones; None for full precision.
    scaling: computes a scale from the latent weights; None for no such scale.
    affine: constant scale and shift (1/sqrt(fan_in), bias).
    arithmetic: precision and dtype of the product.
  """

  kernel: types.Array
  quantizer: quantizers.Quantize | None = None
  scaling: quantizers.Scaling | None = None
  affine: Affine = Affine()
  arithmetic: sums.Arithmetic = _static(default=sums.Arithmetic())

  def __call__(self, x: types.Array) -> types.Array:
    """Maps [..., fan_in] to [..., units], in a dtype as wide as the kernel's."""
    z = self.arithmetic.matmul(x, self.quantized)
    return self.rescale(z.astype(types.promoted(z, self.kernel)))

  def rescale(self, z: types.Array) -> types.Array:
    """Applies the layer's scales and shift to a product, [..., units]."""
    if self.scaling is not None:
      z = z * _align(self.scaling(self.kernel), z)
    return self.affine(z)

  @property
  def quantized(self) -> types.Array:
    """The weights that the product uses, [fan_in, units]."""
    return (
      self.kernel if self.quantizer is None else self.quantizer(self.kernel)
    )

  def freeze_scale(self) -> Dense:
    """Returns this layer with scales computed from its weights as constants.

    These are the layer's ``scaling``, and the scale of a quantizer such as those from
    `quantizers.calibrated`.
    """
    quantizer = quantizers.freeze_scale(self.quantizer, self.kernel)
    frozen = dataclasses.replace(self, quantizer=quantizer)
    if self.scaling is None:
      return frozen
    affine = Affine(
      self.affine.scale * self.scaling(self.kernel), self.affine.shift
    )
    return dataclasses.replace(frozen, scaling=None, affine=affine)

  def freeze(self) -> Dense:
    """Returns this layer with its scale and quantized weights as constants."""
    frozen = self.freeze_scale()
    return dataclasses.replace(frozen, kernel=self.quantized, quantizer=None)


@_stage
class Activation:
  """A pointwise non-linearity of a known kind.

  Attributes:
    kind: ``'identity'``, ``'relu'`` or ``'sign'``.
    quantizer: for ``'sign'``, the quantizer whose staircase is the sign.
  """

  kind: str = _static()
  quantizer: quantizers.Quantize | None = None

  def __post_init__(self):
    types.check_choice('kind', self.kind, ACTIVATIONS)
    if self.kind == 'sign' and self.quantizer is None:
      raise types.BadInput("Activation('sign') needs a quantizer.")

  def __call__(self, x: types.Array) -> types.Array:
    """Returns the activations."""
    if self.quantizer is not None:
      return self.quantizer(x)
    return jax.nn.relu(x) if self.kind == 'relu' else x


@_stage
class BatchNorm:
  """Normalisation by the statistics of the current batch.

  It couples the examples, so no fast path applies. (With running statistics,
  normalisation is an `Affine`.)

  Attributes:
    scale: factor after normalisation, [units].
    shift: offset after normalisation, [units].
    epsilon: added to the variance.
    axis_name: name of the mapped axis over which the examples are split; None if
      they are not split.
  """

  scale: types.Array
  shift: types.Array
  epsilon: types.Scalar = 1e-5
  axis_name: str | None = _static(default=None)

  def __call__(self, x: types.Array) -> types.Array:
    """Normalises [examples, units] over the examples."""
    mean, variance = self.moments(x)
    factor = self.scale * jax.lax.rsqrt(variance + self.epsilon)
    return (x - _align(mean, x)) * _align(factor, x) + _align(self.shift, x)

  def moments(self, x: types.Array) -> tuple[types.Array, types.Array]:
    """Returns the mean and the (biased) variance over the examples, [units] each."""
    mean, variance = jnp.mean(x, axis=0), jnp.var(x, axis=0)
    if self.axis_name is None:
      return mean, variance
    whole = jax.lax.pmean(mean, self.axis_name)
    spread = variance + jnp.square(mean - whole)
    return whole, jax.lax.pmean(spread, self.axis_name)


@_stage
class Opaque:
  """A stage of unknown kind, which exact scans cannot look into.

  Attributes:
    fn: callable pytree that maps the stage's input to its output.
  """

  fn: Callable[[types.Array], types.Array]

  def __call__(self, x: types.Array) -> types.Array:
    """Returns ``fn(x)``."""
    return self.fn(x)


Stage: TypeAlias = Affine | Dense | Activation | BatchNorm | Opaque


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerView:
  """One layer of a network, on one batch of data.

  Attributes:
    inputs: what the layer receives, [examples, fan_in] (any shape for a layer
      with a ``product`` of its own).
    kernel: the layer's latent weights, [fan_in, units].
    labels: class of each example, [examples], integers.
    tail: the stages after the layer, ending at the logits.
    quantizer: maps the latent weights to quantized ones; None for full precision.
    scaling: computes a scale from the latent weights; None for no such scale.
    affine: constant scale and shift of the pre-activations.
    product: callable pytree ``(inputs, weights) -> z`` that replaces the matrix
      product, for layers of other kinds; None for the matrix product.
    arithmetic: precision and dtype of the matrix product.
  """

  inputs: types.Array
  kernel: types.Array
  labels: types.Array
  tail: tuple[Stage, ...]
  quantizer: quantizers.Quantize | None = None
  scaling: quantizers.Scaling | None = None
  affine: Affine = Affine()
  product: Callable[[types.Array, types.Array], types.Array] | None = None
  arithmetic: sums.Arithmetic = _static(default=sums.Arithmetic())

  def pre_activations(self, kernel: types.Array) -> types.Array:
    """Returns the layer's output for a latent ``kernel``, [examples, units]."""
    layer = self._layer(kernel)
    if self.product is None:
      return layer(self.inputs)
    return layer.rescale(self.product(self.inputs, layer.quantized))

  def logits(self, kernel: types.Array) -> types.Array:
    """Returns the network's output for a latent ``kernel``, [examples, classes]."""
    x = self.pre_activations(kernel)
    for stage in self.tail:
      x = stage(x)
    return x

  def losses(self, kernel: types.Array) -> types.Array:
    """Returns each example's cross-entropy in nats, [examples]."""
    return optax.softmax_cross_entropy_with_integer_labels(
      self.logits(kernel), self.labels
    )

  def loss(self, kernel: types.Array) -> types.Array:
    """Returns the mean cross-entropy in nats, a scalar."""
    return jnp.mean(self.losses(kernel))

  @property
  def coupling(self) -> str:
    """Which weights share the scale that ``scaling`` computes from them.

    ``'none'``, ``'column'`` (those of one unit) or ``'tensor'`` (all). Moving one of them
    changes it for all. The scale of a quantizer of its own, such as those from
    `quantizers.calibrated`, is not considered: their kernels have no moves until
    `freeze_scale` holds that scale constant.
    """
    return 'none' if self.scaling is None else self.scaling.coupling

  @property
  def couples_examples(self) -> bool:
    """Whether an example's loss depends on the other examples of the batch.

    An opaque stage counts as coupling, because nothing is known about it. If the
    product lists its own ``stages``, as a `Network` does, they are examined as well.
    """
    stages = (*getattr(self.product, 'stages', ()), *self.tail)
    return any(isinstance(stage, (BatchNorm, Opaque)) for stage in stages)

  def freeze_scale(self) -> LayerView:
    """Returns this view with scales computed from its weights as constants."""
    frozen = self._layer(self.kernel).freeze_scale()
    return dataclasses.replace(
      self, quantizer=frozen.quantizer, scaling=None, affine=frozen.affine
    )

  @property
  def rounding(self) -> str | None:
    """How products round what a move changes, in words; None if they do not.

    Signs are never rounded, and inputs of the layer and weights behind it do not move.
    """
    changing = [(self.arithmetic, self.quantizer)]
    before: Stage | None = None
    for stage in self.tail:
      if isinstance(stage, Dense):
        changing.append((stage.arithmetic, getattr(before, 'quantizer', None)))
      before = stage
    for arithmetic, quantizer in changing:
      if arithmetic.rounds and not quantizers.is_sign(quantizer):
        return f'products round what they multiply to {arithmetic.dtype}'
    return None

  def _layer(self, kernel):
    return Dense(
      kernel, self.quantizer, self.scaling, self.affine, self.arithmetic
    )


def check_filled(*views: LayerView) -> None:
  """Raises `BadInput` for an empty batch or an empty kernel."""
  for view in views:
    if view.labels.size == 0 or view.kernel.size == 0:
      raise types.BadInput(
        'A batch and a kernel must not be empty; got '
        f'{view.labels.size} examples and a kernel of shape '
        f'{view.kernel.shape}.'
      )
