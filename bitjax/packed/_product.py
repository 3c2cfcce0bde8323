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

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from bitjax import types
from bitjax.packed import _paths
from bitjax.packed import _thresholds
from bitjax.packed import _words

__all__ = ['matmul', 'matmul_bytes']

# Fewer than this many features or rows do not fill a vector register.
_NARROW = 16
# Sums of this many products of a byte and ±1 fit in an int32.
_MOST_BYTES = 1 << 22


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
    return _by_popcount(rows, w, length)

  def int8(rows, w):
    return _by_int8(_unpacked(rows, length, 1), _unpacked(w, length, 0))

  sums = _paths.run(path, popcount, int8, rows, w)
  return sums.reshape(*x.shape[:-1], w.shape[1])


def matmul_bytes(
  x: types.Array, w: types.Array, length: int, *, path: str = 'auto'
) -> types.Array:
  """Returns the matrix product of bytes by packed weights ±1.

  Args:
    x: [..., length], uint8 (such as pixels) or int8.
    w: words [words, features]: ``pack(w, 0)`` of weights [length, features].
    length: the number of products in a sum, at most 2^22.
    path: ``'popcount'``, which multiplies the eight bits of a byte one by one;
      ``'int8'``; or ``'auto'``, which is popcount for fewer than 16 rows on CPUs.

  Returns:
    int32 [..., features].

  Raises:
    BadInput: for inputs of another dtype or length, a length that takes another
      number of words or is too large for int32, or an unknown path.
  """
  _paths.check_path(path)
  x, w = jnp.asarray(x), _words.check_words('w', w)
  length = types.check_integer('length', length, 1)
  if length > _MOST_BYTES:
    raise types.BadInput(
      f'length must be at most 2^22, so that sums fit in int32; got {length}.'
    )
  if x.dtype not in (np.uint8, np.int8) or not x.ndim or x.shape[-1] != length:
    raise types.BadInput(
      f'x must be uint8 or int8 of shape [..., {length}]; got {types.shown(x)}.'
    )
  _check_matrix(w, length)
  return _matmul_bytes(x, w, length, path)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _matmul_bytes(x, w, length, path):
  rows = x.reshape(math.prod(x.shape[:-1]), length)
  if _paths.many(rows.shape[0], _NARROW) and path == 'auto':
    path = 'int8'
  # Signed bytes for the one, unsigned bytes for the other: 128 apart.
  signed, offset = x.dtype == np.int8, 0 if x.dtype == np.int8 else 128

  def popcount(rows, w):
    rows = rows.view(np.uint8) ^ np.uint8(128) if signed else rows
    shifts = lax.broadcasted_iota(np.uint8, (8, *rows.shape), 0)
    bits = (lax.broadcast(rows, (8,)) >> shifts) & np.uint8(1)
    planes = _words.pack_bits(bits.astype(bool), 2, w.dtype)
    sums = _by_popcount(planes.reshape(-1, w.shape[0]), w, length)
    sums = sums.reshape(8, rows.shape[0], w.shape[1])
    # A bit is half of 1 more than its sign.
    shifts = lax.broadcasted_iota(np.int32, sums.shape, 0)
    doubled = (sums << shifts).sum(0, dtype=np.int32)
    return (doubled + (2 * offset - 1) * _totals(w, length, doubled.shape)) >> 1

  def int8(rows, w):
    rows = rows if signed else (rows ^ np.uint8(128)).view(np.int8)
    sums = _by_int8(rows, _unpacked(w, length, 0))
    return sums + offset * _totals(w, length, sums.shape)

  sums = _paths.run(path, popcount, int8, rows, w)
  return sums.reshape(*x.shape[:-1], w.shape[1])


def _totals(w, length, shape):
  """Returns the sum of each column of weights, for every row."""
  ones = lax.population_count(w).astype(np.int32).sum(0, dtype=np.int32)
  return _thresholds.spread(2 * ones - np.int32(length), shape, 1)


def _by_popcount(x, w, length):
  """Returns int32 sums of rows of x by columns of w."""
  shape = (x.shape[0], w.shape[1])
  many, wide = (_paths.many(count, _NARROW) for count in shape)
  if many and not wide:
    return _by_popcount(w.T, x.T, length).T
  dtype = _paths.count_dtype(x.dtype, length)

  def part(x, w):
    total = jnp.zeros(shape, dtype)
    for k in range(w.shape[0]):
      both = lax.broadcast_in_dim(x[:, k], shape, (0,))
      both ^= lax.broadcast_in_dim(w[k], shape, (1,))
      total += lax.population_count(both).astype(dtype)
    return total

  count = _paths.grouped(part, x, 1, w, 0, 1)
  return np.int32(length) - 2 * count.astype(np.int32)


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
