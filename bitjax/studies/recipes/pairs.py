"""Images to enlarge: the flags of trainings on them, and their three parts.

The parts are images to train on, images to choose rates or checkpoints by, and images to
test on once. Training images that fit are read once and kept; of larger folders each patch
reads its image anew.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import hashlib
from typing import Any, NamedTuple
import warnings

import jax
import numpy as np

from bitjax import cli
from bitjax import data
from bitjax import files
from bitjax import measures
from bitjax import types

__all__ = ['SOURCES', 'PairsConfig', 'Parts', 'checksum', 'feeds', 'load']

SOURCES = ('photographs', 'folder')
_TRAIN = 'train'  # The folder of photographs to train on.
_HELD = (
  1 << 30
)  # Pixels at high resolution that are kept; 3 bytes each, and low ones.
_MOST = (1 << 31) - 1  # Updates that can be counted.


class Parts(NamedTuple):
  """Pairs of images; no image, and no part of one, is in two of them."""

  train: data.Pairs
  validation: data.Pairs
  test: data.Pairs


@dataclasses.dataclass(frozen=True)
class PairsConfig:
  """The flags for images, patches and length of trainings that enlarge images."""

  images: str = cli.flag(
    'photographs',
    'photographs: those of scikit-image and scikit-learn, without files; folder: DIR/train '
    'and a test set in --data_dir=DIR.',
    choices=SOURCES,
  )
  data_dir: str | None = cli.flag(None, 'Folder of train and of the test set.')
  test_set: str = cli.flag('Set5', 'Folder of the test images in --data_dir.')
  validation_images: int = cli.flag(
    2,
    'Training images that are not trained on, but choose learning rates or the best '
    'checkpoint.',
    minimum=1,
  )
  scale: int = cli.flag(
    2, 'How many times larger images become.', choices=(2, 3, 4)
  )
  side: int = cli.flag(
    16, 'Height and width of a patch at low resolution.', minimum=4
  )
  batch_size: int = cli.flag(8, 'Patches of an update.', minimum=1)
  repeats: int = cli.flag(
    16, 'Patches that an epoch takes from each image.', minimum=1
  )
  epochs: float = cli.flag(
    25.0,
    'Passes over the training images; schedules keep their shape.',
    exclusive_minimum=0,
  )
  learning_rate: float = cli.flag(
    4e-3, 'Learning rate of Adam at its peak.', exclusive_minimum=0
  )
  seeds: tuple[int, ...] = cli.flag(
    tuple(range(8)),
    'Seeds: each has an initialisation and an order of patches of its own.',
    minimum=0,
    unique=True,
  )
  precision: str = cli.precision_flag()
  dtype: str = cli.dtype_flag()

  def num_steps(self, num_images: int) -> int:
    """Returns the number of updates of a training on so many images."""
    an_epoch = num_images * self.repeats // self.batch_size
    steps = round(self.epochs * an_epoch)
    if not 1 <= steps <= _MOST:
      raise types.BadInput(
        f'epochs must give from 1 to {_MOST} updates of {self.batch_size} of the '
        f'{num_images * self.repeats} patches of an epoch; got {self.epochs:g}.'
      )
    return steps

  def load(self) -> tuple[Parts, dict[str, Any]]:
    """Returns the images, and the facts by which a run records which they are."""
    parts = load(
      self.images,
      self.data_dir,
      self.test_set,
      self.scale,
      self.validation_images,
    )
    # What is measured at the end must not be refused only then.
    _check_measured(parts.validation, measures.psnr)
    _check_measured(parts.test, measures.ssim)
    records = {
      f'{name}_checksum': checksum(part)
      for name, part in parts._asdict().items()
    }
    return parts, records | {'train_examples': len(parts.train)}


def load(
  source: str,
  data_dir: str | None,
  test_set: str,
  scale: int,
  validation_images: int,
) -> Parts:
  """Reads all images, but for training images that are too many to keep.

  Args:
    source: ``'photographs'`` for those that come with packages, or ``'folder'``.
    data_dir: a folder with photographs in ``train``, and with the test set.
    test_set: the test set's folder there.
    scale: how many times larger the images at high resolution are.
    validation_images: number of training images that are not trained on.

  Raises:
    BadInput: for a missing or malformed folder, one with too few images, or one that is
      not asked for.
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
  elif data_dir is not None:
    raise types.BadInput(
      f'data_dir={data_dir} is for images=folder; got images={source}, which come '
      'with packages.'
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
    _part(whole, sorted(order[validation_images:])),
    _part(whole, sorted(order[:validation_images]), keep=True),
    _part(test, range(len(test)), keep=True),
  )


def feeds(
  config: PairsConfig, pairs: data.Pairs, seeds: Sequence[int]
) -> list[data.Feed]:
  """Returns a feed of patches for each seed: from the device, or from files if they are many.

  Raises:
    BadInput: for an image that is smaller than a patch, or too few patches for a batch.
  """
  options: Any = {'side': config.side, 'repeats': config.repeats}
  if _fits(pairs):
    return data.patch_feeds(pairs, config.batch_size, seeds, **options)
  return [
    data.patch_host_feed(pairs, config.batch_size, seed, **options)
    for seed in seeds
  ]


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


def _check_measured(pairs, measure):
  """Raises `BadInput`, naming the image, unless all are large enough for a measure."""
  smallest = min(range(len(pairs)), key=lambda at: min(pairs.sizes[at]))
  sides = (pairs.scale * length for length in pairs.sizes[smallest])
  image = jax.ShapeDtypeStruct((*sides, 3), np.uint8)
  measured = functools.partial(measure, border=pairs.scale)
  try:
    jax.eval_shape(measured, image, image)
  except types.BadInput as error:
    raise types.BadInput(f'{pairs.names[smallest]}: {error}') from None


def checksum(pairs: data.Pairs) -> str:
  """Returns the sha256 of all pixels and shapes."""
  found = hashlib.sha256()
  for pair in pairs:
    for image in (pair.low, pair.high):
      found.update(str(image.shape).encode())
      found.update(np.ascontiguousarray(image).tobytes())
  return found.hexdigest()


def _fits(pairs):
  """Returns whether images are few enough to be kept."""
  pixels = sum(rows * columns for rows, columns in pairs.sizes)
  return pixels * pairs.scale**2 <= _HELD


def _part(pairs, indices, *, keep=False):
  """Returns some of the pairs; read once, as each training needs all, if they fit."""
  indices = list(indices)
  part = data.Pairs(
    pairs.name,
    pairs.scale,
    tuple(pairs.names[index] for index in indices),
    tuple(pairs.sizes[index] for index in indices),
    lambda index: pairs[indices[index]],
  )
  if not (keep or _fits(part)):
    return part
  kept = tuple(pairs[index] for index in indices)
  return dataclasses.replace(part, read=kept.__getitem__)
