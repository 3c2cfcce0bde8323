"""Searches for a low loss inside a ball, by flips or by steps, for one seed.

A search takes a function ``pose`` that returns the seed's problem (with other
estimators on request), and the ball. It returns losses on A and on B along axes of
its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import lanes as lanes_lib
from bitjax import quantizers
from bitjax import scans
from bitjax import types
from bitjax.studies.toy import moves
from bitjax.studies.toy import problem
from bitjax.studies.toy import states
from bitjax.studies.toy.config import RADII
from bitjax.studies.toy.config import Problems

__all__ = [
  'DIRECTIONS',
  'LAYERS',
  'NUM_DRAWS',
  'ORDERS',
  'RANKINGS',
  'RANKING_OF_NORM',
  'SCORED',
  'SHARES',
  'SIGNALS',
  'SPLITS',
  'Pose',
  'ball',
  'check',
  'coordinate',
  'discrete',
  'label',
  'lane',
  'multi',
  'pose_layers',
  'random',
  'rounds',
  'spend',
  'ste',
]

Pose = Callable[..., problem.Problem]

LAYERS = {'first': 'Dense_0', 'all': None}
SIGNALS = ('exact', 'linear', 'random', 'cost')
SCORED = SIGNALS[:2]  # The signals that depend on the loss.
RANKINGS = ('gain', 'per cost', 'per squared cost')
# A ball is a knapsack. Norm -> the ranking that fills it by density.
RANKING_OF_NORM = {
  'flips': RANKINGS[0],
  'linf': RANKINGS[0],
  'l1': RANKINGS[1],
  'l2': RANKINGS[2],
}
SPLITS = ('even', 'cumulative')
NUM_DRAWS = 8  # Number of random points of the ball.
DIRECTIONS = ('gradient', 'sign', 'central', 'variant')
VARIANT = quantizers.window(0.5)  # Activation estimator of 'variant'.
ORDERS = ('linear', 'cost')
_RANDOM = 1 << 21  # Folded into a seed's noise key to draw random signals.
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # Shares of rounds after which to report.


def ball(name: str) -> types.Budget:
  """Returns the ball that is written ``norm:radius``.

  Raises:
    BadInput: for another form, an unknown norm, or a radius that is out of range.
  """
  norm, _, radius = name.partition(':')
  try:
    types.check_choice('norm', norm, types.NORMS)
    number = float(radius)
    types.check_range('radius', number, *RADII)
  except ValueError:
    norms = ', '.join(types.NORMS)
    raise types.BadInput(
      f'a ball is written norm:radius, as l2:0.1, with a norm of {norms} and a radius '
      f'from {RADII[0]:g} to {RADII[1]:g}; got {name!r}.'
    ) from None
  return types.Budget(number, cast(types.Norm, norm))


def check(
  balls: Sequence[str],
  layers: Sequence[str],
  num_rounds: Sequence[int],
  round_rankings: Sequence[str] = RANKINGS,
  round_signals: Sequence[str] = SIGNALS,
) -> None:
  """Raises `BadInput` for choices that the arms or the contrasts cannot use."""
  parsed = [ball(name) for name in balls]
  for name, one in reversed([*zip(balls, parsed, strict=True)]):
    if parsed.count(one) > 1:
      raise types.BadInput(
        f'the ball {name} is listed twice, by norm, budget and more_balls.'
      )
  if layers[0] != 'first' or list(num_rounds) != sorted(set(num_rounds)):
    raise types.BadInput(
      "layers must begin with 'first', and num_rounds must grow; got "
      f'layers {tuple(layers)} and num_rounds {tuple(num_rounds)}.'
    )
  if RANKINGS[-1] not in round_rankings:
    raise types.BadInput(
      f'round_rankings must list {RANKINGS[-1]!r}, which contrasts are about; '
      f'got {tuple(round_rankings)}.'
    )
  if missing := [name for name in SCORED if name not in round_signals]:
    raise types.BadInput(
      f'round_signals must list {missing[0]!r}, which contrasts are about; got '
      f'{tuple(round_signals)}.'
    )


def label(signal: str, ranking: str) -> str:
  """Returns the label of a discrete gradient in figures."""
  # Every ranking by cost alone is the same: the cheapest move comes first.
  return 'cost only' if signal == 'cost' else f'{signal} {ranking}'


def pose_layers(
  problems: Problems,
  trial: problem.Trial,
  layers: str,
  batch_size: int | None = None,
  **estimators: Any,
) -> problem.Problem:
  """Returns a trial's problem for the binary network.

  Args:
    problems: the toy problems of all seeds.
    trial: what one seed has drawn.
    layers: a name in `LAYERS`.
    batch_size: the size of the trial's batches; None for the largest.
    **estimators: keywords of `nn.binary_mlp`, for estimators other than the normal
      ones.
  """
  return problem.pose_problem(
    problems.model('binary', **estimators),
    trial,
    batch_size or max(problems.config.batch_size),
    layer=LAYERS[layers],
  )


def lane(
  search: Callable[..., moves.Outputs],
  networks: states.States,
  options: dict[str, Any],
  *,
  state: types.Array,
  seed: types.Array,
  arrays: dict[str, Any],
  starts: types.PyTree,
  layers: str = 'first',
  batch_size: int | None = None,
  **values: Any,
) -> moves.Outputs:
  """Computes one lane of a sweep: a search from one seed's network in one state.

  Args:
    search: one of the functions below.
    networks: the networks of all seeds, in all states.
    options: further arguments of the search.
    state: index of the state.
    seed: the seed.
    arrays: the shared input of that name in ``networks.shared``.
    starts: the shared input of that name in ``networks.shared``.
    layers: a name in `LAYERS`.
    batch_size: the size of the batches; None for the largest.
    **values: arguments of the search that the sweep varies. A ``ball`` is written as
      for `ball`, and passed on as the search's ``budget``.
  """
  trial = networks.trial(state, seed, arrays, starts)
  if 'ball' in values:
    values['budget'] = ball(values.pop('ball'))
  posed = functools.partial(
    pose_layers, networks.problems, trial, layers, batch_size
  )
  return search(posed, **values, **options)


def discrete(
  pose: Pose, budget: types.Budget, *, prefixes: Sequence[int]
) -> moves.Outputs:
  """Makes the moves of one discrete gradient, for every signal and ranking.

  Losses are those after the first moves, for each number in ``prefixes``.
  """
  posed = pose()
  signals = _signals(posed, SIGNALS)

  def each(signal, ranking):
    return spend(posed, budget, signals[signal], ranking, prefixes)

  shape = len(SIGNALS), len(RANKINGS)
  rows = [  # Every ranking by cost alone is the same.
    (signal, ranking if SIGNALS[signal] != 'cost' else 0)
    for signal, ranking in np.ndindex(*shape)
  ]
  distinct = sorted(set(rows))
  signal, ranking = jnp.asarray(distinct).T
  found = lanes_lib.each(each, {'signal': signal, 'ranking': ranking})
  index = jnp.asarray([distinct.index(row) for row in rows])
  return jax.tree.map(
    lambda leaf: leaf[index].reshape(*shape, *leaf.shape[1:]), found
  )


def spend(
  posed: problem.Problem,
  budget: types.Budget,
  signal: types.Array,
  ranking: types.Scalar,
  prefixes: Sequence[int],
) -> moves.Outputs:
  """Makes the moves of one discrete gradient, for one signal and ranking.

  Args:
    posed: one seed's problem.
    budget: the ball.
    signal: what each move promises, of the kernel's shape.
    ranking: index into `RANKINGS`.
    prefixes: numbers of moves after which to report losses.
  """
  step = scans.discrete_gradient(
    posed.search, budget, rank_by=ranking, signal=signal
  )
  scan = scans.prefix_scan(posed.search, step, prefixes, holdout=posed.holdout)
  return {
    'search': scan.search,
    'holdout': cast(jax.Array, scan.holdout),
    'used': step.used / budget.radius,
    'moves': step.num_moves,
    'predicted': step.predicted,
    'true': step.decrease_search,
  }


def _signals(posed, names):
  """Returns the signals of all flips, [names, *kernel.shape]."""
  view = posed.search
  possible = scans.moves(view)
  key = jax.random.fold_in(posed.noise_key, _RANDOM)
  found = {
    'exact': lambda: scans.flip_gains(view).gains,
    'linear': lambda: -jax.grad(view.loss)(view.kernel) * possible.changes[0],
    'random': lambda: (
      1.0 - jax.random.uniform(key, view.kernel.shape, jnp.float32)
    ),
    'cost': lambda: 1.0 / jnp.abs(possible.destinations[0] - view.kernel),
  }
  return jnp.stack([found[name]() for name in names])


def rounds(
  pose: Pose,
  budget: types.Budget,
  signal: str,
  split: str,
  num_rounds: int,
  *,
  rankings: Sequence[str] = RANKINGS,
) -> moves.Outputs:
  """Makes rounds of moves, each of which scores all moves again, for every ranking.

  Losses are those after each share of the rounds in `SHARES`.
  """
  posed = pose()
  read = jnp.asarray([int(share * num_rounds) for share in SHARES])

  def spend(ranking):
    # All rankings have the same draws, although the key is made for each of them.
    key = jax.random.fold_in(posed.noise_key, _RANDOM)
    path = scans.multi_step_discrete_gradient(
      posed.search,
      budget,
      num_rounds,
      split,
      rank_by=ranking,
      signal=signal,
      holdout=posed.holdout,
      key=key if signal == 'random' else None,
    )
    return {
      'search': path.search[read],
      'holdout': cast(jax.Array, path.holdout)[read],
      'used': path.used[-1] / budget.radius,
      'moves': jnp.sum(path.num_moves),
      'returns': jnp.sum(path.num_reversals),
    }

  powers = [RANKINGS.index(name) for name in rankings]
  distinct = powers[:1] if signal == 'cost' else powers
  found = lanes_lib.each(spend, {'ranking': jnp.asarray(distinct)})
  index = jnp.minimum(jnp.arange(len(powers)), len(distinct) - 1)
  return jax.tree.map(lambda leaf: leaf[index], found)


def ste(
  pose: Pose, budget: types.Budget, *, rates: Sequence[float]
) -> moves.Outputs:
  """Takes one step along each of the `DIRECTIONS`, at every learning rate."""
  posed = pose()
  view = posed.search
  gradient = jax.grad(view.loss)(view.kernel)
  size = jnp.median(jnp.abs(view.kernel))
  variant = pose(activation_estimator=VARIANT).search
  found = {
    'gradient': gradient,
    'sign': jnp.sign(gradient),
    'central': scans.central_difference(view, size),
    'variant': jax.grad(variant.loss)(view.kernel),
  }

  def scan(direction):
    outputs = moves.single_step(
      posed, budget, jnp.asarray(rates, jnp.float32), direction=direction
    )
    return {name: outputs[name] for name in ('search', 'holdout')}

  directions = jnp.stack([found[name] for name in DIRECTIONS])
  return lanes_lib.each(scan, {'direction': directions})


def multi(
  pose: Pose,
  budget: types.Budget,
  optimizer: str,
  step_size: types.Scalar,
  *,
  num_steps: int,
) -> moves.Outputs:
  """Takes projected steps of an optimiser; losses are those after each step."""
  found = moves.multi_step(
    pose(), budget, num_steps, step_size, optimizer=optimizer
  )
  return {name: found[name] for name in ('search', 'holdout')}


def coordinate(
  pose: Pose, budget: types.Budget, *, num_candidates: int
) -> moves.Outputs:
  """Tries one move after another and keeps those that help, in each of the `ORDERS`."""
  posed = pose()
  start = posed.losses(posed.kernel)
  signals = _signals(posed, ORDERS)

  def spend(order):
    found = scans.coordinate_discrete_gradient(
      posed.search,
      budget,
      order=signals[order],
      rank_by='gain_per_squared_cost',
      num_candidates=num_candidates,
      holdout=posed.holdout,
    )
    decreases = {
      'search': found.decrease_search,
      'holdout': found.decrease_holdout,
    }
    return {
      name: start[name] - cast(jax.Array, decreases[name]) for name in decreases
    } | {
      'used': found.used / budget.radius,
      'moves': found.num_moves,
    }

  return lanes_lib.each(spend, {'order': jnp.arange(len(ORDERS))})


def random(pose: Pose, budget: types.Budget) -> moves.Outputs:
  """Evaluates `NUM_DRAWS` random points of the ball."""
  found = moves.restarts(pose(), budget, 1.0, jnp.arange(NUM_DRAWS))
  return {name: found[name] for name in ('search', 'holdout')}
