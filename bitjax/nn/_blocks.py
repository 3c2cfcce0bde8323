"""The layers of convolutional networks, all created by one `Recipe`.

A recipe says how layers are quantized, normalised and initialised. Its methods,
called within a compact method of a network, create a layer and apply it. Names and
shapes of parameters do not depend on the quantizers, so a full-precision checkpoint
loads into the quantized network (`nn.complete` adds what learned quantizers need).
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from bitjax import quantizers
from bitjax import types
from bitjax.nn import _binding
from bitjax.nn import _bits
from bitjax.nn import _conv
from bitjax.nn import _inits
from bitjax.nn import _layers

__all__ = [
  'ACTIVATIONS',
  'ADDED',
  'Activation',
  'Network',
  'Recipe',
  'as_images',
  'is_binary',
]

ACTIVATIONS: dict[str, Callable[[types.Array], types.Array]] = {
  'identity': lambda x: x,
  'relu': jax.nn.relu,
  'hardtanh': lambda x: jnp.clip(x, -1, 1),
}
_LEARNED = 'rprelu'
# Layers that a quantized network may have and its full-precision one lacks are named
# by these and a number.
_THRESHOLD, _ACTIVATION = ADDED = ('Threshold_', 'Activation_')


@dataclasses.dataclass(frozen=True)
class Recipe:
  """Makes and applies the layers of a network; attributes are those of `Network`.

  ``activation`` is the name of an activation, and ``thresholds`` says whether
  learned thresholds precede the quantizers of inputs.
  """

  kernel_quantizer: _binding.AnyQuantizer
  input_quantizer: _binding.AnyQuantizer
  scaling: str | quantizers.Scaling
  activation: str
  init_name: str
  last_init_name: str
  momentum: float
  epsilon: float
  dtype: Any
  precision: Any
  axis_name: str | None = None
  thresholds: bool = False

  def __post_init__(self):
    for name in ('init_name', 'last_init_name'):
      types.check_choice(name, getattr(self, name), tuple(_inits.INITS))
    names = (*ACTIVATIONS, _LEARNED)
    types.check_choice('activation', self.activation, names)
    types.check_range('momentum', self.momentum, 0.0, 1.0)
    types.check_positive('epsilon', self.epsilon)

  def conv(
    self,
    x: types.Array,
    index: int | str,
    features: int,
    strides: int = 1,
    *,
    progress: types.Scalar,
    kernel: bool = True,
    inputs: bool = True,
    bias: bool = False,
  ) -> types.Array:
    """Applies the 3 x 3 convolution ``Conv_{index}``, padded by 1.

    Args:
      x: images, [examples, height, width, channels].
      index: index of the convolution in the network or block, or its name there.
      features: number of output channels.
      strides: stride in both dimensions.
      progress: progress of training, in [0, 1].
      kernel: whether the kernel is quantized.
      inputs: whether the inputs are quantized.
      bias: whether it has a bias.
    """
    if self.thresholds and inputs:
      x = Threshold(name=f'{_THRESHOLD}{index}')(x)
    layer = _conv.QuantConv(
      features,
      (3, 3),
      strides=strides,
      padding=1,
      use_bias=bias,
      name=f'Conv_{index}',
      **self._quantized(kernel, inputs),
    )
    return layer(x, progress=progress)

  def project(
    self, x: types.Array, features: int, strides: int, train: bool
  ) -> types.Array:
    """Applies ``Conv_shortcut``, 1 x 1 in full precision, and its normalisation."""
    layer = _conv.QuantConv(
      features,
      (1, 1),
      strides=strides,
      use_bias=False,
      name='Conv_shortcut',
      **self._quantized(False, False),
    )
    return self.norm(layer(x), 'shortcut', train)

  def dense(
    self,
    x: types.Array,
    features: int,
    *,
    progress: types.Scalar,
    quantized: bool,
  ) -> types.Array:
    """Applies the classifier ``Dense_0``, which has a bias.

    The logits are float32 at least, whatever the computation's dtype is.
    """
    options = self._quantized(quantized, quantized)
    options['kernel_init'] = _inits.initializer(self.last_init_name)
    layer = _layers.QuantDense(features, name='Dense_0', **options)
    logits = layer(x, progress=progress)
    return types.widened(logits)

  def norm(self, x: types.Array, index: int | str, train: bool) -> types.Array:
    """Applies the batch normalisation ``BatchNorm_{index}``."""
    layer = nn.BatchNorm(
      use_running_average=not train,
      momentum=self.momentum,
      epsilon=self.epsilon,
      axis_name=self.axis_name,
      name=f'BatchNorm_{index}',
    )
    return _binding.as_dtype(layer(x), self.dtype)

  def activate(self, x: types.Array, index: int) -> types.Array:
    """Applies the activation ``Activation_{index}``."""
    return Activation(self.activation, name=f'{_ACTIVATION}{index}')(x)

  def _quantized(self, kernel: bool, inputs: bool) -> dict[str, Any]:
    # Only a quantized kernel has lost its magnitude, so only that one is scaled.
    scaled = kernel and self.kernel_quantizer is not None
    return {
      'kernel_quantizer': self.kernel_quantizer if kernel else None,
      'input_quantizer': self.input_quantizer if inputs else None,
      'scaling': self.scaling if scaled else 'none',
      'kernel_init': _inits.initializer(self.init_name),
      'dtype': self.dtype,
      'precision': self.precision,
    }


class Network(nn.Module):
  """Base class of convolutional networks; `ResNet` documents its attributes."""

  num_classes: int = 10
  kernel_quantizer: _binding.AnyQuantizer = None
  input_quantizer: _binding.AnyQuantizer = None
  scaling: str | quantizers.Scaling = 'none'
  quantize_first: bool = False
  quantize_last: bool = False
  activation: str | None = None
  init_name: str = 'kaiming_normal'
  momentum: float = 0.9
  epsilon: float = 1e-5
  dtype: Any = None
  precision: Any = 'highest'
  axis_name: str | None = None
  last_init_name: str | None = None

  def __post_init__(self):
    _binding.check_fields(self)
    super().__post_init__()

  def recipe(
    self, activation: str | None = None, thresholds: bool = False
  ) -> Recipe:
    """Returns the recipe by which this network makes its layers.

    Args:
      activation: default for this kind of network, which the field ``activation``
        overrides; None for hardtanh before one-bit quantizers (the sign of a
        ReLU's output is +1 throughout), else ReLU.
      thresholds: whether learned thresholds precede the quantizers of inputs.
    """
    if activation is None:
      activation = 'hardtanh' if is_binary(self.input_quantizer) else 'relu'
    last = self.last_init_name
    last = self.init_name if last is None else last
    return Recipe(
      kernel_quantizer=self.kernel_quantizer,
      input_quantizer=self.input_quantizer,
      scaling=self.scaling,
      activation=self.activation or activation,
      init_name=self.init_name,
      last_init_name=last,
      momentum=self.momentum,
      epsilon=self.epsilon,
      dtype=self.dtype,
      precision=self.precision,
      axis_name=self.axis_name,
      thresholds=thresholds,
    )


def is_binary(quantizer: _binding.AnyQuantizer) -> bool:
  """Returns whether a quantizer declares one bit."""
  try:
    return quantizer is not None and _bits.quantizer_bits(quantizer) == 1
  except types.BadInput:  # The quantizer does not declare its bits.
    return False


class Threshold(nn.Module):
  """A learned threshold for each channel, subtracted before quantization.

  Followed by the sign, this is ReActNet's RSign (`quantizers.rsign`), but any
  quantizer may follow, or none.
  """

  @nn.compact
  def __call__(self, x: types.Array) -> types.Array:
    """Returns ``x - threshold``."""
    threshold = self.param(
      'threshold', nn.initializers.zeros, x.shape[-1:], jnp.float32
    )
    shift = jnp.expand_dims(threshold, range(x.ndim - 1))
    return x - shift.astype(x.dtype)


class Activation(nn.Module):
  """A pointwise activation, chosen by its name; ``'rprelu'`` has parameters.

  Attributes:
    kind: one of `ACTIVATIONS`, or ``'rprelu'`` for `quantizers.rprelu`.
  """

  kind: str

  @nn.compact
  def __call__(self, x: types.Array) -> types.Array:
    """Returns the activations."""
    if self.kind != _LEARNED:
      return ACTIVATIONS[self.kind](x)
    rule = quantizers.rprelu()
    params = {
      name: self.param(name, lambda _, value=value: value)
      for name, value in rule.init(None, x).items()
    }
    return quantizers.bind(rule, params)(x)


def as_images(images: types.Array, dtype: Any) -> types.Array:
  """Checks images and returns them in this dtype; None keeps theirs.

  Raises:
    BadInput: unless they are floating [examples, height, width, channels].
  """
  images = jnp.asarray(images)
  if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
    raise types.BadInput(
      'images must be floating (normalised), [examples, height, width, '
      f'channels]; got {images.dtype} of shape {images.shape}.'
    )
  return _binding.as_dtype(images, dtype)
