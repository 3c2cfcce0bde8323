r"""Ways to move inside a ball, all of which report the same outputs.

Every *arm* of a study starts at the same kernel, stays in the same ball, and reports
the same two numbers at every point it visits: the loss on A, which it may look at,
and the loss on B, which it may not.

Learning rates are given as fractions of `descent.reach`: 1 is the rate at which
the optimiser's first step from the original point reaches the edge of the ball.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax

from bitjax import descent
from bitjax import lanes
from bitjax import scans
from bitjax import transforms
from bitjax import tree
from bitjax import types
from bitjax.studies.toy.problem import Problem

__all__ = [
  'OPTIMIZERS',
  'REPORTED',
  'Outputs',
  'multi_step',
  'noisy_single_step',
  'restarts',
  'single_step',
]

Outputs: TypeAlias = dict[str, types.Array]

# The outputs that every arm reports at each point that it visits.
REPORTED = ('search', 'holdout', 'flips', 'used')

OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
  'sgd': optax.identity,
  'sgdm': lambda: optax.trace(decay=0.9),
  'adam': optax.scale_by_adam,
}


def single_step(
  problem: Problem,
  budget: types.Budget,
  fractions: types.Array,
  *,
  direction: types.Array | None = None,
  steepest: bool = False,
  start: scans.LineStart | None = None,
) -> Outputs:
  """Takes one step along a direction, at every learning rate of a grid.

  Args:
    problem: the layer and its batches.
    budget: the ball; fraction 1 reaches its edge.
    fractions: learning rates, [rates], in units of `descent.reach`.
    direction: the step is a negative multiple of it; None for the gradient.
    steepest: whether to take the direction of steepest descent in the budget's
      norm instead (in l2 they are the same).
    start: what `scans.line_start` returned for the search and the holdout view, so
      that many directions share it; None to do without.

  Returns:
    ``search``, ``holdout``, ``flips``, ``used`` (distance / radius), [rates].
  """
  if direction is None:
    direction = jax.grad(problem.search.loss)(problem.kernel)
  if steepest:
    descent_of = transforms.steepest(budget.norm)
    direction = jnp.asarray(descent_of.update(direction, optax.EmptyState())[0])
  return _scan(
    problem, budget, problem.kernel, direction, fractions, start=start
  )


def noisy_single_step(
  problem: Problem,
  budget: types.Budget,
  fractions: types.Array,
  noise: types.Scalar,
  draw: types.Array | int = 0,
) -> Outputs:
  """Takes one step from a perturbed start and projects its end onto the ball.

  Args:
    problem: the layer and its batches.
    budget: the ball, around the original kernel.
    fractions: learning rates, [rates], in units of `descent.reach`.
    noise: amplitude, as a fraction of the budget.
    draw: number of the noise draw, an integer.

  Returns:
    The outputs of `single_step`.
  """
  start = problem.kernel + _noise(problem, budget, noise, draw)
  direction = jax.grad(problem.search.loss)(start)
  return _scan(
    problem,
    budget,
    start,
    direction,
    fractions,
    lambda kernel: transforms.project(kernel, problem.kernel, budget),
  )


def multi_step(
  problem: Problem,
  budget: types.Budget,
  num_steps: int,
  step_size: types.Scalar,
  *,
  optimizer: str = 'sgd',
  noise: types.Scalar = 0.0,
  draw: types.Array | int = 0,
) -> Outputs:
  """Takes several steps of an optimiser from a perturbed start, inside the ball.

  Args:
    problem: the layer and its batches.
    budget: the ball.
    num_steps: T, the number of updates.
    step_size: learning rate in units of the `descent.reach` of the optimiser's
      first step from the original kernel.
    optimizer: one of `OPTIMIZERS`.
    noise: amplitude, as a fraction of the budget.
    draw: number of the noise draw, an integer.

  Returns:
    ``search``, ``holdout``, ``flips``, ``used`` (distance / radius), [T + 1].
  """
  value_and_grad = jax.value_and_grad(problem.search.loss)
  _, gradient = value_and_grad(problem.kernel)
  # Adam's first step is the sign of the gradient.
  first = jnp.sign(gradient) if optimizer == 'adam' else gradient
  rate = step_size * descent.reach(problem.kernel, first, budget)
  trajectory = descent.descend(
    value_and_grad,
    optax.chain(OPTIMIZERS[optimizer](), optax.scale(-rate)),
    problem.kernel,
    num_steps,
    budget=budget,
    perturbation=_noise(problem, budget, noise, draw),
    monitor=problem.holdout.loss,
  )
  return {
    'search': trajectory.losses,
    'holdout': trajectory.monitored,
    'flips': trajectory.flips,
    'used': trajectory.displacements / budget.radius,
  }


def restarts(
  problem: Problem,
  budget: types.Budget,
  noise: types.Scalar,
  draws: types.Array,
) -> Outputs:
  """Evaluates random points of the ball, without any descent.

  Args:
    problem: the layer and its batches.
    budget: the ball.
    noise: amplitude, as a fraction of the budget.
    draws: numbers of the noise draws, [draws], integers.

  Returns:
    ``search``, ``holdout``, ``flips``, ``used``, [draws].
  """

  def visit(draw):
    moved = problem.kernel + _noise(problem, budget, noise, draw)
    kernel = transforms.project(moved, problem.kernel, budget)
    return problem.losses(kernel) | _spend(problem, budget, kernel)

  return lanes.each(visit, {'draw': draws})


def _scan(
  problem, budget, origin, direction, fractions, constrain=None, start=None
):
  rates = fractions * descent.reach(problem.kernel, direction, budget)
  views = [
    dataclasses.replace(view, kernel=origin)
    for view in (problem.search, problem.holdout)
  ]
  losses = scans.line_scan(
    views, direction, rates, constrain=constrain, start=start
  ).losses

  def spend(rate):
    kernel = origin - rate * direction
    return _spend(
      problem, budget, kernel if constrain is None else constrain(kernel)
    )

  spent = lanes.each(spend, {'rate': rates})
  return {'search': losses[0], 'holdout': losses[1]} | spent


def _spend(problem, budget, kernel):
  return {
    'flips': tree.flips(kernel, problem.kernel),
    'used': descent.distance(kernel, problem.kernel, budget.norm)
    / budget.radius,
  }


def _noise(problem, budget, amplitude, draw):
  key = jax.random.fold_in(problem.noise_key, draw)
  return descent.noise(key, problem.kernel, budget, amplitude)
