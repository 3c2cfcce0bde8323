"""Which program computes a packed product: popcount, or products of 8-bit integers.

CPUs count bits faster than they multiply; accelerators multiply 8-bit integers, with
int32 sums, faster than they count. Both are exact, so nothing but time depends on it.
The platform is chosen when a program is lowered, so exported programs stay portable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import export
from jax import lax
import jax.numpy as jnp
import numpy as np

from bitjax import types

__all__ = [
  'MOST_TERMS',
  'PATHS',
  'check_path',
  'count_dtype',
  'grouped',
  'many',
  'run',
]

PATHS = ('auto', 'popcount', 'int8')
# Terms of one sum that are written out: more are slower, from 288 on ten times.
MOST_TERMS = 36


def check_path(path: Any) -> None:
  """Raises `BadInput` for an unknown path."""
  types.check_choice('path', path, PATHS)


def many(count: Any, least: int) -> bool:
  """Returns whether there are at least so many; True for a symbolic number."""
  return export.is_symbolic_dim(count) or count >= least


def run(
  path: str,
  popcount: Callable[..., types.Array],
  int8: Callable[..., types.Array],
  *arrays: types.Array,
) -> types.Array:
  """Calls the function of a path; ``'auto'`` is popcount on CPUs only."""
  if path == 'auto':
    return lax.platform_dependent(*arrays, cpu=popcount, default=int8)
  return (popcount if path == 'popcount' else int8)(*arrays)


def count_dtype(word: np.dtype, most: int) -> np.dtype:
  """Returns the dtype of counts of bits up to ``most``: as narrow as the words."""
  narrow = word == np.dtype('uint16') and most < np.iinfo('int16').max
  return np.dtype('int16' if narrow else 'int32')


def grouped(
  part: Callable[[types.Array, types.Array], types.Array],
  x: types.Array,
  x_axis: int,
  w: types.Array,
  w_axis: int,
  taps: int,
) -> types.Array:
  """Sums ``part(x, w)`` over groups of words, each with at most `MOST_TERMS` terms.

  Args:
    part: sums over all words that it is given, with ``taps`` terms for each word.
    x: its first argument, with the words along ``x_axis``.
    x_axis: an axis of x.
    w: its second argument, with as many words along ``w_axis``.
    w_axis: an axis of w.
    taps: terms for each word.
  """
  words = x.shape[x_axis]
  steps = -(-words // max(1, MOST_TERMS // taps))
  if steps == 1:
    return part(x, w)
  group = -(-words // steps)
  x, w = (
    _split(a, axis, steps, group) for a, axis in ((x, x_axis), (w, w_axis))
  )
  shape = jax.eval_shape(part, x[0], w[0])
  total, _ = lax.scan(
    lambda total, xw: (total + part(*xw), None),
    jnp.zeros(shape.shape, shape.dtype),
    (x, w),
  )
  return total


def _split(array, axis, steps, group):
  """Returns [steps, ..., group, ...]; words that fill the last group never differ."""
  rest = steps * group - array.shape[axis]
  edges = [(0, rest * (i == axis), 0) for i in range(array.ndim)]
  array = lax.pad(array, np.array(0, array.dtype), edges)
  array = array.reshape(
    *array.shape[:axis], steps, group, *array.shape[axis + 1 :]
  )
  return lax.transpose(
    array, (axis, *(i for i in range(array.ndim) if i != axis))
  )
