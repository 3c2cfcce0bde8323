"""What packed functions compute, in NumPy's int64 and one place at a time."""

import numpy as np
import pytest

from bitjax import types


def signs(rng, *shape):
  return rng.choice(np.array([-1, 1]), size=shape)


def conv(x, kernel, strides, padding, pad_value):
  """Convolves images NHWC with a kernel HWIO."""
  around = ((0, 0), *padding, (0, 0))
  x = np.pad(x, around, constant_values=pad_value).astype(np.int64)
  (height, width), (rows, columns) = kernel.shape[:2], strides
  sizes = (
    (x.shape[1] - height) // rows + 1,
    (x.shape[2] - width) // columns + 1,
  )
  sums = np.zeros((x.shape[0], *sizes, kernel.shape[3]), np.int64)
  for n, p, q, f in np.ndindex(*sums.shape):
    i, j = p * rows, q * columns
    inputs = x[n, i : i + height, j : j + width]
    sums[n, p, q, f] = (inputs * kernel[..., f]).sum()
  return sums


def threshold(sums, low, flip):
  """The signs ±1 of sums with the channels along the last axis."""
  return np.where((sums >= low) != flip, 1, -1)


def words(signs, bits):
  """Packs the last axis, bit by bit."""
  count = -(-signs.shape[-1] // bits)
  found = np.zeros((*signs.shape[:-1], count), np.int64)
  for i in range(signs.shape[-1]):
    found[..., i // bits] |= (signs[..., i] > 0).astype(np.int64) << (i % bits)
  return found


def refused(call, words):
  """Asserts that a call raises `BadInput` with these words, in one line."""
  with pytest.raises(types.BadInput, match=words) as info:
    call()
  assert '\n' not in str(info.value)
