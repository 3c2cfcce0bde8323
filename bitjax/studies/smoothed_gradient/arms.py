r"""Declares and runs the arms of the study, each of which is one sweep.

`once` makes flips all at once, ranked by one of many signals, and says how near the
signals are to each other; `factorial` crosses {true, smoothed} crossings of the threshold
with the {exact, linear, averaged} effect behind; `rounds` spends the ball in rounds, each
of which scores all flips again.

Signals are ranked as the ball's norm asks (`searches.RANKING_OF_NORM`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp

from bitjax import lanes
from bitjax import measures
from bitjax import quantizers
from bitjax import scans
from bitjax import types
from bitjax.studies import toy
from bitjax.studies.toy import arms as toy_arms
from bitjax.studies.toy import searches

__all__ = [
  'BEHIND',
  'CHUNK',
  'CROSSINGS',
  'ROUND_SIGNALS',
  'WINDOWS',
  'co_flip',
  'declared',
  'factorial',
  'names',
  'once',
  'rounds',
]

# Estimators of all activations, whose linear predictions are signals too.
WINDOWS: dict[str, quantizers.Estimator] = {
  'window 0.25': quantizers.window(0.25),
  'window 0.5': quantizers.window(0.5),
  'relative window 0.75': quantizers.relative(quantizers.window(0.75)),
  'Gaussian 0.1': quantizers.gaussian(0.1),
  'relative Gaussian 0.3': quantizers.relative(quantizers.gaussian(0.3)),
}
ROUND_SIGNALS = ('exact', 'linear', 'co-flip', 'relative Gaussian 0.3')
CROSSINGS = ('true', 'smoothed')
BEHIND = ('exact', 'linear', 'averaged')

CHUNK = 4  # Lanes that are saved together, as one chunk.
_DRAWS = 1 << 22  # Folded into a seed's noise key to draw flips.
# Folded in next: other draws for each arm.
_FACTORIAL, _ROUNDS = 1 << 16, 1 << 17


def co_flip(draws: int) -> str:
  """Returns the name of the gains that are averaged over a number of draws."""
  return f'co-flip {draws}'


def names(draws: Sequence[int]) -> list[str]:
  """Returns the names of the signals of the arm `once`, in order."""
  return ['exact', 'linear', *map(co_flip, draws), *WINDOWS]


def declared(problems: toy.Problems[Any]) -> list[toy_arms.Arm]:
  """Returns all arms of the study.

  Args:
    problems: the toy problems of all seeds, with the configuration of the study.
  """
  config = problems.config
  layers = {'layers': config.layers}
  ball, rate = {'budget': config.ball}, {'flip_rate': config.flip_rate}
  prefixes = toy_arms.prefixes(problems, config.layers, first=4)
  spent = ball | rate | {'prefixes': prefixes}
  return [
    toy_arms.Arm(
      'once',
      once,
      layers | {'batch_size': sorted(config.batch_size)},
      axis={'prefix': prefixes},
      search_axes={'signal': names(config.draws)},
      scalar_outputs=('moves', 'near_linear', 'near_smoothed', 'near_exact'),
      options=spent | {'draws': config.draws},
    ),
    toy_arms.Arm(
      'factorial',
      factorial,
      {'layers': config.layers[:1]},
      axis={'prefix': prefixes},
      search_axes={'crossing': CROSSINGS, 'behind': BEHIND},
      scalar_outputs=('moves', 'near_exact'),
      options=spent | {'draws': config.draws[-1]},
    ),
    toy_arms.Arm(
      'rounds',
      rounds,
      layers | {'round_signal': ROUND_SIGNALS, 'num_rounds': config.num_rounds},
      axis={'share': searches.SHARES},
      scalar_outputs=('moves',),
      options=ball | rate | {'draws': config.round_draws},
    ),
  ]


def once(
  pose: searches.Pose,
  budget: types.Budget,
  *,
  prefixes: Sequence[int],
  draws: Sequence[int],
  flip_rate: float,
) -> toy.Outputs:
  """Makes the flips of one discrete gradient, for every signal of `names`.

  Returns:
    The losses on A and on B after the first moves, [signals, prefixes]; the number of
    moves that the budget pays for; and three correlations over all flips, [signals]
    each: with STE's prediction on A (``near_linear``), with co-flip gains of the most
    draws on A (``near_smoothed``), and with exact gains on B (``near_exact``).
  """
  posed = pose()
  view, key = posed.search, _key(posed)
  signals = [scans.flip_gains(view).gains.reshape(view.kernel.shape)]
  signals += [_linear(view)]
  for number in draws:
    found = scans.smoothed_gains(
      view, jax.random.fold_in(key, number), flip_rate, number
    )
    signals.append(found.gains)
  signals += [
    _linear(pose(activation_estimator=estimator).search)
    for estimator in WINDOWS.values()
  ]
  stacked = jnp.stack(signals)
  others = {
    'linear': signals[1],
    'smoothed': signals[1 + len(draws)],
    'exact': scans.flip_gains(posed.holdout).gains,
  }
  return _spent(posed, budget, stacked, prefixes) | {
    f'near_{name}': _near(stacked, other) for name, other in others.items()
  }


def factorial(
  pose: searches.Pose,
  budget: types.Budget,
  *,
  prefixes: Sequence[int],
  draws: int,
  flip_rate: float,
) -> toy.Outputs:
  """Makes the flips of one discrete gradient, for every crossing and effect behind.

  Outputs are those of `once`, [crossings, behind, ...], but for two correlations.
  """
  posed = pose()
  view, key = posed.search, jax.random.fold_in(_key(posed), _FACTORIAL)
  known = scans.flip_factorial(view)
  averaged = scans.averaged_factorial(view, key, flip_rate, draws)
  signals = jnp.stack(
    [
      *(known.exact, known.true_linear, averaged.true_averaged),
      *(known.smoothed_exact, known.linear, averaged.smoothed_averaged),
    ]
  )
  exact = scans.flip_gains(posed.holdout).gains
  found = _spent(posed, budget, signals, prefixes)
  found['near_exact'] = _near(signals, exact)
  shape = len(CROSSINGS), len(BEHIND)
  return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), found)


def rounds(
  pose: searches.Pose,
  budget: types.Budget,
  round_signal: str,
  num_rounds: int,
  *,
  draws: int,
  flip_rate: float,
) -> toy.Outputs:
  """Makes rounds of moves, the first k of which have k / K of the radius together.

  Losses are those after each share of the rounds in `searches.SHARES`.
  """
  window = WINDOWS.get(round_signal)
  posed = pose() if window is None else pose(activation_estimator=window)
  signal = {'exact': 'exact', 'co-flip': 'smoothed'}.get(round_signal, 'linear')
  path = scans.multi_step_discrete_gradient(
    posed.search,
    budget,
    num_rounds,
    'cumulative',
    rank_by=_ranking(budget),
    signal=signal,
    holdout=posed.holdout,
    key=jax.random.fold_in(_key(posed), _ROUNDS),
    flip_rate=flip_rate,
    draws=draws,
  )
  read = jnp.asarray([int(share * num_rounds) for share in searches.SHARES])
  return {
    'search': path.search[read],
    'holdout': cast(jax.Array, path.holdout)[read],
    'moves': jnp.sum(path.num_moves),
  }


def _spent(posed, budget, signals, prefixes):
  """Returns losses and numbers of moves for signals, [signals, *kernel.shape]."""
  found = lanes.each(
    lambda number: searches.spend(
      posed, budget, signals[number], _ranking(budget), prefixes
    ),
    {'number': jnp.arange(len(signals))},
  )
  return {name: found[name] for name in ('search', 'holdout', 'moves')}


def _near(signals, other):
  """Returns the correlation of each signal with another one, [signals]."""
  other = other.reshape(-1)
  return jax.lax.map(
    lambda signal: measures.correlation(signal.reshape(-1), other), signals
  )


def _linear(view):
  """Returns what the view's estimators predict of each flip, of the kernel's shape."""
  changes = scans.moves(view).changes[0]
  return -jax.grad(view.loss)(view.kernel) * changes


def _ranking(budget):
  return searches.RANKINGS.index(searches.RANKING_OF_NORM[budget.norm])


def _key(posed):
  return jax.random.fold_in(posed.noise_key, _DRAWS)
