"""What an estimator's gradient saves inside a ball, at once and in several rounds.

Flips are ranked by the estimator's linear prediction, by the power of their cost with which
the ball's norm is filled by density. How many of them are made is chosen on tuning seeds; the
loss that is saved is read on A, which the gradient has seen, and on B, which it has not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp

from bitjax import quantizers
from bitjax import scans
from bitjax import sweeps
from bitjax import types
from bitjax.commands.report_card import gradients
from bitjax.evidence import protocols
from bitjax.studies import toy
from bitjax.studies.toy import arms as toy_arms
from bitjax.studies.toy import searches

if TYPE_CHECKING:
  import xarray

__all__ = ['ARMS', 'once', 'rounds', 'saved', 'spend']

ARMS = {'once': 'prefix', 'rounds': 'share'}  # Arm -> the axis that is chosen.


def spend(
  networks: toy.States,
  sweep: sweeps.Sweep,
  estimator: quantizers.Estimator,
  *,
  balls: Sequence[str],
  num_rounds: int,
) -> xarray.Dataset:
  """Spends every ball on every seed, in every state.

  Args:
    networks: the networks of all seeds, in all states.
    sweep: runs the sweeps.
    estimator: the estimator of all activations.
    balls: the balls, as for `searches.ball`.
    num_rounds: number of rounds.

  Returns:
    What `toy.arms.collect` returns of the arms ``once`` and ``rounds``, with the losses
    ``<arm>_search`` and ``<arm>_holdout`` in nats.
  """
  prefixes = toy_arms.prefixes(networks.problems, ('first',), first=4)
  static = {'ball': balls, 'layers': ('first',)}
  options: dict[str, Any] = {'estimator': estimator}
  every = [
    toy_arms.Arm(
      'once',
      once,
      static,
      axis={'prefix': prefixes},
      scalar_outputs=('moves',),
      options=options | {'prefixes': prefixes},
    ),
    toy_arms.Arm(
      'rounds',
      rounds,
      static,
      axis={'share': searches.SHARES},
      scalar_outputs=('moves',),
      options=options | {'num_rounds': num_rounds},
    ),
  ]
  return toy_arms.collect(networks, sweep, every, chunk=gradients.CHUNK)


def once(
  pose: searches.Pose,
  budget: types.Budget,
  *,
  estimator: quantizers.Estimator,
  prefixes: Sequence[int],
) -> toy.Outputs:
  """Makes the flips that one gradient ranks first; losses by their number."""
  posed = pose(activation_estimator=estimator)
  found = searches.spend(
    posed, budget, gradients.linear(posed.search), _ranking(budget), prefixes
  )
  return {name: found[name] for name in ('search', 'holdout', 'moves')}


def rounds(
  pose: searches.Pose,
  budget: types.Budget,
  *,
  estimator: quantizers.Estimator,
  num_rounds: int,
) -> toy.Outputs:
  """Makes rounds of flips, each with a new gradient; losses by the share of rounds."""
  posed = pose(activation_estimator=estimator)
  path = scans.multi_step_discrete_gradient(
    posed.search,
    budget,
    num_rounds,
    'cumulative',
    rank_by=_ranking(budget),
    signal='linear',
    holdout=posed.holdout,
  )
  read = jnp.asarray([int(share * num_rounds) for share in searches.SHARES])
  return {
    'search': path.search[read],
    'holdout': cast(jax.Array, path.holdout)[read],
    'moves': jnp.sum(path.num_moves),
  }


def saved(results: xarray.Dataset, arm: str) -> xarray.Dataset:
  """Returns by how many nats an arm lowers the loss, by ball, state and seed.

  Args:
    results: what `spend` returned.
    arm: one of `ARMS`.

  Returns:
    ``search``, the decrease on A, and ``holdout``, that on B.
  """
  found = protocols.losses(protocols.select_arm(results, arm, layers='first'))
  reached = protocols.select(found, [ARMS[arm]], 'deployable')
  start = found[['search', 'holdout']].isel({ARMS[arm]: 0}, drop=True)
  return start - reached.drop_vars(ARMS[arm], errors='ignore')


def _ranking(budget):
  return searches.RANKINGS.index(searches.RANKING_OF_NORM[budget.norm])
