r"""Residual networks for small images, of any precision.

Low-bit networks differ not only in how a convolution is quantized, but also in what
surrounds it, which is called a *variant* here:

- ``'plain'``: a shortcut around every two convolutions,
  :math:`y = f(n(c(x)))`, :math:`z = f(s(x) + n(c(y)))`.
- ``'bireal'``: a shortcut around every convolution, so that real values bypass the
  quantizers, :math:`y = f(s(x) + n(c(x)))`, :math:`z = f(y + n(c(y)))`.
- ``'react'``: the same as ``'bireal'``, with learned thresholds before every
  convolution and a learned activation f.

Here c is a convolution that quantizes its inputs and its kernel, n a normalisation,
f the activation, and s the shortcut.
"""

from __future__ import annotations

from typing import Any

from flax import linen as nn
import jax.numpy as jnp

from bitjax import types
from bitjax.nn import _binding
from bitjax.nn import _blocks

__all__ = ['RESNET_VARIANTS', 'ResNet', 'resnet18', 'resnet20', 'resnet32']

RESNET_VARIANTS = ('plain', 'bireal', 'react')
SHORTCUTS = ('pad', 'projection')


class ResNet(_blocks.Network):
  """A residual network on images, such as those of CIFAR.

  The network is a 3 x 3 convolution (no pooling), stages of blocks of two
  convolutions, the mean over positions, and a classifier. Each stage but the first
  halves the image. Layers are named ``Conv_0``, ``Block_0/Conv_0``,
  ``Block_0/BatchNorm_1``, ..., ``Dense_0``, whatever is quantized. `resnet20`,
  `resnet32` and `resnet18` make the usual sizes.

  Attributes:
    stages: number of blocks in each stage.
    widths: number of channels in each stage.
    variant: ``'plain'``, ``'bireal'`` or ``'react'``. The activation of ``'bireal'``
      is hardtanh, that of ``'react'`` RPReLU, that of ``'plain'`` hardtanh before
      one-bit inputs (the sign of a ReLU's output is +1 throughout), else ReLU.
    shortcut: what a shortcut does where the shape changes: ``'pad'`` takes means
      over 2 x 2 positions and adds channels of zeros, half of them on either side
      (option A); ``'projection'`` is a 1 x 1 convolution in full precision and a
      normalisation.
    num_classes: units of the classifier.
    kernel_quantizer: quantizer of all kernels but those of the first and last
      layer, learned or not; None for none.
    input_quantizer: quantizer of the inputs of the same layers, learned or not;
      None for none.
    scaling: scale of quantized kernels, as in `QuantDense`.
    quantize_first: whether the first kernel is quantized too; its inputs, the
      images, never are.
    quantize_last: whether the classifier's kernel and inputs are quantized too.
    activation: ``'relu'``, ``'hardtanh'``, ``'identity'`` or ``'rprelu'``; None for
      the variant's.
    init_name: ``'xavier'``, ``'kaiming'`` (both uniform), ``'kaiming_normal'`` (of
      the fan in), ``'kaiming_fan_out'`` (normal), ``'fan_in_uniform'`` (PyTorch's) or
      ``'orthogonal'``.
    momentum: decay of the running statistics of normalisations.
    epsilon: added to variances.
    dtype: dtype of activations and of what is multiplied, such as bfloat16; None for
      that of the images. Sums, parameters, statistics and logits are float32.
    precision: precision of convolutions and of the classifier, as in ``jax.lax``.
    axis_name: the axis of ``jax.shard_map`` or ``jax.vmap`` over which examples are
      split; normalisations then use the statistics of all of them. None for none.
    last_init_name: initialiser of the classifier's kernel; None for ``init_name``.

  References:
    He et al., 2016, section 4.2 (https://arxiv.org/abs/1512.03385); Liu et al.,
    Bi-Real net, 2018 (https://arxiv.org/abs/1808.00278); Liu et al., ReActNet,
    2020 (https://arxiv.org/abs/2003.03488).
  """

  stages: tuple[int, ...] = (3, 3, 3)
  widths: tuple[int, ...] = (16, 32, 64)
  variant: str = 'plain'
  shortcut: str = 'pad'

  @nn.compact
  def __call__(
    self,
    images: types.Array,
    *,
    train: bool = False,
    progress: types.Scalar = 1.0,
  ) -> types.Array:
    """Returns the logits, [examples, num_classes].

    Args:
      images: floating, normalised, [examples, height, width, channels].
      train: whether normalisation uses the statistics of the batch and updates its
        running ones, which needs ``mutable=['batch_stats']``.
      progress: progress of training, in [0, 1], for quantizers that anneal.
    """
    own = {'bireal': 'hardtanh', 'react': 'rprelu'}.get(self.variant)
    recipe = self.recipe(own, thresholds=self.variant == 'react')
    x = _blocks.as_images(images, self.dtype)
    x = recipe.conv(
      x,
      0,
      self.widths[0],
      progress=progress,
      kernel=self.quantize_first,
      inputs=False,
    )
    x = recipe.activate(recipe.norm(x, 0, train), 0)
    index = 0
    for stage, blocks in enumerate(self.stages):
      for number in range(blocks):
        block = Block(
          features=self.widths[stage],
          strides=2 if stage and not number else 1,
          shortcut_each=self.variant != 'plain',
          shortcut=self.shortcut,
          recipe=recipe,
          name=f'Block_{index}',
        )
        x = block(x, train=train, progress=progress)
        index += 1
    x = jnp.mean(x, axis=(1, 2))
    return recipe.dense(
      x, self.num_classes, progress=progress, quantized=self.quantize_last
    )

  def __post_init__(self):
    super().__post_init__()
    _binding.check_counts('stages', self.stages)
    types.check_choice('variant', self.variant, RESNET_VARIANTS)
    types.check_choice('shortcut', self.shortcut, SHORTCUTS)
    if not self.stages or len(self.stages) != len(self.widths):
      raise types.BadInput(
        'stages and widths must be as many positive numbers, at least one of '
        f'each; got {self.stages} and {self.widths}.'
      )
    if self.shortcut == 'pad' and list(self.widths) != sorted(self.widths):
      raise types.BadInput(
        "widths must not decrease where shortcuts are padded ('projection' can "
        f'do it); got {self.widths}.'
      )


