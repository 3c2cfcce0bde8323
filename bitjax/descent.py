r"""Descent inside a budget, from a start that may be perturbed.

`descend` runs ``num_steps`` updates of any optax transform in one ``lax.scan``:

.. math::
  w_0 = P(w + \nu), \qquad w_{t+1} = P(w_t + u_t), \qquad
  u_t = \mathrm{tx}(\nabla L(w_t)),

with P the projection onto the budget's ball. ``tx.init`` gets the anchor of the ball,
by default the parameters without the noise :math:`\nu`. A transform that remembers
where it began thus remembers the anchor, so noise and updates share one ball.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bitjax import transforms
from bitjax import tree
from bitjax import types

__all__ = [
  'Trajectory',
  'descend',
  'distance',
  'noise',
  'reach',
  'reachable_flips',
]


class Trajectory(NamedTuple):
  """The result of `descend`; entry t of an array is of the state after t updates.

  Attributes:
    params: the parameters after the last update.
    losses: the loss, [num_steps + 1].
    displacements: the distance from the anchor in the budget's norm,
      [num_steps + 1].
    flips: how many weights have another sign than the anchor, [num_steps + 1], int32.
    monitored: what ``monitor`` returned, with leaves [num_steps + 1, ...].
  """

  params: types.PyTree
  losses: types.Array
  displacements: types.Array
  flips: types.Array
  monitored: types.PyTree


def descend(
  value_and_grad: Callable[..., tuple[types.Array, types.PyTree]],
  tx: optax.GradientTransformation,
  params: types.PyTree,
  num_steps: int,
  *args: Any,
  budget: types.Budget | None = None,
  perturbation: types.PyTree | None = None,
  monitor: Callable[[types.PyTree], types.PyTree] | None = None,
) -> Trajectory:
  """Runs ``num_steps`` updates and records the trajectory.

  Args:
    value_and_grad: ``(params, *args) -> (loss, gradient)``.
    tx: any optax transform of gradients to updates.
    params: the original parameters, any pytree.
    num_steps: T >= 0, static.
    *args: passed to ``value_and_grad``: batches and other large arrays.
    budget: the ball to stay in. The start and every update are projected onto it, so
      ``tx`` need not do so. With anchor ``'start'`` it is centred at ``params``;
      with ``'noised'`` at the perturbed start, which itself lies within the
      radius of ``params``. None for no ball; distances are then in l2.
    perturbation: added to ``params`` before the first step (see `noise`).
    monitor: function of the parameters that is evaluated at the start and after
      every update, for held-out losses and the like.

  Returns:
    A `Trajectory`.

  Raises:
    BadInput: if ``num_steps`` is negative.
  """
  types.check_integer('num_steps', num_steps, 0)
  start = params
  if perturbation is not None:
    start = optax.tree.add(params, perturbation)
    if budget is not None:
      start = transforms.project(start, params, budget)
  anchor = params
  if budget is not None:
    anchor = start if budget.anchor == 'noised' else params
    tx = optax.chain(tx, transforms.project_budget(budget.radius, budget.norm))
  norm = 'l2' if budget is None else budget.norm

  def observe(current):
    value, grads = value_and_grad(current, *args)
    seen = (
      value,
      distance(current, anchor, norm),
      tree.flips(current, anchor),
      None if monitor is None else monitor(current),
    )
    return grads, seen

  def step(carry, _):
    current, state = carry
    grads, seen = observe(current)
    with types.as_optax():
      updates, state = tx.update(grads, state, current)
    return (optax.apply_updates(current, updates), state), seen

  carry = (start, tx.init(anchor))
  (final, _), history = jax.lax.scan(step, carry, length=num_steps)
  _, last = observe(final)
  history = jax.tree.map(
    lambda rows, row: jnp.concatenate([rows, row[None]]), history, last
  )
  return Trajectory(final, *history)


def distance(
  params: types.PyTree, anchor: types.PyTree, norm: types.Norm
) -> types.Array:
  """Returns the distance between two parameter trees, a scalar.

  It is a plain sum, good enough for reports. Where a guarantee depends on the
  distance, use `tree.norm`, which is right to the last places.

  Args:
    params: any pytree.
    anchor: a pytree like ``params``.
    norm: ``'l2'``, ``'linf'``, ``'l1'``, or ``'flips'`` for a count.
  """
  if norm == 'flips':
    return tree.flips(params, anchor)
  return _size(optax.tree.sub(params, anchor), norm)


def _size(direction, norm):
  order = {'l2': 2, 'l1': 1, 'linf': jnp.inf}[norm]
  scaled, unit = tree.in_units(direction)
  return optax.tree.norm(scaled, order) * unit


def noise(
  key: types.Array,
  params: types.PyTree,
  budget: types.Budget,
  fraction: types.Scalar,
) -> types.PyTree:
  r"""Draws a random perturbation that spends a fraction of a budget.

  With radius r and fraction f:

  - ``'l2'``: uniform on the sphere :math:`\|\nu\|_2 = f r`;
  - ``'l1'``: uniform on the sphere :math:`\|\nu\|_1 = f r`;
  - ``'linf'``: every coordinate uniform on [-f r, f r];
  - ``'flips'``: ``floor(f r)`` weights, chosen without replacement, change sign
    and keep their magnitude (a zero becomes minus the smallest normal number).

  Args:
    key: a random key.
    params: the parameters to perturb, any pytree.
    budget: the ball.
    fraction: f in [0, 1]; may be traced.

  Returns:
    A pytree like ``params``, to be added to it.

  Raises:
    BadInput: if a concrete fraction is outside [0, 1].
  """
  types.check_number('budget.radius', budget.radius)
  types.check_range('fraction', fraction, 0.0, 1.0)
  size = fraction * budget.radius
  if budget.norm == 'flips':
    return _random_flips(key, params, size)
  sampler = {
    'l2': jax.random.normal,
    'l1': jax.random.laplace,
    'linf': lambda key, shape, dtype: jax.random.uniform(
      key, shape, dtype, -1.0, 1.0
    ),
  }[budget.norm]
  draw = optax.tree.random_like(key, params, sampler)
  if budget.norm != 'linf':
    size = size / _size(draw, budget.norm)
  return jax.tree.map(lambda x: (size * x).astype(x.dtype), draw)


def reach(
  params: types.PyTree, direction: types.PyTree, budget: types.Budget
) -> types.Array:
  r"""Returns the learning rate at which one step reaches the edge of the ball.

  For the norms it is :math:`r / \|d\|`. For ``'flips'`` it is the r-th smallest
  of the breakpoints :math:`w_i / d_i > 0`, where ``w - eta * d`` changes sign (the
  largest if there are fewer). Learning rates in units of it mean the same for every
  gradient, optimiser and norm.

  Args:
    params: the original parameters, the centre of the ball.
    direction: d, a pytree like ``params``; the step is ``-eta * d``.
    budget: the ball.

  Returns:
    A scalar; 0 if the direction is zero or never changes a sign.
  """
  types.check_number('budget.radius', budget.radius)
  if budget.norm == 'flips':
    return _rth_breakpoint(params, direction, budget.radius)
  size = _size(direction, budget.norm)
  return jnp.where(size > 0, budget.radius / jnp.where(size > 0, size, 1), 0)


def _rth_breakpoint(params, direction, count):
  def breakpoint(w, d):
    # A product of two small numbers would be 0.
    shrinks = ((w > 0) & (d > 0)) | ((w < 0) & (d < 0))
    ratio = w / jnp.where(shrinks, d, 1)
    # The largest float stands for none, since jax_debug_infs finds infinities.
    none = jnp.finfo(ratio.dtype).max
    return jnp.ravel(jnp.where(shrinks, jnp.minimum(ratio, none), none))

  ratios = jax.tree.map(breakpoint, params, direction)
  ranked = jnp.sort(jnp.concatenate(jax.tree.leaves(ratios)))
  num_finite = tree.count(ranked < jnp.finfo(ranked.dtype).max)
  rank = tree.whole(count, num_finite)
  return jnp.where(rank > 0, ranked[jnp.maximum(rank - 1, 0)], 0)


def reachable_flips(params: types.PyTree, budget: types.Budget) -> types.Array:
  """Returns the largest number of signs that a single point of the ball can flip.

  It tells whether a budget binds: methods cannot be compared under a budget that
  allows every weight to flip, or none.

  Args:
    params: the centre of the ball.
    budget: the ball.

  Returns:
    A count, int32: weights are flipped from the cheapest on, until the radius is spent.
  """
  types.check_number('budget.radius', budget.radius)
  weights = [jnp.ravel(w) for w in jax.tree.leaves(params)]
  if budget.norm == 'flips':
    return tree.whole(budget.radius, sum(w.size for w in weights))
  dtype = types.promoted(jnp.float32, *weights)
  costs = jnp.concatenate([jnp.abs(w).astype(dtype) for w in weights])
  costs = jnp.sort(costs)
  radius = jnp.asarray(budget.radius, dtype)
  affordable = costs <= radius
  # In units of the radius, squares neither overflow nor vanish beside it.
  unit = tree.power_of_two(radius)
  scaled = jnp.where(affordable, costs, 0) / unit
  spent = {
    'l2': lambda: jnp.sqrt(jnp.cumsum(scaled**2)),
    'l1': lambda: jnp.cumsum(scaled),
    'linf': lambda: scaled,
  }[budget.norm]()
  return tree.count(affordable & (spent.astype(dtype) <= radius / unit))


def _random_flips(key, params, count):
  scores = optax.tree.random_like(key, params, jax.random.uniform, jnp.float32)
  ranked = jnp.sort(
    jnp.concatenate([jnp.ravel(s) for s in jax.tree.leaves(scores)])
  )
  rank = tree.whole(count, ranked.size)
  # Ties in the scores could add a flip; `descend` takes it back, because it projects
  # the perturbed start onto the ball.
  limit = jnp.where(rank == 0, -1.0, ranked[jnp.maximum(rank - 1, 0)])

  def mirror(weight, score):
    smallest = jnp.finfo(weight.dtype).tiny
    mirrored = jnp.where(weight == 0, -smallest, -2 * weight)
    return jnp.where(score <= limit, mirrored, 0)

  return jax.tree.map(mirror, params, scores)
