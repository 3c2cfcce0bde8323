"""Validation splits, and padded batches in which every example counts once."""

import numpy as np
import pytest

from bitjax import data
from bitjax import types


def dataset_of(labels):
  """Images that carry their number, so that they can be followed."""
  labels = np.asarray(labels, np.int32)
  numbers = np.arange(len(labels))
  images = np.stack([numbers % 256, numbers // 256], axis=1).astype(np.uint8)
  return data.Dataset(
    'numbered', 'train', images[:, None, None], labels, 9, 1.0
  )


def numbers_of(dataset):
  images = dataset.images.astype(int)
  return images[:, 0, 0, 0] + 256 * images[:, 0, 0, 1]


# Classes of very different sizes, mixed; one has a single example.
SIZES = (200, 100, 37, 1)
LABELS = np.random.default_rng(0).permutation(np.repeat(range(4), SIZES))
DATASET = dataset_of(LABELS)


@pytest.mark.parametrize('size', [1, 7, 34, 169, 337])
def test_a_split_divides_the_data_in_proportion_to_classes(size):
  train, validation = data.split_validation(DATASET, size, 0)
  first, second = numbers_of(train), numbers_of(validation)
  assert len(second) == size
  assert sorted([*first, *second]) == list(range(len(LABELS)))
  # Both parts keep the order of the data and the labels of their images.
  for part, numbers in ((train, first), (validation, second)):
    assert np.all(np.diff(numbers) > 0)
    np.testing.assert_array_equal(part.labels, LABELS[numbers])
    assert not part.images.flags.writeable and not part.labels.flags.writeable
  counts = np.bincount(validation.labels, minlength=4)
  exact = np.array(SIZES) * size / sum(SIZES)
  assert np.all((np.floor(exact) <= counts) & (counts <= np.ceil(exact)))
  assert (train.split, validation.split) == ('train', 'validation')
  assert train.name == DATASET.name and train.num_classes == 9


def test_a_split_is_a_function_of_its_seed_and_all_examples_have_a_chance():
  def held_out(seed):
    return numbers_of(data.split_validation(DATASET, 34, seed)[1])

  np.testing.assert_array_equal(held_out(5), held_out(5))
  assert len(set(held_out(0)) & set(held_out(1))) < 20
  counts = np.bincount(
    np.concatenate([held_out(seed) for seed in range(300)]),
    minlength=len(LABELS),
  )
  # A split holds out a tenth of a large class: Binomial(300, 0.1), deviation 5.2.
  large = counts[LABELS < 2]
  assert np.all(np.abs(large - 300 * 34 / 338) < 5 * 5.2)


@pytest.mark.parametrize(
  'size,seed,pattern',
  [
    (338, 0, 'validation part of 338 leaves nothing.*has 338.*from 1 to 337'),
    (400, 0, 'leaves nothing to train on'),
    (0, 0, 'size must be an integer >= 1; got 0'),
    (0.1, 0, 'size must be an integer >= 1; got 0.1'),
    (5, -2, 'seed must be an integer >= 0; got -2'),
  ],
)
def test_bad_splits_are_one_line(size, seed, pattern):
  with pytest.raises(types.BadInput, match=pattern) as error:
    data.split_validation(DATASET, size, seed)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'batch_size,num_batches', [(50, 7), (26, 13), (338, 1), (1000, 1), (1, 338)]
)
def test_padded_batches_count_every_example_once(batch_size, num_batches):
  images, labels, weights = data.padded_batches(DATASET, batch_size)
  assert images.shape == (num_batches, batch_size, 1, 1, 2)
  assert labels.shape == weights.shape == images.shape[:2]
  assert (images.dtype, labels.dtype, weights.dtype) == (
    np.uint8,
    np.int32,
    np.float32,
  )
  assert set(np.unique(weights)) <= {0, 1}
  real = weights == 1
  np.testing.assert_array_equal(images[real], DATASET.images)
  np.testing.assert_array_equal(labels[real], LABELS)
  # A mean over batches is a mean over examples.
  means = np.sum(weights * labels) / np.sum(weights)
  assert means == pytest.approx(LABELS.mean(), rel=1e-6)


def test_bad_padding_is_one_line():
  with pytest.raises(
    types.BadInput, match='batch_size must be an integer >= 1'
  ):
    data.padded_batches(DATASET, 0)
  with pytest.raises(types.BadInput, match='numbered has no example'):
    data.padded_batches(dataset_of([]), 3)
