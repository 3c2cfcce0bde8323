"""Thresholds: the sign of a network's own function, with every tie."""

import functools

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import packed
from bitjax.packed import _thresholds
from tests.packed import oracle

RNG = np.random.default_rng(3)


def decided(found, sums):
  return (sums[:, None] >= np.asarray(found.low)) != np.asarray(found.flip)


def test_they_decide_every_sum_as_a_rounded_batch_norm_does():
  """Random BatchNorms, many with a zero exactly at a sum; half of them fall."""
  length, features = 144, 64
  mean = RNG.integers(-length, length, size=features).astype(np.float32)
  mean[::3] += RNG.normal(size=mean[::3].shape).astype(np.float32)
  variance = RNG.uniform(0.1, 99, features).astype(np.float32)
  scale, shift = RNG.normal(size=(2, features)).astype(np.float32)
  shift[::2], scale[-1] = 0, 0

  @jax.jit
  def normalised(sums):
    rows = [jnp.broadcast_to(a, sums.shape) for a in (mean, variance, scale)]
    z = rows[2] * (sums - rows[0]) / jnp.sqrt(rows[1] + 1e-5)
    return z + jnp.broadcast_to(shift, sums.shape)

  found = packed.thresholds(normalised, -length, length, features)
  sums = np.arange(-length, length + 1)
  values = normalised(jnp.float32(np.repeat(sums[:, None], features, 1)))
  np.testing.assert_array_equal(decided(found, sums), np.asarray(values) >= 0)
  assert (np.asarray(values) == 0).sum() > features / 4
  assert found.low.dtype == np.int32 and found.flip.any()


def test_they_are_found_some_sums_at_a_time(monkeypatch):
  seen = []

  def fn(sums):
    seen.append(len(sums))
    return sums - np.float32([[-7, 0, 5.5]])

  wanted = packed.thresholds(fn, -10, 10, 3)
  monkeypatch.setattr(_thresholds, '_BLOCK', 13)
  found = packed.thresholds(fn, -10, 10, 3)
  assert seen[0] == sum(seen[1:]) == 21 and max(seen[1:]) * 3 <= 15
  np.testing.assert_array_equal(found, wanted)
  np.testing.assert_array_equal(found.low, [-7, 0, 6])


def test_constant_channels_booleans_integers_and_steps():
  def fn(sums):
    sums = np.asarray(sums)
    return np.stack(
      [sums[:, 0] >= -9, sums[:, 1] > 9, sums[:, 2] > 1, sums[:, 3] < 1], 1
    )

  found = packed.thresholds(fn, -3, 3, 4)
  np.testing.assert_array_equal(found.low, [-3, 4, 2, 1])
  np.testing.assert_array_equal(found.flip, [False, False, False, True])
  integers = packed.thresholds(lambda s: -s.astype(jnp.int32), -3, 3, 1)
  assert (integers.low, integers.flip) == (1, True)
  one = packed.thresholds(lambda s: s, 2, 2, 1)
  assert (one.low, one.flip) == (2, False)


@pytest.mark.parametrize('axis', [0, 1, -1])
def test_signs_are_packed_along_the_channels(axis):
  sums = RNG.integers(-5, 6, size=(4, 3, 20))
  low = RNG.integers(-5, 6, size=20).astype(np.int32)
  flip = RNG.random(20) < 0.5
  words = packed.threshold(np.moveaxis(sums, -1, axis), low, flip, axis=axis)
  np.testing.assert_array_equal(
    np.moveaxis(np.asarray(packed.unpack(words, 20, axis)), axis, -1),
    oracle.threshold(sums, low, flip),
  )
  # Channels that fill no word leave zeros, so that the words can be multiplied.
  assert not np.asarray(words >> np.uint32(20)).any()


@pytest.mark.parametrize('extreme', [-(2**31), 2**31 - 1])
def test_thresholds_beyond_all_sums_do_not_overflow(extreme):
  low, flip = np.full(4, extreme, np.int32), np.array([False, True] * 2)
  words = packed.threshold(np.int32([[-5, 0, 7, 9]]), low, flip)
  np.testing.assert_array_equal(
    packed.unpack(words, 4, dtype=bool), [(extreme < 0) != flip]
  )


@pytest.mark.parametrize('dtype', ['uint32', 'int64', 'uint64', 'int8'])
def test_sums_beyond_int32_do_not_wrap_around(dtype):
  ends = np.iinfo(dtype)
  low, flip = np.int32([-7, 7]), np.array([False, True])
  with jax.enable_x64(True):
    sums = np.repeat(np.array([[ends.min], [ends.max]], dtype), 2, 1)
    found = packed.unpack(packed.threshold(sums, low, flip), 2)
  np.testing.assert_array_equal(found, oracle.threshold(sums, low, flip))


CHANNELS = (5, 18, 33, 4)
STRIDES = ((1, 1), (2, 2), (1, 1))


