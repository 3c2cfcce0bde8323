r"""Values ±1 as the bits of words: a 1 is +1, and bits beyond the last value are 0.

Value i is bit ``i % b`` of word ``i // b``, for words of b bits. Because the unused bits
of the last word are 0 in both factors of a product, they never differ, and sums need no
correction for lengths that are not a multiple of b.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from bitjax import types

__all__ = [
  'bits_of',
  'check_axis',
  'check_dtype',
  'check_length',
  'check_same',
  'check_word',
  'check_words',
  'is_real',
  'num_words',
  'pack',
  'pack_bits',
  'pack_named',
  'signs_of',
  'unpack',
  'word_for',
]

WORDS = (np.dtype('uint16'), np.dtype('uint32'))


def pack(signs: Any, axis: int = -1, *, word: Any = None) -> types.Array:
  """Packs the signs of an array along one axis.

  Args:
    signs: [..., length, ...]; booleans, of which True is +1, or real numbers, of which
      those >= 0 are +1. NaN is -1, as it is for `quantizers.sign`.
    axis: the axis that is packed.
    word: uint16 or uint32. None takes uint16 for at most 16 values, else uint32,
      which were the fastest.

  Returns:
    Words [..., ceil(length / bits of a word), ...]. Bits beyond the length are 0.

  Raises:
    BadInput: for complex numbers, an axis that the array lacks or that is empty, or
      another word.
  """
  signs = jnp.asarray(signs)
  axis = check_axis(signs, 'signs', axis)
  return pack_named('signs', signs, axis, word)


def pack_named(
  name: str, signs: types.Array, axis: int, word: Any
) -> types.Array:
  """Packs the argument ``name`` of a caller along the axis ``axis`` >= 0."""
  if not signs.shape[axis]:
    raise types.BadInput(
      f'{name} must hold a value along axis {axis}; got shape {signs.shape}.'
    )
  word = check_word(word, signs.shape[axis])
  return pack_bits(_as_bits(name, signs), axis, word)


def unpack(
  words: types.Array, length: int, axis: int = -1, *, dtype: Any = np.float32
) -> types.Array:
  """Returns the values ±1 that `pack` made ``words`` of.

  Args:
    words: [..., words, ...].
    length: how many values were packed along ``axis``.
    axis: the axis that was packed.
    dtype: dtype of the values, floating or signed; ``bool`` gives True for +1.

  Raises:
    BadInput: for an array of another dtype than uint16 and uint32, an axis that it
      lacks, a length that takes another number of words, or a dtype without -1.
  """
  words = check_words('words', words)
  axis = check_axis(words, 'words', axis)
  length = types.check_integer('length', length, 1)
  check_length('words', words, axis, length)
  return signs_of(words, length, axis, check_dtype(dtype))


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def signs_of(
  words: types.Array, length: int, axis: int, dtype: np.dtype
) -> types.Array:
  """Unpacks words, which are not checked, along the axis ``axis`` >= 0."""
  size = bits_of(words.dtype)
  shape = _split(words.shape, axis, words.shape[axis], size)
  words = lax.broadcast_in_dim(
    words, shape, [i + (i > axis) for i in range(words.ndim)]
  )
  shifts = lax.broadcasted_iota(words.dtype, shape, axis + 1)
  bits = (words >> shifts) & np.array(1, words.dtype)
  bits = bits.reshape(
    *shape[:axis], shape[axis] * size, *shape[axis + 2 :]
  ).astype(bool)
  bits = lax.slice_in_dim(bits, 0, length, axis=axis)
  if dtype.kind == 'b':
    return bits
  one = jnp.ones((), dtype)
  return jnp.where(bits, one, -one)


@functools.partial(jax.jit, static_argnums=(1, 2))
def pack_bits(bits: types.Array, axis: int, word: np.dtype) -> types.Array:
  """Packs booleans along the axis ``axis`` >= 0."""
  size = bits_of(word)
  count = num_words(bits.shape[axis], word)
  if rest := count * size - bits.shape[axis]:
    edges = [(0, rest * (i == axis), 0) for i in range(bits.ndim)]
    bits = lax.pad(bits, np.array(False), edges)
  zero = np.array(0, word)
  powers = np.array([1 << i for i in range(size)], word)
  if count == 1 and size == 16:  # Half the time, for 16 channels only.
    parts = (
      jnp.where(lax.slice_in_dim(bits, i, i + 1, axis=axis), power, zero)
      for i, power in enumerate(powers)
    )
    return functools.reduce(lax.bitwise_or, parts)
  shape = _split(bits.shape, axis, count, size)
  powers = lax.broadcast_in_dim(powers, shape, (axis + 1,))
  # XLA computes this, and the comparison that gave the bits, in one pass.
  bits = jnp.where(bits.reshape(shape), powers, zero)
  return lax.reduce(bits, zero, lax.bitwise_or, (axis + 1,))


def _split(shape, axis, count, size):
  return (*shape[:axis], count, size, *shape[axis + 1 :])


def word_for(length: int) -> np.dtype:
  """Returns the word that is fastest for ``length`` values."""
  return WORDS[length > 16]


def bits_of(word: Any) -> int:
  """Returns the bits of a word."""
  return 8 * np.dtype(word).itemsize


def num_words(length: int, word: Any) -> int:
  """Returns how many words hold ``length`` values."""
  return -(-length // bits_of(word))


def check_words(name: str, value: Any) -> types.Array:
  """Returns ``value`` as an array, which must hold words."""
  value = jnp.asarray(value)
  if value.dtype not in WORDS:
    raise types.BadInput(
      f'{name} must be words of dtype uint16 or uint32, as packed.pack makes '
      f'them; got {types.shown(value)}.'
    )
  return value


def check_length(name: str, value: Any, axis: int, length: int) -> None:
  """Raises `BadInput` unless an axis has the words that ``length`` values take."""
  wanted = num_words(length, value.dtype)
  if value.shape[axis] != wanted:
    raise types.BadInput(
      f'{name} must have {wanted} words of {value.dtype} along axis '
      f'{axis % value.ndim}, for length {length}; got shape {value.shape}.'
    )


def check_same(x: types.Array, w: types.Array) -> None:
  """Raises `BadInput` unless inputs and weights are words of one dtype."""
  if x.dtype != w.dtype:
    raise types.BadInput(
      f'x and w must be words of one dtype; got {x.dtype} and {w.dtype}: pass '
      'word= to packed.pack.'
    )


def check_word(value: Any, length: int) -> np.dtype:
  """Returns the dtype of a word; None is the fastest for ``length`` values."""
  if value is None:
    return word_for(length)
  try:
    if np.dtype(value) in WORDS:
      return np.dtype(value)
  except TypeError:
    pass
  raise types.BadInput(
    f'word must be uint16, uint32 or None; got {types.shown(value)}.'
  )


def check_dtype(value: Any) -> np.dtype:
  """Returns the dtype of values ±1, or bool."""
  kinds = (jnp.floating, jnp.signedinteger, jnp.bool_)
  try:
    found = None if value is None else np.dtype(value)
  except TypeError:
    found = None
  if found is None or not any(jnp.issubdtype(found, kind) for kind in kinds):
    raise types.BadInput(
      f'dtype must be floating, a signed integer or bool; got {types.shown(value)}.'
    )
  return found


def check_axis(array: types.Array, name: str, axis: Any) -> int:
  """Returns an axis of an array, counted from the front."""
  axis = types.check_axis('axis', axis, optional=False)
  if not -array.ndim <= axis < array.ndim:
    raise types.BadInput(
      f'axis must be one of the {array.ndim} axes of {name}; got {axis} for '
      f'shape {array.shape}.'
    )
  return axis % array.ndim


def is_real(dtype: Any) -> bool:
  """Returns whether values of a dtype are real numbers."""
  return any(jnp.issubdtype(dtype, k) for k in (jnp.integer, jnp.floating))


def _as_bits(name, signs):
  if signs.dtype == bool:
    return signs
  if not is_real(signs.dtype):
    raise types.BadInput(
      f'{name} must be booleans or real numbers; got {types.shown(signs)}.'
    )
  return signs >= jnp.zeros((), signs.dtype)
