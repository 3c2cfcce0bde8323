"""Normalises images: mean 0 and standard deviation 1 in every channel."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from bitjax import types
from bitjax.data import indexing

__all__ = ['Statistics', 'channel_statistics', 'normalize']

_CHUNK = 1_000  # Images counted at a time, which bounds the memory.


class Statistics(NamedTuple):
  """Mean and standard deviation of each channel, over images and pixels."""

  mean: types.Array | np.ndarray  # shape=[C], of images * scale.
  std: types.Array | np.ndarray  # shape=[C].


def channel_statistics(images: np.ndarray, scale: float) -> Statistics:
  """Computes the statistics that :func:`normalize` needs, on the host.

  Pixels are counted by value, which is exact; only sums over the 256 values are
  rounded, in float64.

  Args:
    images: uint8 [N, H, W, C], of the training set; a memory map will do.
    scale: value of one unit of ``images``.

  Returns:
    Mean and (biased) standard deviation of ``images * scale``, float32 [C].

  Raises:
    BadInput: unless images are uint8 [N, H, W, C], at least one of them.
  """
  types.check_finite('scale', scale)
  indexing.check_images(images)
  if images.dtype != np.uint8 or not images.size:
    raise types.BadInput(
      'channel_statistics needs uint8 images, at least one; got '
      f'{images.dtype} of shape {images.shape}.'
    )
  counts = np.zeros((images.shape[-1], 256), np.int64)
  for start in range(0, len(images), _CHUNK):
    pixels = np.asarray(images[start : start + _CHUNK])
    for channel, count in enumerate(counts):
      count += np.bincount(pixels[..., channel].ravel(), minlength=256)
  values = np.arange(256) * float(scale)
  shares = counts / counts.sum(axis=1, keepdims=True)
  mean = shares @ values
  variance = np.sum(shares * (values - mean[:, np.newaxis]) ** 2, axis=1)
  return Statistics(
    mean.astype(np.float32), np.sqrt(variance).astype(np.float32)
  )


def normalize(
  images: types.Array,
  mean: types.Array | np.ndarray,
  std: types.Array | np.ndarray,
  scale: types.Scalar,
) -> types.Array:
  """Returns ``(images * scale - mean) / std``, channel by channel.

  Args:
    images: [..., C], uint8, or floating in the same units.
    mean: [C], of ``images * scale``.
    std: [C], of ``images * scale``.
    scale: value of one unit of ``images`` (``Dataset.scale``).

  Returns:
    float32 [..., C].

  Raises:
    BadInput: unless there are a mean and a positive deviation for each channel.
  """
  types.check_finite('scale', scale)
  channels = images.shape[-1:]
  if np.shape(mean) != channels or np.shape(std) != channels:
    raise types.BadInput(
      f'mean and std must have shape {channels}, one number for each channel; '
      f'got {np.shape(mean)} and {np.shape(std)}.'
    )
  types.check_positive('std', std, arrays=True)
  shape = (1,) * (images.ndim - 1) + channels
  # In this form, a pixel costs one multiplication and one subtraction.
  mean, std = (jnp.asarray(x, jnp.float32).reshape(shape) for x in (mean, std))
  return images.astype(jnp.float32) * (scale / std) - mean / std
