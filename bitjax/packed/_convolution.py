r"""Convolutions of ±1 images with ±1 kernels, exact in int32.

.. math::
  y_p = n - 2 \sum_k \operatorname{popcount}(x_{s p + k} \oplus w_k)
    + (1 + v) \sum_{k \notin I(p)} \sum_c w_{k c}

Here p are positions of the output, k those of the kernel, c channels, s strides, n the
products in a sum, and I(p) the k that fall on the image. Words have no third value for
a zero, so padding is packed as -1, and the last term makes of it the value v that it
should have: it depends on few kinds of places and is computed once for each.

Images are innermost, [height, width, words, images]: all of them meet the same weight,
which fills vectors whatever the number of channels, and a word of the output is packed
by whole vectors too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import dataclasses
import functools
import math
from typing import Any, TypeAlias

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from bitjax import types
from bitjax.packed import _paths
from bitjax.packed import _words

__all__ = ['conv', 'padded', 'pads', 'pair', 'patch']

Pair: TypeAlias = tuple[int, int]
Pads: TypeAlias = tuple[Pair, Pair]

# With fewer images than this, features fill the vectors instead.
_FEW_IMAGES = 8


@dataclasses.dataclass(frozen=True)
class _Window:
  """What of a convolution is no array."""

  channels: int
  strides: Pair
  pads: Pads
  pad_value: int

  def sizes(self, x: types.Array, w: types.Array) -> Pair:
    """Returns height and width of the output."""
    rows, columns = (
      (x.shape[i] + sum(self.pads[i]) - w.shape[i]) // self.strides[i] + 1
      for i in (0, 1)
    )
    return rows, columns

  def inside(self, x: types.Array, w: types.Array, axis: int) -> np.ndarray:
    """Returns [output, kernel], which pairs of one axis fall on the image."""
    place = np.arange(self.sizes(x, w)[axis])[:, None] * self.strides[axis]
    place = place + np.arange(w.shape[axis]) - self.pads[axis][0]
    return (place >= 0) & (place < x.shape[axis])


def conv(
  x: types.Array,
  w: types.Array,
  channels: int,
  *,
  strides: Pair = (1, 1),
  padding: Pads = ((0, 0), (0, 0)),
  pad_value: int = 0,
  path: str = 'auto',
) -> types.Array:
  """Convolves packed images ±1 with packed kernels ±1.

  For many images, call it in `map_images`.

  Args:
    x: words [height, width, words, images]: `pack_images`, or any ±1 array packed
      along axis 2.
    w: words [kernel height, kernel width, words, features] of the same dtype: ``pack(w,
      2)`` of a kernel of the layout HWIO.
    channels: the number of channels of the images. Groups are not supported.
    strides: strides of rows and columns.
    padding: values (before, after) that are added to rows and to columns.
    pad_value: 0, -1 or +1, which the padding counts as.
    path: as in `matmul`.

  Returns:
    int32 sums [height', width', features, images].

  Raises:
    BadInput: for arrays that do not fit each other or the channels, a kernel that is
      larger than the padded image, or other values of the options.
  """
  window = _checked_window(x, w, channels, strides, padding, pad_value, path)
  return _conv(x, w, window, path)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _conv(x, w, window, path):
  def popcount(x, w):
    count = _mismatches(x, w, window)
    offsets = _offsets(x, w, window)
    return lax.broadcast_in_dim(offsets, count.shape, (0, 1, 2)) - 2 * count

  def int8(x, w):
    return _by_int8(x, w, window)

  return _paths.run(path, popcount, int8, x, w)


def _length(w, window):
  return math.prod(w.shape[:2]) * window.channels


def _mismatches(x, w, window):
  """Counts the bits in which patches and kernels differ, with padding of -1."""
  images, features = x.shape[3], w.shape[3]
  dtype = _paths.count_dtype(x.dtype, _length(w, window))
  few = not _paths.many(images, min(_FEW_IMAGES, features))
  innermost = (images, features) if few else (features, images)
  shape = (*window.sizes(x, w), *innermost)
  image_axis, feature_axis = (2, 3) if few else (3, 2)
  x = padded(x, window.pads, 0)

  def part(x, w):
    total = jnp.zeros(shape, dtype)
    for i, j in np.ndindex(*w.shape[:2]):
      inputs = patch(x, (i, j), shape[:2], window.strides)
      for k in range(w.shape[2]):
        both = lax.broadcast_in_dim(inputs[:, :, k], shape, (0, 1, image_axis))
        both ^= lax.broadcast_in_dim(w[i, j, k], shape, (feature_axis,))
        total += lax.population_count(both).astype(dtype)
    return total

  taps = math.prod(w.shape[:2])
  count = _paths.grouped(part, x, 2, w, 2, taps)
  count = count.swapaxes(2, 3) if few else count
  return count.astype(np.int32)


def padded(x: types.Array, pads: Pads, value: int) -> types.Array:
  """Pads rows and columns."""
  edges = [(low, high, 0) for low, high in (*pads, (0, 0), (0, 0))]
  return lax.pad(x, np.array(value, x.dtype), edges)


def patch(
  x: types.Array, place: Pair, sizes: Sequence[int], strides: Pair
) -> types.Array:
  """Returns what meets one place of the kernel: [height', width', ...]."""
  ends = [
    start + (size - 1) * stride + 1
    for start, size, stride in zip(place, sizes, strides, strict=True)
  ]
  return lax.slice(
    x, (*place, *[0] * (x.ndim - 2)), (*ends, *x.shape[2:]), (*strides, 1, 1)
  )


def _offsets(x, w, window):
  """Returns int32 [height', width', features], to which -2 mismatches are added.

  It is the length and what makes of padding the value that it should have.
  """
  length = np.int32(_length(w, window))
  sizes, scale = window.sizes(x, w), np.int32(1 + window.pad_value)
  inside = [window.inside(x, w, axis) for axis in (0, 1)]
  if not scale or all(part.all() for part in inside):
    return jnp.full((*sizes, w.shape[3]), length)
  # Rows, and columns, of the output that meet the padding in the same way.
  (rows, row), (columns, column) = (
    np.unique(part, axis=0, return_inverse=True) for part in inside
  )
  ones = lax.population_count(w).astype(np.int32).sum(2, dtype=np.int32)
  taps = 2 * ones - np.int32(window.channels)
  outside = ~(rows[:, None, :, None] & columns[None, :, None, :])
  # An integer product of a few places.
  missing = lax.dot_general(
    outside.astype(np.int32), taps, (((2, 3), (0, 1)), ((), ()))
  )
  offsets = length + scale * missing
  return offsets[row.reshape(-1)][:, column.reshape(-1)]


def _by_int8(x, w, window):
  """Multiplies patches and kernels as 8-bit integers, padding included."""
  shape = window.sizes(x, w)
  x, w = (
    _words.signs_of(a, window.channels, 2, np.dtype('int8')) for a in (x, w)
  )
  x = padded(x, window.pads, window.pad_value)
  places = np.ndindex(*w.shape[:2])
  patches = lax.concatenate(
    [patch(x, place, shape, window.strides) for place in places], 2
  )
  sums = lax.dot_general(
    w.reshape(-1, w.shape[3]),
    patches,
    (((0,), (2,)), ((), ())),
    preferred_element_type=np.int32,
  )
  return lax.transpose(sums, (1, 2, 0, 3))


def _checked_window(x, w, channels, strides, padding, pad_value, path):
  """Returns the window of a convolution; its arguments are checked."""
  _paths.check_path(path)
  x, w = _words.check_words('x', x), _words.check_words('w', w)
  channels = types.check_integer('channels', channels, 1)
  layouts = {
    'x': (x, '[height, width, words, images]'),
    'w': (w, '[kernel height, kernel width, words, features]'),
  }
  for name, (array, layout) in layouts.items():
    if array.ndim != 4 or 0 in array.shape[:2] or not w.shape[-1]:
      raise types.BadInput(
        f'{name} must have shape {layout}; got shape {array.shape}.'
      )
    _words.check_length(name, array, 2, channels)
  _words.check_same(x, w)
  if types.integer(pad_value) not in (-1, 0, 1):
    raise types.BadInput(
      f'pad_value must be -1, 0 or 1; got {types.shown(pad_value)}.'
    )
  window = _Window(
    channels,
    pair('strides', strides, 1),
    pads(padding),
    int(pad_value),
  )
  if min(window.sizes(x, w)) < 1:
    raise types.BadInput(
      f'w must not be larger than the padded image; got a kernel {w.shape[:2]} '
      f'for an image {x.shape[:2]} with padding {window.pads}.'
    )
  return window


def pair(name: str, value: Any, low: int) -> Pair:
  """Returns two integers >= ``low``, for rows and columns."""
  found = _pair(value, low)
  if found is None:
    raise types.BadInput(
      f'{name} must be two integers >= {low}, for rows and columns; got '
      f'{types.shown(value)}.'
    )
  return found


def pads(padding: Any) -> Pads:
  """Returns explicit padding, checked."""
  parts = _two(padding)
  rows, columns = (_pair(part, 0) for part in parts or (None, None))
  if rows is None or columns is None:
    raise types.BadInput(
      'padding must be ((top, bottom), (left, right)), integers >= 0; got '
      f'{types.shown(padding)}.'
    )
  return rows, columns


def _pair(value, low) -> Pair | None:
  first, second = map(types.integer, _two(value) or (None, None))
  if first is None or second is None or min(first, second) < low:
    return None
  return first, second


def _two(value):
  """Returns the two entries of a sequence; None for all else."""
  if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
    return None
  found = tuple(value)
  return found if len(found) == 2 else None
