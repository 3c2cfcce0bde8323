"""Parts of data sets, and smaller images, against plain loops."""

import numpy as np
import pytest

from bitjax import data
from bitjax import types

RNG = np.random.default_rng(0)


def dataset(size=40, side=6, channels=3):
  images = RNG.integers(0, 256, (size, side, side, channels), np.uint8)
  labels = (np.arange(size) % 4).astype(np.int32)
  return data.Dataset('d', 'train', images, labels, 4, 1 / 255)


@pytest.mark.parametrize('side', [1, 2, 3, 6])
def test_pixels_are_means_of_squares(side):
  whole = dataset()
  found = data.reduced(whole, side=side)
  block = 6 // side
  wanted = np.empty((40, side, side, 3))
  for i in range(side):
    for j in range(side):
      rows, columns = (slice(k * block, (k + 1) * block) for k in (i, j))
      wanted[:, i, j] = whole.images[:, rows, columns].mean((1, 2))
  assert found.images.dtype == np.uint8
  # At halves, either neighbour is as near.
  assert np.abs(found.images - wanted).max() <= 0.5
  assert (found.labels == whole.labels).all()
  assert (found.name, found.split, found.scale) == ('d', 'train', 1 / 255)


def test_halves_are_rounded_to_even():
  images = np.array([[0, 1], [1, 0]], np.uint8)[None, ..., None]
  half = data.Dataset('d', 'test', images, np.zeros(1, np.int32), 2, 1.0)
  assert data.reduced(half, side=1).images.item() == 0
  odd = data.Dataset('d', 'test', images + 1, np.zeros(1, np.int32), 2, 1.0)
  assert data.reduced(odd, side=1).images.item() == 2  # 1.5.


def test_examples_keep_shares_order_and_split():
  whole = dataset()
  found = data.reduced(whole, examples=12)
  assert np.bincount(found.labels).tolist() == [3] * 4
  assert found.split == 'train'
  rows = [
    int(np.flatnonzero((whole.images == image).all((1, 2, 3)))[0])
    for image in found.images
  ]
  assert rows == sorted(set(rows))
  assert (data.reduced(whole, examples=12).images == found.images).all()
  assert data.reduced(whole, examples=40) is whole
  assert data.reduced(whole) is whole


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    ({'examples': 41}, 'examples must be at most 40'),
    ({'examples': 0}, 'examples must be an integer >= 1'),
    (
      {'side': 4},
      'side must divide the height and width of square images, 6 x 6',
    ),
    ({'side': 0}, 'side must be an integer >= 1'),
  ],
)
def test_bad_input(options, words):
  with pytest.raises(types.BadInput, match=words):
    data.reduced(dataset(), **options)


def test_images_that_are_not_square():
  wide = data.Dataset(
    'd', 'test', np.zeros((2, 4, 6, 1), np.uint8), np.zeros(2, np.int32), 2, 1.0
  )
  with pytest.raises(types.BadInput, match='4 x 6; got 2'):
    data.reduced(wide, side=2)
