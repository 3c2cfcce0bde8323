r"""Discrete gradients and straight-through gradients in one ball, on the toy problem.

Every *arm* starts at the same kernel, stays in the same ball, and reports losses on A,
which it may look at, and on B, which it may not, along an axis of its own: the moves
made so far, the rounds, the learning rates, the steps. An arm that spends the whole
ball is the last entry of that axis.

=============== =========================================  ======================
arm             what it does                               varied
=============== =========================================  ======================
``discrete``    the best single moves, all at once         signal, ranking
``rounds``      the same in rounds that score again        signal, ranking, split,
                                                           number of rounds
``ste``         one scanned step                           direction
``multi``       several steps of STE, projected            optimiser, step size
``coordinate``  one move after another, if it helps        order
``random``      points of the ball                         draw
=============== =========================================  ======================

In rounds the exact and the linear signal take part, on request the others as well,
which have nothing to score again: they show what rounds do to the budget. Moves are
those of the first layer, or of all layers together in one ball (but for ``coordinate``,
which there costs a forward pass for each of its moves).

Beside the arms stands ``reliability``: of batches of every size, how the gains on A
agree with those on B, and with what STE predicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import measures
from bitjax.studies import discrete_arms
from bitjax.studies import toy
from bitjax.studies import toy_config
from bitjax.studies import toy_training
from bitjax.sweeps import sweep as sweeps

if TYPE_CHECKING:
  import xarray

__all__ = ['AXES', 'STATES', 'compare']

STATES = ('initialised', 'trained')

# The axes along which arms report, and may choose.
AXES = ('prefix', 'share', 'learning_rate', 'step_size', 'step', 'control_draw')


def compare(
  problem: toy_config.Toy,
  sweep: sweeps.Sweep,
  *,
  balls: Sequence[str],
  layers: Sequence[str],
  rates: Sequence[float],
  step_sizes: Sequence[float],
  optimizers: Sequence[str],
  num_rounds: Sequence[int],
  num_candidates: int,
  train_steps: int,
  round_rankings: Sequence[str] = discrete_arms.RANKINGS,
  round_signals: Sequence[str] = discrete_arms.SCORED,
  states: Sequence[str] = STATES,
) -> xarray.Dataset:
  """Runs all arms on every seed, from every state, in every ball.

  Args:
    problem: the toy problem.
    sweep: runs the sweeps.
    balls: each as for `discrete_arms.ball`.
    layers: some of `discrete_arms.LAYERS`, the first of which is ``'first'``.
    rates: learning rates of one step, as fractions of `descent.reach`.
    step_sizes: those of several steps, in the same unit.
    optimizers: some of `toy.OPTIMIZERS`.
    num_rounds: numbers of rounds; STE makes as many steps as the last of them.
    num_candidates: moves that the sequential search tries.
    train_steps: updates of the trained state.
    round_rankings: some of `discrete_arms.RANKINGS`, in that order.
    round_signals: some of `discrete_arms.SIGNALS`.
    states: some of `STATES`.

  Returns:
    Variables ``<arm>_search``, ``<arm>_holdout`` in nats, over (ball, layers, state,
    seed, what the arm varies, its axis), and ``<arm>_used``, in radii; of
    ``discrete`` also ``moves``, ``predicted`` and ``true``, in nats. And
    ``reliability_*`` over (batch_size, state, seed, pair).
  """
  import xarray

  updates = {'initialised': 0, 'trained': train_steps}
  ends = [
    toy_training.trained(problem, 'binary', updates[state]) for state in states
  ]
  shared = {
    'arrays': problem.arrays,
    'starts': jax.tree.map(lambda *leaves: jnp.stack(leaves), *ends),
  }

  def run(
    name: str,
    fn: Callable[..., toy.Outputs],
    dims: Mapping[str, Sequence[str]],
    coords: Mapping[str, Any],
    *,
    static: Mapping[str, Sequence[Any]],
    lanes: Mapping[str, Sequence[Any]] | None = None,
    **options: Any,
  ) -> xarray.Dataset:
    found = sweep(
      functools.partial(discrete_arms.lane, fn, problem, options),
      name=name,
      static=static,
      lanes={'state': range(len(states)), 'seed': problem.config.seeds}
      | dict(lanes or {}),
      shared=shared,
      dims=dims,
      coords={key: np.asarray(value) for key, value in coords.items()},
      chunk=10,
    )
    return found.rename({key: f'{name}_{key}' for key in found.data_vars})

  def arm(
    name: str,
    fn: Callable[..., toy.Outputs],
    axis: Mapping[str, Any],
    *,
    own: Mapping[str, Sequence[Any]] | None = None,
    once: Sequence[str] = (),
    static: Mapping[str, Sequence[Any]] | None = None,
    **options: Any,
  ) -> xarray.Dataset:
    own = own or {}
    dims = dict.fromkeys(('search', 'holdout'), (*own, *axis))
    return run(
      name,
      fn,
      dims | dict.fromkeys(once, tuple(own)),
      {**own, **axis},
      static={'ball': balls, 'layers': layers} | dict(static or {}),
      **options,
    )

  results = [
    arm(
      'discrete',
      discrete_arms.discrete,
      {'prefix': _prefixes(problem, layers)},
      own={'signal': discrete_arms.SIGNALS, 'ranking': discrete_arms.RANKINGS},
      once=('used', 'moves', 'predicted', 'true'),
      prefixes=_prefixes(problem, layers),
    ),
    arm(
      'rounds',
      discrete_arms.rounds,
      {'share': discrete_arms.SHARES},
      own={'ranking': round_rankings},
      once=('used', 'moves', 'returns'),
      static={
        'signal': round_signals,
        'split': discrete_arms.SPLITS,
        'num_rounds': num_rounds,
      },
      rankings=tuple(round_rankings),
    ),
    arm(
      'ste',
      discrete_arms.ste,
      {'learning_rate': rates},
      own={'direction': discrete_arms.DIRECTIONS},
      rates=rates,
    ),
    arm(
      'multi',
      discrete_arms.multi,
      {'step': range(num_rounds[-1] + 1)},
      static={'optimizer': optimizers},
      lanes={'step_size': step_sizes},
      num_steps=num_rounds[-1],
    ),
    arm(
      'coordinate',
      discrete_arms.coordinate,
      {},
      own={'order': discrete_arms.ORDERS},
      once=('used', 'moves'),
      static={'layers': layers[:1]},
      num_candidates=num_candidates,
    ),
    arm(
      'random',
      discrete_arms.random,
      {'control_draw': range(discrete_arms.NUM_DRAWS)},
    ),
    run(
      'reliability',
      discrete_arms.reliability,
      dict.fromkeys(measures.Agreement._fields, ('pair',)),
      {'pair': discrete_arms.PAIRS},
      static={'batch_size': sorted(problem.config.batch_size)},
    ),
  ]
  merged = xarray.merge(results, join='outer', combine_attrs='drop')
  # A merge sorts the labels of arms that differ in them.
  merged = merged.reindex(layers=list(layers)).assign_coords(state=list(states))
  return merged.assign_attrs(examples=len(problem.dataset.labels))


def _prefixes(problem, layers):
  """0, 1, 2, 4, ... moves, and at last all of them."""
  sizes = []
  for name in layers:
    view = jax.eval_shape(
      lambda arrays, name=name: (
        discrete_arms.problem_of(problem, arrays, name).search
      ),
      problem.arrays,
    )
    sizes.append(view.kernel.size)
  size = max(sizes)
  return [0, *(2**power for power in range((size - 1).bit_length())), size]
