"""Packed convolutions: equal to NumPy's int64 at every place, with every padding."""

import functools

import jax
from jax import lax
import numpy as np
import pytest

from bitjax import packed
from tests.packed import oracle

RNG = np.random.default_rng(2)
SAME = ((1, 1), (1, 1))
NONE = ((0, 0), (0, 0))
# Images, size, channels, features; kernel, strides, padding, value of the padding.
CASES = {
  '3 x 3, zeros, one image': (1, (4, 5), 5, 9, (3, 3), (1, 1), SAME, 0),
  '3 x 3, stride 2, +1': (9, (5, 4), 33, 3, (3, 3), (2, 2), SAME, 1),
  '1 x 1, stride 2, many images': (9, (4, 3), 16, 17, (1, 1), (2, 1), NONE, 0),
  '3 x 2, uneven padding, -1, one channel': (
    *(2, (3, 3), 1, 1, (3, 2), (1, 2)),
    *(((2, 3), (0, 2)), -1),
  ),
  'padding wider than the kernel': (
    *(8, (2, 2), 3, 2, (2, 2), (1, 1)),
    *(((3, 2), (2, 3)), 0),
  ),
}


def arrays(images, size, channels, features, kernel, word=None):
  x = oracle.signs(RNG, images, *size, channels)
  w = oracle.signs(RNG, *kernel, channels, features)
  words = packed.pack_images(x, word=word), packed.pack(w, 2, word=word)
  return x, w, words


@pytest.mark.parametrize('path', ['popcount', 'int8'])
@pytest.mark.parametrize('case', CASES)
def test_sums_and_their_signs_are_numpys(case, path):
  *sizes, strides, padding, pad_value = CASES[case]
  x, w, words = arrays(*sizes)
  channels, features = w.shape[2:]
  want = oracle.conv(x, w, strides, padding, pad_value)
  options = {
    'strides': strides,
    'padding': padding,
    'pad_value': pad_value,
    'path': path,
  }
  reach = w[..., 0].size + 2
  low = RNG.integers(-reach, reach, size=features).astype(np.int32)
  flip = RNG.random(features) < 0.5

  @jax.jit
  def layer(x, w):
    sums = packed.conv(x, w, channels, **options)
    return sums, packed.threshold(sums, low, flip, axis=2)

  sums, signs = layer(*words)
  np.testing.assert_array_equal(sums.transpose(3, 0, 1, 2), want)
  assert sums.dtype == np.int32
  np.testing.assert_array_equal(
    packed.unpack_images(signs, features), oracle.threshold(want, low, flip)
  )


