r"""The best point of a ball, by looking at all of them.

For a few free weights, every subset of their moves that the ball contains is
evaluated. That is the optimum which greedy searches and gradients are compared
with, on tiny layers. For larger ones no upper bound of the achievable decrease is
offered: the sum of the positive single gains is none, as gains are not additive.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bitjax import lanes
from bitjax import types
from bitjax.scans import _discrete_costs
from bitjax.scans import _discrete_round
from bitjax.scans import _view

__all__ = ['MAX_POINTS', 'Optimum', 'exhaustive']

MAX_POINTS = 2**20
_WIDTH = 64  # Points at a time.


class Optimum(NamedTuple):
  """The best point of a ball.

  Attributes:
    displacement: to be added to the kernel, of its shape.
    loss: on the view's batch before any move, in nats.
    decrease: how much lower the loss is at the best point, in nats; >= 0.
    num_points: points of the ball, the original one included, int32.
  """

  displacement: types.Array
  loss: types.Array
  decrease: types.Array
  num_points: types.Array


def exhaustive(
  view: _view.LayerView,
  budget: types.Budget,
  *,
  coordinates: types.Array | None = None,
  step: types.Scalar | None = None,
) -> Optimum:
  r"""Returns the lowest loss of all sets of single moves in a ball.

  .. math:: \min_{S:\ \|\Delta_S\| \le r} L(W + \Delta_S), \qquad
    \Delta_S = \sum_{k \in S} \Delta_k e_k

  with at most one move of each weight in S (see `moves`). For a binary kernel these
  are all its sign patterns, each at its nearest point: nothing in the ball is lower,
  but for flips that cost between :math:`|w|` and :math:`|w| + \delta`.

  Args:
    view: the layer.
    budget: the ball around the view's kernel.
    coordinates: places in the flattened kernel of the weights that are free,
      [coordinates]; None for all. 20 binary weights, 12 others, are the limit.
    step: size of a full-precision kernel's moves; None for others.

  Returns:
    An `Optimum`; of equal points the first in the order of subsets, which begins
    with no move.

  Raises:
    ValueError: for a radius that is not positive, no or too many free weights, an
      empty batch, a loss that is concrete and not finite, or what `moves` objects
      to.
  """
  types.check_positive('budget.radius', budget.radius)
  _view.check_filled(view)
  places = jnp.arange(view.kernel.size) if coordinates is None else coordinates
  base = _discrete_round.num_moves(view, step) // view.kernel.size + 1
  num_points = base**places.size
  if places.size == 0 or num_points > MAX_POINTS:
    raise types.BadInput(
      f'An exhaustive search needs 1 to {MAX_POINTS} points; {places.size} free '
      f'weights with {base - 1} moves each make {num_points}. Name fewer '
      'coordinates.'
    )
  found = _search(view, budget, places, step)
  types.check_finite('The loss', found.loss)
  return found


@jax.jit
def _search(view, budget, places, step):
  kernel = view.kernel.reshape(-1)
  radius, room = _discrete_costs.allowance(budget, 'cumulative', 1, 1)
  start = _discrete_round.start(view)
  _, moves = _discrete_round.candidates(
    view, start, budget, _discrete_round.Rules(), radius, step
  )

  def rows(x, nothing):  # Row 0 is no move.
    x = x.reshape(x.shape[0], -1)[:, places]
    return jnp.pad(x, [(1, 0), (0, 0)], constant_values=nothing)

  options = rows(moves.there, 0)
  charges, real = rows(moves.charge, 0), rows(moves.changes != 0, True)
  base = options.shape[0]
  columns = jnp.arange(places.size)
  digits = base**columns

  def point(number):
    chosen = (number // digits) % base
    return chosen, kernel.at[places].add(options[chosen, columns])

  def visit(number):
    chosen, moved = point(number)
    # Sums may wrap around, but not before the first that is too much.
    fits = jnp.all(jnp.cumsum(charges[chosen, columns]) <= room)
    fits &= jnp.all(real[chosen, columns])
    loss = view.loss(moved.reshape(view.kernel.shape))
    return jnp.where(fits, loss, jnp.inf), fits

  numbers = jnp.arange(base**places.size)
  losses, fits = lanes.each(
    visit, {'number': numbers}, width=min(_WIDTH, numbers.size)
  )
  best = jnp.argmin(losses)
  chosen, _ = point(best)
  displacement = jnp.zeros_like(kernel).at[places].set(options[chosen, columns])
  return Optimum(
    displacement.reshape(view.kernel.shape),
    losses[0],
    losses[0] - losses[best],
    jnp.sum(fits, dtype=jnp.int32),
  )
