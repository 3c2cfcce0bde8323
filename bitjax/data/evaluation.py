"""What a model is judged on: a part held out, and every example once."""

from __future__ import annotations

import dataclasses

import numpy as np

from bitjax import types
from bitjax.data import datasets
from bitjax.data import embedded

__all__ = ['padded_batches', 'split_validation']


def split_validation(
  dataset: datasets.Dataset, size: int, seed: int
) -> tuple[datasets.Dataset, datasets.Dataset]:
  """Divides a training set: to train on, and to choose among models by.

  Stratified: of a class that has a share ``p`` of the data the validation part
  has ``p * size`` examples, rounded up or down; which ones, the seed decides.
  The same on every machine. Both parts keep the order of the data.

  Args:
    dataset: the training set.
    size: examples of the validation part.
    seed: an integer >= 0.

  Returns:
    The data sets ``(train, validation)``; the ``split`` of the second is
    ``'validation'``.

  Raises:
    ValueError: for a size that leaves one of them without examples.
  """
  total = len(dataset.labels)
  types.check_integer('size', size, 1)
  types.check_integer('seed', seed, 0)
  if size >= total:
    raise types.BadInput(
      f'A validation part of {size} leaves nothing to train on; the data has '
      f'{total} examples. Use a size from 1 to {total - 1}.'
    )
  order = embedded.permutation(total, seed)
  by_class = order[np.argsort(dataset.labels[order], kind='stable')]
  # Evenly spaced places hit an interval, here a class, in proportion.
  places = (2 * np.arange(size) + 1) * total // (2 * size)
  held_out = np.zeros(total, bool)
  held_out[by_class[places]] = True
  return (
    _part(dataset, ~held_out, dataset.split),
    _part(dataset, held_out, 'validation'),
  )


def padded_batches(
  dataset: datasets.Dataset, batch_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Cuts a data set into batches of one size, for a ``lax.scan`` or ``map``.

  Args:
    dataset: the data.
    batch_size: examples of a batch; the last is filled up with zeros.

  Returns:
    Images uint8 [M, B, H, W, C] and labels int32 [M, B], in the order of the
    data, and weights, float32 [M, B]: 1 for an example, 0 for what fills up. A sum
    with these weights, over the sum of these weights, is a mean over examples.

  Raises:
    ValueError: for ``batch_size < 1``, or data without examples.
  """
  types.check_integer('batch_size', batch_size, 1)
  size = len(dataset.labels)
  if not size:
    raise types.BadInput(f'{dataset.name} has no example to evaluate on.')
  num_batches = -(-size // batch_size)
  missing = num_batches * batch_size - size

  def cut(array):
    padding = [(0, missing)] + [(0, 0)] * (array.ndim - 1)
    padded = np.pad(array, padding)
    return padded.reshape(num_batches, batch_size, *array.shape[1:])

  weights = cut(np.ones(size, np.float32))
  return cut(dataset.images), cut(dataset.labels), weights


def _part(
  dataset: datasets.Dataset, chosen: np.ndarray, split: str
) -> datasets.Dataset:
  """Returns the chosen examples, read-only."""
  arrays = dataset.images[chosen], dataset.labels[chosen]
  for array in arrays:
    array.setflags(write=False)
  images, labels = arrays
  return dataclasses.replace(dataset, split=split, images=images, labels=labels)
