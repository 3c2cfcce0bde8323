"""What a method is, and what it may spend.

A method moves the signs of one layer. It begins at the kernel of a view of all examples, and
says which kernel it would deploy after growing shares of its budget (`EFFORTS`). The unit of
effort is a *gradient-equivalent*, the gradient of all examples: a gradient of fewer counts by
their share, and a loss of all examples for a third, however cheaply it is found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import itertools
from typing import NamedTuple

from bitjax import types

__all__ = ['BATCH', 'EFFORTS', 'FEW', 'SEGMENTS', 'Method', 'Spent', 'crossed']

BATCH = 128  # Examples of a gradient, at most.
SEGMENTS = (
  8  # Methods that follow gradients are read after each eighth of them.
)
# Shares of the budget after which kernels are read. Methods that follow gradients stop at
# 1; those that evaluate losses go on, for their losses may take less time than they count.
EFFORTS = (0, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4)

# Those of networks on which all would take too long.
FEW = (
  'STE, Adam',
  'ADMM',
  'PARQ',
  'flips, then STE',
  'flips at intervals',
  'genetic',
)


class Spent(NamedTuple):
  """What every method may spend.

  Attributes:
    updates: gradients of a batch, a multiple of `SEGMENTS`.
    batch: examples of a batch.
    examples: all examples.
  """

  updates: int
  batch: int
  examples: int

  @property
  def gradients(self) -> float:
    """The budget in gradient-equivalents."""
    return self.updates * self.batch / self.examples

  @property
  def evaluations(self) -> int:
    """Losses of all examples that the budget pays for."""
    return int(3 * self.gradients)


class Method(NamedTuple):
  """A method with its settings, of which all methods have equally many.

  Attributes:
    run: ``(view, key, setting, spent) -> kernels``: those to deploy after each of
      `EFFORTS` but the first, [efforts - 1, ...].
    settings: dictionaries of numbers, of the same names.
  """

  run: Callable[..., types.Array]
  settings: tuple[Mapping[str, float], ...]


def crossed(**grids: tuple[float, ...]) -> tuple[Mapping[str, float], ...]:
  """Returns all combinations of some grids as settings."""
  return tuple(
    dict(zip(grids, values, strict=True))
    for values in itertools.product(*grids.values())
  )
