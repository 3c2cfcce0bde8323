r"""Compares every method with the best point of its ball, on a tiny layer.

The layer is the second one of the toy network: binary weights between two sign
activations, so few that every set of flips that the ball contains can be evaluated
(`scans.exhaustive`). The *additive bound* is reported as well: what the best set would
save if gains added up, which is the fractional knapsack

.. math:: \max_{0 \le t \le 1} \sum_k t_k g_k \quad \text{so that} \quad
  \sum_k t_k (c_k / r)^2 \le 1

(in l2). If gains did add up, it would bound every method on layers of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import TYPE_CHECKING

import jax.numpy as jnp

from bitjax import scans
from bitjax import sweeps
from bitjax import types
from bitjax.studies import toy
from bitjax.studies.toy import searches

if TYPE_CHECKING:
  import xarray

__all__ = ['ARMS', 'LAYER', 'additive_bound', 'check', 'compare']

LAYER = 'Dense_1'
_ROUNDS = 4
_STEP_SIZES = (0.1, 0.3, 1.0)

_DISCRETE = tuple(
  (signal, ranking)
  for signal in searches.SIGNALS
  for ranking in searches.RANKINGS
  if signal != 'cost' or ranking == searches.RANKINGS[0]
)
ARMS = (
  *(f'STE step, {name}' for name in searches.DIRECTIONS),
  'STE steps, sgd',
  *(searches.label(*names) for names in _DISCRETE),
  *(f'{_ROUNDS} rounds, {s}' for s in searches.SIGNALS[:2]),
  *(f'one by one, by {name}' for name in searches.ORDERS),
  'random points',
)


def check(hidden: Sequence[int]) -> None:
  """Raises `BadInput` if the second layer is missing or has too many weights."""
  size = hidden[0] * hidden[1] if len(hidden) > 1 else 0
  if not 1 <= size <= 20:
    raise types.BadInput(
      'hidden must name two layers with 1 to 20 weights between them, as 4,4; '
      f'got {tuple(hidden)}.'
    )


def compare(
  problems: toy.Problems[toy.BallConfig],
  sweep: sweeps.Sweep,
  *,
  rates: Sequence[float],
  train_steps: int,
) -> xarray.Dataset:
  """Searches the ball by every method, from every state of every seed.

  Args:
    problems: the toy problems of all seeds.
    sweep: runs the sweep.
    rates: learning rates of one step, as fractions of `descent.reach`.
    train_steps: number of updates that lead to the trained state.

  Returns:
    A dataset over (state, seed), its losses in nats: ``loss`` before any move; the
    decreases on A ``optimum`` and ``bound``; ``num_points``, how many points the ball
    contains; and ``decrease`` by arm, each at its best point on A.
  """
  networks = toy.States(problems, toy.STATES, train_steps)
  found = sweep(
    functools.partial(_lane, networks, rates),
    name='optimum',
    lanes=networks.lanes,
    shared=networks.shared,
    dims={'decrease': ('arm',)},
    coords={'arm': list(ARMS)},
  )
  return networks.label(found)


def additive_bound(view: scans.LayerView, budget: types.Budget) -> types.Array:
  """Returns the most that moves in the ball could save if gains added up, in nats."""
  gains = scans.flip_gains(view).gains.reshape(-1)
  destinations = scans.moves(view).destinations[0]
  cost = jnp.abs(destinations - view.kernel).reshape(-1) / budget.radius
  share = {
    'l2': lambda: cost**2,
    'l1': lambda: cost,
    'flips': lambda: jnp.full_like(cost, 1 / budget.radius),
    'linf': lambda: jnp.where(cost <= 1, 0.0, 2.0),
  }[budget.norm]()
  worth = jnp.where((gains > 0) & (share <= 1), gains, 0.0)
  tiny = jnp.finfo(share.dtype).tiny
  order = jnp.argsort(-worth / jnp.maximum(share, tiny))
  worth, share = worth[order], share[order]
  room = 1 - (jnp.cumsum(share) - share)
  return jnp.sum(worth * jnp.clip(room / jnp.maximum(share, tiny), 0, 1))


def _lane(networks, rates, *, state, seed, arrays, starts):
  trial = networks.trial(state, seed, arrays, starts)
  problems = networks.problems

  def pose(**estimators):
    model = problems.model('binary', **estimators)
    size = max(problems.config.batch_size)
    return toy.pose_problem(model, trial, size, layer=LAYER)

  budget, view = problems.budget, pose().search
  size = view.kernel.size
  optimum = scans.exhaustive(view, budget)
  single = searches.discrete(pose, budget, prefixes=range(size + 1))
  cells = [
    (searches.SIGNALS.index(s), searches.RANKINGS.index(r))
    for s, r in _DISCRETE
  ]
  searched = [
    *searches.ste(pose, budget, rates=rates)['search'],
    jnp.stack(
      [
        searches.multi(pose, budget, 'sgd', step_size, num_steps=_ROUNDS)[
          'search'
        ]
        for step_size in _STEP_SIZES
      ]
    ),
    *(single['search'][cell] for cell in cells),
    *(
      searches.rounds(
        pose,
        budget,
        signal,
        'cumulative',
        _ROUNDS,
        rankings=searches.RANKINGS[-1:],
      )['search']
      for signal in searches.SIGNALS[:2]
    ),
    *searches.coordinate(pose, budget, num_candidates=size)['search'],
    searches.random(pose, budget)['search'],
  ]
  lowest = jnp.stack([jnp.min(losses) for losses in searched])
  return {
    'loss': optimum.loss,
    'optimum': optimum.decrease,
    'num_points': optimum.num_points,
    'bound': additive_bound(view, budget),
    'decrease': optimum.loss - lowest,
  }
