"""Data to evaluate models on: a validation split, and batches of all examples."""

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
  """Splits a training set into a part to train on and one to choose models by.

  The split is stratified: the validation part has ``p * size`` examples, rounded up
  or down, of a class whose share of the data is ``p``. The seed decides which ones,
  and the result is the same on every machine. Both parts keep the order of the data.

  Args:
    dataset: the training set.
    size: number of examples in the validation part.
    seed: an integer in [0, 2**32).

  Returns:
    The data sets ``(train, validation)``; the ``split`` of the second is
    ``'validation'``.

  Raises:
    BadInput: for a size that leaves a part without examples, or a seed outside 0, ..., 2**32 - 1.
  """
  total = len(dataset.labels)
  types.check_integer('size', size, 1)
  types.check_seed('seed', seed)
  if size >= total:
    raise types.BadInput(
      f'A validation part of {size} leaves nothing to train on; the data has '
      f'{total} examples. Use a size from 1 to {total - 1}.'
    )
  order = embedded.permutation(total, seed)
  by_class = order[np.argsort(dataset.labels[order], kind='stable')]
  # Evenly spaced positions hit every class, here an interval, in proportion.
  positions = (2 * np.arange(size) + 1) * total // (2 * size)
  held_out = np.zeros(total, bool)
  held_out[by_class[positions]] = True
  return (
    _part(dataset, ~held_out, dataset.split),
    _part(dataset, held_out, 'validation'),
  )


def padded_batches(
  dataset: datasets.Dataset, batch_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Cuts a data set into batches of one size, for ``lax.scan`` or ``lax.map``.

  Args:
    dataset: the data.
    batch_size: examples in each batch; the last batch is padded with zeros.

  Returns:
    Images uint8 [M, B, H, W, C] and labels int32 [M, B], in the order of the
    data, and weights, float32 [M, B]: 1 for an example, 0 for padding. A sum with
    these weights, divided by the sum of the weights, is a mean over examples.

  Raises:
    BadInput: for ``batch_size < 1``, or data without examples.
  """
  types.check_integer('batch_size', batch_size, 1)
  size = len(dataset.labels)
  if not size:
    raise types.BadInput(f'{dataset.name} has no example to evaluate on.')
  num_batches = -(-size // batch_size)
  num_missing = num_batches * batch_size - size

  def cut(array):
    padding = [(0, num_missing)] + [(0, 0)] * (array.ndim - 1)
    padded = np.pad(array, padding)
    return padded.reshape(num_batches, batch_size, *array.shape[1:])

  weights = cut(np.ones(size, np.float32))
  return cut(dataset.images), cut(dataset.labels), weights


def _part(
  dataset: datasets.Dataset, chosen: np.ndarray, split: str
) -> datasets.Dataset:
  """Returns the data set of the chosen examples, with read-only arrays."""
  arrays = dataset.images[chosen], dataset.labels[chosen]
  for array in arrays:
    array.setflags(write=False)
  images, labels = arrays
  return dataclasses.replace(dataset, split=split, images=images, labels=labels)
