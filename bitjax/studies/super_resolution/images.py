"""The images of the study: to train on, to choose learning rates by, and to test on once."""

from __future__ import annotations

import functools
import hashlib
from typing import NamedTuple
import warnings

import numpy as np

from bitjax import data
from bitjax import files
from bitjax import types

__all__ = ['SOURCES', 'Parts', 'checksum', 'crops', 'load']

SOURCES = ('photographs', 'folder')
_TRAIN = 'train'  # The folder of photographs to train on.


class Parts(NamedTuple):
  """Pairs of images; no image, and no part of one, is in two of them."""

  train: data.Pairs
  validation: data.Pairs
  test: data.Pairs


def load(
  source: str,
  data_dir: str | None,
  test_set: str,
  scale: int,
  validation_images: int,
) -> Parts:
  """Reads all images.

  Args:
    source: ``'photographs'`` for those that come with packages, or ``'folder'``.
    data_dir: a folder with photographs in ``train``, and with the test set.
    test_set: the test set's folder there.
    scale: how many times larger the images at high resolution are.
    validation_images: number of training images that are not trained on.

  Raises:
    BadInput: for a missing or malformed folder, or one with too few images.
  """
  if source == 'folder':
    if data_dir is None:
      raise types.BadInput(
        f'images=folder needs --data_dir, a folder with photographs in {_TRAIN} and '
        f'test images in {test_set}.'
      )
    folder = files.expand(data_dir)
    places = (_TRAIN, 'train'), (test_set, 'test')
    whole, test = (
      data.load_pairs(folder / name, scale, split=split)
      for name, split in places
    )
  else:
    whole, test = _photographs(scale)
  if validation_images >= len(whole):
    raise types.BadInput(
      f'validation_images must leave some of the {len(whole)} training images; got '
      f'{validation_images}.'
    )
  order = np.random.default_rng(0).permutation(len(whole)).tolist()
  return Parts(
    _read(whole, sorted(order[validation_images:])),
    _read(whole, sorted(order[:validation_images])),
    _read(test, range(len(test))),
  )


@functools.lru_cache(maxsize=2)
def _photographs(scale):
  with (
    warnings.catch_warnings()
  ):  # Their sides are known, so nobody need be told.
    warnings.filterwarnings('ignore', '.*are cropped', UserWarning)
    return tuple(
      data.load_pairs('photographs', scale, split=split)
      for split in data.PAIR_SPLITS
    )


def checksum(pairs: data.Pairs) -> str:
  """Returns the sha256 of all pixels and shapes."""
  found = hashlib.sha256()
  for pair in pairs:
    for image in (pair.low, pair.high):
      found.update(str(image.shape).encode())
      found.update(np.ascontiguousarray(image).tobytes())
  return found.hexdigest()


def crops(
  parts: Parts, number: int, side: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the middles of some images at low and at high resolution.

  Args:
    parts: the images; those of the test set come first, then validation and training.
    number: how many images, at most.
    side: height and width of a crop at low resolution; less if an image is smaller.

  Returns:
    uint8 [images, side, side, 3] and [images, scale side, scale side, 3].
  """
  pairs = [pair for part in reversed(parts) for pair in part][:number]
  scale = parts.test.scale
  side = min(side, *(min(pair.low.shape[:2]) for pair in pairs))
  low, high = [], []
  for pair in pairs:
    row, column = ((length - side) // 2 for length in pair.low.shape[:2])
    low.append(pair.low[row : row + side, column : column + side])
    row, column = scale * row, scale * column
    far = scale * side
    high.append(pair.high[row : row + far, column : column + far])
  return np.stack(low), np.stack(high)


def _read(pairs, indices):
  """Returns some of the pairs, read once, as each training needs all of them."""
  indices = list(indices)
  kept = tuple(pairs[index] for index in indices)
  return data.Pairs(
    pairs.name,
    pairs.scale,
    tuple(pairs.names[index] for index in indices),
    tuple(pairs.sizes[index] for index in indices),
    kept.__getitem__,
  )
