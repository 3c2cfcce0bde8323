"""Describes results in one line: what they are, not walls of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

__all__ = ['describe', 'reduce']


def describe(result: Any, *extra: str, **fields: Any) -> str:
  """Returns ``Name(field=value, ...)``, with numbers as such and arrays as shapes.

  Args:
    result: the result; its class gives the name.
    *extra: further parts, as they are.
    **fields: what to show; None is left out.
  """
  shown = [f'{k}={_value(v)}' for k, v in fields.items() if v is not None]
  return f'{type(result).__name__}({", ".join([*shown, *extra])})'


def reduce(fn: Callable[[Any], Any], value: Any) -> Any:
  """Returns ``fn`` of an array that has values; ``value`` itself otherwise."""
  concrete = _concrete(value)
  return value if concrete is None or not concrete.size else fn(concrete)


def _concrete(value):
  """Returns a NumPy array; None for a tracer, or another leaf without numbers."""
  if isinstance(value, jax.core.Tracer) or not hasattr(value, 'dtype'):
    return np.asarray(value) if isinstance(value, float) else None
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
