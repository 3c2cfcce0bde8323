"""What findings about flips in a ball have in common: batches, cells, and what matters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import itertools
from typing import TYPE_CHECKING, Any

from bitjax.evidence import verdicts

if TYPE_CHECKING:
  import xarray

__all__ = [
  'BATCHES',
  'CORRELATION',
  'LOG_RATIO',
  'NATS',
  'PROTOCOLS',
  'SHARE',
  'Verdicts',
  'cells',
  'describe',
]

BATCHES = {'search': 'A', 'holdout': 'B'}
PROTOCOLS = {'search': 'oracle', 'holdout': 'deployable'}
# What does not matter, fixed beforehand: half a percent of a loss, a hundredth of a nat
# (about as much), and a hundredth of a share or of a correlation.
LOG_RATIO, NATS, SHARE, CORRELATION = 0.005, 0.01, 0.01, 0.01

Verdicts = Iterator[verdicts.Verdict]

_CELL = ('ball', 'layers', 'state')


def cells(results: xarray.Dataset) -> list[dict[str, Any]]:
  """Returns labels of all combinations of ball, layers and state, primary one first.

  Args:
    results: those of `toy.arms.collect`; with a single ball they need not name it.
  """
  names = [name for name in _CELL if name in results.coords]
  values = (results[name].values.tolist() for name in names)
  return [
    dict(zip(names, labels, strict=True))
    for labels in itertools.product(*values)
  ]


def describe(cell: Mapping[str, Any]) -> str:
  """Returns the words for a cell of `cells` with which claims begin."""
  layers = 'first layer' if cell['layers'] == 'first' else 'all layers'
  words = [cell['ball']] if 'ball' in cell else []
  return ', '.join([*words, layers, cell['state']])
