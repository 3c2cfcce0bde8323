r"""Defines stages: what a network computes behind one of its layers, step by step.

A *stage* maps the activations of all examples to others, [examples, ..., channels], and
says by its kind what scans may rely on:

===============  =====================================================================
stage            what is known of it
===============  =====================================================================
`Affine`         each entry by itself, with a scale and a shift for each channel
`Activation`     each entry by itself, of a named kind
`Pointwise`      each entry by itself, by any function
`Dense`, `Conv`  a product with a kernel, and its scales
`Mean`           the mean over all positions of an image
`Add`            a constant for each example, such as a shortcut around the layer
`Residual`       two branches of stages, summed
`Examplewise`    each example by itself, by any function: pooling, padding, reshaping
`BatchNorm`      couples the examples
`Opaque`         nothing
===============  =====================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any, TypeAlias, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp

from bitjax import quantizers
from bitjax import sums
from bitjax import types
from bitjax.scans import _convolution

__all__ = [
  'ACTIVATIONS',
  'Activation',
  'Add',
  'Affine',
  'BatchNorm',
  'Conv',
  'Dense',
  'Examplewise',
  'Mean',
  'Opaque',
  'Pointwise',
  'Residual',
  'Stage',
  'apply',
  'flat',
  'freeze',
  'is_channelwise',
  'is_entrywise',
  'map_examples',
]

ACTIVATIONS = ('identity', 'relu', 'sign')
CHANNELS = ('mixed', 'apart', 'chosen')


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
    """Returns this layer with its ``scaling``, and its quantizer's scale, as constants."""
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
  """Normalisation by the statistics of the current batch, over all axes but the last.

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
    """Normalises [examples, ..., units]."""
    mean, variance = self.moments(x)
    factor = self.scale * jax.lax.rsqrt(variance + self.epsilon)
    return (x - _align(mean, x)) * _align(factor, x) + _align(self.shift, x)

  def moments(self, x: types.Array) -> tuple[types.Array, types.Array]:
    """Returns the mean and the (biased) variance of each unit, [units] each."""
    axes = tuple(range(x.ndim - 1))
    mean, variance = jnp.mean(x, axis=axes), jnp.var(x, axis=axes)
    if self.axis_name is None:
      return mean, variance
    whole = jax.lax.pmean(mean, self.axis_name)
    spread = variance + jnp.square(mean - whole)
    return whole, jax.lax.pmean(spread, self.axis_name)


@dataclasses.dataclass(frozen=True)
class _Function:
  fn: Callable[[types.Array], types.Array]

  def __call__(self, x: types.Array) -> types.Array:
    """Returns ``fn(x)``."""
    return self.fn(x)


@_stage
class Pointwise(_Function):
  """A function of each entry by itself, which may differ between channels.

  Attributes:
    fn: callable pytree that maps [..., channels] to the same shape.
  """


@_stage
class Conv:
  """A convolution, ``layer.rescale(product(x, layer.quantized))``.

  Attributes:
    layer: the kernel, ``[*spatial, in_channels / groups, channels]``, with its quantizer
      and scales.
    product: the convolution of inputs and quantized weights, a static callable.
  """

  layer: Dense
  product: _convolution.Convolution

  def __call__(self, x: types.Array) -> types.Array:
    """Maps ``[examples, *spatial, in_channels]`` to ``[examples, *spatial, channels]``."""
    return self.layer.rescale(self.product(x, self.layer.quantized))

  def freeze(self) -> Conv:
    """Returns this layer with constant scale and weights; signs stay known as such."""
    sign = quantizers.is_sign(self.layer.quantizer)
    layer = dataclasses.replace(
      self.layer.freeze(), quantizer=self.layer.quantizer if sign else None
    )
    return Conv(layer, self.product)


@_stage
class Mean:
  """The mean over all positions, [examples, ..., channels] to [examples, channels]."""

  def __call__(self, x: types.Array) -> types.Array:
    """Returns the mean over all axes but the first and the last."""
    return jnp.mean(x, axis=tuple(range(1, x.ndim - 1)))


@_stage
class Add:
  """The addition of what does not depend on the layer, such as a shortcut around it.

  Attributes:
    value: what is added to each example, [examples, ...].
  """

  value: types.Array

  def __call__(self, x: types.Array) -> types.Array:
    """Returns ``x + value``."""
    return x + self.value


@_stage
class Residual:
  """The sum of two branches, ``body(x) + shortcut(x)``.

  Attributes:
    body: stages of one branch.
    shortcut: stages of the other; none for the identity.
  """

  body: tuple[Stage, ...]
  shortcut: tuple[Stage, ...] = ()

  def __call__(self, x: types.Array) -> types.Array:
    """Returns the sum of the branches."""
    return apply(self.body, x) + apply(self.shortcut, x)

  def freeze(self) -> Residual:
    """Returns this sum with the weights of all its layers as constants."""
    return Residual(freeze(self.body), freeze(self.shortcut))


@_stage
class Examplewise(_Function):
  """A function of each example by itself, such as pooling, padding or reshaping.

  Attributes:
    fn: callable pytree that maps [examples, ...] to [examples, ...].
    channels: ``'apart'`` if it maps each channel (the last axis) by itself, as average
      pooling does; ``'chosen'`` if besides each result is one of the channel's entries, as
      in max pooling; ``'mixed'`` if neither is known.
  """

  channels: str = _static(default='mixed')

  def __post_init__(self):
    types.check_choice('channels', self.channels, CHANNELS)


@_stage
class Opaque(_Function):
  """A stage of unknown kind, which exact scans cannot look into.

  Attributes:
    fn: callable pytree that maps the stage's input to its output.
    reason: why it is not known, in words that follow "its tail is opaque:"; '' if
      nothing is known about that.
  """

  reason: str = _static(default='')


Stage: TypeAlias = (
  Affine
  | Dense
  | Conv
  | Activation
  | Pointwise
  | Mean
  | Add
  | Residual
  | Examplewise
  | BatchNorm
  | Opaque
)


def apply(stages: tuple[Stage, ...], x: types.Array) -> types.Array:
  """Applies the stages to ``x``, one after another."""
  for stage in stages:
    x = stage(x)
  return x


def freeze(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
  """Returns stages with scales and quantized weights as constants."""
  layers = Dense | Conv | Residual
  return tuple(s.freeze() if isinstance(s, layers) else s for s in stages)


def flat(stages: tuple[Stage, ...]) -> Iterator[Stage]:
  """Yields all stages, and those of branches after the `Residual` that holds them."""
  for stage in stages:
    yield stage
    if isinstance(stage, Residual):
      yield from flat(stage.body)
      yield from flat(stage.shortcut)


def is_entrywise(stage: Stage) -> bool:
  """Returns whether a stage acts on each entry by itself; a static fact."""
  if isinstance(stage, Residual):
    return all(map(is_entrywise, (*stage.body, *stage.shortcut)))
  return isinstance(stage, Affine | Pointwise | Activation | Add)


def is_channelwise(stage: Stage) -> bool:
  """Returns whether a stage maps each channel of an example by itself; static."""
  if isinstance(stage, Residual):
    return all(map(is_channelwise, (*stage.body, *stage.shortcut)))
  apart = isinstance(stage, Examplewise) and stage.channels != 'mixed'
  return apart or isinstance(stage, Mean) or is_entrywise(stage)


def map_examples(
  stages: tuple[Stage, ...], fn: Callable[[types.Array], types.Array]
) -> tuple[Stage, ...]:
  """Returns stages with ``fn`` applied to all that has an axis of examples."""

  def of(stage: Stage) -> Stage:
    if isinstance(stage, Add):
      return Add(fn(stage.value))
    if isinstance(stage, Residual):
      return Residual(
        map_examples(stage.body, fn), map_examples(stage.shortcut, fn)
      )
    return stage

  return tuple(map(of, stages))
