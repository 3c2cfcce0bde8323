"""Checks indices of weights, or of their moves, as far as they are known.

Concrete ones that are no indices are an error. Traced ones cannot be: they stand for a
weight that there is, so that no path reads beyond its arrays, and the answer is NaN.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import types

__all__ = ['check', 'check_distinct', 'within']


def check(
  coordinates: Any, size: int, name: str = 'coordinates', of: str = 'weights'
) -> None:
  """Raises `BadInput` unless these are indices of ``size`` weights or moves."""
  kind, shape = getattr(coordinates, 'dtype', None), np.shape(coordinates)
  if kind is None or kind.kind not in 'iu' or len(shape) != 1 or 0 in shape:
    raise types.BadInput(
      f'{name} must be an array of indices of {of}, [{name}], at least one; got '
      f'{kind or type(coordinates).__name__} of shape {shape}.'
    )
  types.check_range(name, coordinates, 0, size - 1, arrays=True)


def check_distinct(coordinates: types.Array) -> None:
  """Raises `BadInput` for an index that is there twice, if they are concrete."""
  if isinstance(coordinates, jax.core.Tracer):
    return
  indices, counts = np.unique(np.asarray(coordinates), return_counts=True)
  if np.any(counts > 1):
    raise types.BadInput(
      f'coordinates must name each weight once; got {indices[counts > 1][0]} '
      'more than once.'
    )


def within(coordinates: types.Array | None, size: int) -> tuple[Any, Any]:
  """Returns int32 indices of ``size`` weights, and which of them were none before.

  They are None and False if there are no coordinates.
  """
  if coordinates is None:
    return None, False
  if coordinates.dtype.itemsize < 4:  # Which may not hold the last index.
    coordinates = coordinates.astype(jnp.int32)
  outside = (coordinates < 0) | (coordinates >= size)
  return jnp.clip(coordinates, 0, size - 1).astype(jnp.int32), outside
