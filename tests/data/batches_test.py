"""Search and held-out batches: disjoint, independent, reproducible."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import data
from bitjax import types
from bitjax.data import batches

H, W, C = 5, 7, 2


def tagged(num, seed=0):
  """Random images without zeros, and labels that number them."""
  rng = np.random.default_rng(seed)
  images = rng.integers(1, 256, (num, H, W, C), dtype=np.uint8)
  return images, np.arange(num, dtype=np.int32)


@functools.partial(jax.jit, static_argnums=3, static_argnames='augment')
def draw(key, images, labels, batch_size, augment='none'):
  return data.search_and_holdout(
    key, images, labels, batch_size, augment=augment
  )


def draws(keys, images, labels, batch_size, augment='none'):
  def one(key, images, labels):
    return data.search_and_holdout(
      key, images, labels, batch_size, augment=augment
    )

  many = jax.jit(jax.vmap(one, in_axes=(0, None, None)))
  return jax.tree.map(np.asarray, many(keys, images, labels))


def shifted(image, down, right):
  """Shifts an image in NumPy, one pixel at a time."""
  out = np.zeros_like(image)
  for i in range(H):
    for j in range(W):
      if 0 <= i - down < H and 0 <= j - right < W:
        out[i, j] = image[i - down, j - right]
  return out


@pytest.fixture(autouse=True)
def strict():
  with jax.numpy_rank_promotion('raise'):
    yield


@pytest.mark.parametrize('num,size', [(2, 1), (41, 20)])
def test_without_augmentation_batches_are_disjoint_examples(num, size):
  images, labels = tagged(num)
  for seed in range(20):
    search, holdout = draw(jax.random.key(seed), images, labels, size)
    chosen = np.concatenate([search.labels, holdout.labels])
    assert len(chosen) == 2 * size
    assert len(set(chosen.tolist())) == 2 * size
    for batch in (search, holdout):
      assert batch.inputs.dtype == np.uint8
      assert batch.labels.dtype == np.int32
      np.testing.assert_array_equal(batch.inputs, images[batch.labels])


def test_every_example_is_drawn_equally_often():
  images, labels = tagged(10)
  keys = jax.random.split(jax.random.key(3), 4000)
  search, holdout = draws(keys, images, labels, 3)
  for batch in (search, holdout):
    for position in range(3):
      counts = np.bincount(batch.labels[:, position], minlength=10)
      # Binomial(4000, 0.1): mean 400, standard deviation 19.
      assert np.all(np.abs(counts - 400) < 5 * 19), counts
  pairs = np.zeros((10, 10))
  np.add.at(pairs, (search.labels[:, 0], holdout.labels[:, 0]), 1)
  off_diagonal = pairs[~np.eye(10, dtype=bool)]
  assert np.all(np.diag(pairs) == 0)
  assert np.all(np.abs(off_diagonal - 4000 / 90) < 5 * 6.6)


@pytest.mark.parametrize('num,size', [(9, 13), (40, 7)])
def test_shift_keeps_base_images_apart_and_balanced(num, size):
  images, labels = tagged(num)
  for seed in range(20):
    search, holdout = draw(
      jax.random.key(seed), images, labels, size, augment='shift'
    )
    # Labels tag the base image that an example comes from.
    assert not set(search.labels.tolist()) & set(holdout.labels.tolist())
    for batch in (search, holdout):
      assert batch.inputs.shape == (size, H, W, C)
      counts = np.unique(batch.labels, return_counts=True)[1]
      assert len(counts) == min(size, num // 2)
      assert counts.max() - counts.min() <= 1


def test_shift_moves_down_and_right():
  images, _ = tagged(25)
  offsets = np.array([(d, r) for d in range(-2, 3) for r in range(-2, 3)])
  moved = batches._shift(images, offsets)
  for image, offset, found in zip(images, offsets, moved, strict=True):
    np.testing.assert_array_equal(found, shifted(image, *offset))


def test_shift_equals_numpy_and_offsets_are_uniform_and_independent():
  images, labels = tagged(4)
  search, holdout = draw(
    jax.random.key(0), images, labels, 1500, augment='shift'
  )
  offsets = [(d, r) for d in range(-2, 3) for r in range(-2, 3)]
  table = {
    (label, shifted(images[label], *offset).tobytes()): k
    for label in range(4)
    for k, offset in enumerate(offsets)
  }
  counts = np.zeros((4, 25))
  for batch in (search, holdout):
    for image, label in zip(*map(np.asarray, batch), strict=True):
      # A KeyError here means that an image is no shift of its base image.
      counts[label, table[int(label), image.tobytes()]] += 1
  assert len(table) == 100
  # 750 copies of each image, 25 offsets: mean 30, standard deviation 5.4.
  assert np.all(np.abs(counts - 30) < 5 * 5.4)
  assert counts.sum() == 3000


@pytest.mark.parametrize('augment', data.AUGMENTS)
def test_jit_and_vmap_agree_and_keys_matter(augment):
  images, labels = tagged(30)

  keys = [jax.random.key(seed) for seed in range(3)]
  vmapped = draws(jnp.stack(keys), images, labels, 10, augment)
  for i in range(3):
    jitted = draw(keys[i], images, labels, 10, augment=augment)
    for a, b in zip(*map(jax.tree.leaves, (jitted, vmapped)), strict=True):
      np.testing.assert_array_equal(a, b[i])
  assert len({vmapped[0].labels[i].tobytes() for i in range(3)}) == 3


def test_eager_and_jit_agree():
  images, labels = tagged(30)
  key = jax.random.key(5)
  eager = data.search_and_holdout(key, images, labels, 10, augment='shift')
  jitted = draw(key, images, labels, 10, augment='shift')
  for a, b in zip(*map(jax.tree.leaves, (eager, jitted)), strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_batch_beyond_the_data_names_the_ways_out():
  images, labels = tagged(9)
  with pytest.raises(types.BadInput) as error:
    data.search_and_holdout(jax.random.key(0), images, labels, 5)
  message = str(error.value)
  assert 'of 5 need 10 examples; the data has 9' in message
  for way_out in ('Use data with more', 'at most 4', 'augment=shift'):
    assert re.search(way_out, message), message
  assert '\n' not in message
  data.check_batch_size(9, 4)
  data.check_batch_size(9, 5, augment='shift')
  data.check_batch_size(9, np.int64(4))
  with pytest.raises(types.BadInput, match='the data has 1'):
    data.check_batch_size(1, 1)
  with pytest.raises(types.BadInput, match='at least 2 examples'):
    data.check_batch_size(1, 1, augment='shift')


@pytest.mark.parametrize(
  ('num', 'size', 'way_out'),
  [
    (9, 5, 'Use data with more examples, or a batch of at most 4.'),
    (10, 5, 'Use data with more examples, or a batch of at most 4.'),
    (2, 1, 'Use data with more examples.'),
  ],
)
def test_batches_that_leave_nothing_name_the_ways_out(num, size, way_out):
  """Shifted copies are none: what they leave cannot be told."""
  with pytest.raises(types.BadInput) as error:
    data.remainder(jax.random.key(0), num, size)
  assert str(error.value).endswith(
    f'leave none of the {num} examples to train on. {way_out}'
  )


@pytest.mark.parametrize('size', [0, -1, 2.0, True, None, '3'])
def test_batch_sizes_are_positive_integers(size):
  with pytest.raises(
    types.BadInput, match='batch_size must be an integer >= 1'
  ):
    data.check_batch_size(100, size)


def test_bad_arguments_are_refused():
  images, labels = tagged(9)
  key = jax.random.key(0)
  with pytest.raises(
    types.BadInput, match='augment must be one of none, shift'
  ):
    data.search_and_holdout(key, images, labels, 2, augment='flip')
  with pytest.raises(types.BadInput, match='typed key'):
    data.search_and_holdout(jax.random.PRNGKey(0), images, labels, 2)
  with pytest.raises(types.BadInput, match='typed key'):
    data.search_and_holdout(0, images, labels, 2)
  with pytest.raises(types.BadInput, match=r'images must be \[N, H, W, C\]'):
    data.search_and_holdout(key, images[..., 0], labels, 2)
  with pytest.raises(types.BadInput, match=r'labels \[N\]'):
    data.search_and_holdout(key, images, labels[:8], 2)


@pytest.mark.parametrize('augment', data.AUGMENTS)
def test_no_key_is_used_twice(augment):
  images, labels = tagged(30)

  def twice(key):
    data.search_and_holdout(key, images, labels, 10, augment=augment)
    return data.search_and_holdout(key, images, labels, 10, augment=augment)

  with jax.debug_key_reuse(True):
    draw(jax.random.key(0), images, labels, 10, augment=augment)
    # JAX notices a key that is used twice, so the line above could fail.
    with pytest.raises(jax.errors.KeyReuseError):
      jax.jit(twice)(jax.random.key(0))
