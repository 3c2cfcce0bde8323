"""The few functions that several backward rules share, safe for any float."""

from __future__ import annotations

import jax.numpy as jnp

from bitjax import types

__all__ = ['geometric', 'linear', 'sech2', 'widen']


def widen(x: types.Array) -> types.Array:
  """``x`` in at least float32: curved rules lose too much in 16 bits."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def sech2(z: types.Array) -> types.Array:
  """``1 / cosh(z)**2``, which neither overflows nor cancels."""
  e = jnp.exp(-2 * jnp.abs(z))
  return 4 * e / (1 + e) ** 2


def geometric(
  start: types.Scalar, end: types.Scalar, progress: types.Scalar
) -> types.Scalar:
  """From ``start`` to ``end`` by equal factors as progress goes from 0 to 1."""
  return start * (end / start) ** progress


def linear(
  start: types.Scalar, end: types.Scalar, progress: types.Scalar
) -> types.Scalar:
  """From ``start`` to ``end`` by equal amounts as progress goes from 0 to 1."""
  return start + (end - start) * progress
