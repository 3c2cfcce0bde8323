"""Turns arrays of one's own into the images and labels that data sets hold.

Images become uint8 [N, H, W, C], in units of 1/255:

- integers from 0 to 255 stay as they are;
- floats from 0 to 1 are rounded to the nearest multiple of 1/255, an error of at most
  1/510, so that pixels that were bytes once are exact again;
- without an axis of channels ([N, H, W]) they get one, of length 1.

Labels, of shape [N] or [N, 1], become int32; floats must have integer values. The classes
are 0, 1, ... up to the largest label, and unless their number is given, each must
occur in the training part: a label that is missing is more likely an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bitjax import types
from bitjax.data import reading

__all__ = ['Parts', 'as_bytes', 'convert', 'convert_part']

_CHANNELS = (1, 3)


class Parts(NamedTuple):
  """A training and a test part, (images, labels) each, and their classes."""

  train: reading.Arrays
  test: reading.Arrays
  num_classes: int


def convert(
  named: Sequence[tuple[str, Any]], num_classes: int | None = None
) -> Parts:
  """Checks and converts the arrays of two parts.

  Args:
    named: training images and labels, then test images and labels, each with the
      name that messages give it.
    num_classes: number of classes; None infers it from the labels.

  Raises:
    BadInput: for an array that cannot be converted without a guess. The message is
      one line that names the array and the remedy.
  """
  (first, x), (second, y), (third, x_test), (fourth, y_test) = named
  images, test_images = _images(first, x), _images(third, x_test)
  if images.shape[1:] != test_images.shape[1:]:
    raise types.BadInput(
      f'{third}: expected images of the shape of {first}, '
      f'{list(images.shape[1:])}; got {list(test_images.shape[1:])}.'
    )
  labels = _labels(second, y, len(images))
  test_labels = _labels(fourth, y_test, len(test_images))
  if num_classes is None:
    num_classes = _count_classes(second, labels)
  types.check_integer('num_classes', num_classes, 2)
  reading.check_labels(second, labels, num_classes)
  reading.check_labels(fourth, test_labels, num_classes)
  return Parts((images, labels), (test_images, test_labels), num_classes)


def convert_part(
  named: Sequence[tuple[str, Any]], num_classes: int
) -> reading.Arrays:
  """Checks and converts the images and labels of one part, named as for `convert`."""
  (first, x), (second, y) = named
  images = _images(first, x)
  labels = _labels(second, y, len(images))
  reading.check_labels(second, labels, num_classes)
  return images, labels


def as_bytes(name: str, images: np.ndarray) -> np.ndarray:
  """Returns images as uint8: bytes as they are, other numbers as `from_arrays` does.

  Args:
    name: what messages call them.
    images: bytes, integers from 0 to 255, or floats from 0 to 1, of any shape.

  Raises:
    BadInput: for other numbers.
  """
  return images if images.dtype == np.uint8 else _pixels(name, images)


def _check_channels(name: str, shape: tuple[int, ...]) -> None:
  """Raises `BadInput` for a shape that looks like [N, C, H, W]."""
  if (
    len(shape) == 4
    and shape[1] in _CHANNELS
    and shape[3] not in _CHANNELS
    and shape[1] < min(shape[2:])
  ):
    raise types.BadInput(
      f'{name}: expected the axis of channels last, [N, H, W, C]; got '
      f'{list(shape)}, where it is second: pass images.transpose(0, 2, 3, 1).'
    )


def _images(name: str, value: Any) -> np.ndarray:
  images = _array(name, value)
  if images.ndim == 3:
    images = images[..., np.newaxis]
  if images.ndim != 4 or not images.size:
    raise types.BadInput(
      f'{name}: expected images [N, H, W, C] or [N, H, W], none of them 0; got '
      f'{list(np.shape(value))}. Reshape flat images to their height and width.'
    )
  _check_channels(name, images.shape)
  return _pixels(name, images)


def _pixels(name: str, images: np.ndarray) -> np.ndarray:
  low, high = images.min(), images.max()  # NaN, if there is one.
  if images.dtype.kind == 'f':
    if not 0 <= low <= high <= 1:
      raise types.BadInput(
        f'{name}: expected floats from 0 to 1; got values from {low} to {high}. '
        'Rescale them; bytes that became floats are divided by 255.'
      )
    return np.rint(images * np.float32(255)).astype(np.uint8)
  if images.dtype.kind not in 'iu' or not 0 <= low <= high <= 255:
    raise types.BadInput(
      f'{name}: expected integers from 0 to 255 or floats from 0 to 1; got '
      f'{images.dtype} from {low} to {high}. Rescale them.'
    )
  if high <= 1:
    raise types.BadInput(
      f'{name}: expected integers in units of 1/255; got none above {high}, '
      'which is black. Multiply them by 255, or convert them to float.'
    )
  return images.astype(np.uint8)


def _labels(name: str, value: Any, size: int) -> np.ndarray:
  labels = _array(name, value)
  if labels.ndim == 2 and labels.shape[1] == 1:
    labels = labels[:, 0]
  if labels.shape != (size,):
    hint = ' Turn one-hot rows into labels with argmax(axis=1).'
    raise types.BadInput(
      f'{name}: expected {size} labels, one for each image; got shape '
      f'{list(labels.shape)}.{hint if labels.ndim == 2 else ""}'
    )
  if labels.dtype.kind not in 'biuf':
    raise types.BadInput(f'{name}: expected integers; got {labels.dtype}.')
  if labels.dtype.kind == 'f':
    labels = labels.astype(np.float64)
  good = (labels >= 0) & (labels < np.iinfo(np.int32).max)
  good &= labels == np.rint(labels)  # NaN is not equal to itself.
  if not np.all(good):
    where = int(np.argmin(good))
    raise types.BadInput(
      f'{name}: expected integers from 0, the number of the class; got '
      f'{labels[where]} at index {where}.'
    )
  return labels.astype(np.int32)


def _count_classes(name: str, labels: np.ndarray) -> int:
  """Returns the number of classes, all of which must occur in ``labels``."""
  classes = np.unique(labels)
  if len(classes) < 2:
    raise types.BadInput(
      f'{name}: expected labels of at least two classes; got {classes[0]} alone.'
    )
  gaps = np.flatnonzero(classes != np.arange(len(classes)))
  if gaps.size:
    raise types.BadInput(
      f'{name}: expected every label from 0 to the largest, {classes[-1]}; '
      f'got none of {gaps[0]}. Number the classes from 0 without gaps.'
    )
  return len(classes)


def _array(name: str, value: Any) -> np.ndarray:
  try:
    return np.asarray(value)
  except Exception as error:  # Ragged lists, tracers, anything with __array__.
    raise types.BadInput(
      f'{name}: expected an array; got one that NumPy cannot hold: '
      f'{reading.one_line(error)}.'
    ) from error
