r"""Performs a round of a discrete gradient: scores all moves and takes the best.

Each single move k of the kernel has a *signal* :math:`s_k`, the decrease of the loss
that it promises, and a cost :math:`c_k` (see `_discrete_costs`). Moves with
:math:`s_k > 0` are ranked by :math:`s_k / c_k^p` and taken from the top.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.scans import _discrete_costs
from bitjax.scans import _flips
from bitjax.scans import _flips_moves
from bitjax.scans import _smoothed
from bitjax.scans import _view

__all__ = [
  'ORDERS',
  'RANKINGS',
  'SIGNALS',
  'Candidates',
  'Rules',
  'SearchState',
  'candidates',
  'check_signal',
  'num_losses',
  'num_moves',
  'ranking_power',
  'round_keys',
  'scores',
  'signals',
  'start',
  'take_best',
]

ORDERS = ('exact', 'linear', 'random', 'cost')
SIGNALS = (*ORDERS, 'smoothed')
RANKINGS = {'gain': 0, 'gain_per_cost': 1, 'gain_per_squared_cost': 2}


@dataclasses.dataclass(frozen=True)
class Rules:
  """The options of a search, which are fixed before the first round; static.

  Attributes:
    signal: one of `SIGNALS`, or ``'given'``.
    overflow: one of `_discrete_costs.OVERFLOWS`.
    split: one of `_discrete_costs.SPLITS`.
    num_rounds: K, the number of rounds.
    path: passed to `flip_gains`.
    chunk: passed to `flip_gains`.
    draws: passed to `smoothed_gains`.
  """

  signal: str = 'exact'
  overflow: str = 'stop'
  split: str = 'cumulative'
  num_rounds: int = 1
  path: str = 'auto'
  chunk: int | None = None
  draws: int = 1


class SearchState(NamedTuple):
  """The state of a search between rounds.

  Attributes:
    displacement: from the original kernel, of its shape.
    heading: sign of each weight's last move, of its shape; 0 before the first.
    spent: units of the budget spent so far, int32; stays 0 if every round has a
      budget of its own.
  """

  displacement: types.Array
  heading: types.Array
  spent: types.Array


class Candidates(NamedTuple):
  """All single moves from the current weights, [moves, *kernel.shape] each.

  Attributes:
    displacement: from the original kernel, after the move.
    changes: what the move adds to the quantised weight.
    heading: direction of the move, +1 or -1; 0 where there is no such move.
    cost: how far from the original point it leads, in latent units.
    charge: units of the round's budget that it is charged, int32.
  """

  displacement: types.Array
  changes: types.Array
  heading: types.Array
  cost: types.Array
  charge: types.Array


def start(view: _view.LayerView) -> SearchState:
  """Returns the state at the original point."""
  zeros = jnp.zeros_like(view.kernel)
  return SearchState(zeros, zeros, jnp.zeros((), jnp.int32))


def candidates(
  view: _view.LayerView,
  state: SearchState,
  budget: types.Budget,
  rules: Rules,
  radius: types.Array,
  step: types.Scalar | None,
) -> tuple[_view.LayerView, Candidates]:
  """Returns the view with the current weights, and all moves from there.

  Args:
    view: the layer at the original point.
    state: the current state.
    budget: the ball.
    rules: options of the search.
    radius: the radius that charges refer to.
    step: size of a full-precision kernel's moves; None for quantised kernels.
  """
  here = state.displacement
  moved = dataclasses.replace(view, kernel=view.kernel + here)
  moves = _flips_moves.moves(moved, step=step)
  there = _settle(view, moves)
  heading = moves.directions
  cost = _discrete_costs.costs(here, there)
  onward = heading == state.heading[None]
  charge = _discrete_costs.charges(
    budget.norm, rules.split, radius, cost, here, onward
  )
  return moved, Candidates(there, moves.changes, heading, cost, charge)


def _settle(view, moves):
  """Returns displacements that reach their level despite the rounding of sums."""
  destinations = moves.destinations
  there = destinations - view.kernel[None]
  if view.quantizer is None:
    return there
  differ = jax.vmap(functools.partial(_flips_moves.levels_differ, view))
  away = jnp.sign(there) * jnp.finfo(there.dtype).eps
  away = away * jnp.maximum(jnp.abs(view.kernel)[None], jnp.abs(destinations))
  for ulps in (1, 2):
    missed = differ(view.kernel[None] + there, destinations)
    farther = destinations + ulps * away - view.kernel[None]
    there = jnp.where(missed, farther, there)
  return there


def signals(
  view: _view.LayerView,
  options: Candidates,
  rules: Rules,
  key: types.Array | None,
  given: types.Array | None,
  step: types.Scalar | None,
  report: Any = None,
  flip_rate: types.Scalar = 0.0,
) -> types.Array:
  """Returns the signal of each move, [moves, *kernel.shape]."""
  shape = options.cost.shape
  if rules.signal == 'given':
    return jnp.asarray(given).reshape(shape)
  if rules.signal == 'exact':
    gains = _flips.flip_gains(
      view, step=step, path=rules.path, chunk=rules.chunk, report=report
    ).gains
    return gains.reshape(shape)
  if rules.signal == 'smoothed':
    smoothed = _smoothed.smoothed_gains(
      view,
      cast(jax.Array, key),
      flip_rate,
      rules.draws,
      chunk=rules.chunk,
      report=report,
    )
    return smoothed.gains.reshape(shape)
  if rules.signal == 'linear':
    return -jax.grad(view.loss)(view.kernel)[None] * options.changes
  if rules.signal == 'cost':
    return jnp.max(options.cost) / options.cost
  uniform = jax.random.uniform(cast(jax.Array, key), shape, options.cost.dtype)
  return 1.0 - uniform


def round_keys(
  key: types.Array | None, num_rounds: int
) -> tuple[types.Array | None, Callable[[Any], types.Array | None]]:
  """Returns one raw key per round to scan over, and a function that wraps them."""
  if key is None:
    return None, lambda raw: None
  impl = jax.random.key_impl(key)
  raw = jax.random.key_data(jax.random.split(key, num_rounds))
  return raw, lambda raw: jax.random.wrap_key_data(raw, impl=impl)


def scores(
  options: Candidates, signal: types.Array, power: types.Array
) -> types.Array:
  """Returns the scores that candidates are ranked by, [moves, *kernel.shape]."""
  relative = options.cost / jnp.max(options.cost)
  return signal / jnp.select(
    [power == 0, power == 1], [1, relative], relative**2
  )


def ranking_power(rank_by: str | types.Scalar) -> types.Array:
  """Returns the power p of a ranking that is given by its name or by p.

  Raises:
    BadInput: for an unknown name, or a concrete number other than 0, 1, 2.
  """
  if isinstance(rank_by, str):
    types.check_choice('rank_by', rank_by, tuple(RANKINGS))
    rank_by = RANKINGS[rank_by]
  types.check_range('rank_by', rank_by, 0, 2)
  return jnp.asarray(rank_by, jnp.int32)


def num_moves(view: _view.LayerView, step: types.Scalar | None) -> int:
  """Returns the number of single moves of a view."""
  return _flips_moves.moves(view, step=step).destinations.size


def num_losses(
  view: _view.LayerView, rules: Rules, step: types.Scalar | None
) -> int:
  """Returns how many losses the signals of a round would take by brute force."""
  if rules.signal == 'smoothed':
    return rules.draws * (view.kernel.size + 1)
  return num_moves(view, step) if rules.signal == 'exact' else 0


def check_signal(
  name: str,
  view: _view.LayerView,
  signal: str,
  key: types.Array | None,
  given: types.Array | None,
) -> None:
  """Checks an argument called ``name`` that says what ranks the moves.

  Raises:
    BadInput: for a missing key, an array of a wrong shape, or a view whose gains cannot
      be smoothed.
  """
  if signal in ('random', 'smoothed') and key is None:
    raise types.BadInput(f'{name} {signal!r} needs a key; got None.')
  if signal == 'smoothed':
    _smoothed.choose(view)
  if given is not None:
    single = view.kernel.shape
    if given.shape not in (single, (1, *single), (2, *single)):
      raise types.BadInput(
        f'{name} must have an entry for each move, shape '
        f'{("moves", *single)}; got {given.shape}.'
      )


class Round(NamedTuple):
  """A record of one round.

  Attributes:
    num_moves: how many moves it made, int32.
    num_reversals: how many of them moved a weight against the direction of its last
      move, int32.
    predicted: sum of the signals of the moves made.
    rank: how many moves came before a weight's own, int32, of the kernel's
      shape; -1 for weights that did not move.
  """

  num_moves: types.Array
  num_reversals: types.Array
  predicted: types.Array
  rank: Any


def take_best(
  options: Candidates,
  signal: types.Array,
  state: SearchState,
  rules: Rules,
  power: types.Array,
  room: types.Array,
) -> tuple[SearchState, Round]:
  """Takes the best candidates; returns the state after them and a record.

  Args:
    options: all moves; at most one of each weight is taken.
    signal: signal of each move.
    state: the state before the round.
    rules: options of the search.
    power: p of the ranking.
    room: units that may be spent.
  """
  promising = (signal > 0) & (options.heading != 0) & (options.charge <= room)
  score = jnp.where(promising, scores(options, signal, power), -jnp.inf)
  best = jnp.argmax(score, axis=0)[None]

  def pick(x):
    return jnp.take_along_axis(x, best, axis=0)[0]

  charge = pick(options.charge)
  entries = pick(score).reshape(-1), charge.reshape(-1), room
  if rules.num_rounds > 1 and rules.overflow == 'stop':
    # Several rounds do not report the order, so that nothing has to be sorted.
    taken = _discrete_costs.fitting(*entries)
    rank = jnp.where(taken, 0, -1).astype(jnp.int32)
  else:
    taken, rank = _discrete_costs.take(*entries, rules.overflow)
  taken, rank = (x.reshape(charge.shape) for x in (taken, rank))
  heading = pick(options.heading)
  spent = jnp.sum(jnp.where(taken, charge, 0), dtype=jnp.int32)
  reversals = taken & (heading == -state.heading)
  after = SearchState(
    jnp.where(taken, pick(options.displacement), state.displacement),
    jnp.where(taken, heading, state.heading),
    state.spent + spent if rules.split == 'cumulative' else state.spent,
  )
  return after, Round(
    num_moves=jnp.sum(taken, dtype=jnp.int32),
    num_reversals=jnp.sum(reversals, dtype=jnp.int32),
    predicted=jnp.sum(jnp.where(taken, pick(signal), 0.0)),
    rank=rank,
  )