def layer(key, in_features, features):
  """A kernel 3 x 3 and a BatchNorm that is a tie for some sum in most channels."""
  kernel, mean, scale = jax.random.split(key, 3)
  size = 9 * in_features
  return (
    jnp.sign(jax.random.normal(kernel, (3, 3, in_features, features))),
    jax.random.randint(mean, (features,), -size // 3, size // 3).astype(float),
    jax.random.normal(scale, (features,)),
  )


def normalise(mean, scale, sums):
  mean, scale = (jnp.broadcast_to(a, sums.shape) for a in (mean, scale))
  return scale * (sums - mean)


@pytest.mark.parametrize(
  'seed',
  [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))],
)
def test_a_packed_network_is_the_float_network(seed):
  """Three convolutions with zero padding, BatchNorms and signs; pooled in between."""
  keys = jax.random.split(jax.random.key(seed), 4)
  layers = [layer(keys[i], *CHANNELS[i : i + 2]) for i in range(len(STRIDES))]
  images = jnp.sign(jax.random.normal(keys[3], (9, 8, 6, CHANNELS[0])))

  @jax.jit
  def floats(x, layers):
    ties = 0
    for (kernel, mean, scale), strides in zip(layers, STRIDES, strict=True):
      sums = lax.conv_general_dilated(
        x,
        kernel,
        strides,
        ((1, 1), (1, 1)),
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      )
      z = normalise(mean, scale, sums)
      ties += (z == 0).sum()
      x = jnp.where(z >= 0, 1.0, -1.0)
      if strides == (1, 1):
        x = lax.reduce_window(
          x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 1, 1, 1), 'VALID'
        )
    return sums, ties

  folded = []
  for kernel, mean, scale in layers:
    size = kernel[..., 0].size
    fn = functools.partial(normalise, mean, scale)
    found = packed.thresholds(jax.jit(fn), -size, size, kernel.shape[3])
    folded.append((packed.pack(kernel, 2), *found))

  @jax.jit
  def words(x, folded):
    def network(x):
      for i, (w, low, flip) in enumerate(folded):
        how = {'strides': STRIDES[i], 'padding': ((1, 1), (1, 1))}
        sums = packed.conv(x, w, CHANNELS[i], **how)
        x = packed.threshold(sums, low, flip, axis=2)
        if STRIDES[i] == (1, 1):
          x = packed.max_pool(x, (2, 2), strides=(1, 1))
      return sums

    return packed.map_images(network, x, chunk=4)

  want, ties = floats(images, layers)
  sums = words(packed.pack_images(images), folded)
  np.testing.assert_array_equal(sums.transpose(3, 0, 1, 2), want)
  assert ties > 20


ONES, FALSE = np.zeros(2, np.int32), np.zeros(2, bool)


def bent(sums):
  return jnp.stack([sums[:, 0], jnp.abs(sums[:, 1]) - 1.5], 1)


BAD = [
  (
    lambda: packed.thresholds(bent, -3, 3, 2),
    r'fn must be monotone .* changes 2 times in channel 1 \(of 1 such',
  ),
  (
    lambda: packed.thresholds(lambda s: jnp.log(s), -1, 3, 2),
    r'fn must not return NaN; it does for sum -1 in channel 0',
  ),
  (
    lambda: packed.thresholds(lambda s: s[:, :1], -1, 3, 2),
    r'fn must return the shape \(5, 2\) of its argument; got \(5, 1\)',
  ),
  (
    lambda: packed.thresholds(lambda s: s * 1j, -1, 3, 2),
    r'fn must return real numbers or booleans; got complex64',
  ),
  (
    lambda: jax.jit(lambda a: packed.thresholds(lambda s: s * a, -1, 3, 2))(
      1.0
    ),
    r'fn must depend on no traced values: call thresholds outside of jax.jit',
  ),
  (lambda: packed.thresholds(bent, 3, -3, 2), r'high must be >= low = 3; got'),
  (lambda: packed.thresholds(bent, -3.5, 3, 2), r'low must be an integer in'),
  (lambda: packed.thresholds(bent, 0, 2**25, 2), r'high must be an integer in'),
  (lambda: packed.thresholds(bent, 0, 2, 0), r'features must be an integer'),
  (
    lambda: packed.threshold(FALSE * 1.0, ONES, FALSE),
    r'sums must be integers',
  ),
  (lambda: packed.threshold(ONES, ONES, FALSE, axis=1), r'axis must be one of'),
  (
    lambda: packed.threshold(ONES, ONES[:1], FALSE),
    r'low must be int32\[2\], one for each feature; got int32\[1\]',
  ),
  (
    lambda: packed.threshold(ONES, ONES, ONES),
    r'flip must be bool\[2\], one for each feature; got int32\[2\]',
  ),
]


@pytest.mark.parametrize(('call', 'words'), BAD)
def test_bad_input_is_one_line(call, words):
  oracle.refused(call, words)
