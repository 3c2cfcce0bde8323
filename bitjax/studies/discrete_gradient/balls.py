"""Compares exact gains with STE's step and its linear prediction in every ball.

In each ball, moves are ranked as its norm asks (`outcomes.ranking_of_ball`), and STE
steps along its gradient or along the gradient's sign. A finding is a table over all
balls, layers and states, with one verdict for each cell. If it is about one batch,
there is a table for each; the intervals of a table hold for all its cells at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bitjax.evidence import contrasts
from bitjax.evidence import protocols
from bitjax.studies.discrete_gradient import outcomes
from bitjax.studies.toy import outcomes as toy_outcomes
from bitjax.studies.toy import searches

if TYPE_CHECKING:
  import xarray

__all__ = ['judge', 'lost', 'signals', 'steps']

OPPONENTS = searches.DIRECTIONS[:2]


def steps(results: xarray.Dataset) -> toy_outcomes.Verdicts:
  """Judges N3 in every ball: do exact gains beat one step of STE?

  Args:
    results: the results of `toy.arms.collect`.
  """

  def cells(batch, cell, ranking):
    name, protocol = toy_outcomes.BATCHES[batch], toy_outcomes.PROTOCOLS[batch]
    found = outcomes.step(results, protocol, batch, cell, 'exact', ranking)
    exact = {'signal': 'exact', 'ranking': ranking}
    details = _spent(results, cell, ranking) | outcomes.otherwise(
      results, 'discrete', batch, 'exact', **cell, **exact
    )
    for direction in OPPONENTS:
      ste = outcomes.reached(
        results, 'ste', protocol, batch, **cell, direction=direction
      )
      yield contrasts.Cell(
        f'N3 ball, {name}, {direction}',
        f'{toy_outcomes.describe(cell)}: exact gains ({ranking}) reach a lower loss '
        f'on {name} than one step of STE along its {direction}.',
        contrasts.log_ratio(ste, found),
        details
        | outcomes.otherwise(
          results, 'ste', batch, 'STE', **cell, direction=direction
        ),
      )

  return _tables(results, cells)


def signals(results: xarray.Dataset) -> toy_outcomes.Verdicts:
  """Judges in every ball whether exact gains are a better signal than STE's prediction.

  Each signal stops at the number of moves that the protocol of the batch chooses.

  Args:
    results: the results of `toy.arms.collect`.
  """

  def cells(batch, cell, ranking):
    name, protocol = toy_outcomes.BATCHES[batch], toy_outcomes.PROTOCOLS[batch]
    losses = {
      signal: outcomes.step(results, protocol, batch, cell, signal, ranking)
      for signal in searches.SIGNALS
    }
    details = {
      f'decrease, {signal}': outcomes.decrease(
        results, batch, cell, loss
      ).mean()
      for signal, loss in losses.items()
    }
    for signal in searches.SCORED:
      options = {'signal': signal, 'ranking': ranking}
      details |= outcomes.otherwise(
        results, 'discrete', batch, signal, **cell, **options
      )
    yield contrasts.Cell(
      f'N3 ball, {name}, signal',
      f'{toy_outcomes.describe(cell)}: exact gains ({ranking}) reach a lower loss on '
      f"{name} than STE's linear prediction as a signal.",
      contrasts.log_ratio(losses['linear'], losses['exact']),
      details,
    )

  return _tables(results, cells)


def lost(results: xarray.Dataset) -> toy_outcomes.Verdicts:
  """Judges overfitting in every ball: what share of the decrease on A is lost on B?

  The step is the one that is best on A.

  Args:
    results: the results of `toy.arms.collect`.
  """
  cells = []
  for cell, ranking in _rows(results):
    for signal in searches.SCORED:
      options = cell | {'signal': signal, 'ranking': ranking}
      best = outcomes.chosen(results, 'discrete', 'oracle', **options)
      made = results['discrete_moves'].sel(options)
      # Prefixes may exceed the number of moves that were made.
      moves = np.minimum(best.prefix, made)
      decreases = {
        name: outcomes.decrease(results, batch, cell, best[batch])
        for batch, name in toy_outcomes.BATCHES.items()
      }
      cells.append(
        contrasts.Cell(
          f'N3 ball, lost on B, {signal}',
          f'{toy_outcomes.describe(cell)}: of what the best step on A saves there, '
          f'{searches.label(signal, ranking)} loses some on B.',
          decreases['A'] - decreases['B'],
          {
            f'decrease on {name}': found.mean()
            for name, found in decreases.items()
          }
          | {'fewest moves': moves.min(), 'most moves': moves.max()},
          whole=decreases['A'],
        )
      )
  yield from contrasts.family(
    cells,
    smallest=toy_outcomes.SHARE,
    protocol='oracle, A and B',
    unit='of the mean decrease on A',
  )


def judge(results: xarray.Dataset) -> toy_outcomes.Verdicts:
  """Yields the verdicts of all tables."""
  for table in (steps, signals, lost):
    yield from table(results)


def _tables(results, cells):
  """Yields the verdicts of a table of log loss ratios, for each batch."""
  for batch, name in toy_outcomes.BATCHES.items():
    yield from contrasts.family(
      [cell for row in _rows(results) for cell in cells(batch, *row)],
      protocol=f'{toy_outcomes.PROTOCOLS[batch]}, {name}',
      smallest=toy_outcomes.LOG_RATIO,
      unit='log loss ratio',
    )


def _rows(results):
  """Returns, row by row, labels of ball, layers and state, and the ball's ranking."""
  return [
    (cell, outcomes.ranking_of_ball(cell['ball']))
    for cell in toy_outcomes.cells(results)
  ]


def _spent(results, cell, ranking):
  """Returns how many moves a whole budget of exact gains makes, and what they yield."""
  spent = protocols.select_arm(
    results, 'discrete', **cell, signal='exact', ranking=ranking
  ).mean('seed')
  return {
    'moves of a whole budget': spent['moves'],
    'true / predicted': spent['true'] / spent['predicted'],
  }
