r"""Declares and runs the arms of the study, each of which is one sweep.

Each arm starts at the same kernel and stays in the same ball. Its losses lie along the
moves made so far, the rounds, the learning rates or the steps. Where an arm spends the whole budget, it does so in the last entry of its axis.

An arm moves the weights of the first layer, or of all layers together in one ball.
Only `coordinate` is confined to the first layer, because in all layers each of its
moves would cost a forward pass, and `factorial`, because the last layer feeds no sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bitjax import measures
from bitjax.studies import toy
from bitjax.studies.toy import arms as toy_arms
from bitjax.studies.toy import promises
from bitjax.studies.toy import searches

__all__ = [
  'CHUNK',
  'coordinate',
  'declared',
  'discrete',
  'factorial',
  'multi',
  'random',
  'reliability',
  'rounds',
  'ste',
]

CHUNK = 10  # Lanes that are saved together, as one chunk.


def declared(problems: toy.Problems[Any]) -> list[toy_arms.Arm]:
  """Returns all arms of the study.

  Args:
    problems: the toy problems of all seeds, with the configuration of the study.
  """
  config = problems.config
  cells = {'ball': config.balls, 'layers': config.layers}
  return [
    discrete(problems, cells),
    factorial(problems, cells),
    rounds(
      cells, config.round_signals, config.round_rankings, config.num_rounds
    ),
    ste(cells, config.learning_rates.values),
    multi(cells, config.optimizers, config.step_sizes, config.num_rounds[-1]),
    coordinate(cells, config.num_candidates),
    random(cells),
    reliability(config.batch_size),
  ]


def discrete(
  problems: toy.Problems[toy.BallConfig], cells: toy_arms.Axes
) -> toy_arms.Arm:
  """Returns the arm that makes the best single moves all at once.

  It does so for every signal and ranking.

  Args:
    problems: the toy problems of all seeds.
    cells: static axes ``ball`` and ``layers``.
  """
  return toy_arms.Arm(
    'discrete',
    searches.discrete,
    cells,
    search_axes={'signal': searches.SIGNALS, 'ranking': searches.RANKINGS},
    **_at_once(problems, cells),
  )


def factorial(
  problems: toy.Problems[toy.BallConfig], cells: toy_arms.Axes
) -> toy_arms.Arm:
  """Returns the arm that tells apart why STE's prediction is another signal.

  Crossings are true or smoothed, and the effect behind them exact or linear. It moves
  the first layer only, as no crossing lies behind the last.

  Args:
    problems: the toy problems of all seeds.
    cells: static axes ``ball`` and ``layers``.
  """
  return toy_arms.Arm(
    'factorial',
    promises.factorial,
    {**cells, 'layers': cells['layers'][:1]},
    search_axes={'crossing': promises.CROSSINGS, 'behind': promises.BEHIND},
    **_at_once(problems, cells),
  )


def rounds(
  cells: toy_arms.Axes,
  signals: Sequence[str],
  rankings: Sequence[str],
  num_rounds: Sequence[int],
) -> toy_arms.Arm:
  """Returns the arm that makes the best single moves in rounds.

  Each round scores all moves again. Signals that do not depend on the loss gain no
  information by that; they show what rounds by themselves do to the budget.

  Args:
    cells: static axes ``ball`` and ``layers``.
    signals: some of `searches.SIGNALS`.
    rankings: some of `searches.RANKINGS`, in that order.
    num_rounds: the numbers of rounds to compare.
  """
  return toy_arms.Arm(
    'rounds',
    searches.rounds,
    {
      **cells,
      'signal': signals,
      'split': searches.SPLITS,
      'num_rounds': num_rounds,
    },
    axis={'share': searches.SHARES},
    search_axes={'ranking': rankings},
    scalar_outputs=('used', 'moves', 'returns'),
    options={'rankings': tuple(rankings)},
  )


def ste(cells: toy_arms.Axes, rates: Sequence[float]) -> toy_arms.Arm:
  """Returns the arm that scans learning rates of one step along each direction.

  Args:
    cells: static axes ``ball`` and ``layers``.
    rates: learning rates, as fractions of `descent.reach`.
  """
  return toy_arms.Arm(
    'ste',
    searches.ste,
    cells,
    axis={'learning_rate': rates},
    search_axes={'direction': searches.DIRECTIONS},
    options={'rates': rates},
  )


def multi(
  cells: toy_arms.Axes,
  optimizers: Sequence[str],
  step_sizes: Sequence[float],
  num_steps: int,
) -> toy_arms.Arm:
  """Returns the arm that takes several steps of STE, projected onto the ball.

  Args:
    cells: static axes ``ball`` and ``layers``.
    optimizers: some of `toy.OPTIMIZERS`.
    step_sizes: learning rates, as fractions of `descent.reach`.
    num_steps: number of updates.
  """
  return toy_arms.Arm(
    'multi',
    searches.multi,
    {**cells, 'optimizer': optimizers},
    axis={'step': range(num_steps + 1)},
    lanes={'step_size': step_sizes},
    options={'num_steps': num_steps},
  )


def coordinate(cells: toy_arms.Axes, num_candidates: int) -> toy_arms.Arm:
  """Returns the arm that tries moves of the first layer one by one.

  A move is kept if it lowers the loss and the budget pays for it.

  Args:
    cells: static axes ``ball`` and ``layers``.
    num_candidates: moves to try.
  """
  return toy_arms.Arm(
    'coordinate',
    searches.coordinate,
    {**cells, 'layers': cells['layers'][:1]},
    axis={},
    search_axes={'order': searches.ORDERS},
    scalar_outputs=('used', 'moves'),
    options={'num_candidates': num_candidates},
  )


def random(cells: toy_arms.Axes) -> toy_arms.Arm:
  """Returns the arm that visits random points of the ball.

  Args:
    cells: static axes ``ball`` and ``layers``.
  """
  return toy_arms.Arm(
    'random',
    searches.random,
    cells,
    axis={'control_draw': range(searches.NUM_DRAWS)},
  )


def reliability(batch_sizes: Sequence[int]) -> toy_arms.Arm:
  """Returns the arm that measures how well promised gains on A and B agree.

  The promises are exact gains, STE's linear prediction, and what lies between them; see
  `promises.PAIRS`.

  Args:
    batch_sizes: examples in A, and in B.
  """
  return toy_arms.Arm(
    'reliability',
    promises.reliability,
    {'batch_size': sorted(batch_sizes)},
    axis={'pair': promises.PAIRS},
    outputs=measures.Agreement._fields,
  )


def _at_once(problems, cells) -> dict[str, Any]:
  """Returns what arms share that make all their moves at once."""
  prefixes = toy_arms.prefixes(problems, cells['layers'])
  return {
    'axis': {'prefix': prefixes},
    'scalar_outputs': ('used', 'moves', 'predicted', 'true'),
    'options': {'prefixes': prefixes},
  }
