"""Trains networks that enlarge images, and measures them as papers do: image by image."""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from bitjax import data
from bitjax import measures
from bitjax import nn as networks
from bitjax import types
from bitjax.training import _fit
from bitjax.training import _problems
from bitjax.training import _task

__all__ = ['ImageScores', 'enlarge', 'image_scores', 'reconstruction']


class ImageScores(NamedTuple):
  """How well each image was enlarged; papers print the means.

  Attributes:
    names: of the images.
    psnr: decibels, float64 [images].
    ssim: float64 [images].
  """

  names: tuple[str, ...]
  psnr: np.ndarray
  ssim: np.ndarray


def reconstruction(
  model: nn.Module,
  tx: optax.GradientTransformation,
  *,
  border: int,
  channels: measures.Channels = 'luma',
  progress: Callable[[types.Array], types.Scalar] | None = None,
  average: float | None = None,
) -> _task.Task:
  """Returns the task of a network that enlarges images, for `fit`.

  Feeds are those of `data.patch_feeds`; patches are turned and mirrored at random.

  Args:
    model: from images with values from 0 to 1 to larger ones, such as
      `nn.SuperResolution`.
    tx: the optimiser.
    border: pixels that the PSNR leaves out at each edge of a patch; take the scale.
    channels: ``'luma'`` or ``'rgb'``.
    progress: as for `Task`.
    average: as for `Task`.

  Raises:
    BadInput: as `Task` and `Reconstruction`.
  """
  return _task.Task(
    model,
    tx,
    None,
    _unit,
    augment=_turned,
    progress=progress,
    average=average,
    problem=_problems.Reconstruction(border, channels),
  )


def enlarge(
  model: nn.Module,
  variables: types.PyTree,
  image: np.ndarray,
  *,
  tile: int | None = None,
  overlap: int = 16,
  report: _fit.Reporter | None = None,
) -> np.ndarray:
  """Enlarges an image of any size, as a whole or in tiles.

  Each size of an image, or of a tile, compiles a program of its own. Tiles bound the
  memory. They change nothing if no pixel of the output sees further than the overlap: 3 x 3
  convolutions see as far as there are of them one after another, 11 in `nn.light_sr`. A
  quantizer whose range is that of its batch sees the tile.

  Args:
    model: the network, as for `reconstruction`.
    variables: its variables, without an axis of seeds.
    image: uint8 [h, w, C].
    tile: height and width of a tile in pixels of the image; None for no tiles.
    overlap: how many pixels a tile sees beyond each side of what it is used for.
    report: told how many of the tiles are done; None for no report.

  Returns:
    Clipped and rounded to uint8, [scale h, scale w, C].

  Raises:
    BadInput: for an image of another type, or tiles of which nothing is left.
  """
  image = np.asarray(image)
  if image.dtype != np.uint8 or image.ndim != 3 or not image.size:
    raise types.BadInput(
      'image must be uint8 [h, w, C], none of them 0; got '
      f'{image.dtype} {list(image.shape)}.'
    )
  program = _program(model)
  overlap = types.check_integer('overlap', overlap, 0)
  if tile is None:
    return np.asarray(program(variables, image))
  tile = types.check_integer('tile', tile, 1)
  if tile <= 2 * overlap:
    raise types.BadInput(
      f'tile must be more than twice the overlap, {2 * overlap}; got {tile}.'
    )
  height, width = (min(tile, length) for length in image.shape[:2])
  first = jax.eval_shape(program, variables, image[:height, :width])
  scale = first.shape[0] // height
  sides = scale * image.shape[0], scale * image.shape[1]
  found = np.empty((*sides, first.shape[2]), np.uint8)
  rows = _starts(image.shape[0], height, overlap)
  columns = _starts(image.shape[1], width, overlap)
  if report is not None:
    report.begin(len(rows) * len(columns), 0, 'tiles')
  for row in rows:
    for column in columns:
      part = image[row : row + height, column : column + width]
      part = np.asarray(program(variables, part))
      # Within the overlap the tile before is right; at its end the next one is.
      top, left = (scale * overlap if at else 0 for at in (row, column))
      found[
        scale * row + top : scale * (row + height),
        scale * column + left : scale * (column + width),
      ] = part[top:, left:]
      if report is not None:
        report.advance(1, '')
  return found


def _starts(length: int, tile: int, overlap: int) -> list[int]:
  """Returns where tiles begin: evenly, and the last one ends with the image."""
  last = length - tile
  return [*range(0, last, max(tile - 2 * overlap, 1)), last]


def image_scores(
  enlarged: Callable[[np.ndarray], Any],
  pairs: data.Pairs,
  *,
  border: int | None = None,
  channels: measures.Channels = 'luma',
) -> ImageScores:
  """Measures a way to enlarge images on whole images.

  Args:
    enlarged: uint8 [h, w, 3] -> uint8 [scale h, scale w, 3], such as `enlarge` of a
      network, or `data.bicubic`.
    pairs: the images.
    border: pixels at each edge that do not count; None for the scale, as in papers.
    channels: ``'luma'`` or ``'rgb'``, as for `bitjax.measures.psnr`.

  Raises:
    BadInput: for an output of another size than the image at high resolution, which
      is that of a network for another scale, and for an image that is too small for
      SSIM, 11 pixels a side within the border; it is named.
  """
  border = pairs.scale if border is None else border
  border = types.check_integer('border', border, 0)
  psnr, ssim = [], []
  for pair in pairs:
    found = np.asarray(enlarged(pair.low))
    if found.shape != pair.high.shape:
      raise types.BadInput(
        f'{pair.name}: expected an output of {list(pair.high.shape)}, {pairs.scale} '
        f'times the image; got {list(found.shape)}. Is it of another scale?'
      )
    try:
      each = _measured(found, pair.high, border, channels)
    except types.BadInput as error:
      raise types.BadInput(f'{pair.name}: {error}') from None
    for values, value in zip((psnr, ssim), each, strict=True):
      values.append(float(value))
  return ImageScores(pairs.names, np.asarray(psnr), np.asarray(ssim))


@functools.partial(jax.jit, static_argnums=(2, 3))
def _measured(images, truth, border, channels):
  return tuple(
    measure(images, truth, border=border, channels=channels)
    for measure in (measures.psnr, measures.ssim)
  )


@functools.lru_cache(maxsize=16)
def _program(model):
  options = networks.call_options(model, train=False, progress=1.0)

  def program(variables, image):
    found: Any = model.apply(
      variables,
      _unit(image)[None],
      rngs={'quantizer': jax.random.key(0)},
      **options,
    )
    grey_levels = jnp.round(jnp.clip(255 * types.widened(found[0]), 0, 255))
    return grey_levels.astype(jnp.uint8)

  return jax.jit(program)


# Functions of the module, so that all tasks have the same ones and share programs.
def _unit(images: types.Array) -> types.Array:
  return images.astype(jnp.float32) / 255


def _turned(
  key: types.Array, images: types.Array, targets: types.Array
) -> tuple[types.Array, types.Array]:
  images, targets = data.random_symmetry(key, images, targets)
  return _unit(images), targets
