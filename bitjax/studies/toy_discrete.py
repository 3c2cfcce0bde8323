r"""Discrete gradients and straight-through gradients in one ball, on the toy problem.

Every *arm* starts at the same kernel, stays in the same ball, and reports losses on A,
which it may look at, and on B, which it may not, along an axis of its own: the moves
made so far, the rounds, the learning rates, the steps. An arm that spends the whole
ball is the last entry of that axis.

=============  =========================================  ======================
arm            what it does                               varied
=============  =========================================  ======================
``discrete``   the best single moves, all at once         signal, ranking
``rounds``     the same in rounds that score again        signal, ranking, split
``ste``        one scanned step                           direction
``multi``      several steps of STE, projected            optimiser, step size
``coordinate`` one move after another, if it helps        order
``random``     points of the ball                         draw
=============  =========================================  ======================

In rounds only the exact and the linear signal take part: there is nothing to score
again where moves are ranked at random or by cost alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import lanes as lanes_lib
from bitjax import scans
from bitjax import types
from bitjax.studies import sweep as sweeps
from bitjax.studies import toy
from bitjax.studies import toy_config
from bitjax.studies import toy_training

if TYPE_CHECKING:
  import xarray

__all__ = ['AXES', 'RANKINGS', 'SIGNALS', 'STATES', 'ball', 'compare']

STATES = ('initialised', 'trained')
SIGNALS = ('exact', 'linear', 'random', 'cost')
RANKINGS = ('gain', 'per cost', 'per squared cost')
SPLITS = ('even', 'cumulative')
NUM_DRAWS = 8  # Random points of the ball.
DIRECTIONS = ('gradient', 'sign', 'central')
ORDERS = ('linear', 'cost')

# The axes along which arms report, and may choose.
AXES = ('prefix', 'round', 'learning_rate', 'step_size', 'step', 'control_draw')


def ball(name: str) -> types.Budget:
  """The ball that is written ``norm:radius``.

  Raises:
    ValueError: for another form, an unknown norm, or a radius that is not positive.
  """
  norm, _, radius = name.partition(':')
  types.check_choice('norm', norm, types.NORMS)
  try:
    number = float(radius)
  except ValueError:
    raise ValueError(
      f'a ball is written norm:radius, as l2:0.1; got {name!r}.'
    ) from None
  types.check_positive('radius', number)
  return types.Budget(number, cast(types.Norm, norm))


def compare(
  problem: toy_config.Toy,
  sweep: sweeps.Sweep,
  *,
  balls: Sequence[str],
  rates: Sequence[float],
  step_sizes: Sequence[float],
  optimizers: Sequence[str],
  num_steps: int,
  num_candidates: int,
  train_steps: int,
  states: Sequence[str] = STATES,
) -> xarray.Dataset:
  """Runs all arms on every seed, from every state, in every ball.

  Args:
    problem: the toy problem.
    sweep: runs the sweeps.
    balls: each as for `ball`.
    rates: learning rates of one step, as fractions of `descent.reach`.
    step_sizes: those of several steps, in the same unit.
    optimizers: some of `toy.OPTIMIZERS`.
    num_steps: rounds, and steps.
    num_candidates: moves that the sequential search tries.
    train_steps: updates of the trained state.
    states: some of `STATES`.

  Returns:
    Variables ``<arm>_search``, ``<arm>_holdout`` in nats, over (ball, state, seed,
    what the arm varies, its axis), and ``<arm>_used``, in radii; of ``discrete``
    also ``moves``, ``predicted`` and ``true``, in nats.
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
  prefixes = _prefixes(problem)
  steps = range(num_steps + 1)

  def run(
    name: str,
    fn: Callable[..., toy.Outputs],
    axis: Mapping[str, Any],
    *,
    static: Mapping[str, Sequence[Any]] | None = None,
    lanes: Mapping[str, Sequence[Any]] | None = None,
    own: Mapping[str, Sequence[Any]] | None = None,
    **options: Any,
  ) -> xarray.Dataset:
    own = own or {}
    dims = dict.fromkeys(('search', 'holdout'), (*own, *axis))
    dims |= dict.fromkeys(options.pop('once', ()), tuple(own))
    found = sweep(
      functools.partial(_posed, fn, problem, options),
      name=name,
      static={'ball': balls} | dict(static or {}),
      lanes={'state': range(len(states)), 'seed': problem.config.seeds}
      | dict(lanes or {}),
      shared=shared,
      dims=dims,
      coords={key: np.asarray(value) for key, value in {**own, **axis}.items()},
      chunk=10,
    )
    return found.rename({key: f'{name}_{key}' for key in found.data_vars})

  draws = range(NUM_DRAWS)
  results = [
    run(
      'discrete',
      _discrete,
      {'prefix': prefixes},
      own={'signal': SIGNALS, 'ranking': RANKINGS},
      once=('used', 'moves', 'predicted', 'true'),
      prefixes=prefixes,
    ),
    run(
      'rounds',
      _rounds,
      {'round': steps},
      static={'signal': SIGNALS[:2], 'split': SPLITS},
      own={'ranking': RANKINGS},
      once=('used', 'moves', 'returns'),
      num_steps=num_steps,
    ),
    run(
      'ste',
      _ste,
      {'learning_rate': rates},
      own={'direction': DIRECTIONS},
      rates=rates,
    ),
    run(
      'multi',
      _multi,
      {'step': steps},
      static={'optimizer': optimizers},
      lanes={'step_size': step_sizes},
      num_steps=num_steps,
    ),
    run(
      'coordinate',
      _coordinate,
      {},
      own={'order': ORDERS},
      once=('used', 'moves'),
      num_candidates=num_candidates,
    ),
    run('random', _random, {'control_draw': draws}),
  ]
  merged = xarray.merge(results, join='outer', combine_attrs='drop')
  merged = merged.assign_coords(state=list(states))
  return merged.assign_attrs(examples=len(problem.dataset.labels))


