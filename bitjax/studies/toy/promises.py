"""What single moves promise: four signals, how they spend a ball, how they replicate.

The exact gain and STE's prediction of it are corners of a factorial (see
`scans.flip_factorial`): the crossing of the threshold is true or smoothed, and the
effect of what lies behind is exact or linear.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from bitjax import lanes
from bitjax import measures
from bitjax import scans
from bitjax import types
from bitjax.studies.toy import moves
from bitjax.studies.toy import searches

__all__ = [
  'BEHIND',
  'CROSSINGS',
  'PAIRS',
  'SIGNALS',
  'factorial',
  'pair',
  'reliability',
]

CROSSINGS = ('true', 'smoothed')
BEHIND = ('exact', 'linear')
# One for each crossing and effect behind, in the order of `scans.FlipFactorial`.
SIGNALS = ('exact', 'true-linear', 'smoothed-exact', 'linear')


def pair(on_a: str, on_b: str) -> str:
  """Returns the label of two signals of all moves, one on A and one on B."""
  return f'{on_a} A, {on_b} B'


# How each signal replicates, and how near each comes to the exact gains on B.
PAIRS = (
  *(pair(signal, signal) for signal in SIGNALS),
  *(pair(signal, 'exact') for signal in SIGNALS[1:]),
)


def factorial(
  pose: searches.Pose, budget: types.Budget, *, prefixes: Sequence[int]
) -> moves.Outputs:
  """Makes the moves of one discrete gradient, for every crossing and effect behind.

  All are ranked as fills the ball by density. See `searches.discrete`.
  """
  posed = pose()
  signals = jnp.stack(scans.flip_factorial(posed.search))
  ranking = searches.RANKINGS.index(searches.RANKING_OF_NORM[budget.norm])

  def spend(signal):
    return searches.spend(posed, budget, signals[signal], ranking, prefixes)

  found = lanes.each(spend, {'signal': jnp.arange(len(SIGNALS))})
  shape = len(CROSSINGS), len(BEHIND)
  return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), found)


def reliability(pose: searches.Pose) -> moves.Outputs:
  """Measures how two signals of all moves agree, for each of the `PAIRS`."""
  posed = pose()
  found = {
    batch: dict(
      zip(
        SIGNALS, map(measures.ranked, scans.flip_factorial(view)), strict=True
      )
    )
    for batch, view in (('A', posed.search), ('B', posed.holdout))
  }
  agreements = []
  for name in PAIRS:
    (a, on_a), (b, on_b) = (side.split() for side in name.split(', '))
    agreements.append(measures.agreement(found[on_a][a], found[on_b][b]))
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *agreements)
  return stacked._asdict()
