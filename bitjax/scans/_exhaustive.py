r"""Finds the best point of a ball by evaluating all of its points.

For a few free weights, every subset of their moves is evaluated, and the best one
within the ball is taken. On tiny layers, greedy searches and gradients are compared
with this optimum. For larger layers no upper bound on the achievable decrease is
offered: the sum of the positive single gains is not one, as gains are not additive.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bitjax import lanes
from bitjax import types
from bitjax.scans import _coordinates
from bitjax.scans import _discrete_costs
from bitjax.scans import _discrete_round
from bitjax.scans import _report
from bitjax.scans import _text
from bitjax.scans import _view

__all__ = ['MAX_POINTS', 'Optimum', 'exhaustive']

MAX_POINTS = 2**24
_WIDTH = 64  # Points at a time on a CPU: networks are tiny here.


class Optimum(NamedTuple):
  """The best point of a ball.

  Attributes:
    displacement: to be added to the kernel, of its shape.
    loss: loss on the view's batch before any move, in nats.
    decrease: how much lower the loss is at the best point, in nats; >= 0.
    num_points: number of points in the ball, including the original one, int32.
  """

  displacement: types.Array
  loss: types.Array
  decrease: types.Array
  num_points: types.Array

  def __repr__(self) -> str:
    return _text.describe(
      self,
      weights=self.displacement,
      num_points=self.num_points,
      loss=self.loss,
      decrease=self.decrease,
    )


@_report.reports
def exhaustive(
  view: _view.LayerView,
  budget: types.Budget,
  *,
  coordinates: types.Array | None = None,
  step: types.Scalar | None = None,
  report: _report.Report | None = None,
) -> Optimum:
  r"""Finds the set of single moves within a ball that has the lowest loss.

  .. math:: \min_{S:\ \|\Delta_S\| \le r} L(W + \Delta_S), \qquad
    \Delta_S = \sum_{k \in S} \Delta_k e_k

  with at most one move of each weight in S (see `moves`). For a binary kernel these
  sets are all its sign patterns, each at its nearest point, so that no point of the
  ball has a lower loss. (Except by flips whose cost is between :math:`|w|` and
  :math:`|w| + \delta`, as a move goes a small :math:`\delta` beyond the threshold.)

  Args:
    view: the layer.
    budget: the ball around the view's kernel.
    coordinates: indices, in the flattened kernel, of the weights that are free,
      [coordinates]; None for all. The limit is 24 binary weights, or 15 others.
    step: size of a full-precision kernel's moves; None for quantised kernels.
    report: as for `flip_gains`.

  Returns:
    An `Optimum`; of equally good points the first in the order of subsets, which
    begins with the empty one.

  Raises:
    BadInput: for a radius that is not positive, no or too many free weights, some that
      are no indices or named twice (if they are concrete), an empty batch, a loss that is
      concrete and not finite, or what `moves` objects to.
  """
  types.check_positive('budget.radius', budget.radius)
  _view.check_filled(view)
  _view.check_loss(view)
  if coordinates is not None:
    _coordinates.check(coordinates, view.kernel.size)
    _coordinates.check_distinct(coordinates)
  free = jnp.arange(view.kernel.size) if coordinates is None else coordinates
  base = _discrete_round.num_moves(view, step) // view.kernel.size + 1
  num_points = base**free.size
  if free.size == 0 or num_points > MAX_POINTS:
    raise types.BadInput(
      f'An exhaustive search needs 1 to {MAX_POINTS} points; {free.size} free '
      f'weights with {base - 1} moves each make {num_points}. Name fewer '
      'coordinates.'
    )
  found = _search(view, budget, free, step, report)
  types.check_finite('The loss', found.loss)
  return found


@jax.jit
def _search(view, budget, free, step, report):
  kernel = view.kernel.reshape(-1)
  radius, room = _discrete_costs.allowance(
    budget, _discrete_costs.dtype_of(view)
  )
  start = _discrete_round.start(view)
  _, moves = _discrete_round.candidates(
    view, start, budget, _discrete_round.Rules(), radius, step
  )

  def rows(x, nothing):  # Row 0 stands for no move.
    x = x.reshape(x.shape[0], -1)[:, free]
    return jnp.pad(x, [(1, 0), (0, 0)], constant_values=nothing)

  options = rows(moves.displacement, 0)
  charges, real = rows(moves.charge, 0), rows(moves.heading != 0, True)
  base = options.shape[0]
  columns = jnp.arange(free.size)
  digits = base**columns

  def point(number):
    chosen = (number // digits) % base
    return chosen, kernel.at[free].add(options[chosen, columns])

  def visit(number):
    chosen, moved = point(number)
    # Sums may wrap around, but only after one that already exceeds the room.
    fits = jnp.all(jnp.cumsum(charges[chosen, columns]) <= room)
    fits &= jnp.all(real[chosen, columns])
    loss = view.loss(moved.reshape(view.kernel.shape))
    return jnp.where(fits, loss, jnp.inf), fits

  numbers = jnp.arange(base**free.size)
  points, width = {'number': numbers}, None
  if jax.default_backend() == 'cpu':
    width = lanes.fitting(visit, points, most=_WIDTH)
  losses, fits = _report.each(report, visit, points, width=width)
  best = jnp.argmin(losses)
  chosen, _ = point(best)
  displacement = jnp.zeros_like(kernel).at[free].set(options[chosen, columns])
  return Optimum(
    displacement.reshape(view.kernel.shape),
    losses[0],
    losses[0] - losses[best],
    jnp.sum(fits, dtype=jnp.int32),
  )
