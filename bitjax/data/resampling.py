r"""Bicubic resampling as MATLAB's ``imresize`` does it, which super-resolution rests on.

Published low-resolution images were made by it, and so were the rows "bicubic" of all
tables. Along each axis, output i lies at the input's position

.. math:: u_i = (i + 1/2) / s - 1/2

with the scale s, and is a mean of inputs j with the weights
:math:`w_{ij} \propto k(\min(s, 1) (u_i - j))`, normalised to the sum 1. The kernel is that
of Keys with a = -1/2,

.. math:: k(x) = \begin{cases}
  \tfrac32 |x|^3 - \tfrac52 |x|^2 + 1 & |x| \le 1 \\
  -\tfrac12 |x|^3 + \tfrac52 |x|^2 - 4 |x| + 2 & 1 < |x| \le 2 \\
  0 & \text{else.} \end{cases}

Where s < 1 the kernel is wider by 1/s, so that it averages what the smaller image cannot
hold (antialiasing). The axis with the smaller scale comes first, rows if they are
equal, and bytes are rounded after each of the two.

Weights depend on sizes alone. They are computed here on the host, in float64.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import types

__all__ = ['EDGES', 'Edges', 'bicubic', 'bicubic_on_host']

Edges: TypeAlias = Literal['mirror', 'replicate']

EDGES: tuple[str, ...] = get_args(Edges)

_SUPPORT = 4  # Width of the kernel.
# Entries of a matrix of weights; its product with patches is faster than gathering them.
_SMALL = 1 << 18


class _Taps(NamedTuple):
  """Which inputs make each output, and with what weights: [outputs, taps]."""

  indices: np.ndarray
  weights: np.ndarray


def bicubic(
  images: types.Array,
  scale: float | None = None,
  *,
  shape: tuple[int, int] | None = None,
  edges: Edges = 'mirror',
) -> types.Array:
  r"""Resamples images, up or down, as MATLAB's ``imresize``.

  Pure and differentiable; ``jit`` it with all but the images static. How it differs
  from ``jax.image.resize(method='cubic')``, whose kernel and antialiasing are the same:
  that one leaves out inputs beyond the edges and renormalises the other weights, and it
  neither rounds nor clips, so bytes have to be rounded, once, by the caller. Halving
  photographs by it and rounding changes some 15 % of the pixels by a grey level, and
  those at the edges by more.

  Args:
    images: [..., H, W, C], bytes or floating.
    scale: s > 0, any number; the output has ceil(s H) rows and ceil(s W) columns. None
      if ``shape`` is given.
    shape: rows and columns of the output, each of which makes the scale of its axis.
      None if ``scale`` is given. A scale of 1/3 is not a machine number, a third of 255
      rows is; sizes that are within rounding of an integer are that integer.
    edges: what lies beyond an edge: its mirror image (``'mirror'``, as MATLAB has
      it today) or copies of the outermost pixels (``'replicate'``, as MATLAB had it
      when Set5, Set14, B100 and Urban100 were made).

  Returns:
    Images of the type of the input. Bytes are clipped to 0, ..., 255 and rounded,
    halves up; floats are neither, so they may exceed the range of the input by some.

  Raises:
    BadInput: for images of another type or shape, for a scale that is not positive, and
      unless one of ``scale`` and ``shape`` is given.

  References:
    Keys, Cubic convolution interpolation for digital image processing, 1981
    (https://doi.org/10.1109/TASSP.1981.1163711).
  """
  sizes, scales = _checked(images, scale, shape, edges)
  x = jnp.asarray(images)
  if x.dtype == jnp.uint8:
    return _resampled(jnp, x, jnp.float32, sizes, scales, edges)
  wide = types.widened(x)
  wide = _resampled(jnp, wide, wide.dtype.type, sizes, scales, edges)
  return wide.astype(x.dtype)


def bicubic_on_host(
  images: np.ndarray,
  scale: float | None = None,
  *,
  shape: tuple[int, int] | None = None,
  edges: Edges = 'mirror',
) -> np.ndarray:
  """Resamples images by NumPy in float64, as `bicubic` does on a device in float32.

  So bytes are the same, but for a grey level where a mean is within rounding of a half:
  nowhere at scales 1/2 and 1/4, whose weights are binary fractions.

  Args:
    images: [..., H, W, C], bytes or floating.
    scale: as for `bicubic`.
    shape: as for `bicubic`.
    edges: as for `bicubic`.

  Returns:
    Images of the type of the input.

  Raises:
    BadInput: as `bicubic`.
  """
  images = np.asarray(images)
  sizes, scales = _checked(images, scale, shape, edges)
  found = _resampled(np, images, np.float64, sizes, scales, edges)
  return found.astype(images.dtype)


def _resampled(
  xp: Any,
  x: Any,
  dtype: Any,
  sizes: tuple[int, int],
  scales: tuple[float, float],
  edges: str,
) -> Any:
  """Applies the weights of both axes, by NumPy or jax.numpy; rounds bytes."""
  rounded = x.dtype == np.uint8
  for place in sorted((0, 1), key=lambda i: scales[i]):
    axis = x.ndim - 3 + place
    size, length = x.shape[axis], sizes[place]
    taps = _taps(size, length, scales[place], edges)
    if xp is jnp and not rounded and size * length <= _SMALL:
      matrix = jnp.asarray(_matrix(taps, size), dtype)
      x = jnp.moveaxis(
        jnp.tensordot(
          x, matrix, (axis, 1), precision=jax.lax.Precision.HIGHEST
        ),
        -1,
        axis,
      )
      continue
    # A gather and a sum, which compilers join: no product rounds its inputs, as matrix
    # units may.
    shape = (*taps.weights.shape, *(1,) * (x.ndim - 1 - axis))
    shape = (1,) * axis + shape
    weights = xp.asarray(taps.weights.reshape(shape), dtype)
    near = xp.take(x, taps.indices, axis=axis, mode='clip').astype(dtype)
    x = xp.sum(near * weights, axis=axis + 1)
    if rounded:
      x = xp.floor(xp.clip(x, 0, 255) + dtype(0.5)).astype(np.uint8)
  return x


def _matrix(taps: _Taps, size: int) -> np.ndarray:
  """Returns the weights as a matrix, [outputs, inputs]."""
  matrix = np.zeros((len(taps.indices), size))
  rows = np.arange(len(taps.indices))[:, None]
  np.add.at(matrix, (rows, taps.indices), taps.weights)
  return matrix


@functools.lru_cache(maxsize=256)
def _taps(size: int, length: int, scale: float, edges: str) -> _Taps:
  """Returns the taps of ``length`` outputs from ``size`` inputs, int32 and float64."""
  squeeze = min(scale, 1.0)
  width = _SUPPORT / squeeze
  positions = (np.arange(length) + 0.5) / scale - 0.5
  first = np.floor(positions - width / 2).astype(np.int64)
  indices = first[:, None] + np.arange(math.ceil(width) + 2)
  weights = _kernel(squeeze * (positions[:, None] - indices))
  weights /= weights.sum(axis=1, keepdims=True)
  if edges == 'mirror':
    indices %= 2 * size
    indices = np.minimum(indices, 2 * size - 1 - indices)
  else:
    indices = np.clip(indices, 0, size - 1)
  used = weights.any(axis=0)
  return _Taps(indices[:, used].astype(np.int32), weights[:, used])


def _kernel(x: np.ndarray) -> np.ndarray:
  x = np.abs(x)
  near = (1.5 * x - 2.5) * x**2 + 1
  far = ((2.5 - 0.5 * x) * x - 4) * x + 2
  return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _checked(images, scale, shape, edges):
  """Returns the sizes of the output and the scales of the axes, after checks."""
  old = jnp.shape(images)
  if len(old) < 3 or not all(old):
    raise types.BadInput(
      f'images must be [..., H, W, C], none of them 0; got shape {list(old)}.'
    )
  kind = jnp.result_type(images)
  if kind != jnp.uint8 and not jnp.issubdtype(kind, jnp.floating):
    raise types.BadInput(
      f'images must be uint8 or floating; got {kind}. Convert them.'
    )
  types.check_choice('edges', edges, EDGES)
  height, width = old[-3:-1]
  if (scale is None) == (shape is None):
    raise types.BadInput(
      'scale or shape must be given, one of the two; got '
      f'scale={types.shown(scale)} and shape={types.shown(shape)}.'
    )
  if shape is None:
    types.check_positive('scale', scale, finite=True)
    if isinstance(scale, jax.core.Tracer):
      raise types.BadInput('scale must be static: it decides shapes.')
    factor = float(scale)
    return (_ceil(factor * height), _ceil(factor * width)), (factor, factor)
  if not isinstance(shape, (tuple, list)) or len(shape) != 2:
    raise types.BadInput(
      f'shape must be two integers, rows and columns; got {types.shown(shape)}.'
    )
  rows, columns = (types.check_integer('shape', n, 1) for n in shape)
  return (rows, columns), (rows / height, columns / width)


def _ceil(length: float) -> int:
  """Returns the next integer, or the one that is within rounding."""
  nearest = round(length)
  close = abs(length - nearest) <= 1e-9 * max(length, 1.0)
  return max(nearest if close else math.ceil(length), 1)
