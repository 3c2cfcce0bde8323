"""Describes results in one line: what they are, not walls of arrays."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

__all__ = ['describe', 'describe_moves', 'reduce']


def describe(result: Any, **fields: Any) -> str:
  """Returns ``Name(field=value, ...)``, with numbers as such and arrays as shapes.

  Args:
    result: the result; its class gives the name.
    **fields: what to show; None is left out.
  """
  shown = [f'{k}={_value(v)}' for k, v in fields.items() if v is not None]
  return f'{type(result).__name__}({", ".join(shown)})'


def describe_moves(result: Any) -> str:
  """Returns `describe` of the result of a search that moved a kernel's weights."""
  names = ('num_moves', 'used', 'loss', 'decrease_search', 'decrease_holdout')
  fields = {name: getattr(result, name) for name in names}
  return describe(result, weights=result.displacement, **fields)


def reduce(fn: np.ufunc, value: Any) -> Any:
  """Returns ``fn``, such as ``np.fmin``, over an array's entries.

  An array without entries, or whose values this process does not have, is returned
  as it is.
  """
  concrete = _concrete(value)
  if concrete is None or not concrete.size:
    return value
  return fn.reduce(concrete, axis=None)


def _concrete(value):
  """Returns a NumPy array; None for a tracer, or another leaf without numbers."""
  if isinstance(value, jax.core.Tracer) or not hasattr(value, 'dtype'):
    return np.asarray(value) if isinstance(value, float) else None
  is_jax = isinstance(value, jax.Array)
  if is_jax and (value.is_deleted() or not value.is_fully_addressable):
    return None
  return np.asarray(value)


def _value(value):
  if isinstance(value, (str, bool, int)):
    return repr(value)
  concrete = _concrete(value)
  if concrete is None or concrete.ndim:
    shape, dtype = getattr(value, 'shape', '?'), getattr(value, 'dtype', '')
    return f'{dtype}{list(shape) if shape != "?" else "?"}'
  number = concrete.item()
  return f'{number:.4g}' if isinstance(number, float) else str(number)
