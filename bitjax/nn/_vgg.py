"""VGG-small, which papers on binary networks use besides residual networks."""

from __future__ import annotations

from typing import Any

from flax import linen as nn

from bitjax import types
from bitjax.nn import _binding
from bitjax.nn import _blocks

__all__ = ['VGG', 'vgg_small']


class VGG(_blocks.Network):
  """A network of convolutions in stages that end in pooling, and a classifier.

  Each 3 x 3 convolution is followed by a normalisation and an activation. At the end
  of a stage, 2 x 2 max pooling comes between the convolution and these two, since the
  maximum of binary values carries little information. Layers are named ``Conv_0``,
  ``BatchNorm_0``, ..., ``Dense_0``. `vgg_small` makes the usual size.

  Attributes:
    stages: for each stage, the channels of its convolutions.

  The other attributes are those of `ResNet`; the default activation is hardtanh
  before one-bit inputs, else ReLU.

  References:
    Simonyan and Zisserman, 2015 (https://arxiv.org/abs/1409.1556); Zhang et al.,
    LQ-Nets, 2018, VGG-small (https://arxiv.org/abs/1807.10029).
  """

  stages: tuple[tuple[int, ...], ...] = ((128, 128), (256, 256), (512, 512))

  def __post_init__(self):
    super().__post_init__()
    nested = isinstance(self.stages, (tuple, list)) and all(
      isinstance(widths, (tuple, list)) and widths for widths in self.stages
    )
    if not nested or not self.stages:
      raise types.BadInput(
        'stages must be tuples of positive numbers of channels, at least one; '
        f'got {types.shown(self.stages)}.'
      )
    for widths in self.stages:
      _binding.check_counts('stages', widths)

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
      images: floating, normalised, [examples, height, width, channels], of the same
        size as those with which the model was initialised.
      train: whether normalisation uses the statistics of the batch and updates its
        running ones, which needs ``mutable=['batch_stats']``.
      progress: progress of training, in [0, 1], for quantizers that anneal.
    """
    recipe = self.recipe()
    x = _blocks.as_images(images, self.dtype)
    if min(x.shape[1:3]) < 2 ** len(self.stages):
      raise types.BadInput(
        f'images must have sides of at least {2 ** len(self.stages)}, which '
        f'pooling halves {len(self.stages)} times; got shape {x.shape}.'
      )
    index = 0
    for widths in self.stages:
      for number, width in enumerate(widths, start=1):
        x = recipe.conv(
          x,
          index,
          width,
          progress=progress,
          kernel=index > 0 or self.quantize_first,
          inputs=index > 0,
        )
        if number == len(widths):
          x = nn.max_pool(x, (2, 2), (2, 2))
        x = recipe.activate(recipe.norm(x, index, train), index)
        index += 1
    x = x.reshape((x.shape[0], -1))
    return recipe.dense(
      x, self.num_classes, progress=progress, quantized=self.quantize_last
    )


def vgg_small(**kwargs: Any) -> VGG:
  """Returns VGG-small, 4.66 million parameters; keywords are the fields of `VGG`."""
  return VGG(**kwargs)
