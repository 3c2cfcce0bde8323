r"""Networks for super-resolution whose parts are quantized one by one.

An image goes through a head, a body of residual blocks, an upsampler and a tail. Of low
bits the body is asked first; which other parts stand them, and what a body of few bits
needs, are choices here:

- a shortcut around each block of two convolutions (EDSR), or around every convolution
  (E2FIF, BBCU), so that values of full precision reach the end past every quantizer:

.. math:: \text{block: } z = x + m \, n(c_1(f(n(c_0(x))))), \qquad
  \text{each: } y = x + m f(n(c_0(x))), \; z = y + m f(n(c_1(y)));

- a normalisation n, or none, as in EDSR: without it the range of activations
  differs from image to image, and a quantizer of inputs has to know it;
- the multiplier m of the branch, which BBCU's factor on activations stands for;
- head, upsampler and tail of full precision, or quantized.

Here c is a convolution that quantizes its inputs and its kernel, and f the activation.
"""

from __future__ import annotations

from typing import Any

from flax import linen as nn
import jax.numpy as jnp

from bitjax import data
from bitjax import quantizers
from bitjax import types
from bitjax.nn import _binding
from bitjax.nn import _blocks

__all__ = [
  'SR_BASES',
  'SR_SHORTCUTS',
  'SR_UPSAMPLERS',
  'SuperResolution',
  'edsr_baseline',
  'light_sr',
  'pixel_shuffle',
  'srresnet',
]

SR_SHORTCUTS = ('block', 'each')
SR_UPSAMPLERS = ('shuffle', 'direct')
SR_BASES = ('none', 'nearest', 'bicubic')

_MIDDLE = 0.5  # Of the range of images.


