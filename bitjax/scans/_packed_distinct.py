r"""Convolves packed signs of many similar images, and equal patches once.

Images that differ in few signs share most of what a kernel meets at a position. A *patch*
is what it meets there, the words of all its places and channels. Sums depend on
the patch only,

.. math:: s_{b p} = f(x_{b, p + k_1}, x_{b, p + k_2}, \dots),

so each distinct patch of a position is multiplied once, and all images that have it share
its sums. Equal words, and then equal patches, are found by sorting hashes and
comparing neighbours word by word: hashes that collide may cost a product more, and change
no sum.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import packed
from bitjax import types
from bitjax.scans import _convolution
from bitjax.scans import _split

__all__ = ['Sums', 'convolve', 'order']

_AT_A_TIME = 64  # Patches that are multiplied together.
# Spreads bits: the golden ratio, as in Knuth's multiplicative hash.
_ODD = 0x9E3779B1


class Sums(NamedTuple):
  """The sums of a convolution.

  Attributes:
    table: sums of distinct patches, [patches, features], int16 if that is wide enough.
    number: which of them are those of a position, [height', width', images].
  """

  table: types.Array
  number: types.Array


def convolve(
  x: types.Array,
  kernel: types.Array,
  channels: int,
  window: _convolution.Window,
) -> Sums:
  """Returns the sums that `packed.conv` does, with a padding of -1.

  Args:
    x: words [height, width, words, images].
    kernel: words [kernel height, kernel width, words, features].
    channels: the number of channels of the images.
    window: strides and padding.
  """
  images, features = x.shape[3], kernel.shape[3]
  edges = [(low, high, 0) for low, high in (*window.padding, (0, 0), (0, 0))]
  x = jax.lax.pad(x, np.array(0, x.dtype), edges)
  sizes = tuple(
    (x.shape[axis] - kernel.shape[axis]) // window.strides[axis] + 1
    for axis in (0, 1)
  )
  places = [
    tuple(
      slice(start, start + (size - 1) * stride + 1, stride)
      for start, size, stride in zip(place, sizes, window.strides, strict=True)
    )
    for place in np.ndindex(*kernel.shape[:2])
  ]
  words = [x[:, :, n].reshape(-1, images) for n in range(x.shape[2])]
  number, *_ = _numbers(words)
  number = number.reshape(*x.shape[:2], images)
  met = [number[place].reshape(-1, images) for place in places]
  number, distinct, ordered = _numbers(met)
  first = jnp.cumsum(jnp.sum(distinct, 1, dtype=jnp.int32))
  first = jnp.pad(first[:-1], (1, 0))
  number = number + first[:, None]
  some = min(_AT_A_TIME, distinct.size)
  (listed,), (count,) = _split.true_indices(distinct.reshape(1, -1), room=some)
  at = np.arange(math.prod(x.shape[:2]), dtype=np.int32)
  at = at.reshape(x.shape[:2])
  at = np.stack([at[place].reshape(-1) for place in places])
  rows = jnp.swapaxes(x.reshape(-1, x.shape[2], images), 1, 2)

  largest = channels * math.prod(kernel.shape[:2])
  dtype = jnp.int16 if largest <= np.iinfo('int16').max else jnp.int32

  def multiply(state):
    start, table = state
    which = jax.lax.dynamic_slice(listed, (start,), (some,))
    which = jnp.minimum(which, distinct.size - 1)
    image = ordered.reshape(-1)[which]
    patches = rows[jnp.asarray(at)[:, which // images], image[None]]
    patches = jnp.swapaxes(patches, 1, 2)
    patches = patches.reshape(*kernel.shape[:3], some)
    sums = packed.conv(patches, kernel, channels)[0, 0].T.astype(dtype)
    return start + some, jax.lax.dynamic_update_slice(table, sums, (start, 0))

  table = jnp.zeros((distinct.size + some, features), dtype)
  _, table = jax.lax.while_loop(
    lambda state: state[0] < count, multiply, (jnp.zeros_like(count), table)
  )
  return Sums(table, number.reshape(*sizes, images))


def _numbers(words):
  """Numbers the distinct columns of each row, from 0.

  Args:
    words: words of [rows, columns] each; columns are equal if all their words are.

  Returns:
    The numbers [rows, columns]; and for the columns in order, whether each differs from
    the one before, and which it is.
  """
  ordered = order(words)
  new = jnp.zeros(ordered.shape, bool)
  for word in words:
    word = jnp.take_along_axis(word, ordered, axis=1)
    new |= jnp.pad(
      word[:, 1:] != word[:, :-1], [(0, 0), (1, 0)], constant_values=True
    )
  number = jnp.cumsum(new, axis=1, dtype=jnp.int32) - 1
  rows = jnp.arange(len(ordered))[:, None]
  return jnp.zeros_like(number).at[rows, ordered].set(number), new, ordered


def order(words: Any) -> types.Array:
  """Returns an order in which equal columns are neighbours, [rows, columns].

  Columns that differ and have the same hash may lie between them. A number that holds a
  hash and an index is sorted several times faster than pairs of both.

  Args:
    words: words of [rows, columns] each.
  """
  found = jnp.zeros(words[0].shape, jnp.uint32)
  for word in words:
    found = (found ^ word.astype(jnp.uint32)) * jnp.uint32(_ODD)
    found = found ^ (found >> 15)
  bits = (found.shape[1] - 1).bit_length()
  index = jnp.arange(found.shape[1], dtype=jnp.uint32)[None]
  ordered = jnp.sort((found << bits) | index, axis=1)
  return (ordered & ((1 << bits) - 1)).astype(jnp.int32)
