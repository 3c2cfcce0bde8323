"""Packed matrix products: equal to NumPy's int64, on every path."""

import functools

import jax
import numpy as np
import pytest

from bitjax import packed
from tests.packed import oracle

RNG = np.random.default_rng(1)
PATHS = ('popcount', 'int8')
# Rows, products in a sum, features: narrow and wide, lengths of all remainders.
SIZES = [(1, 1, 1), (3, 31, 20), (18, 33, 5), (17, 64, 16)]


def arrays(rows, length, features, word=None):
  x, w = oracle.signs(RNG, rows, length), oracle.signs(RNG, length, features)
  low = RNG.integers(-length - 2, length + 3, size=features).astype(np.int32)
  flip = RNG.random(features) < 0.5
  words = packed.pack(x, word=word), packed.pack(w, 0, word=word)
  return x, w, words, low, flip


@pytest.mark.parametrize('path', PATHS)
@pytest.mark.parametrize('sizes', SIZES)
def test_sums_and_their_signs_are_numpys(sizes, path):
  _, length, features = sizes
  x, w, words, low, flip = arrays(*sizes)

  @jax.jit
  def layer(x, w):
    sums = packed.matmul(x, w, length, path=path)
    return sums, packed.threshold(sums, low, flip)

  sums, signs = layer(*words)
  np.testing.assert_array_equal(sums, x @ w)
  assert sums.dtype == np.int32
  np.testing.assert_array_equal(
    packed.unpack(signs, features), oracle.threshold(x @ w, low, flip)
  )


def test_sums_of_many_words_are_made_in_groups():
  """More words than are written out in one sum, and not a multiple of the groups."""
  x, w, words, *_ = arrays(2, 16 * 145 - 3, 3, np.uint16)
  np.testing.assert_array_equal(
    packed.matmul(*words, x.shape[1], path='popcount'), x @ w
  )


def test_counts_beyond_int16_are_widened():
  length = 1 << 15
  x = np.ones((1, length))
  words = packed.pack(x, word=np.uint16), packed.pack(-x.T, 0, word=np.uint16)
  assert packed.matmul(*words, length) == -length


@pytest.mark.parametrize('path', PATHS)
@pytest.mark.parametrize('dtype', [np.uint8, np.int8])
def test_bytes_by_signs_are_numpys(dtype, path):
  kind = np.iinfo(dtype)
  x = RNG.integers(kind.min, kind.max, size=(2, 3, 37), endpoint=True)
  x[0, 0], x[0, 1] = kind.min, kind.max
  w = oracle.signs(RNG, 37, 20)
  sums = packed.matmul_bytes(x.astype(dtype), packed.pack(w, 0), 37, path=path)
  np.testing.assert_array_equal(sums, x @ w)
  assert sums.dtype == np.int32


def test_leading_axes_may_be_none_or_several():
  *_, words, _, _ = arrays(6, 33, 20)
  several = words[0].reshape(2, 3, -1), words[1]
  fn = functools.partial(packed.matmul, length=33)
  want = fn(*words)
  np.testing.assert_array_equal(fn(words[0][0], words[1]), want[0])
  np.testing.assert_array_equal(fn(*several), want.reshape(2, 3, -1))
  np.testing.assert_array_equal(jax.jit(fn)(*words), want)
  kernels = np.stack([words[1], words[1][:, ::-1]])
  mapped = jax.vmap(fn, (None, 0))(words[0], kernels)
  np.testing.assert_array_equal(mapped[0], want)
  np.testing.assert_array_equal(mapped[1], fn(words[0], kernels[1]))


def test_accelerators_multiply_and_cpus_count():
  _, _, words, _, _ = arrays(3, 33, 20)
  lower = jax.jit(packed.matmul, static_argnums=2).trace(*words, 33).lower
  cpu, gpu = (
    lower(lowering_platforms=(platform,)).as_text()
    for platform in ('cpu', 'cuda')
  )
  assert 'popcnt' in cpu and 'dot_general' not in cpu
  assert 'popcnt' not in gpu and 'xi8>) -> tensor<3x20xi32>' in gpu


@pytest.mark.parametrize('path', PATHS)
def test_no_rows_give_no_sums(path):
  _, _, words, _, _ = arrays(3, 33, 20)
  none = words[0][:0]
  assert packed.matmul(none, words[1], 33, path=path).shape == (0, 20)


def test_in_64_bits_sums_stay_int32():
  x, w, words, low, flip = arrays(3, 33, 20)
  with jax.enable_x64(True):
    sums = packed.matmul(*words, 33)
    bytes_ = packed.matmul_bytes(np.uint8(x > 0), words[1], 33)
    out = packed.threshold(sums, low, flip)
  assert (sums.dtype, bytes_.dtype, out.dtype) == ('int32', 'int32', 'uint32')
  np.testing.assert_array_equal(sums, x @ w)
  np.testing.assert_array_equal(bytes_, (x > 0) @ w)


X, W = np.zeros((2, 2), np.uint32), np.zeros((2, 3), np.uint32)
BAD = [
  (lambda: packed.matmul(X, W, 65), r'x must have 3 words of uint32'),
  (lambda: packed.matmul(X, W[:1], 64), r'w must have 2 words'),
  (lambda: packed.matmul(X, W[0], 64), r'w must have shape \[words, features'),
  (lambda: packed.matmul(X[0, 0], W, 64), r'x must have shape'),
  (lambda: packed.matmul(X, W[:, :0], 64), r'w must have shape .*\(2, 0\)'),
  (
    lambda: packed.matmul(np.int32(X), W, 64),
    r'x must be words .* int32\[2, 2',
  ),
  (lambda: packed.matmul(np.uint16(X[:, :1]), W[:1], 9), r'x and w must be'),
  (lambda: packed.matmul(X, W, 64, path='fast'), r'path must be one of auto'),
  (lambda: packed.matmul(X, W, 0), r'length must be an integer >= 1'),
  (lambda: packed.matmul_bytes(X, W, 64), r'x must be uint8 or int8 of shape'),
  (
    lambda: packed.matmul_bytes(np.uint8(X), W, 64),
    r'x must be uint8 or int8 of shape \[..., 64\]; got uint8\[2, 2\]',
  ),
  (
    lambda: packed.matmul_bytes(X, W, 2**22 + 1),
    r'length must be at most 2\^22',
  ),
]


@pytest.mark.parametrize(('call', 'words'), BAD)
def test_bad_input_is_one_line(call, words):
  oracle.refused(call, words)
