r"""Computes the discrete gradient: the best single moves that a budget allows.

Every single move of a layer's kernel (see `moves`) is scored by the exact decrease
of the loss. The moves are sorted, and taken from the best down until the budget is
used up. With several rounds, each scores all moves again from the current weights.

A move made together with others does not deliver what it promises alone. So the sum
of the signals (``predicted``) is reported next to the true decrease, on the batch
that was searched and on another. The ranking defines the method as much as the signal
does, so both are options:

* a signal: the exact gain; its mean while other weights flip at random; the linear
  prediction of the straight-through estimator, :math:`-g_k \Delta q_k`; none at all
  (random, or the cost alone); or any array;
* a ranking: the signal itself, per cost, or per squared cost.

The cost is the latent distance from the original point to just beyond the edge of
the level. Ranking *per squared cost* fills the l2 ball like a knapsack, by density;
*per cost* does the same for l1, and the plain gain for flips and linf.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import types
from bitjax.scans import _discrete_costs
from bitjax.scans import _discrete_round
from bitjax.scans import _flips
from bitjax.scans import _flips_moves
from bitjax.scans import _report
from bitjax.scans import _text
from bitjax.scans import _view

__all__ = [
  'DiscretePath',
  'DiscreteStep',
  'discrete_gradient',
  'multi_step_discrete_gradient',
]


class DiscreteStep(NamedTuple):
  """The result of `discrete_gradient`.

  Attributes:
    displacement: to be added to the kernel, of its shape.
    rank: how many moves were taken before a weight's own, int32, of the kernel's
      shape; -1 for weights that do not move.
    num_moves: number of moves made, int32.
    used: the displacement's size in the budget's norm; for ``flips`` the number of
      moves.
    predicted: sum of the signals of the moves made, in nats if the signals are.
    loss: loss on the search batch before any move, in nats.
    decrease_search: how much the loss really falls on the search batch.
    decrease_holdout: the same on the held-out batch; None without one.
    loss_evaluations: number of losses that brute force would compute, int32, clipped.
    gradient_evaluations: number of gradients that were computed, int32.
  """

  displacement: types.Array
  rank: types.Array
  num_moves: types.Array
  used: types.Array
  predicted: types.Array
  loss: types.Array
  decrease_search: types.Array
  decrease_holdout: types.Array | None
  loss_evaluations: types.Array
  gradient_evaluations: types.Array

  def __repr__(self) -> str:
    return _text.describe_moves(self)


class DiscretePath(NamedTuple):
  """The result of `multi_step_discrete_gradient`.

  Of the arrays [num_rounds + 1], entry k describes the kernel after k rounds.

  Attributes:
    displacement: after the last round, to be added to the kernel.
    search: loss on the search batch in nats, [num_rounds + 1].
    holdout: the same on the held-out batch; None without one.
    used: the displacement's size in the budget's norm, [num_rounds + 1]; for
      ``flips`` the number of moves made so far.
    flips: number of weights whose quantised value (for full precision: whose sign)
      differs from the original one, int32 [num_rounds + 1].
    num_moves: number of moves made in each round, int32 [num_rounds].
    num_reversals: how many of them moved a weight against the direction of its last
      move, int32 [num_rounds].
    predicted: sum of the signals of each round's moves, [num_rounds].
    loss_evaluations: number of losses that brute force would compute, int32, clipped.
    gradient_evaluations: number of gradients that were computed, int32.
  """

  displacement: types.Array
  search: types.Array
  holdout: types.Array | None
  used: types.Array
  flips: types.Array
  num_moves: types.Array
  num_reversals: types.Array
  predicted: types.Array
  loss_evaluations: types.Array
  gradient_evaluations: types.Array

  def __repr__(self) -> str:
    return _text.describe(
      self,
      weights=self.displacement,
      num_moves=_text.reduce(np.add, self.num_moves),
      rounds=self.num_moves,
      best=_text.reduce(np.minimum, self.search),
    )


@_report.reports
def discrete_gradient(
  view: _view.LayerView,
  budget: types.Budget,
  *,
  rank_by: str | types.Scalar = 'gain',
  signal: str | types.Array = 'exact',
  holdout: _view.LayerView | None = None,
  key: types.Array | None = None,
  step: types.Scalar | None = None,
  flip_rate: types.Scalar = 0.05,
  draws: int = 32,
  overflow: str = 'stop',
  path: str = 'auto',
  chunk: int | None = None,
  report: _report.Report | None = None,
) -> DiscreteStep:
  r"""Takes the best single moves of a layer until a budget is used up.

  With :math:`s_k` the signal of move k, :math:`c_k` its cost and p = 0, 1, 2 for the
  three rankings, moves with :math:`s_k > 0` are sorted by :math:`s_k / c_k^p` and
  taken while :math:`\| (c_k)_{k\ \mathrm{taken}} \| \le r`. At most one move of a
  weight is taken, the better one. Only the signal ``'linear'`` computes a gradient,
  for which it uses the estimators of the view's quantizers.

  The defaults follow the wording of the note: the objective of each dimension,
  largest first, until the budget is used up. The note says neither that the objective
  is divided by the cost (``rank_by``) nor that moves that do not fit are skipped
  (``overflow``).

  Args:
    view: the layer, on the batch to search.
    budget: the ball around the view's kernel; its anchor is ignored. With the norm
      ``flips`` it counts moves, with ``linf`` it only decides which are within reach.
    rank_by: ``'gain'``, ``'gain_per_cost'`` or ``'gain_per_squared_cost'``; or the
      power p = 0, 1, 2 of the cost, which may be traced.
    signal: ``'exact'``: the decrease of the loss by the move alone (`flip_gains`);
      ``'linear'``: minus the gradient times the change of the quantised weight;
      ``'smoothed'``: the gain's mean over random flips of the other weights
      (`smoothed_gains`); ``'random'``: uniform in (0, 1]; ``'cost'``: the reciprocal cost, which puts the
      cheapest first in every ranking; or an array with an entry for each move,
      ``[moves, *kernel.shape]``, or of the kernel's shape if each weight has one move.
    holdout: the same layer on another batch, on which the result is only measured;
      None for none.
    key: a random key, for ``'random'`` and ``'smoothed'``.
    step: size of a full-precision kernel's moves; None for quantised kernels.
    flip_rate: passed to `smoothed_gains`, for ``'smoothed'``.
    draws: passed to `smoothed_gains`, likewise; static.
    overflow: ``'stop'`` at the first move that does not fit, or ``'skip'`` it.
      (Moves that do not fit on their own are no candidates in either case.)
    path: passed to `flip_gains`, for ``'exact'``.
    chunk: passed to `flip_gains` or `smoothed_gains`.
    report: as for `flip_gains`.

  Returns:
    A `DiscreteStep`. The displacement's norm is at most ``radius`` times
    ``1 + 4 * eps``.

  Raises:
    BadInput: for a radius that is not positive, unknown names, ``'random'`` or
      ``'smoothed'`` without a key, an array of another shape, an empty batch or kernel, a
      loss that is concrete and not finite, or what `moves`, `flip_gains` and
      `smoothed_gains` object to.

  Examples:
    ``kernel + step.displacement`` takes the step, to be compared with a step of the
    straight-through estimator. In `descend`, use the negative displacement as the
    gradient and ``optax.sgd(1.0)`` as the optimiser.

  References:
    None that uses the term in this sense; see ``docs/studies``. For the greedy
    choice of coordinates: Zhou et al. 2022 (https://arxiv.org/abs/2206.02006).
  """
  given = None
  if not isinstance(signal, str):
    given, signal = signal, 'given'
  else:
    types.check_choice('signal', signal, _discrete_round.SIGNALS)
  rules = _rules(signal, overflow, 'cumulative', 1, path, chunk, draws)
  walk = _start(
    view, holdout, budget, rules, rank_by, key, given, step, flip_rate, report
  )
  return DiscreteStep(
    displacement=walk.state.displacement,
    rank=walk.ranks,
    num_moves=walk.rounds.num_moves[0],
    used=walk.used[1],
    predicted=walk.rounds.predicted[0],
    loss=walk.search[0],
    decrease_search=walk.search[0] - walk.search[1],
    decrease_holdout=(
      None if walk.holdout is None else walk.holdout[0] - walk.holdout[1]
    ),
    loss_evaluations=walk.loss_evaluations,
    gradient_evaluations=walk.gradient_evaluations,
  )


@_report.reports
def multi_step_discrete_gradient(
  view: _view.LayerView,
  budget: types.Budget,
  num_rounds: int,
  split: str = 'even',
  *,
  rank_by: str | types.Scalar = 'gain',
  signal: str = 'exact',
  holdout: _view.LayerView | None = None,
  key: types.Array | None = None,
  step: types.Scalar | None = None,
  flip_rate: types.Scalar = 0.05,
  draws: int = 32,
  overflow: str = 'stop',
  path: str = 'auto',
  chunk: int | None = None,
  report: _report.Report | None = None,
) -> DiscretePath:
  """Splits a budget over rounds, each of which scores all moves again.

  A weight that an earlier round moved is scored from where it then is, and its cost
  counts from the original point. Flipping back is not free: a reversal costs a whole
  distance again, and nothing is refunded.

  ``'even'`` is the wording of the note: each round gets a K-th of the radius. That is
  not neutral. In l2, rounds that move different weights end near :math:`r/\\sqrt{K}`;
  in linf, no weight whose edge is farther than r / K ever moves. ``'cumulative'``
  gives the first k rounds together the ball of radius r k / K.

  Args:
    view: the layer, on the batch to search.
    budget: the ball around the view's kernel.
    num_rounds: K >= 1, the number of rounds; static.
    split: ``'even'`` or ``'cumulative'``.
    rank_by: as for `discrete_gradient`, like all arguments that follow.
    signal: the name of a signal; an array could not be computed again in each round.
    holdout: the same layer on another batch, on which the result is only measured.
    key: a random key, for ``'random'`` and ``'smoothed'``; each round draws anew.
    step: size of a full-precision kernel's moves; None for quantised kernels.
    flip_rate: passed to `smoothed_gains`.
    draws: passed to `smoothed_gains`.
    overflow: ``'stop'`` or ``'skip'``.
    path: passed to `flip_gains`.
    chunk: passed to `flip_gains`.
    report: as for `flip_gains`.

  Returns:
    A `DiscretePath`.

  Raises:
    BadInput: as `discrete_gradient`, and for ``num_rounds`` below 1, or above 46 340
      under a budget of flips.
  """
  types.check_integer('num_rounds', num_rounds, 1)
  types.check_choice('signal', signal, _discrete_round.SIGNALS)
  rules = _rules(signal, overflow, split, num_rounds, path, chunk, draws)
  walk = _start(
    view, holdout, budget, rules, rank_by, key, None, step, flip_rate, report
  )
  return DiscretePath(
    displacement=walk.state.displacement,
    search=walk.search,
    holdout=walk.holdout,
    used=walk.used,
    flips=walk.flips,
    num_moves=walk.rounds.num_moves,
    num_reversals=walk.rounds.num_reversals,
    predicted=walk.rounds.predicted,
    loss_evaluations=walk.loss_evaluations,
    gradient_evaluations=walk.gradient_evaluations,
  )


def _rules(signal, overflow, split, num_rounds, path, chunk, draws):
  types.check_choice('overflow', overflow, _discrete_costs.OVERFLOWS)
  types.check_choice('split', split, _discrete_costs.SPLITS)
  draws = types.check_integer('draws', draws, 1)
  draws = draws if signal == 'smoothed' else 1  # Not another program.
  return _discrete_round.Rules(
    signal, overflow, split, num_rounds, path, chunk, draws
  )


def _start(view, holdout, budget, rules, rank_by, *options):
  key, given, step, flip_rate, _ = options
  types.check_range('flip_rate', flip_rate, 0, 1)
  _flips.check_options(step=step, chunk=rules.chunk)
  types.check_positive('budget.radius', budget.radius)
  _view.check_filled(view, *([] if holdout is None else [holdout]))
  _view.check_loss(view)
  _discrete_round.check_signal('signal', view, rules.signal, key, given)
  power = _discrete_round.ranking_power(rank_by)
  walk = _walk(view, holdout, budget, power, *options, rules=rules)
  types.check_finite('The loss', walk.search[0])
  return walk


class _Walk(NamedTuple):
  state: _discrete_round.SearchState
  rounds: Any  # A `Round` whose leaves have a leading axis of rounds, [K].
  ranks: types.Array  # Ranks of the moves of the last round.
  search: types.Array
  holdout: types.Array | None
  used: types.Array
  flips: types.Array
  loss_evaluations: types.Array
  gradient_evaluations: types.Array


@functools.partial(jax.jit, static_argnames=('rules',))
def _walk(
  view, holdout, budget, power, key, given, step, flip_rate, report, *, rules
):
  num_rounds, dtype = rules.num_rounds, _discrete_costs.dtype_of(view)
  raw_keys, as_key = _discrete_round.round_keys(key, num_rounds)

  def measure(state):
    kernel = view.kernel + state.displacement
    return {
      'search': view.loss(kernel),
      'holdout': None if holdout is None else holdout.loss(kernel),
      'used': _discrete_costs.size(budget.norm, state.displacement),
      'flips': _num_flips(view, kernel),
    }

  def visit(carry, round_):
    state, _ = carry
    number, raw_key = round_
    radius, room = _discrete_costs.allowance(
      budget, dtype, rules.split, num_rounds, number
    )
    if rules.split == 'cumulative':
      room -= state.spent
    moved, options = _discrete_round.candidates(
      view, state, budget, rules, radius, step
    )
    _report.tick(report, number - 1, num_rounds)
    progress = _report.part(report, number - 1, num_rounds)
    signal = _discrete_round.signals(
      moved, options, rules, as_key(raw_key), given, step, progress, flip_rate
    )
    after, made = _discrete_round.take_best(
      options, signal, state, rules, power, room
    )
    return (after, made.rank), (made._replace(rank=()), measure(after))

  begin = _discrete_round.start(view)
  ranks = jnp.zeros(view.kernel.shape, jnp.int32)
  numbers = jnp.arange(1, num_rounds + 1, dtype=jnp.int32)
  (state, ranks), (rounds, seen) = jax.lax.scan(
    visit, (begin, ranks), (numbers, raw_keys)
  )
  seen = jax.tree.map(
    lambda first, rest: jnp.concatenate([first[None], rest]),
    measure(begin),
    seen,
  )
  if budget.norm == 'flips':
    seen['used'] = jnp.concatenate(
      [jnp.zeros(1, jnp.int32), jnp.cumsum(rounds.num_moves)]
    )
  num_scored = num_rounds * _discrete_round.num_losses(view, rules, step)
  num_gradients = num_rounds if rules.signal == 'linear' else 0
  return _Walk(
    state,
    rounds,
    ranks,
    loss_evaluations=jnp.int32(min(num_scored + num_rounds + 1, 2**31 - 1)),
    gradient_evaluations=jnp.int32(num_gradients),
    **seen,
  )


def _num_flips(view, kernel):
  if view.quantizer is None:
    moved = (kernel < 0) != (view.kernel < 0)
  else:
    moved = _flips_moves.levels_differ(view, kernel, view.kernel)
  return jnp.sum(moved, dtype=jnp.int32)
