"""Crops and flips against NumPy, and chains of augmentations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import data
from bitjax import types
from bitjax.data import indexing

H, W, C, N, KEYS, PAD = 4, 6, 2, 24, 60, 2


def images_of(seed=0, size=N):
  """Random images without zeros, so that padding is recognised."""
  rng = np.random.default_rng(seed)
  return rng.integers(1, 256, (size, H, W, C), dtype=np.uint8)


IMAGES = images_of()
TARGETS = np.eye(N, dtype=np.float32)


def over_keys(augmentation, seed=0):
  """Augments the same images with many keys, in one program."""
  keys = jax.random.split(jax.random.key(seed), KEYS)
  many = jax.jit(jax.vmap(augmentation, in_axes=(0, None)))
  return np.asarray(many(keys, IMAGES))


def window(image, row, column, pad=PAD, fill=0):
  """Crops an image in NumPy, one pixel at a time."""
  out = np.empty_like(image)
  out[:] = fill
  for i in range(H):
    for j in range(W):
      y, x = i + row - pad, j + column - pad
      if 0 <= y < H and 0 <= x < W:
        out[i, j] = image[y, x]
  return out


@pytest.fixture(scope='module')
def cropped():
  return over_keys(lambda key, images: data.random_crop(key, images, PAD))


@pytest.fixture(scope='module')
def flipped():
  return over_keys(data.random_flip)


def test_every_crop_is_a_window_and_offsets_are_uniform_and_independent(
  cropped,
):
  offsets = [(r, c) for r in range(2 * PAD + 1) for c in range(2 * PAD + 1)]
  table = {
    (i, window(image, *offset).tobytes()): k
    for i, image in enumerate(IMAGES)
    for k, offset in enumerate(offsets)
  }
  assert len(table) == 25 * N
  # A KeyError here means that an image is no window of its original.
  drawn = np.array(
    [[table[i, x.tobytes()] for i, x in enumerate(batch)] for batch in cropped]
  )
  counts = np.bincount(drawn.ravel(), minlength=25)
  mean = KEYS * N / 25
  assert np.all(np.abs(counts - mean) < 5 * np.sqrt(mean)), counts
  # Images of one batch draw independently, and so do the batches of two keys.
  assert np.mean(drawn[:, 0] == drawn[:, 1]) < 0.2
  assert np.mean(drawn[0] == drawn[1]) < 0.3


def test_a_crop_at_given_offsets():
  starts = np.array([(0, 0), (0, 4), (4, 0), (2, 2), (1, 3)])
  found = indexing.crop(IMAGES[:5], starts, PAD)
  for image, start, crop in zip(IMAGES, starts, found, strict=False):
    np.testing.assert_array_equal(crop, window(image, *start))
  np.testing.assert_array_equal(found[3], IMAGES[3])


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
@pytest.mark.parametrize(
  'fill,nearest', [(7, 7), (6.6, 7), ((3.4, 250.0), (3, 250))]
)
def test_a_border_has_the_colour_that_fill_says(dtype, fill, nearest):
  images = IMAGES.astype(dtype)
  plain, filled = (
    jax.jit(lambda key, fill: data.random_crop(key, images, PAD, fill=fill))(
      jax.random.key(4), jnp.asarray(colour)
    )
    for colour in (0, fill)
  )
  colour = nearest if dtype == np.uint8 else fill
  border = np.asarray(plain) == 0  # No image has a zero.
  assert border.any() and not border.all() and filled.dtype == dtype
  wanted = np.where(border, np.asarray(colour, dtype), plain)
  np.testing.assert_array_equal(filled, wanted)


def test_a_shared_offset_is_that_of_the_whole_batch():
  crops = over_keys(
    lambda key, images: data.random_crop(key, images, PAD, fill=9, shared=True)
  )
  offsets = [(r, c) for r in range(2 * PAD + 1) for c in range(2 * PAD + 1)]
  table = {
    np.stack([window(image, *offset, fill=9) for image in IMAGES]).tobytes(): k
    for k, offset in enumerate(offsets)
  }
  # A KeyError here means that the images of a batch did not move together.
  drawn = [table[batch.tobytes()] for batch in crops]
  assert len(set(drawn)) > 15  # 60 draws of 25 leave 2 out on average.


def test_no_padding_is_no_crop():
  same = data.random_crop(jax.random.key(0), jnp.asarray(IMAGES), pad=0)
  np.testing.assert_array_equal(same, IMAGES)


def test_half_of_the_images_are_mirrored(flipped):
  mirrored = (flipped == IMAGES[:, :, ::-1]).all(axis=(2, 3, 4))
  same = (flipped == IMAGES).all(axis=(2, 3, 4))
  assert np.all(mirrored ^ same)
  # Binomial(1440, 1/2): standard deviation 19. Every image and key has both kinds.
  assert abs(mirrored.sum() - KEYS * N / 2) < 5 * 19
  for axis in (0, 1):
    assert np.all(mirrored.any(axis=axis) & ~mirrored.all(axis=axis))


def test_a_flip_undoes_itself():
  key = jax.random.key(1)
  once = data.random_flip(key, IMAGES)
  twice = data.random_flip(jax.random.clone(key), once)
  assert not np.array_equal(once, IMAGES)
  np.testing.assert_array_equal(twice, IMAGES)


def test_one_key_gives_what_a_batch_of_keys_gives(cropped):
  key = jax.random.split(jax.random.key(0), KEYS)[3]
  eager = data.random_crop(key, IMAGES, PAD)
  np.testing.assert_array_equal(eager, cropped[3])


@pytest.mark.parametrize('dtype', [jnp.uint8, jnp.float32, jnp.bfloat16])
def test_types_are_kept(dtype):
  images = jax.ShapeDtypeStruct((N, H, W, C), dtype)
  key = jax.random.key(0)
  for augmentation in (data.random_crop, data.random_flip):
    out = jax.eval_shape(augmentation, jax.random.clone(key), images)
    assert out.dtype == dtype and out.shape == images.shape


def test_a_chain_applies_each_with_its_own_key_in_order():
  key = jax.random.key(7)
  found, targets = data.standard(('flip', 'crop'), pad=1)(key, IMAGES, TARGETS)
  first, second = jax.random.split(jax.random.clone(key))
  wanted = data.random_crop(second, data.random_flip(first, IMAGES), 1)
  np.testing.assert_array_equal(found, wanted)
  np.testing.assert_array_equal(targets, TARGETS)


def test_a_chain_of_nothing_changes_nothing():
  images, targets = data.standard(())(jax.random.key(0), IMAGES, TARGETS)
  assert images is IMAGES and targets is TARGETS


def test_everything_together_under_jit_for_one_key():
  augmentation = data.standard(('flip', 'crop', 'cutmix'), pad=0)
  values = np.arange(1, N + 1, dtype=np.uint8)[:, None, None, None]
  images = np.broadcast_to(values, IMAGES.shape)
  images, targets = jax.jit(augmentation)(jax.random.key(3), images, TARGETS)
  assert np.any((targets > 0) & (targets < 1))
  for image, target in zip(np.asarray(images), targets, strict=True):
    shares = np.bincount(image.ravel(), minlength=N + 1)[1:] / image.size
    np.testing.assert_allclose(target, shares, atol=1e-6)


def test_a_key_used_twice_is_found():
  def twice(key):
    data.random_crop(key, IMAGES)
    return data.random_crop(key, IMAGES)

  with pytest.raises(jax.errors.KeyReuseError):
    jax.jit(twice)(jax.random.key(0))


@pytest.mark.parametrize(
  'make,pattern',
  [
    (
      lambda: data.standard(['crop', 'rotate']),
      "augmentation must be one of crop, flip, mixup, cutmix; got 'rotate'",
    ),
    (lambda: data.standard(['crop', 'crop']), 'each augmentation once'),
    (lambda: data.standard(['mixup', 'cutmix']), 'one of mixup and cutmix'),
    (lambda: data.standard(['crop'], pad=-1), 'pad must be an integer >= 0'),
    (lambda: data.standard(['crop'], pad=1.5), 'pad must be an integer >= 0'),
    (
      lambda: data.standard(['mixup'], mixup_alpha=0.0),
      'mixup_alpha must be > 0 and finite .*; got 0.0',
    ),
    (
      lambda: data.standard(['cutmix'], cutmix_alpha=-1),
      'cutmix_alpha must be > 0',
    ),
    (
      lambda: data.random_crop(jax.random.key(0), IMAGES, -1),
      'pad must be an integer >= 0; got -1',
    ),
    (
      lambda: data.random_crop(jax.random.key(0), IMAGES, fill=jnp.ones(3)),
      r'fill must be a number or have shape \(2,\), one .* got \(3,\)',
    ),
    (
      lambda: data.random_crop(jax.random.key(0), IMAGES, fill=256),
      r'fill must be in \[0, 255\]; got 256',
    ),
    (
      lambda: data.random_crop(jax.random.key(0), IMAGES[0]),
      r'images must be \[N, H, W, C\]; got shape \(4, 6, 2\)',
    ),
    (
      lambda: data.random_flip(jax.random.key(0), IMAGES[:, :0]),
      r'got shape \(24, 0, 6, 2\)',
    ),
  ],
)
def test_bad_arguments_are_one_line(make, pattern):
  with pytest.raises(types.BadInput, match=pattern) as error:
    make()
  assert '\n' not in str(error.value)


def test_parameters_of_what_is_not_named_are_not_looked_at():
  data.standard(['flip'], pad=-1, mixup_alpha=0.0, cutmix_alpha=0.0)