class Block(nn.Module):
  """Two convolutions with a shortcut around both, or around each.

  Attributes:
    features: number of output channels.
    strides: stride of the first convolution.
    shortcut_each: whether each convolution has its own shortcut.
    shortcut: ``'pad'`` or ``'projection'``, as in `ResNet`.
    recipe: makes the layers.
  """

  features: int
  strides: int
  shortcut_each: bool
  shortcut: str
  recipe: _blocks.Recipe

  @nn.compact
  def __call__(
    self, x: types.Array, *, train: bool, progress: types.Scalar
  ) -> types.Array:
    """Maps [examples, height, width, channels] to the next block's inputs."""
    recipe = self.recipe
    shortcut = self._shortcut(x, train)
    x = recipe.conv(x, 0, self.features, self.strides, progress=progress)
    x = recipe.norm(x, 0, train)
    if self.shortcut_each:
      x = shortcut = recipe.activate(x + shortcut, 0)
    else:
      x = recipe.activate(x, 0)
    x = recipe.conv(x, 1, self.features, progress=progress)
    x = recipe.norm(x, 1, train)
    return recipe.activate(x + shortcut, 1)

  def _shortcut(self, x, train):
    """Returns ``x`` in the shape of the first convolution's output."""
    grow = self.features - x.shape[-1]
    if self.shortcut == 'projection' and (grow or self.strides > 1):
      return self.recipe.project(x, self.features, self.strides, train)
    if self.strides > 1:
      size = (self.strides, self.strides)
      # 'SAME' gives the size of the convolution's output, for odd sides as well.
      mean = nn.avg_pool(x, size, size, 'SAME', count_include_pad=False)
      x = mean.astype(x.dtype)
    low = grow // 2
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (low, grow - low)))


def resnet20(**kwargs: Any) -> ResNet:
  """Returns ResNet-20, 0.27 million parameters; keywords are fields of `ResNet`."""
  return ResNet(**kwargs)


def resnet32(**kwargs: Any) -> ResNet:
  """Returns ResNet-32, 0.46 million parameters; keywords are fields of `ResNet`."""
  defaults: dict[str, Any] = {'stages': (5, 5, 5)}
  return ResNet(**(defaults | kwargs))


def resnet18(**kwargs: Any) -> ResNet:
  """Returns ResNet-18 for images of CIFAR's size, 11.17 million parameters.

  As in `resnet20`, the first layer is 3 x 3 without pooling; unlike there, shortcuts
  are projections.

  Args:
    **kwargs: fields of `ResNet`.
  """
  defaults: dict[str, Any] = {
    'stages': (2, 2, 2, 2),
    'widths': (64, 128, 256, 512),
    'shortcut': 'projection',
  }
  return ResNet(**(defaults | kwargs))