def test_sums_are_those_of_a_float_convolution():
  x, w, words = arrays(9, (6, 5), 16, 16, (3, 3))
  want = lax.conv_general_dilated(
    x.astype(np.float32),
    w.astype(np.float32),
    (1, 1),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  sums = packed.conv(*words, 16, padding=SAME)
  np.testing.assert_array_equal(sums.transpose(3, 0, 1, 2), want)
  sums = packed.conv_nhwc(x, w, padding=SAME, chunk=4)
  np.testing.assert_array_equal(sums, want)


def test_sums_of_many_words_are_made_in_groups():
  x, w, words = arrays(1, (3, 3), 16 * 17 - 2, 2, (3, 3), np.uint16)
  want = oracle.conv(x, w, (1, 1), SAME, 0)
  sums = packed.conv(*words, x.shape[3], padding=SAME, path='popcount')
  np.testing.assert_array_equal(sums.transpose(3, 0, 1, 2), want)


def test_jit_vmap_and_64_bits_change_nothing():
  _, _, words = arrays(3, (4, 4), 5, 4, (3, 3))
  fn = functools.partial(packed.conv, channels=5, padding=SAME)
  want = fn(*words)
  np.testing.assert_array_equal(jax.jit(fn)(*words), want)
  kernels = np.stack([words[1], words[1][::-1]])
  mapped = jax.vmap(fn, (None, 0))(words[0], kernels)
  np.testing.assert_array_equal(mapped[0], want)
  np.testing.assert_array_equal(mapped[1], fn(words[0], kernels[1]))
  with jax.enable_x64(True):
    sums = fn(*words)
  assert sums.dtype == np.int32
  np.testing.assert_array_equal(sums, want)


@pytest.mark.parametrize('count', [1, 4, 6, 7])
def test_images_are_mapped_in_chunks_and_none_is_lost(count):
  x = {'a': np.arange(2 * count).reshape(2, count), 'b': np.arange(count)}
  seen = []

  def fn(x):
    seen.append(x['b'].shape)
    return x['a'].sum(0, keepdims=True) + x['b'][None], x['b']

  total, b = packed.map_images(fn, x, chunk=3)
  np.testing.assert_array_equal(total, x['a'].sum(0)[None] + x['b'])
  np.testing.assert_array_equal(b, x['b'])
  assert seen == [(min(count, 3),)]


@pytest.mark.parametrize(
  ('window', 'strides', 'padding'),
  [((2, 2), None, NONE), ((3, 2), (2, 1), ((1, 1), (0, 1)))],
)
def test_pooling_is_the_maximum(window, strides, padding):
  x = oracle.signs(RNG, 2, 5, 4, 20)
  out = packed.max_pool(
    packed.pack_images(x), window, strides=strides, padding=padding
  )
  around = np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-1)
  views = np.lib.stride_tricks.sliding_window_view(around, window, (1, 2))
  rows, columns = strides or window
  want = views.max((-2, -1))[:, ::rows, ::columns]
  np.testing.assert_array_equal(packed.unpack_images(out, 20), want)


X, W = np.zeros((3, 3, 1, 2), np.uint16), np.zeros((3, 3, 1, 4), np.uint16)
BAD = [
  (
    lambda: packed.conv(X, W, 17),
    r'x must have 2 words of uint16 along axis 2',
  ),
  (lambda: packed.conv(X, W[0], 9), r'w must have shape \[kernel height'),
  (lambda: packed.conv(X[0], W, 9), r'x must have shape \[height'),
  (lambda: packed.conv(X, np.uint32(W), 9), r'x and w must be words of one'),
  (lambda: packed.conv(X[:2], W, 9), r'w must not be larger than the padded'),
  (
    lambda: packed.conv(X, W, 9, strides=(0, 1)),
    r'strides must be two integers',
  ),
  (lambda: packed.conv(X, W, 9, strides=2), r'strides must be two integers'),
  (lambda: packed.conv(X, W, 9, padding='SAME'), r'padding must be \(\(top'),
  (lambda: packed.conv(X, W, 9, padding=(1, 1)), r'padding must be \(\(top'),
  (
    lambda: packed.conv(X, W, 9, padding=((-1, 1), (1, 1))),
    r'padding must be .* got \(\(-1, 1\), \(1, 1\)\)',
  ),
  (lambda: packed.conv(X, W, 9, pad_value=2), r'pad_value must be -1, 0 or 1'),
  (lambda: packed.conv(X, W, 9, path=None), r'path must be one of'),
  (
    lambda: packed.conv_nhwc(np.ones((1, 3, 3, 4)), np.ones((3, 3, 2, 4))),
    r'kernel must have shape \[height, width, 4, .*groups are not supported',
  ),
  (lambda: packed.conv_nhwc(np.ones(3), W), r'x must have shape \[images'),
  (lambda: packed.map_images(lambda x: x, X, chunk=0), r'chunk must be'),
  (
    lambda: packed.map_images(lambda x: x, (X, X[..., :1])),
    r'x must have the same number of images',
  ),
  (lambda: packed.max_pool(X, (4, 1)), r'window must not be larger'),
  (lambda: packed.max_pool(X, 2), r'window must be two integers'),
  (
    lambda: packed.max_pool(X, (2, 2), padding=((0, 2), (0, 0))),
    r'padding must be less than the window',
  ),
]


@pytest.mark.parametrize(('call', 'words'), BAD)
def test_bad_input_is_one_line(call, words):
  oracle.refused(call, words)
