"""Loads data sets by name, as arrays of images and labels.

Images are uint8, as stored; multiply them by ``scale`` for pixel values in [0, 1].
Nothing is downloaded, and no file that could run code (a pickle) is read.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from bitjax import types
from bitjax.data import cache
from bitjax.data import cifar
from bitjax.data import embedded
from bitjax.data import idx
from bitjax.data import reading
from bitjax.data import synthetic

__all__ = ['DATASETS', 'SPLITS', 'Dataset', 'load']

SPLITS: tuple[str, ...] = ('train', 'test', 'all')


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """A data set of labelled images.

  Attributes:
    name: one of ``DATASETS``.
    split: one of ``SPLITS``, or ``'validation'`` (see `split_validation`).
    images: uint8 [N, H, W, C].
    labels: int32 [N], in ``[0, num_classes)``.
    num_classes: how many classes there are.
    scale: value of one unit of uint8: ``images * scale`` is in [0, 1].

  Raises:
    BadInput: for arrays of another type, or of shapes that do not match.
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
  'mnist': _Source(
    lambda part, data_dir, cache_dir: idx.read('mnist', part, data_dir),
    num_classes=idx.NUM_CLASSES,
  ),
  'fashion_mnist': _Source(
    lambda part, data_dir, cache_dir: idx.read('fashion_mnist', part, data_dir),
    num_classes=idx.NUM_CLASSES,
  ),
  'cifar10': _Source(
    functools.partial(cifar.read, 'cifar10'),
    num_classes=cifar.LAYOUTS['cifar10'].num_classes,
  ),
  'cifar100': _Source(
    functools.partial(cifar.read, 'cifar100'),
    num_classes=cifar.LAYOUTS['cifar100'].num_classes,
  ),
}

DATASETS: tuple[str, ...] = tuple(_SOURCES)


def load(
  name: str,
  *,
  split: str = 'all',
  data_dir: reading.PathLike | None = None,
  cache_dir: reading.PathLike | None = None,
) -> Dataset:
  """Reads a data set.

  Args:
    name: one of ``DATASETS``: ``mnist5k``, ``digits`` and ``digits32`` come with
      Python packages, ``synthetic`` is generated, and the others are read from
      files.
    split: ``'train'``, ``'test'``, or ``'all'``: train, then test.
    data_dir: folder of the files; not used by data sets without files.
    cache_dir: directory in which arrays that are slow to read are cached
      (mnist5k, digits, digits32, and CIFAR from parquet files). None means
      ``~/.cache/bitjax``.

  Returns:
    The data set; its arrays are read-only.

  Raises:
    BadInput: for an unknown name or split, a missing optional package, or a
      missing, truncated or wrongly-typed file. Its message is one line.
  """
  types.check_choice('dataset', name, DATASETS)
  types.check_choice('split', split, SPLITS)
  source = _SOURCES[name]
  parts = ('train', 'test') if split == 'all' else (split,)
  arrays = [source.read(part, data_dir, cache_dir) for part in parts]
  images = np.concatenate([images for images, _ in arrays])
  labels = np.concatenate([labels for _, labels in arrays])
  for array in (images, labels):
    array.setflags(write=False)
  return Dataset(name, split, images, labels, source.num_classes, source.scale)
