r"""PSNR and SSIM of images, by the convention of the papers on super-resolution.

Papers measure the luma Y of BT.601, in its studio range,

.. math:: Y = 16 + (65.481\,R + 128.553\,G + 24.966\,B) / 255,

with pixel values from 0 to 255, leave out a border as wide as the scale, and divide by the
peak 255 all the same, although Y spans 219 grey levels. Model zoos (BasicSR, mmediting)
print RGB's by default, so one network has two numbers: EDSR of the middle size, four
times enlarged, has some 32.1 dB on Y of Set5 and 30.18 dB on RGB. Errors of colours
count there, and Y's shorter range alone is worth
:math:`20 \log_{10}(255 / 219) = 1.32` dB of an error that is equal in all three.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import jax.numpy as jnp
import numpy as np

from bitjax import types

__all__ = ['CHANNELS', 'Channels', 'luma', 'psnr', 'squared_error', 'ssim']

Channels: TypeAlias = Literal['luma', 'rgb']

CHANNELS: tuple[str, ...] = get_args(Channels)

_PEAK = 255.0
_LUMA = (65.481, 128.553, 24.966)
_BLACK = 16.0
_RADIUS, _SIGMA = 5, 1.5  # The window of SSIM, in pixels.
_C1, _C2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2


def luma(images: types.Array) -> types.Array:
  """Returns Y of BT.601, from 16 to 235, neither clipped nor rounded.

  Args:
    images: RGB [..., H, W, 3] with values from 0 to 255, bytes or floating.

  Returns:
    [..., H, W, 1], float32 at least.

  Raises:
    BadInput: for images of another shape.
  """
  if jnp.ndim(images) < 3 or jnp.shape(images)[-1] != 3:
    raise types.BadInput(
      f'images must be RGB, [..., H, W, 3]; got shape {list(jnp.shape(images))}.'
    )
  x = _floats(images)
  # A sum, since a product of matrices may round what it multiplies.
  factors = jnp.asarray(np.asarray(_LUMA) / _PEAK, x.dtype)
  factors = factors.reshape((1,) * (x.ndim - 1) + (3,))
  return _BLACK + jnp.sum(x * factors, axis=-1, keepdims=True)


def psnr(
  images: types.Array,
  truth: types.Array,
  *,
  border: int = 0,
  channels: Channels = 'luma',
) -> types.Array:
  r"""Returns the peak signal-to-noise ratio of each image.

  .. math:: \mathrm{PSNR} = 10 \log_{10}(255^2 / \mathrm{MSE})

  Pure, and ``jit`` it with ``border`` and ``channels`` static. The mean of the squared
  errors is over pixels and channels of one image; the mean of several images is one of
  decibels. It is infinite for equal images. Papers' images are bytes: round and clip a
  network's output first, which is worth some hundredths of a decibel.

  Args:
    images: [..., H, W, C], values from 0 to 255, bytes or floating.
    truth: the true images, of the same shape.
    border: pixels at each edge that do not count; papers take the scale.
    channels: ``'luma'`` for Y of RGB images, as papers do, or ``'rgb'`` for all
      channels, as model zoos do. An image of one channel is taken as it is.

  Returns:
    Decibels [...], float32 at least.

  Raises:
    BadInput: for images of other shapes, or a border that leaves nothing of them.
  """
  error = squared_error(images, truth, border=border, channels=channels)
  return 10 * jnp.log10(_PEAK**2 / error)


def squared_error(
  images: types.Array,
  truth: types.Array,
  *,
  border: int = 0,
  channels: Channels = 'luma',
) -> types.Array:
  """Returns the mean squared error of each image, of which `psnr` is the logarithm.

  Args:
    images: as for `psnr`.
    truth: as for `psnr`.
    border: as for `psnr`.
    channels: as for `psnr`.

  Returns:
    Squared grey levels [...], float32 at least.

  Raises:
    BadInput: as `psnr`.
  """
  x, y = _compared(images, truth, border, channels, 1)
  return jnp.mean((x - y) ** 2, axis=(-3, -2, -1))


def ssim(
  images: types.Array,
  truth: types.Array,
  *,
  border: int = 0,
  channels: Channels = 'luma',
) -> types.Array:
  r"""Returns the structural similarity of each image.

  .. math:: \mathrm{SSIM} = \operatorname{mean}
    \frac{(2 \mu_x \mu_y + C_1) (2 \sigma_{xy} + C_2)}
    {(\mu_x^2 + \mu_y^2 + C_1) (\sigma_x^2 + \sigma_y^2 + C_2)}

  Means and (co)variances are weighted by a Gaussian window of 11 x 11 pixels with the
  standard deviation 1.5, at all places where it lies within the image;
  :math:`C_1 = (0.01 \cdot 255)^2`, :math:`C_2 = (0.03 \cdot 255)^2`. It is that of
  the authors' code, and scikit-image's ``structural_similarity(gaussian_weights=True,
  use_sample_covariance=False, data_range=255)``. Its other defaults give other
  numbers: a flat window of 7 x 7.

  Args:
    images: as for `psnr`; at least 11 pixels on a side within the border.
    truth: the true images, of the same shape.
    border: as for `psnr`.
    channels: as for `psnr`; ``'rgb'`` takes the mean over channels.

  Returns:
    Numbers up to 1, for equal images, [...], float32 at least.

  Raises:
    BadInput: for images of other shapes, or that are too small.

  References:
    Wang et al., Image quality assessment, 2004
    (https://doi.org/10.1109/TIP.2003.819861).
  """
  x, y = _compared(images, truth, border, channels, 2 * _RADIUS + 1)
  # Variances do not change if a constant is subtracted, but their rounding does.
  middle_x, middle_y = (
    jnp.mean(a, axis=(-3, -2), keepdims=True) for a in (x, y)
  )
  x, y = x - middle_x, y - middle_y
  mean_x, mean_y = _blurred(x), _blurred(y)
  var_x = _blurred(x * x) - mean_x**2
  var_y = _blurred(y * y) - mean_y**2
  covariance = _blurred(x * y) - mean_x * mean_y
  mean_x, mean_y = mean_x + middle_x, mean_y + middle_y
  likeness = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
  structure = (2 * covariance + _C2) / (var_x + var_y + _C2)
  return jnp.mean(likeness * structure, axis=(-3, -2, -1))


def _blurred(x: types.Array) -> types.Array:
  """Returns the means over the window, [..., H - 10, W - 10, C]."""
  places = np.arange(-_RADIUS, _RADIUS + 1)
  weights = np.exp(-0.5 * (places / _SIGMA) ** 2)
  weights /= weights.sum()
  for axis in (x.ndim - 3, x.ndim - 2):
    length = x.shape[axis] - 2 * _RADIUS
    parts = [
      float(weight) * _slice(x, axis, start, length)
      for start, weight in enumerate(weights)
    ]
    x = sum(parts[1:], parts[0])
  return x


def _slice(x, axis, start, length):
  where = [slice(None)] * x.ndim
  where[axis] = slice(start, start + length)
  return x[tuple(where)]


def _compared(images, truth, border, channels, least):
  """Returns the values of both that are compared, after checks."""
  shape = jnp.shape(images)
  if len(shape) < 3 or shape != jnp.shape(truth):
    raise types.BadInput(
      'images and truth must have one shape, [..., H, W, C]; got '
      f'{list(shape)} and {list(jnp.shape(truth))}.'
    )
  types.check_choice('channels', channels, CHANNELS)
  border = types.check_integer('border', border, 0)
  if shape[-1] not in (1, 3):
    raise types.BadInput(
      f'images must have 1 or 3 channels; got {shape[-1]} in shape {list(shape)}.'
    )
  left = min(shape[-3:-1]) - 2 * border
  if left < least:
    raise types.BadInput(
      f'images must have {least + 2 * border} pixels or more on a side, {least} '
      f'within a border of {border}; got {shape[-3]} x {shape[-2]}.'
    )
  height, width = shape[-3] - border, shape[-2] - border
  x, y = (
    a[..., border:height, border:width, :]
    for a in map(_floats, (images, truth))
  )
  if channels == 'luma' and shape[-1] == 3:
    x, y = luma(x), luma(y)
  dtype = types.promoted(x, y)
  return x.astype(dtype), y.astype(dtype)


def _floats(images: types.Array) -> types.Array:
  images = jnp.asarray(images)
  if images.dtype == jnp.uint8:
    return images.astype(jnp.float32)
  if not jnp.issubdtype(images.dtype, jnp.floating):
    raise types.BadInput(
      f'images must be uint8 or floating, from 0 to 255; got {images.dtype}.'
    )
  return types.widened(images)
