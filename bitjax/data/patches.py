"""Feeds of patches that are cut from pairs of images, and their eight symmetries.

An epoch takes a fixed number of patches from each image, in an order that depends on
the seed and the epoch. Where a patch lies is drawn from a key that depends on the seed and
the step. So a batch is a function of these two, whichever feed makes it: one whose images
are on the device, where patches are cut inside ``jit``, or one that reads files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import types
from bitjax.data import batches
from bitjax.data import feeds
from bitjax.data import indexing
from bitjax.data import pairs as pairs_lib

__all__ = ['padded_tiles', 'patch_feeds', 'patch_host_feed', 'random_symmetry']

# Keeps the draws of places apart from all others that begin with the same seed.
_STREAM = 0x70617463
_MOST = (1 << 31) - 1  # Rows of pixels that an int32 can number.


class _Draw(NamedTuple):
  """What a step needs: indices of images, and whence places are drawn."""

  indices: Any  # int32 [B].
  seed: Any  # uint32.
  step: Any  # int32.


class _Stack(NamedTuple):
  """All images in a row, pixel by pixel, and where each begins."""

  low: types.Array  # uint8 [pixels, 3].
  high: types.Array  # uint8 [scale^2 pixels, 3].
  starts: types.Array  # int32 [images]: the first pixel of each in `low`.
  sizes: types.Array  # int32 [images, 2]: rows and columns in `low`.


def patch_feeds(
  pairs: pairs_lib.Pairs,
  batch_size: int,
  seeds: Sequence[int],
  *,
  side: int,
  repeats: int = 16,
) -> list[feeds.Feed]:
  """Returns a feed of patches for each seed; all share one copy on the device.

  Args:
    pairs: the images; all of them are read at once.
    batch_size: number of patches in the batch of a step.
    seeds: seeds of orders and places, integers in [0, 2**32).
    side: height and width of a patch at low resolution, in pixels.
    repeats: number of patches that an epoch takes from each image.

  Returns:
    The feeds. Their batches are ``Batch(low, high)``, uint8 [B, side, side, 3] and
    uint8 [B, scale side, scale side, 3]: the images of high resolution stand in the
    place of labels.

  Raises:
    BadInput: for an image that is smaller than a patch, which is named, for more pixels
      than 2**31 (`patch_host_feed` has no limit), and for numbers out of range.
  """
  side = _check(pairs, side, repeats)
  for seed in seeds:
    types.check_seed('seeds', seed)
  size = len(pairs) * repeats
  orders = [feeds.ordering(size, batch_size, seed) for seed in seeds]
  arrays, take = _stacked(pairs), _taker(pairs.scale, side)
  return [
    feeds.Feed(
      size,
      batch_size,
      arrays,
      functools.partial(_draws, order, seed, len(pairs)),
      take,
    )
    for order, seed in zip(orders, seeds, strict=True)
  ]


def patch_host_feed(
  pairs: pairs_lib.Pairs,
  batch_size: int,
  seed: int,
  *,
  side: int,
  repeats: int = 16,
  num_threads: int = 2,
) -> feeds.Feed:
  """Returns a feed of patches whose images are read while training runs.

  Each patch reads its images anew, so a folder of low resolutions saves their
  computation. Threads of the package ``grain`` read ahead, as those of `host_feed`.

  Args:
    pairs: the images.
    batch_size: number of patches in the batch of a step.
    seed: seed of orders and places, an integer in [0, 2**32).
    side: height and width of a patch at low resolution, in pixels.
    repeats: number of patches that an epoch takes from each image.
    num_threads: number of threads that read.

  Returns:
    The feed, with the batches of that of `patch_feeds` with this seed.

  Raises:
    BadInput: as `patch_feeds`, or for a missing package. ``chunk`` raises one for a file
      that cannot be read.
  """
  side = _check(pairs, side, repeats)
  types.check_seed('seed', seed)
  size = len(pairs) * repeats
  order = feeds.ordering(size, batch_size, seed)
  sizes, scale = np.asarray(pairs.sizes, np.int32), pairs.scale

  def read(step: int) -> tuple[np.ndarray, np.ndarray]:
    indices = order(step) % len(pairs)
    low = np.empty((batch_size, side, side, 3), np.uint8)
    high = np.empty((batch_size, side * scale, side * scale, 3), np.uint8)
    with jax.default_device(jax.local_devices(backend='cpu')[0]):
      places = _places(np.uint32(seed), np.int32(step), sizes[indices], side)
    for row, (index, place) in enumerate(
      zip(indices.tolist(), np.asarray(places).tolist(), strict=True)
    ):
      pair = pairs[index]
      _check_pair(pair, pairs.sizes[index], scale)
      low[row] = _cut(pair.low, place, side)
      high[row] = _cut(pair.high, [scale * at for at in place], scale * side)
    return low, high

  chunk = feeds.read_ahead(read, num_threads, 'patch_host_feed')
  return feeds.Feed(size, batch_size, (), chunk, feeds.as_batch)


def padded_tiles(
  pairs: pairs_lib.Pairs, batch_size: int, *, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Cuts images into tiles to evaluate on while training, as `padded_batches` does.

  Tiles of an image do not overlap; what is left at its right and bottom is left out.

  Args:
    pairs: the images.
    batch_size: tiles in each batch; the last batch is padded with zeros.
    side: height and width of a tile at low resolution, in pixels.

  Returns:
    Tiles at low and at high resolution, uint8 [M, B, side, side, 3] and uint8
    [M, B, scale side, scale side, 3], and weights, float32 [M, B]: 1 for a tile, 0 for
    padding.

  Raises:
    BadInput: for an image that is smaller than a tile, which is named, and for numbers
      out of range.
  """
  side = _check(pairs, side, 1)
  types.check_integer('batch_size', batch_size, 1)
  low, high = [], []
  for index, (rows, columns) in enumerate(pairs.sizes):
    pair = pairs[index]
    for row in range(0, rows - side + 1, side):
      for column in range(0, columns - side + 1, side):
        place = [row, column]
        low.append(_cut(pair.low, place, side))
        place = [pairs.scale * at for at in place]
        high.append(_cut(pair.high, place, pairs.scale * side))
  missing = -len(low) % batch_size

  def batched(tiles):
    stack = np.stack(tiles)
    stack = np.pad(stack, [(0, missing)] + [(0, 0)] * (stack.ndim - 1))
    return stack.reshape(-1, batch_size, *stack.shape[1:])

  weights = [np.float32(1)] * len(low)
  return batched(low), batched(high), batched(weights)