class SuperResolution(nn.Module):
  r"""A residual network that enlarges images, of any precision.

  Layers are named ``Conv_head``, ``Block_0/Conv_0``, ``Block_0/BatchNorm_1``, ...,
  ``Conv_body``, ``Conv_up_0``, ..., ``Conv_tail``, whatever is quantized. A shortcut leads
  around the whole body, ``Conv_body`` included. All convolutions are 3 x 3, so the network
  takes images of any size. `edsr_baseline`, `srresnet` and `light_sr` make the usual ones.

  **The range of activations** is that of ``input_quantizer``, whose four kinds are

  - fixed: ``attach(uniform(b, narrow=True, step=s), identity())``;
  - learned, symmetric, as PAMS: ``lsq(b, narrow=True, batch_axes=1)``, whose range is its
    step times the largest code;
  - learned at both ends, as DDTB: ``lsq(b, offset=True, batch_axes=1)``;
  - from the batch: ``calibrated(attach(uniform(b, narrow=True), identity()),
    max_abs('tensor'))``, also in evaluation, where the range of an image then depends on
    the others in its batch.

  Attributes:
    scale: how many times larger the output is; for ``'shuffle'`` a product of 2s and 3s.
    blocks: number of residual blocks.
    width: number of channels of the body.
    norm: whether a batch normalisation follows every convolution of the body.
    shortcut: ``'block'`` or ``'each'``. ``'each'`` also leads around ``Conv_body`` and
      around a quantized upsampler, there with repeated pixels (BBCU).
    multiplier: m > 0, of the branch beside every shortcut; a quantized upsampler's too.
    upsampler: ``'shuffle'`` for a convolution and a `pixel_shuffle` for each factor 2 or 3,
      then the tail at the high resolution (EDSR); ``'direct'`` for a tail at the low
      resolution with scale^2 times the channels, and one `pixel_shuffle` (ESPCN).
    base: what the network's output is added to: ``'none'``, or the image enlarged by
      repeated pixels (``'nearest'``) or by `data.bicubic`, at which training then begins
      if the tail begins near 0.
    channels: channels of the images.
    kernel_quantizer: quantizer of the kernels of the body, and of the parts below if they
      are quantized; None for none.
    input_quantizer: quantizer of the inputs of the same layers; None for none.
    scaling: scale of quantized kernels, as in `QuantDense`.
    quantize_head: whether the first kernel is quantized; its inputs, the images, never are.
    quantize_upsampler: whether the upsampler's kernels and inputs are quantized; not with
      ``'direct'``, whose only convolution there is the tail.
    quantize_tail: whether the last kernel and its inputs are quantized.
    thresholds: whether learned thresholds precede the quantizers of inputs (ReActNet).
    activation: ``'relu'``, ``'hardtanh'``, ``'identity'`` or ``'rprelu'``; None for
      hardtanh before one-bit inputs, else ReLU.
    init_name: initialiser of kernels, as of `ResNet`; PyTorch's by default.
    momentum: decay of the running statistics of normalisations.
    epsilon: added to variances.
    dtype: dtype of activations and of what is multiplied; None for that of the images.
      Sums, parameters, statistics and the output are float32.
    precision: precision of convolutions, as in ``jax.lax``.
    axis_name: the axis of ``jax.shard_map`` or ``jax.vmap`` over which examples are split;
      normalisations then use the statistics of all of them. None for none.

  Raises:
    BadInput: for a field out of range.

  References:
    Lim et al., EDSR, 2017 (https://arxiv.org/abs/1707.02921); Shi et al., ESPCN, 2016
    (https://arxiv.org/abs/1609.05158); Xia et al., BBCU, 2023
    (https://arxiv.org/abs/2210.00405); Song et al., E2FIF, 2022
    (https://arxiv.org/abs/2207.06893); Li et al., PAMS, 2020
    (https://arxiv.org/abs/2011.04212); Zhong et al., DDTB, 2022
    (https://arxiv.org/abs/2203.03844).
  """

  scale: int = 2
  blocks: int = 16
  width: int = 64
  norm: bool = False
  shortcut: str = 'block'
  multiplier: float = 1.0
  upsampler: str = 'shuffle'
  base: str = 'none'
  channels: int = 3
  kernel_quantizer: _binding.AnyQuantizer = None
  input_quantizer: _binding.AnyQuantizer = None
  scaling: str | quantizers.Scaling = 'none'
  quantize_head: bool = False
  quantize_upsampler: bool = False
  quantize_tail: bool = False
  thresholds: bool = False
  activation: str | None = None
  init_name: str = 'fan_in_uniform'
  momentum: float = 0.9
  epsilon: float = 1e-5
  dtype: Any = None
  precision: Any = 'highest'
  axis_name: str | None = None

  def __post_init__(self):
    _binding.check_fields(self)
    for name in ('scale', 'blocks', 'width', 'channels'):
      types.check_integer(name, getattr(self, name), 1)
    types.check_positive('multiplier', self.multiplier, finite=True)
    types.check_choice('shortcut', self.shortcut, SR_SHORTCUTS)
    types.check_choice('upsampler', self.upsampler, SR_UPSAMPLERS)
    types.check_choice('base', self.base, SR_BASES)
    factors = _factors(self.scale) if self.upsampler == 'shuffle' else ()
    if self.quantize_upsampler and not factors:
      raise types.BadInput(
        'quantize_upsampler=True needs an upsampler with convolutions; '
        f'upsampler={self.upsampler} has none at the scale {self.scale}.'
      )
    super().__post_init__()

  @nn.compact
  def __call__(
    self,
    images: types.Array,
    *,
    train: bool = False,
    progress: types.Scalar = 1.0,
  ) -> types.Array:
    """Returns the images enlarged, [examples, scale height, scale width, channels].

    Args:
      images: floating, values from 0 to 1, [examples, height, width, channels]. The
        output has the same range, and may exceed it: it is not clipped.
      train: whether normalisation uses the statistics of the batch and updates its
        running ones, which needs ``mutable=['batch_stats']``.
      progress: progress of training, in [0, 1], for quantizers that anneal.
    """
    recipe = self._recipe()
    images = _blocks.as_images(images, self.dtype)
    if images.shape[-1] != self.channels:
      raise types.BadInput(
        f'images must have {self.channels} channels; got shape {images.shape}.'
      )
    middle = jnp.asarray(_MIDDLE, images.dtype)
    x = recipe.conv(
      images - middle,
      'head',
      self.width,
      progress=progress,
      kernel=self.quantize_head,
      inputs=False,
      bias=True,
    )
    first = x
    for index in range(self.blocks):
      block = Residual(
        self.width,
        2,
        self.shortcut == 'each',
        self.norm,
        self.multiplier,
        recipe,
        name=f'Block_{index}',
      )
      x = block(x, train=train, progress=progress)
    y = recipe.conv(
      x, 'body', self.width, progress=progress, bias=not self.norm
    )
    if self.norm:
      y = recipe.norm(y, 'body', train)
    if self.shortcut == 'each':
      y = x + self.multiplier * y
    x = self._enlarged(first + y, recipe, progress)
    x = types.widened(x)
    if self.base == 'none':
      return x + _MIDDLE
    wide = types.widened(images)
    if self.base == 'nearest':
      return x + _repeated(wide, self.scale)
    return x + data.bicubic(wide, self.scale)

  def _enlarged(self, x, recipe, progress):
    """Applies the upsampler and the tail."""
    factors = () if self.upsampler == 'direct' else _factors(self.scale)
    for index, factor in enumerate(factors):
      y = recipe.conv(
        x,
        f'up_{index}',
        self.width * factor**2,
        progress=progress,
        kernel=self.quantize_upsampler,
        inputs=self.quantize_upsampler,
        bias=True,
      )
      y = pixel_shuffle(y, factor)
      if self.quantize_upsampler and self.shortcut == 'each':
        y = _repeated(x, factor) + self.multiplier * y
      x = y
    left = self.scale if self.upsampler == 'direct' else 1
    x = recipe.conv(
      x,
      'tail',
      self.channels * left**2,
      progress=progress,
      kernel=self.quantize_tail,
      inputs=self.quantize_tail,
      bias=True,
    )
    return pixel_shuffle(x, left)

  def _recipe(self):
    binary = _blocks.is_binary(self.input_quantizer)
    return _blocks.Recipe(
      kernel_quantizer=self.kernel_quantizer,
      input_quantizer=self.input_quantizer,
      scaling=self.scaling,
      activation=self.activation or ('hardtanh' if binary else 'relu'),
      init_name=self.init_name,
      last_init_name=self.init_name,
      momentum=self.momentum,
      epsilon=self.epsilon,
      dtype=self.dtype,
      precision=self.precision,
      axis_name=self.axis_name,
      thresholds=self.thresholds,
    )


