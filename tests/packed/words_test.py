"""Packing: every bit where NumPy puts it, any length, any axis, and back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import packed
from tests.packed import oracle

RNG = np.random.default_rng(0)
WORDS = (np.uint16, np.uint32)


@pytest.mark.parametrize('word', WORDS)
@pytest.mark.parametrize(
  ('shape', 'axis'),
  [((1,), 0), ((17,), -1), ((2, 32), 1), ((2, 33, 3), 1), ((0, 5), -1)],
)
def test_bits_are_numpys_and_come_back(shape, axis, word):
  signs = oracle.signs(RNG, *shape)
  words = packed.pack(signs, axis, word=word)
  want = oracle.words(np.moveaxis(signs, axis, -1), 8 * np.dtype(word).itemsize)
  np.testing.assert_array_equal(words, np.moveaxis(want, -1, axis))
  assert words.dtype == word
  back = packed.unpack(words, shape[axis], axis)
  np.testing.assert_array_equal(back, signs)
  assert back.dtype == np.float32


def test_zero_is_plus_one_and_nan_minus_one_for_every_dtype():
  values = np.float32([0.0, -0.0, -1e-30, 3, -2, np.nan, np.inf])
  want = [1, 1, -1, 1, -1, -1, 1]
  for dtype in (np.float32, jnp.bfloat16):
    words = packed.pack(jnp.asarray(values, dtype))
    np.testing.assert_array_equal(packed.unpack(words, 7), want)
  words = packed.pack(np.array([True, False]))
  assert (words, words.dtype) == (1, np.uint16)
  found = packed.unpack(words, 2, dtype=bool)
  np.testing.assert_array_equal(found, [True, False])
  assert found.dtype == bool
  np.testing.assert_array_equal(packed.pack(np.uint8([0, 255])), [3])


def test_the_word_is_chosen_by_the_length():
  assert packed.pack(np.ones(16)).dtype == np.uint16
  assert packed.pack(np.ones(17)).dtype == np.uint32


def test_jit_and_vmap_pack_the_same_bits():
  signs = oracle.signs(RNG, 3, 5, 40)
  want = packed.pack(signs)
  np.testing.assert_array_equal(jax.jit(packed.pack)(signs), want)
  np.testing.assert_array_equal(jax.vmap(packed.pack)(signs), want)
  unpack = functools.partial(packed.unpack, length=40)
  np.testing.assert_array_equal(jax.vmap(unpack)(want), signs)


def test_images_are_packed_by_channels_with_images_innermost():
  images = oracle.signs(RNG, 5, 2, 3, 20)
  words = packed.pack_images(images)
  assert words.shape == (2, 3, 1, 5)
  np.testing.assert_array_equal(
    words, packed.pack(images.transpose(1, 2, 3, 0), 2)
  )
  np.testing.assert_array_equal(packed.unpack_images(words, 20), images)


@pytest.mark.parametrize(
  ('call', 'words'),
  [
    (lambda: packed.pack(np.ones(2), 1), r'axis must be .* signs; got 1'),
    (lambda: packed.pack(np.ones(())), r'axis must be .* 0 axes of signs'),
    (lambda: packed.pack(np.ones((2, 0))), r'signs must hold a value'),
    (lambda: packed.pack(np.ones(2) * 1j), r'signs must be booleans or real'),
    (lambda: packed.pack(np.ones(2), word=np.int32), r'word must be uint16'),
    (lambda: packed.pack(np.ones(2), word='x'), r'word must be uint16'),
    (lambda: packed.unpack(np.ones(2), 2), r'words must be words of dtype'),
    (lambda: packed.unpack(np.uint16([1]), 17), r'words must have 2 words'),
    (lambda: packed.unpack(np.uint16([1]), 0), r'length must be .* >= 1'),
    (lambda: packed.unpack(np.uint16([1]), 9, dtype='x'), r'dtype must be flo'),
    (lambda: packed.unpack(np.uint16([1]), 9, dtype=None), r'dtype must be fl'),
    (
      lambda: packed.unpack_images(
        np.ones((1, 1, 1, 1), np.uint16), 9, dtype='u1'
      ),
      r"dtype must be floating, a signed integer or bool; got 'u1'",
    ),
    (lambda: packed.pack_images(np.ones(3)), r'images must have shape'),
    (
      lambda: packed.unpack_images(np.uint16([1]), 1),
      r'words must have shape \[height',
    ),
  ],
)
def test_bad_input_is_one_line(call, words):
  oracle.refused(call, words)
