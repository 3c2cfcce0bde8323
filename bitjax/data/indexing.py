"""Helpers that index batches of images: gather rows, crop windows, check shapes."""

from __future__ import annotations

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from bitjax import types

__all__ = ['check_images', 'crop', 'take']


def take(array: types.Array, indices: types.Array) -> types.Array:
  """Gathers rows of ``array``; the caller ensures that ``indices`` are in bounds."""
  return jnp.asarray(array).at[indices].get(mode='promise_in_bounds')


def crop(
  images: types.Array,
  starts: types.Array,
  pad: int,
  fill: types.Array | float = 0,
) -> types.Array:
  """Pads every image ``i`` and crops the window that begins at ``starts[i]``.

  Args:
    images: [N, H, W, C].
    starts: int32 [N, 2], row and column in the padded image, in ``[0, 2 pad]``.
    pad: width of the border in pixels.
    fill: value of the border's pixels: a number, or one for each channel [C].

  Returns:
    [N, H, W, C].
  """
  n, height, width, channels = images.shape
  border = jnp.asarray(fill, images.dtype)
  padded = jnp.broadcast_to(
    border, (n, height + 2 * pad, width + 2 * pad, channels)
  )
  padded = lax.dynamic_update_slice(padded, images, (0, pad, pad, 0))

  def window(image, start):
    zero = jnp.zeros((), start.dtype)
    return lax.dynamic_slice(image, (*start, zero), images.shape[1:])

  return jax.vmap(window)(padded, starts)


def check_images(images: types.Array | np.ndarray) -> None:
  """Raises `BadInput` unless images are [N, H, W, C] with H, W, C > 0."""
  if images.ndim != 4 or not all(images.shape[1:]):
    raise types.BadInput(
      f'images must be [N, H, W, C]; got shape {images.shape}.'
    )
