r"""Convolutions of floats with few products in a sum, as XLA's CPU library adds them.

.. math::
  y_p = \operatorname{fma}(x_{p k_n}, w_{k_n}, \ldots
    \operatorname{fma}(x_{p k_1}, w_{k_1}, 0))

The products of a sum are added one after another, rows of the kernel outermost and channels
innermost, each with one rounding where the machine has such an operation. This is what XLA's own
convolution does for the few channels of an image; but it fills no vectors with three of
them. Here images fill the vectors, as they do in packed convolutions.

That both are equal to the bit is no promise of XLA's: `same` tries it, once for each shape,
on random numbers, of which nearly every sum would differ if it were added in another order.
"""

from __future__ import annotations

import functools
import math
from typing import Any, TypeAlias

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from bitjax import types

__all__ = ['MOST_TERMS', 'by_xla', 'conv', 'same']

Pair: TypeAlias = tuple[int, int]
Pads: TypeAlias = tuple[Pair, Pair]

MOST_TERMS = 36  # Products of a sum that are written out.
_IMAGES = 3  # Of a trial.


def by_xla(
  x: types.Array, kernel: types.Array, strides: Pair, padding: Pads
) -> types.Array:
  """Returns XLA's convolution of images [images, height, width, channels]."""
  return lax.conv_general_dilated(
    x,
    kernel,
    strides,
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision='highest',
  )


def conv(
  x: types.Array,
  kernel: types.Array,
  zero: types.Array,
  strides: Pair,
  padding: Pads,
) -> types.Array:
  """Convolves images, which are innermost, by written-out sums.

  Args:
    x: [height, width, channels, images], float32.
    kernel: [kernel height, kernel width, channels, features], float32.
    zero: an int32 zero that no compiler knows to be one, so that each sum begins with a
      rounded product.
    strides: strides of rows and columns.
    padding: zeros (before, after) that are added to rows and to columns.

  Returns:
    [height', width', features, images].
  """
  edges = [(low, high, 0) for low, high in (*padding, (0, 0), (0, 0))]
  x = lax.pad(x, np.float32(0), edges)
  rows, columns = (
    (x.shape[axis] - kernel.shape[axis]) // strides[axis] + 1 for axis in (0, 1)
  )
  shape = (rows, columns, kernel.shape[3], x.shape[3])
  total = jnp.broadcast_to(lax.bitcast_convert_type(zero, np.float32), shape)
  for i, j, channel in np.ndindex(*kernel.shape[:3]):
    seen = x[
      i : i + (rows - 1) * strides[0] + 1 : strides[0],
      j : j + (columns - 1) * strides[1] + 1 : strides[1],
      channel,
    ]
    each = lax.broadcast_in_dim(seen, shape, (0, 1, 3))
    total += each * lax.broadcast_in_dim(kernel[i, j, channel], shape, (2,))
  return total


@functools.cache
def same(
  size: tuple[int, ...], kernel: tuple[int, ...], strides: Pair, padding: Pads
) -> bool:
  """Returns whether `conv` gives the bits that XLA's convolution gives on this CPU.

  Args:
    size: height, width and channels of an image.
    kernel: shape of the kernel.
    strides: as in `conv`.
    padding: as in `conv`.
  """
  if math.prod(kernel[:3]) > MOST_TERMS:
    return False
  try:
    cpu = jax.local_devices(backend='cpu')[0]
  except RuntimeError:  # There is none for JAX.
    return False
  rng = np.random.default_rng(0)
  images = rng.normal(size=(_IMAGES, *size)).astype(np.float32)
  weights = rng.normal(size=kernel).astype(np.float32)

  @jax.jit
  def written(images: Any, weights: Any, zero: Any) -> Any:
    x = jnp.moveaxis(images, 0, -1)
    return jnp.moveaxis(conv(x, weights, zero, strides, padding), -1, 0)

  xla = jax.jit(functools.partial(by_xla, strides=strides, padding=padding))
  with jax.ensure_compile_time_eval(), jax.default_device(cpu):
    got = np.asarray(written(images, weights, np.int32(0)))
    want = np.asarray(xla(images, weights))
  return bool((got == want).all())
