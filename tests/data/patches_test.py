"""Patches against the images that they are cut from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import data
from bitjax import types

RNG = np.random.default_rng(2)
SCALE, SIDE = 3, 4
SIZES = {'a': (18, 15), 'b': (12, 27), 'c': (12, 12)}


def images():
  """Images whose pixels tell where they are from: image, row and column."""
  found = {}
  for number, (name, (rows, columns)) in enumerate(SIZES.items()):
    row, column = np.mgrid[:rows, :columns]
    parts = [np.full_like(row, number), row, column]
    found[name] = np.stack(parts, axis=-1).astype(np.uint8)
  return found


PAIRS = data.make_pairs(images(), SCALE)


def taken(feed, start, num):
  fed = feed.chunk(start, num)
  take = jax.jit(feed.take)
  return [
    take(feed.arrays, jax.tree.map(lambda leaf, i=i: leaf[i], fed))
    for i in range(num)
  ]


def test_patches_are_windows_of_one_place_in_both():
  (feed,) = data.patch_feeds(PAIRS, 4, [5], side=SIDE, repeats=8)
  assert (feed.num_examples, feed.steps_per_epoch) == (24, 6)
  count, places = np.zeros(3, int), set()
  for low, high in taken(feed, 0, 6):
    assert low.dtype == high.dtype == np.uint8
    assert low.shape == (4, 4, 4, 3) and high.shape == (4, 12, 12, 3)
    for small, large in zip(np.asarray(low), np.asarray(high), strict=True):
      number, row, column = map(int, large[0, 0])
      count[number] += 1
      places.add((number, row, column))
      assert row % SCALE == column % SCALE == 0
      pair = PAIRS[number]
      np.testing.assert_array_equal(
        large, pair.high[row : row + 12, column : column + 12]
      )
      row, column = row // SCALE, column // SCALE
      np.testing.assert_array_equal(
        small, pair.low[row : row + 4, column : column + 4]
      )
  np.testing.assert_array_equal(
    count, 8
  )  # An epoch takes as many of each image.
  # The image c holds one patch, a six of them and b six.
  assert len({p for p in places if p[0] == 2}) == 1
  assert len({p for p in places if p[0] < 2}) > 6


def test_all_places_are_equally_likely():
  pairs = data.make_pairs({'a': images()['a']}, SCALE)
  (feed,) = data.patch_feeds(pairs, 200, [1], side=SIDE, repeats=200)
  count = np.zeros((3, 2), int)
  for _, high in taken(feed, 0, 3):
    for row, column in np.asarray(high)[:, 0, 0, 1:] // SCALE:
      count[row, column] += 1
  # 600 draws of six places: a chi-square of 5 degrees of freedom.
  assert np.sum((count - 100) ** 2 / 100) < 20.5  # One in a thousand.


def test_a_batch_is_a_function_of_seed_and_step():
  first, second = data.patch_feeds(PAIRS, 4, [5, 6], side=SIDE)
  whole = taken(first, 0, 5)
  again = taken(first, 3, 2)
  for one, other in zip(whole[3:], again, strict=True):
    np.testing.assert_array_equal(one.labels, other.labels)
  assert np.any(np.asarray(whole[0].labels) != taken(second, 0, 1)[0].labels)
  assert first.arrays is second.arrays and first.take is second.take
  (alone,) = data.patch_feeds(PAIRS, 4, [6], side=SIDE)
  np.testing.assert_array_equal(
    taken(second, 2, 1)[0].inputs, taken(alone, 2, 1)[0].inputs
  )


def test_files_give_the_batches_of_memory():
  pytest.importorskip('grain')
  (feed,) = data.patch_feeds(PAIRS, 4, [7], side=SIDE, repeats=3)
  host = data.patch_host_feed(PAIRS, 4, 7, side=SIDE, repeats=3)
  assert (host.num_examples, host.batch_size) == (9, 4)
  for start, num in ((0, 3), (3, 2), (1, 1)):
    pair = taken(feed, start, num), taken(host, start, num)
    for one, other in zip(*pair, strict=True):
      np.testing.assert_array_equal(one.inputs, other.inputs)
      np.testing.assert_array_equal(one.labels, other.labels)


def test_a_file_that_cannot_be_read_stops_the_feed():
  pytest.importorskip('grain')

  def read(index):
    raise types.BadInput('a.png: gone.')

  pairs = data.Pairs('x', 2, ('a.png',), ((4, 4),), read)
  host = data.patch_host_feed(pairs, 1, 0, side=4)
  with pytest.raises(types.BadInput, match=r'a.png: gone'):
    host.chunk(0, 1)


def test_tiles_cover_what_they_can_without_overlap():
  low, high, weights = data.padded_tiles(PAIRS, 4, side=2)
  # 6 x 5, 4 x 9 and 4 x 4 pixels at low resolution.
  assert weights.sum() == 3 * 2 + 2 * 4 + 2 * 2 == 18
  assert low.shape == (5, 4, 2, 2, 3) and high.shape == (5, 4, 6, 6, 3)
  low, high = (a.reshape(-1, *a.shape[2:]) for a in (low, high))
  assert not weights.reshape(-1)[18:].any() and not high[18:].any()
  seen = {tuple(map(int, tile[0, 0])) for tile in high[:18]}
  assert len(seen) == 18
  for small, large in zip(low[:18], high[:18], strict=True):
    number, row, column = map(int, large[0, 0])
    assert row % 6 == column % 6 == 0
    np.testing.assert_array_equal(
      small, PAIRS[number].low[row // 3 :, column // 3 :][:2, :2]
    )


def test_symmetries_are_eight_equally_likely_and_the_same_for_both():
  small = RNG.integers(0, 256, (1, 3, 3, 2), dtype=np.uint8)
  large = np.repeat(np.repeat(small, 2, axis=1), 2, axis=2)
  known = {}
  for turns in range(4):
    for mirrored in (False, True):
      image = np.rot90(small[0, :, ::-1] if mirrored else small[0], turns)
      known[image.tobytes()] = len(known)
  assert len(known) == 8
  n = 400
  images, targets = jax.jit(data.random_symmetry)(
    jax.random.key(1), np.repeat(small, n, 0), np.repeat(large, n, 0)
  )
  count = np.zeros(8, int)
  for one, other in zip(np.asarray(images), np.asarray(targets), strict=True):
    count[known[one.tobytes()]] += 1
    np.testing.assert_array_equal(other[::2, ::2], one)
  assert np.sum((count - n / 8) ** 2 / (n / 8)) < 24.3  # 7 degrees of freedom.


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (
      {'side': 5},
      r'b: 4 x 9 pixels .* no patch of 5 x 5; use a side of at most 4',
    ),
    ({'side': 0}, 'side must be'),
    ({'repeats': 0}, 'repeats must be'),
    ({'seeds': [-1]}, 'seeds must be'),
    ({'batch_size': 100}, 'A batch of 100'),
  ],
)
def test_bad_input(change, message):
  given = {'batch_size': 2, 'seeds': [0], 'side': 4} | change
  with pytest.raises(types.BadInput, match=message):
    data.patch_feeds(PAIRS, **given)


def test_bad_input_elsewhere():
  with pytest.raises(types.BadInput, match='no patch of 5 x 5'):
    data.padded_tiles(PAIRS, 1, side=5)
  with pytest.raises(types.BadInput, match='targets must be square'):
    data.random_symmetry(
      jax.random.key(0), jnp.zeros((1, 2, 2, 3)), jnp.zeros((1, 4, 2, 3))
    )
  with pytest.raises(types.BadInput, match='use patch_host_feed'):
    big = data.Pairs('big', 2, ('a',), ((1 << 15, 1 << 15),), PAIRS.read)
    data.patch_feeds(big, 1, [0], side=4)
