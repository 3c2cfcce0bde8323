r"""Matrix products with weights ±1, exact in int32.

.. math::
  \sum_{i=1}^{n} x_i w_i = n - 2 \operatorname{popcount}(x \oplus w)
  \quad (x_i = \pm 1), \qquad
  \sum_i x_i w_i = \sum_i (x_i - 128) w_i + 128 \sum_i w_i
  \quad (0 \le x_i < 256)

The second identity lets bytes, such as pixels, pass as signed bytes, for which there
are fast products. Scales are left to the caller, after the sum, so that ties are ties.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from bitjax import types
from bitjax.packed import _paths
from bitjax.packed import _thresholds
from bitjax.packed import _words

__all__ = ['matmul', 'matmul_bytes', 'matmul_threshold']

# Fewer than this many features or rows do not fill a vector register.
_NARROW = 16
# Sums of this many products of a byte and ±1 fit in an int32.
_MOST_BYTES = 1 << 23


def matmul(
  x: types.Array, w: types.Array, length: int, *, path: str = 'auto'
) -> types.Array:
  """Returns the matrix product of packed values ±1.

  Args:
    x: words [..., words]: ``pack(x)`` of inputs [..., length].
    w: words [words, features] of the same dtype: ``pack(w, 0)`` of weights [length,
      features]. Map over several matrices with ``jax.vmap``.
    length: the number of products in a sum.
    path: ``'popcount'``, ``'int8'``, or ``'auto'``, which counts bits on CPUs and
      multiplies 8-bit integers elsewhere. The sums are the same.

  Returns:
    int32 [..., features], in [-length, length].

  Raises:
    BadInput: for what are no words, lengths that take another number of words, words
      of two dtypes, or an unknown path.
  """
  x, w, length = _checked_product(x, w, length, path)
  return _matmul(x, w, length, path)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _matmul(x, w, length, path):
  rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])

  def popcount(rows, w):
    count = _mismatches(rows, w, np.dtype('int32'))
    return np.int32(length) - 2 * count

  def int8(rows, w):
    return _by_int8(_unpacked(rows, length, 1), _unpacked(w, length, 0))

  sums = _paths.run(path, popcount, int8, rows, w)
  return sums.reshape(*x.shape[:-1], w.shape[1])


def matmul_threshold(
  x: types.Array,
  w: types.Array,
  length: int,
  low: types.Array,
  flip: types.Array,
  *,
  word: Any = None,
  path: str = 'auto',
) -> types.Array:
  """Returns ``threshold(matmul(x, w, length), low, flip)``, faster: words to words.

  Args:
    x: as in `matmul`.
    w: as in `matmul`.
    length: as in `matmul`.
    low: [features], int32: see `Thresholds`.
    flip: [features], booleans.
    word: as in `pack`, for the result.
    path: as in `matmul`.

  Returns:
    Words [..., words of features].

  Raises:
    BadInput: as `matmul` and `threshold`.
  """
  x, w, length = _checked_product(x, w, length, path)
  low, flip = _thresholds.check_thresholds(low, flip, w.shape[1])
  word = _words.check_word(word, w.shape[1])
  return _matmul_threshold(x, w, low, flip, length, word, path)


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def _matmul_threshold(x, w, low, flip, length, word, path):
  rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])

  def popcount(rows, w, low, flip):
    dtype = _paths.count_dtype(rows.dtype, length)
    most = _thresholds.most_mismatches(np.int32(length), low, length)
    # Rows innermost: then a word is packed by whole vectors of rows.
    count = _mismatches(w.T, rows.T, dtype)
    bits = count <= _thresholds.spread(most.astype(dtype), count.shape, 0)
    return _thresholds.flipped(bits, flip, 0, word).T

  def int8(rows, w, low, flip):
    sums = _by_int8(_unpacked(rows, length, 1), _unpacked(w, length, 0))
    return _thresholds.threshold(sums, low, flip, word=word)

  words = _paths.run(path, popcount, int8, rows, w, low, flip)
  return words.reshape(*x.shape[:-1], words.shape[1])


def matmul_bytes(x: types.Array, w: types.Array, length: int) -> types.Array:
  """Returns the matrix product of bytes by packed weights ±1.

  Args:
    x: [..., length], uint8 (such as pixels) or int8.
    w: words [words, features]: ``pack(w, 0)`` of weights [length, features].
    length: the number of products in a sum, at most 2^23.

  Returns:
    int32 [..., features].

  Raises:
    BadInput: for inputs of another dtype or length, or a length that takes another
      number of words or is too large for int32.
  """
  x, w = jnp.asarray(x), _words.check_words('w', w)
  length = types.check_integer('length', length, 1)
  if length > _MOST_BYTES:
    raise types.BadInput(
      f'length must be at most 2^23, so that sums fit in int32; got {length}.'
    )
  if x.dtype not in (np.uint8, np.int8) or not x.ndim or x.shape[-1] != length:
    raise types.BadInput(
      f'x must be uint8 or int8 of shape [..., {length}]; got {types.shown(x)}.'
    )
  _check_matrix(w, length)
  return _matmul_bytes(x, w, length)


@functools.partial(jax.jit, static_argnums=2)
def _matmul_bytes(x, w, length):
  rows = x.reshape(math.prod(x.shape[:-1]), length)
  values = _unpacked(w, length, 0)
  if x.dtype == np.int8:
    sums = _by_int8(rows, values)
  else:
    rows = lax.bitcast_convert_type(rows ^ np.uint8(128), np.int8)
    offset = np.int32(128) * values.astype(np.int32).sum(0, dtype=np.int32)
    sums = _by_int8(rows, values)
    sums += _thresholds.spread(offset, sums.shape, 1)
  return sums.reshape(*x.shape[:-1], w.shape[1])


def _mismatches(x, w, dtype):
  """Counts the bits in which rows of x and columns of w differ: [rows, columns]."""
  if w.shape[1] < _NARROW <= x.shape[0]:
    return _mismatches(w.T, x.T, dtype).T
  shape = (x.shape[0], w.shape[1])

  def part(x, w):
    total = None
    for k in range(w.shape[0]):
      both = lax.broadcast_in_dim(x[:, k], shape, (0,))
      both ^= lax.broadcast_in_dim(w[k], shape, (1,))
      term = lax.population_count(both).astype(dtype)
      total = term if total is None else total + term
    return total

  return _paths.grouped(part, x, 1, w, 0, 1)


def _unpacked(words, length, axis):
  return _words.signs_of(words, length, axis, np.dtype('int8'))


def _by_int8(x, w):
  return lax.dot_general(
    x, w, (((1,), (0,)), ((), ())), preferred_element_type=np.int32
  )


def _checked_product(x, w, length, path):
  """Returns the arguments of a product, checked."""
  _paths.check_path(path)
  x, w = _words.check_words('x', x), _words.check_words('w', w)
  length = types.check_integer('length', length, 1)
  if not x.ndim:
    raise types.BadInput('x must have shape [..., words]; got shape ().')
  _words.check_length('x', x, -1, length)
  _check_matrix(w, length)
  _words.check_same(x, w)
  return x, w, length


def _check_matrix(w, length):
  if w.ndim != 2 or not w.shape[1]:
    raise types.BadInput(
      f'w must have shape [words, features]; got shape {w.shape}.'
    )
  _words.check_length('w', w, 0, length)