class Residual(nn.Module):
  """Convolutions with a shortcut around all of them, or around each.

  Attributes:
    width: number of channels.
    convolutions: number of convolutions.
    shortcut_each: whether each convolution has its own shortcut.
    norm: whether a normalisation follows each.
    multiplier: of the branch beside a shortcut.
    recipe: makes the layers.
  """

  width: int
  convolutions: int
  shortcut_each: bool
  norm: bool
  multiplier: float
  recipe: _blocks.Recipe

  @nn.compact
  def __call__(
    self, x: types.Array, *, train: bool, progress: types.Scalar
  ) -> types.Array:
    """Maps [examples, height, width, channels] to the same shape."""
    recipe, y = self.recipe, x
    for index in range(self.convolutions):
      last = index == self.convolutions - 1
      z = recipe.conv(
        y, index, self.width, progress=progress, bias=not self.norm
      )
      if self.norm:
        z = recipe.norm(z, index, train)
      if self.shortcut_each or not last:
        z = recipe.activate(z, index)
      y = y + self.multiplier * z if self.shortcut_each else z
    return y if self.shortcut_each else x + self.multiplier * y


def pixel_shuffle(x: types.Array, scale: int) -> types.Array:
  """Moves groups of scale^2 channels to the pixels of a larger image.

  Channel ``c scale^2 + scale i + j`` of pixel (h, w) becomes channel c of pixel
  (scale h + i, scale w + j), as in PyTorch.

  Args:
    x: [..., h, w, scale^2 C].
    scale: an integer of at least 1.

  Returns:
    [..., scale h, scale w, C].

  Raises:
    BadInput: for a number of channels that scale^2 does not divide.
  """
  scale = types.check_integer('scale', scale, 1)
  if jnp.ndim(x) < 3 or jnp.shape(x)[-1] % scale**2:
    raise types.BadInput(
      f'x must be [..., h, w, C] with a multiple of {scale**2} channels; got '
      f'shape {list(jnp.shape(x))}.'
    )
  *leading, height, width, channels = x.shape
  rank = len(leading)
  x = x.reshape(*leading, height, width, channels // scale**2, scale, scale)
  order = (rank, rank + 3, rank + 1, rank + 4, rank + 2)
  x = jnp.transpose(x, (*range(rank), *order))
  return x.reshape(*leading, scale * height, scale * width, -1)


def edsr_baseline(**kwargs: Any) -> SuperResolution:
  """Returns EDSR's baseline, 1.37 million parameters at the scale 2.

  The authors train patches of 96 pixels (at the high resolution), 16 at a time, by Adam
  with 1e-4, halved after 200 000 of 300 000 updates, on the 800 images of DIV2K.

  Args:
    **kwargs: fields of `SuperResolution`.
  """
  return SuperResolution(**kwargs)


def srresnet(**kwargs: Any) -> SuperResolution:
  """Returns a network in the style of SRResNet: normalised, with 16 blocks.

  Its head and tail are 3 x 3 here, those of the paper are 9 x 9, and its activation is a
  ReLU unless told otherwise (``'rprelu'`` is a PReLU with shifts).

  Args:
    **kwargs: fields of `SuperResolution`.

  References:
    Ledig et al., 2017 (https://arxiv.org/abs/1609.04802).
  """
  defaults: dict[str, Any] = {'norm': True}
  return SuperResolution(**(defaults | kwargs))


def light_sr(**kwargs: Any) -> SuperResolution:
  """Returns a network that two cores can train: 4 blocks of 16 channels.

  It has some 22 thousand parameters at the scale 2, as ESPCN, computes at the low
  resolution alone, and adds to the image that is enlarged by `data.bicubic`.

  Args:
    **kwargs: fields of `SuperResolution`.
  """
  defaults: dict[str, Any] = {
    'blocks': 4,
    'width': 16,
    'upsampler': 'direct',
    'base': 'bicubic',
  }
  return SuperResolution(**(defaults | kwargs))


def _repeated(x, scale):
  """Repeats each pixel along both sides."""
  return jnp.repeat(jnp.repeat(x, scale, axis=-3), scale, axis=-2)


def _factors(scale):
  """Returns the factors 2 and 3 of a scale, in order."""
  found, left = [], scale
  for factor in (2, 3):
    while left % factor == 0:
      found.append(factor)
      left //= factor
  if left > 1:
    raise types.BadInput(
      f"scale must be a product of 2s and 3s for the upsampler 'shuffle'; got "
      f"{scale}. 'direct' takes any."
    )
  return tuple(found)
