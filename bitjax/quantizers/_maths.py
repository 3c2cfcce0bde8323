"""Functions that several rules share, safe for floats of any size and dtype."""

from __future__ import annotations

import jax.numpy as jnp

from bitjax import tree
from bitjax import types

__all__ = ['divide', 'geometric', 'linear', 'sech2', 'usable']


def sech2(z: types.Array) -> types.Array:
  """Returns ``1 / cosh(z)**2``, computed without overflow or cancellation."""
  e = jnp.exp(-2 * jnp.abs(z))
  return 4 * e / (1 + e) ** 2


def geometric(
  start: types.Scalar, end: types.Scalar, progress: types.Scalar
) -> types.Scalar:
  """Interpolates geometrically from ``start`` (progress 0) to ``end`` (progress 1)."""
  return start * (end / start) ** progress


def linear(
  start: types.Scalar, end: types.Scalar, progress: types.Scalar
) -> types.Scalar:
  """Interpolates linearly from ``start`` (progress 0) to ``end`` (progress 1)."""
  return start + (end - start) * progress


def usable(scale: types.Array) -> types.Array:
  """Returns a scale to divide by: 1 where it is 0 or subnormal."""
  return jnp.where(scale < jnp.finfo(scale.dtype).tiny, 1, scale)


def divide(x: types.Array, scale: types.Array) -> types.Array:
  """Returns ``x`` in units of a scale of any size, at least float32."""
  scale = usable(scale)
  # A compiler may multiply by a reciprocal, which is 0 for the largest scales.
  power = tree.power_of_two(scale)
  return (types.widened(x) / power) / (scale / power)
