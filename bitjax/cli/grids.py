"""A grid of real numbers that is written, stored and compared as one string.

A learning-rate sweep of ten thousand points is one choice, not ten thousand: the
configuration keeps its specification, and the numbers follow from it.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from bitjax import types
from bitjax.cli import numerals

__all__ = ['Grid']

MAX_SIZE = 1_000_000
FORMS = "'0.1,0.2', 'log:LOW:HIGH:COUNT' or 'lin:LOW:HIGH:COUNT'"


@dataclasses.dataclass(frozen=True)
class Grid:
  """Distinct numbers, listed or spaced evenly, both ends included.

  Attributes:
    spec: ``'0.01,0.02'`` lists the numbers, ``'log:1e-5:1e-1:200'`` spaces 200
      numbers evenly in their logarithm, ``'lin:1e-5:1e-1:10000'`` spaces 10000 evenly.

  Raises:
    BadInput: for any other form, numbers that are not finite, an empty or
      repeating list, or ends in the wrong order.
  """

  spec: str

  def __post_init__(self):
    if not isinstance(self.spec, str):
      raise types.BadInput(f'a grid is written as {FORMS}; got {self.spec!r}')
    object.__setattr__(self, 'spec', ''.join(self.spec.split()))
    _ = self.values  # Checks the specification.

  @functools.cached_property
  def values(self) -> tuple[float, ...]:
    """The numbers, as Python floats."""
    spacing, colon, rest = self.spec.partition(':')
    if colon:
      return _spaced(self.spec, spacing, rest.split(':'))
    if not self.spec:
      return ()
    return _listed(self.spec)

  def __len__(self) -> int:
    return len(self.values)

  def __str__(self) -> str:
    return self.spec


def _listed(spec: str) -> tuple[float, ...]:
  values = tuple(_number(part) for part in spec.split(','))
  if len(set(values)) < len(values):
    raise types.BadInput(f'the grid {spec!r} lists a number twice')
  return values


def _spaced(spec: str, spacing: str, parts: list[str]) -> tuple[float, ...]:
  if spacing not in ('log', 'lin') or len(parts) != 3:
    raise types.BadInput(f'a grid is written as {FORMS}; got {spec!r}')
  low, high = _number(parts[0]), _number(parts[1])
  try:
    count = numerals.integer(parts[2])
  except types.BadInput:
    raise types.BadInput(f'COUNT in {spec!r} must be an integer') from None
  if not 2 <= count <= MAX_SIZE:
    raise types.BadInput(f'COUNT in {spec!r} must lie between 2 and {MAX_SIZE}')
  if not low < high:
    raise types.BadInput(f'LOW must be below HIGH in {spec!r}')
  if spacing == 'lin':
    return tuple(np.linspace(low, high, count).tolist())
  if low <= 0:
    raise types.BadInput(
      f'LOW must be > 0 in {spec!r}: the spacing is logarithmic'
    )
  inner = np.geomspace(low, high, count).tolist()[1:-1]
  return (low, *inner, high)


def _number(text: str) -> float:
  try:
    value = numerals.real(text)
  except types.BadInput as error:
    raise types.BadInput(f'{error}; a grid is written as {FORMS}') from None
  if not np.isfinite(value):
    raise types.BadInput(f'a grid holds finite numbers only; got {text!r}')
  return value
