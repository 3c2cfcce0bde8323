r"""Computes the coordinate discrete gradient: one move at a time, kept if it helps.

Moves are tried in an order. Each is evaluated from the current weights, and made
only if the loss really falls and the budget allows it:

.. math:: w \leftarrow w + \Delta_k e_k \quad \text{if} \quad
  L(w + \Delta_k e_k) < L(w).

So the predicted decrease is the true one, at the price of one loss for each
candidate. Only what depends on the candidate is computed (see `_split`): one unit's
column of the product, a rank-one update of the next product, and the rest of the
network, for those examples whose activation changes at all.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.scans import _coordinate_losses
from bitjax.scans import _discrete_costs
from bitjax.scans import _discrete_round
from bitjax.scans import _flips
from bitjax.scans import _report
from bitjax.scans import _text
from bitjax.scans import _view

__all__ = ['CoordinateDescent', 'coordinate_discrete_gradient']


class CoordinateDescent(NamedTuple):
  """The result of `coordinate_discrete_gradient`.

  Attributes:
    displacement: to be added to the kernel, of its shape.
    num_moves: number of moves made, int32.
    used: the displacement's size in the budget's norm; for ``flips`` the number of
      moves.
    predicted: sum of the decreases for which moves were accepted, in nats; equal to
      ``decrease_search`` but for rounding.
    loss: loss on the search batch before any move, in nats.
    decrease_search: how much the loss falls on the search batch.
    decrease_holdout: the same on the held-out batch; None without one.
    accepted: whether each candidate was accepted, in the order of trial, bool
      [sweeps * candidates].
    loss_evaluations: number of losses computed, int32: one for each candidate that
      the budget could pay for, those of the signal, and two more.
    gradient_evaluations: number of gradients computed, int32.
  """

  displacement: types.Array
  num_moves: types.Array
  used: types.Array
  predicted: types.Array
  loss: types.Array
  decrease_search: types.Array
  decrease_holdout: types.Array | None
  accepted: types.Array
  loss_evaluations: types.Array
  gradient_evaluations: types.Array

  def __repr__(self) -> str:
    return _text.describe_moves(self)


@_report.reports
def coordinate_discrete_gradient(
  view: _view.LayerView,
  budget: types.Budget,
  *,
  order: str | types.Array = 'random',
  rank_by: str | types.Scalar = 'gain',
  num_candidates: int | None = None,
  num_sweeps: int = 1,
  holdout: _view.LayerView | None = None,
  key: types.Array | None = None,
  step: types.Scalar | None = None,
  tolerance: types.Scalar = 1e-6,
  report: _report.Report | None = None,
) -> CoordinateDescent:
  """Tries single moves one after another and keeps those that lower the loss.

  Moves that the rest of the budget cannot pay for are skipped. In one sweep a weight
  moves at most once; later sweeps score it from where it then is, and its cost
  counts from the original point (see `multi_step_discrete_gradient`).

  Args:
    view: the layer, on the batch to search.
    budget: the ball around the view's kernel.
    order: a signal, as for `discrete_gradient`; candidates are tried in descending
      order of it, whether promising or not. ``'random'`` gives a random order.
    rank_by: the ranking that turns the signal into an order, as for
      `discrete_gradient`.
    num_candidates: how many candidates of the order a sweep tries; None for all.
    num_sweeps: number of passes over the candidates, static; each ranks them anew.
    holdout: the same layer on another batch, on which the result is only measured.
    key: a random key, for ``'random'``.
    step: size of a full-precision kernel's moves; None for quantised kernels.
    tolerance: by how much the loss must fall, as a fraction of the loss before any
      move; smaller decreases count as rounding.
    report: as for `flip_gains`; shares are of the candidates (with the order
      ``'exact'``, of its gains for the first half of each sweep).

  Returns:
    A `CoordinateDescent`.

  Raises:
    BadInput: for a radius that is not positive, unknown names, ``'random'`` without
      a key, an array of another shape, fewer than one candidate or sweep, an empty
      batch or kernel, a loss that is concrete and not finite, or what `moves`
      objects to.

  References:
    Zhou, Ashrafi and Blaschko, Combinatorial optimization for low bit-width neural
    networks, 2022 (https://arxiv.org/abs/2206.02006): greedy coordinate descent.
  """
  given = None
  if not isinstance(order, str):
    given, order = order, 'given'
  else:
    types.check_choice('order', order, _discrete_round.ORDERS)
  types.check_positive('budget.radius', budget.radius)
  types.check_non_negative('tolerance', tolerance, finite=True)
  _flips.check_options(step=step)
  _view.check_filled(view, *([] if holdout is None else [holdout]))
  _view.check_loss(view)
  power = _discrete_round.ranking_power(rank_by)
  types.check_integer('num_sweeps', num_sweeps, 1)
  if num_candidates is not None:
    types.check_integer('num_candidates', num_candidates, 1)
  _discrete_round.check_signal('order', view, order, key, given)
  rules = _discrete_round.Rules(order)
  found = _descend(
    view,
    holdout,
    budget,
    power,
    key,
    given,
    step,
    tolerance,
    report,
    rules=rules,
    num_candidates=num_candidates,
    num_sweeps=num_sweeps,
  )
  types.check_finite('The loss', found.loss)
  return found


@functools.partial(
  jax.jit, static_argnames=('rules', 'num_candidates', 'num_sweeps')
)
def _descend(
  view,
  holdout,
  budget,
  power,
  key,
  given,
  step,
  tolerance,
  report,
  *,
  rules,
  num_candidates,
  num_sweeps,
):
  radius, room = _discrete_costs.allowance(
    budget, _discrete_costs.dtype_of(view)
  )
  before = view.loss(view.kernel)
  raw_keys, as_key = _discrete_round.round_keys(key, num_sweeps)

  def sweep(state, numbered):
    number, raw_key = numbered
    scoring = trying = _report.part(report, number, num_sweeps)
    if rules.signal == 'exact':
      scoring, trying = (_report.part(scoring, half, 2) for half in (0, 1))
    moved, options = _discrete_round.candidates(
      view, state, budget, rules, radius, step
    )
    signal = _discrete_round.signals(
      moved, options, rules, as_key(raw_key), given, step, scoring
    )
    score = _discrete_round.scores(options, signal, power)
    score = jnp.where(options.heading != 0, score, -jnp.inf)
    order = jnp.argsort(-score.reshape(-1))[:num_candidates]
    flat = jax.tree.map(lambda x: x.reshape(-1), options)
    size = view.kernel.size
    begin = (
      _reshape(state, (-1,)),
      jnp.zeros(size, bool),
      _coordinate_losses.begin(moved),
    )
    original = view.kernel.reshape(-1)

    def visit(carry, candidate):
      state, already, network = carry
      weight = candidate % size
      allowed = flat.charge[candidate] <= room - state.spent
      allowed &= (flat.heading[candidate] != 0) & ~already[weight]
      displacement = flat.displacement[candidate]
      network, decrease, made = network.attempt(
        _coordinate_losses.Move(
          weight,
          original[weight] + displacement,
          flat.changes[candidate],
          allowed,
        ),
        tolerance * before,
      )
      state = _discrete_round.SearchState(
        state.displacement.at[weight].set(
          jnp.where(made, displacement, state.displacement[weight])
        ),
        state.heading.at[weight].set(
          jnp.where(made, flat.heading[candidate], state.heading[weight])
        ),
        state.spent + jnp.where(made, flat.charge[candidate], 0),
      )
      already = already.at[weight].set(already[weight] | made)
      return (state, already, network), (made, decrease, allowed)

    (state, _, _), seen = _report.scan(trying, visit, begin, order)
    return _reshape(state, view.kernel.shape), seen

  state, (made, decreases, tried) = jax.lax.scan(
    sweep,
    _discrete_round.start(view),
    (_report.numbers(report, 0, num_sweeps), raw_keys),
    length=num_sweeps,
  )
  kernel = view.kernel + state.displacement
  num_moves = jnp.sum(made, dtype=jnp.int32)
  size = _discrete_costs.size(budget.norm, state.displacement)
  scored = 0
  if rules.signal == 'exact':
    scored = num_sweeps * _discrete_round.num_moves(view, step)

  def fall(other):
    return other.loss(view.kernel) - other.loss(kernel)

  return CoordinateDescent(
    displacement=state.displacement,
    num_moves=num_moves,
    used=num_moves if budget.norm == 'flips' else size,
    predicted=jnp.sum(decreases),
    loss=before,
    decrease_search=fall(view),
    decrease_holdout=None if holdout is None else fall(holdout),
    accepted=made.reshape(-1),
    loss_evaluations=jnp.sum(tried, dtype=jnp.int32) + (scored + 2),
    gradient_evaluations=jnp.int32(
      num_sweeps if rules.signal == 'linear' else 0
    ),
  )


def _reshape(state, shape):
  return state._replace(
    displacement=state.displacement.reshape(shape),
    heading=state.heading.reshape(shape),
  )