def _prefixes(problem):
  """0, 1, 2, 4, ... moves, and at last all of them."""
  view = problem.pose('binary', problem.config.seeds[0], problem.arrays)
  size = view.kernel.size
  return [0, *(2**power for power in range((size - 1).bit_length())), size]


def _posed(fn, problem, options, *, ball, state, seed, arrays, starts, **lane):
  """One lane: the problem of a seed whose network is in a state."""
  variables = jax.tree.map(lambda leaf: leaf[state], starts)
  experiments = arrays['experiments']._replace(variables=variables)
  experiment = problem.experiment(seed, arrays | {'experiments': experiments})
  posed = toy.pose_problem(
    problem.model('binary'), experiment, max(problem.config.batch_size)
  )
  return fn(posed, _budget(ball), **lane, **options)


_budget = ball  # Where an argument has that name.


def _discrete(posed, budget, *, prefixes):
  signals = _signals(posed)

  def spend(signal, ranking):
    step = scans.discrete_gradient(
      posed.search, budget, rank_by=ranking, signal=signals[signal]
    )
    scan = scans.prefix_scan(
      posed.search, step, prefixes, holdout=posed.holdout
    )
    return {
      'search': scan.search,
      'holdout': scan.holdout,
      'used': step.used / budget.radius,
      'moves': step.num_moves,
      'predicted': step.predicted,
      'true': step.decrease_search,
    }

  axes = (jnp.arange(len(names)) for names in (SIGNALS, RANKINGS))
  return lanes_lib.grid(
    spend, dict(zip(('signal', 'ranking'), axes, strict=True))
  )


def _signals(posed):
  """What each flip promises, [signals, *kernel.shape], in the order of `SIGNALS`."""
  view = posed.search
  moves = scans.moves(view)
  gradient = jax.grad(view.loss)(view.kernel)
  key = jax.random.fold_in(posed.noise_key, 1 << 21)
  found = {
    'exact': scans.flip_gains(view).gains,
    'linear': -gradient * moves.changes[0],
    'random': 1.0 - jax.random.uniform(key, view.kernel.shape),
    'cost': 1.0 / jnp.abs(moves.destinations[0] - view.kernel),
  }
  return jnp.stack([found[name] for name in SIGNALS])


def _rounds(posed, budget, signal, split, *, num_steps):
  def spend(ranking):
    path = scans.multi_step_discrete_gradient(
      posed.search,
      budget,
      num_steps,
      split,
      rank_by=ranking,
      signal=signal,
      holdout=posed.holdout,
    )
    return {
      'search': path.search,
      'holdout': path.holdout,
      'used': path.used[-1] / budget.radius,
      'moves': jnp.sum(path.num_moves),
      'returns': jnp.sum(path.num_returns),
    }

  return lanes_lib.each(spend, {'ranking': jnp.arange(len(RANKINGS))})


def _ste(posed, budget, *, rates):
  view = posed.search
  gradient = jax.grad(view.loss)(view.kernel)
  size = jnp.median(jnp.abs(view.kernel))
  found = {
    'gradient': gradient,
    'sign': jnp.sign(gradient),
    'central': scans.central_difference(view, size),
  }

  def scan(direction):
    outputs = toy.single_step(
      posed, budget, jnp.asarray(rates, jnp.float32), direction=direction
    )
    return {name: outputs[name] for name in ('search', 'holdout')}

  directions = jnp.stack([found[name] for name in DIRECTIONS])
  return lanes_lib.each(scan, {'direction': directions})


def _multi(posed, budget, optimizer, step_size, *, num_steps):
  found = toy.multi_step(
    posed, budget, num_steps, step_size, optimizer=optimizer
  )
  return {name: found[name] for name in ('search', 'holdout')}


def _coordinate(posed, budget, *, num_candidates):
  start = posed.losses(posed.kernel)
  signals = _signals(posed)

  def spend(order):
    found = scans.coordinate_discrete_gradient(
      posed.search,
      budget,
      order=signals[order],
      rank_by='gain_per_squared_cost',
      num_candidates=num_candidates,
      holdout=posed.holdout,
    )
    return {
      'search': start['search'] - found.decrease_search,
      'holdout': start['holdout'] - found.decrease_holdout,
      'used': found.used / budget.radius,
      'moves': found.num_moves,
    }

  places = jnp.array([SIGNALS.index(name) for name in ORDERS])
  return lanes_lib.each(spend, {'order': places})


def _random(posed, budget):
  found = toy.restarts(posed, budget, 1.0, jnp.arange(NUM_DRAWS))
  return {name: found[name] for name in ('search', 'holdout')}
