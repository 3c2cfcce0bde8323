"""What the ball decides: exact gains against STE's step and its linear prediction.

In each ball moves are ranked as its norm asks (`discrete_reads.own_ranking`), and STE
steps along its gradient or along the gradient's sign. Each finding is a table over all
balls, layers and states, with one verdict for each cell; the intervals of a table hold
for all of its cells at once, batch by batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bitjax.evidence import contrasts
from bitjax.evidence import protocols
from bitjax.studies.discrete_gradient import outcomes as reads
from bitjax.studies.toy import searches

if TYPE_CHECKING:
  import xarray

__all__ = ['judge', 'lost', 'signals', 'steps']

OPPONENTS = searches.DIRECTIONS[:2]


def steps(results: xarray.Dataset) -> reads.Verdicts:
  """N3: exact gains against one step of STE, in every ball.

  Args:
    results: of `arms.collect`.
  """

  def cells(batch, where, ranking):
    name, protocol = reads.BATCHES[batch], reads.PROTOCOLS[batch]
    found = reads.step(results, protocol, batch, where, 'exact', ranking)
    details = _spent(results, where, ranking)
    for direction in OPPONENTS:
      ste = reads.reached(
        results, 'ste', protocol, batch, **where, direction=direction
      )
      yield contrasts.Cell(
        f'N3 ball, {name}, {direction}',
        f'{reads.title(where)}: exact gains ({ranking}) reach a lower loss '
        f'on {name} than one step of STE along its {direction}.',
        reads.ratio(ste, found),
        details,
      )

  return _tables(results, cells)


def signals(results: xarray.Dataset) -> reads.Verdicts:
  """Exact gains against STE's linear prediction, each stopped where it should be.

  Args:
    results: of `arms.collect`.
  """

  def cells(batch, where, ranking):
    name, protocol = reads.BATCHES[batch], reads.PROTOCOLS[batch]
    losses = {
      signal: reads.step(results, protocol, batch, where, signal, ranking)
      for signal in searches.SIGNALS
    }
    yield contrasts.Cell(
      f'N3 ball, {name}, signal',
      f'{reads.title(where)}: exact gains ({ranking}) reach a lower loss on '
      f"{name} than STE's linear prediction as a signal.",
      reads.ratio(losses['linear'], losses['exact']),
      {
        f'decrease, {signal}': reads.fall(results, batch, where, loss).mean()
        for signal, loss in losses.items()
      },
    )

  return _tables(results, cells)


def lost(results: xarray.Dataset) -> reads.Verdicts:
  """Overfitting: what of the best step on A is lost on B, in every ball.

  Args:
    results: of `arms.collect`.
  """
  cells = []
  for where, ranking in _rows(results):
    for signal in searches.SCORED:
      options = where | {'signal': signal, 'ranking': ranking}
      best = reads.chosen(results, 'discrete', 'oracle', **options)
      made = results['discrete_moves'].sel(options)
      moves = np.minimum(best.prefix, made)  # Prefixes go on beyond the last.
      falls = {
        name: reads.fall(results, batch, where, best[batch])
        for batch, name in reads.BATCHES.items()
      }
      cells.append(
        contrasts.Cell(
          f'N3 ball, lost on B, {signal}',
          f'{reads.title(where)}: of what the best step on A saves there, '
          f'{searches.label(signal, ranking)} loses some on B.',
          (falls['A'] - falls['B']) / falls['A'].mean(),
          {f'decrease on {name}': found.mean() for name, found in falls.items()}
          | {'fewest moves': moves.min(), 'most moves': moves.max()},
        )
      )
  yield from contrasts.family(
    cells, protocol='oracle, A and B', unit='of the mean decrease on A'
  )


def judge(results: xarray.Dataset) -> reads.Verdicts:
  """All tables."""
  for table in (steps, signals, lost):
    yield from table(results)


def _tables(results, cells):
  """A table of log loss ratios for each batch."""
  for batch, name in reads.BATCHES.items():
    yield from contrasts.family(
      [cell for row in _rows(results) for cell in cells(batch, *row)],
      protocol=f'{reads.PROTOCOLS[batch]}, {name}',
      unit='log loss ratio',
    )


def _rows(results):
  """Labels of ball, layers and state, and the ranking of the ball."""
  return [
    (where, reads.own_ranking(where['ball'])) for where in reads.places(results)
  ]


def _spent(results, where, ranking):
  """What a whole budget of exact gains is."""
  spent = protocols.arm(
    results, 'discrete', **where, signal='exact', ranking=ranking
  ).mean('seed')
  return {
    'moves of a whole budget': spent['moves'],
    'true / predicted': spent['true'] / spent['predicted'],
  }