def random_symmetry(
  key: types.Array, images: types.Array, targets: types.Array
) -> tuple[types.Array, types.Array]:
  """Turns and mirrors each image by one of the eight symmetries of the square.

  An augmentation (see `Augmentation`) whose targets are images too: both are flipped
  alike, left to right, top to bottom, and along the diagonal, each with probability 1/2.

  Args:
    key: typed key.
    images: [N, h, h, C], of any type.
    targets: [N, H, H, C'], of any type.

  Returns:
    Both, of the same shapes and types.

  Raises:
    BadInput: for images that are not square.
  """
  for name, array in (('images', images), ('targets', targets)):
    shape = jnp.shape(array)
    if len(shape) != 4 or shape[1] != shape[2]:
      raise types.BadInput(
        f'{name} must be square, [N, H, H, C]; got shape {list(shape)}.'
      )
  flips = jax.random.bernoulli(key, jnp.float32(0.5), (3, len(images), 1, 1, 1))

  def turned(x):
    x = jnp.where(flips[0], x[:, :, ::-1], x)
    x = jnp.where(flips[1], x[:, ::-1], x)
    return jnp.where(flips[2], jnp.swapaxes(x, 1, 2), x)

  return turned(images), turned(targets)


def _draws(
  order: Callable[[int], np.ndarray],
  seed: int,
  num_images: int,
  start: int,
  num_steps: int,
) -> _Draw:
  feeds.check_chunk(start, num_steps)
  steps = np.arange(start, start + num_steps, dtype=np.int32)
  indices = np.stack([order(int(step)) % num_images for step in steps])
  return _Draw(indices, np.full(num_steps, seed, np.uint32), steps)


