"""Loads data sets by name, or makes them of arrays: images and labels.

Images are uint8, as stored; multiply them by ``scale`` for pixel values in [0, 1].
Nothing is downloaded, and no file that could run code (a pickle) is read.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import os
from typing import Any, NamedTuple

import numpy as np

from bitjax import files
from bitjax import types
from bitjax.data import arrays
from bitjax.data import cache
from bitjax.data import embedded
from bitjax.data import layouts
from bitjax.data import npz
from bitjax.data import reading
from bitjax.data import stored
from bitjax.data import synthetic

__all__ = [
  'DATASETS',
  'DESCRIPTION',
  'SPLITS',
  'Dataset',
  'check_name',
  'from_arrays',
  'load',
]

SPLITS: tuple[str, ...] = ('train', 'test', 'all')


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """A data set of labelled images; `from_arrays` makes one of other arrays.

  Attributes:
    name: one of ``DATASETS``, or any other.
    split: one of ``SPLITS``, or ``'validation'`` (see `split_validation`).
    images: uint8 [N, H, W, C].
    labels: int32 [N], in ``[0, num_classes)``.
    num_classes: how many classes there are.
    scale: value of one unit of uint8: ``images * scale`` is in [0, 1].

  Raises:
    BadInput: for arrays of another type or of shapes that do not match.
  """

  name: str
  split: str
  images: np.ndarray
  labels: np.ndarray
  num_classes: int
  scale: float

  def __post_init__(self):
    images, labels = self.images, self.labels
    if (
      images.dtype != np.uint8
      or images.ndim != 4
      or labels.dtype != np.int32
      or labels.shape != images.shape[:1]
    ):
      raise types.BadInput(
        'images must be uint8 [N, H, W, C] and labels int32 [N]; got '
        f'{images.dtype} {images.shape} and {labels.dtype} {labels.shape}.'
      )
    types.check_integer('num_classes', self.num_classes, 1)
    types.check_positive('scale', self.scale, finite=True)
    reading.check_labels(self.name, labels, self.num_classes)

  def __len__(self) -> int:
    """Returns the number of examples."""
    return len(self.labels)

  @functools.cached_property
  def checksum(self) -> str:
    """The sha256 of images, labels and shapes: the same on all machines."""
    return cache.checksum(self.images, self.labels)


class _Source(NamedTuple):
  """How to read one part of a data set, and what its numbers mean."""

  # (part, data_dir, cache_dir) -> images, labels.
  read: Callable[
    [str, reading.PathLike | None, reading.PathLike | None], reading.Arrays
  ]
  num_classes: int
  scale: float = 1 / 255


_SOURCES = {
  'mnist5k': _Source(
    lambda part, data_dir, cache_dir: embedded.mnist5k(part, cache_dir),
    num_classes=10,
  ),
  'digits': _Source(
    lambda part, data_dir, cache_dir: embedded.digits(part, cache_dir),
    num_classes=10,
    scale=1 / 16,
  ),
  'digits32': _Source(
    lambda part, data_dir, cache_dir: embedded.digits32(part, cache_dir),
    num_classes=10,
  ),
  'synthetic': _Source(
    lambda part, data_dir, cache_dir: synthetic.read(part),
    num_classes=synthetic.NUM_CLASSES,
  ),
  **{
    name: _Source(functools.partial(stored.read, name), kind.num_classes)
    for name, kind in stored.KINDS.items()
  },
}

DATASETS: tuple[str, ...] = tuple(_SOURCES)
DESCRIPTION = (
  f'Data set: one of {", ".join(DATASETS)}, or a file NAME.npz with arrays x_train, '
  f'y_train, x_test and y_test. {layouts.WITHOUT_FILES} need no files.'
)


def check_name(name: reading.PathLike) -> None:
  """Raises `BadInput` unless `load` takes ``name``; no file is looked for."""
  if not _is_file(name) and name not in DATASETS:
    raise types.BadInput(
      f'dataset must be one of {", ".join(DATASETS)}, or a file NAME.npz; got '
      f'{name!r}.'
    )


def load(
  name: reading.PathLike,
  *,
  split: str = 'all',
  data_dir: reading.PathLike | None = None,
  cache_dir: reading.PathLike | None = None,
) -> Dataset:
  """Reads a data set.

  Args:
    name: one of ``DATASETS``: ``mnist5k``, ``digits`` and ``digits32`` come with
      Python packages, ``synthetic`` is generated, and the others are read from
      files in ``data_dir``. Or the path of an ``.npz`` file with the arrays
      ``x_train``, ``y_train``, ``x_test`` and ``y_test`` (or ``train_images``,
      ``train_labels``, ...), which are converted as by `from_arrays`.
    split: ``'train'``, ``'test'``, or ``'all'``: train, then test.
    data_dir: folder of the files; not used by data sets without files, or if the
      name is a path. Like all paths here it may begin with ``~``.
    cache_dir: directory in which arrays that are slow to read are cached
      (mnist5k, digits, digits32, and parquet files). None means
      ``~/.cache/bitjax``.

  Returns:
    The data set; its arrays are read-only.

  Raises:
    BadInput: for an unknown name or split, a missing optional package, or a
      missing, truncated or wrongly-typed file. Its message is one line.
  """
  check_name(name)
  types.check_choice('split', split, SPLITS)
  parts = ('train', 'test') if split == 'all' else (split,)
  if _is_file(name):
    path = files.expand(name)
    both = npz.read(path)
    found = [getattr(both, part) for part in parts]
    return _dataset(path.stem, split, found, both.num_classes, 1 / 255)
  source = _SOURCES[os.fspath(name)]
  found = [source.read(part, data_dir, cache_dir) for part in parts]
  return _dataset(
    os.fspath(name), split, found, source.num_classes, source.scale
  )


def from_arrays(
  train_images: Any,
  train_labels: Any,
  test_images: Any,
  test_labels: Any,
  *,
  name: str = 'arrays',
  num_classes: int | None = None,
) -> tuple[Dataset, Dataset]:
  """Makes data sets of arrays: a training and a test set.

  Args:
    train_images: integers from 0 to 255, kept, or floats from 0 to 1, rounded to
      the nearest multiple of 1/255; [N, H, W, C] or [N, H, W].
    train_labels: the class of each image, from 0; integers, or floats with integer
      values, [N] or [N, 1].
    test_images: as the training images, and of their shape but for N.
    test_labels: as the training labels.
    name: a name for messages.
    num_classes: number of classes; None counts the training labels, of which each
      from 0 to the largest must then occur.

  Returns:
    The data sets ``(train, test)``, whose arrays are read-only copies.

  Raises:
    BadInput: for arrays of another kind; the message says how to convert them.
  """
  both = arrays.convert(
    [
      ('train_images', train_images),
      ('train_labels', train_labels),
      ('test_images', test_images),
      ('test_labels', test_labels),
    ],
    num_classes,
  )
  return (
    _dataset(name, 'train', [both.train], both.num_classes, 1 / 255),
    _dataset(name, 'test', [both.test], both.num_classes, 1 / 255),
  )


def _is_file(name: Any) -> bool:
  """Returns whether ``name`` is the path of an ``.npz`` file, there or not."""
  return isinstance(name, (str, os.PathLike)) and os.fspath(name).endswith(
    '.npz'
  )


def _dataset(
  name: str,
  split: str,
  parts: list[reading.Arrays],
  num_classes: int,
  scale: float,
) -> Dataset:
  """Returns the data set of all parts in order, with arrays of its own."""
  images = np.concatenate([images for images, _ in parts])
  labels = np.concatenate([labels for _, labels in parts])
  for array in (images, labels):
    array.setflags(write=False)
  return Dataset(name, split, images, labels, num_classes, scale)
