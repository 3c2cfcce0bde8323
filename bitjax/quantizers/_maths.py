"""Functions that several rules share, safe for floats of any size and dtype."""

from __future__ import annotations

import jax.numpy as jnp

from bitjax import types

__all__ = ['geometric', 'linear', 'sech2']


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