@functools.partial(jax.jit, static_argnames='side')
def _places(
  seed: types.Array, step: types.Array, sizes: types.Array, side: int
) -> types.Array:
  """Returns the upper left pixels of a step's patches, int32 [B, 2]."""
  key = jax.random.fold_in(jax.random.key(seed), _STREAM)
  ends = sizes - (side - 1)
  return jax.random.randint(
    jax.random.fold_in(key, step), sizes.shape, 0, ends, jnp.int32
  )


@functools.lru_cache(maxsize=64)
def _taker(scale: int, side: int) -> Callable[..., batches.Batch]:
  """Returns the ``take`` of a feed: the same one for the same numbers."""

  def take(arrays: _Stack, fed: _Draw) -> batches.Batch:
    sizes = indexing.take(arrays.sizes, fed.indices)
    starts = indexing.take(arrays.starts, fed.indices)
    places = _places(fed.seed, fed.step, sizes, side)
    return batches.Batch(
      _windows(arrays.low, starts, sizes, places, side, 1),
      _windows(arrays.high, starts, sizes, places, side, scale),
    )

  return take


def _windows(pixels, starts, sizes, places, side, scale):
  """Gathers squares from images in a row, [B, scale side, scale side, 3]."""
  reach = jnp.arange(scale * side, dtype=jnp.int32)[None]
  rows = scale * places[:, :1] + reach
  columns = scale * places[:, 1:] + reach
  widths = scale * sizes[:, 1:]
  first = scale**2 * starts[:, None] + rows * widths
  return indexing.take(pixels, first[:, :, None] + columns[:, None])


def _stacked(pairs: pairs_lib.Pairs) -> _Stack:
  """Reads all images and puts them in a row, on the device."""
  areas = [rows * columns for rows, columns in pairs.sizes]
  if sum(areas) * pairs.scale**2 > _MOST:
    raise types.BadInput(
      f'{pairs.name}: {sum(areas) * pairs.scale**2} pixels are more than {_MOST}; '
      'use patch_host_feed.'
    )
  low, high = [], []
  for index, size in enumerate(pairs.sizes):
    pair = pairs[index]
    _check_pair(pair, size, pairs.scale)
    low.append(pair.low.reshape(-1, 3))
    high.append(pair.high.reshape(-1, 3))
  return _Stack(
    jnp.asarray(np.concatenate(low)),
    jnp.asarray(np.concatenate(high)),
    jnp.asarray(np.cumsum([0, *areas[:-1]]), jnp.int32),
    jnp.asarray(pairs.sizes, jnp.int32),
  )


def _cut(image: np.ndarray, place: Sequence[int], side: int) -> np.ndarray:
  row, column = place
  return image[row : row + side, column : column + side]


def _check_pair(
  pair: pairs_lib.Pair, size: tuple[int, int], scale: int
) -> None:
  """Raises `BadInput` if a file has changed, or a reader is wrong."""
  rows, columns = size
  for image, factor in ((pair.low, 1), (pair.high, scale)):
    expected = (factor * rows, factor * columns, 3)
    if image.dtype != np.uint8 or image.shape != expected:
      raise types.BadInput(
        f'{pair.name}: expected uint8 {list(expected)}; found {image.dtype} '
        f'{list(image.shape)}.'
      )


def _check(pairs: pairs_lib.Pairs, side: int, repeats: int) -> int:
  side = types.check_integer('side', side, 1)
  types.check_integer('repeats', repeats, 1)
  for name, size in zip(pairs.names, pairs.sizes, strict=True):
    if min(size) < side:
      raise types.BadInput(
        f'{name}: {size[0]} x {size[1]} pixels at low resolution hold no patch of '
        f'{side} x {side}; use a side of at most {min(size)}.'
      )
  return side
