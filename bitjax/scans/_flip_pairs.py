r"""Measures how far from additive the loss is: gains of pairs against single gains.

.. math:: I_{kl} = g_{\{k, l\}} - (g_k + g_l)

is 0 for every pair if the gains of sets are sums of single gains, which is what a
ranking of single moves presumes.

A pair costs three losses: forward passes (``'brute_force'``), or, for a convolution before
a binary rest, runs of that rest (``'incremental'``, see `_coordinate_convolutions`).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import types
from bitjax.scans import _coordinate_convolutions
from bitjax.scans import _coordinates
from bitjax.scans import _flips_moves
from bitjax.scans import _paths
from bitjax.scans import _report
from bitjax.scans import _text
from bitjax.scans import _view

__all__ = ['PairGains', 'pair_gains']


class PairGains(NamedTuple):
  """Gains of pairs of moves, [pairs] each.

  Attributes:
    first: index of one move among all, flattened ``[moves, *kernel.shape]``, int32.
    second: index of the other move, which moves another weight, int32.
    together: decrease of the mean loss by both moves, in nats.
    separately: sum of the decreases by each move alone, in nats.
  """

  first: types.Array
  second: types.Array
  together: types.Array
  separately: types.Array

  def __repr__(self) -> str:
    return _text.describe(
      self,
      pairs=self.first,
      best=_text.reduce(np.fmax, self.together),
    )

  @property
  def interaction(self) -> types.Array:
    """The gain of the pair minus the sum of the single gains, in nats."""
    return self.together - self.separately


@_report.reports
def pair_gains(
  view: _view.LayerView,
  key: types.Array,
  num_pairs: int,
  *,
  among: types.Array | None = None,
  step: types.Scalar | None = None,
  width: int | None = None,
  report: _report.Report | None = None,
) -> PairGains:
  """Draws pairs of moves and evaluates them together and alone.

  Each pair costs three losses, by the faster path that applies (see `plan`).

  Args:
    view: the layer.
    key: a random key.
    num_pairs: how many pairs, drawn with replacement, static.
    among: indices of the moves to draw from, [n], such as the best ones
      (``argsort(-gains)[:n]``); None for all.
    step: size of a full-precision kernel's moves; None for quantised kernels.
    width: pairs evaluated at a time; None for a good number.
    report: as for `flip_gains`.

  Returns:
    `PairGains`. Pairs of two moves of the same weight are not drawn. If all moves of
    ``among`` are of one weight, ``together`` is NaN.

  Raises:
    BadInput: for no pairs, fewer than two moves, indices of no move (under ``jit``
      ``together`` is NaN), an empty batch or kernel, a loss that is concrete and not
      finite, or what `moves` objects to.
  """
  types.check_integer('num_pairs', num_pairs, 1)
  if width is not None:
    types.check_integer('width', width, 1)
  _view.check_filled(view)
  _view.check_loss(view)
  moves = _flips_moves.moves(view, step=step)
  if among is not None:
    _coordinates.check(among, moves.changes.size, 'among', 'moves')
  indices = jnp.arange(moves.changes.size) if among is None else among
  if indices.size < 2:
    raise types.BadInput(
      f'pair_gains needs at least two moves; got {indices.size}.'
    )
  found = _pairs(view, key, moves, indices, num_pairs, width, report)
  types.check_finite('The gain of a pair', found.separately, arrays=True)
  return found


def choose(view: _view.LayerView) -> _paths.Choice:
  """Returns whether pairs are evaluated incrementally or by brute force."""
  reason: str | None = 'its layer is not a known convolution'
  if _coordinate_convolutions.is_convolution(view):
    reason = _coordinate_convolutions.obstacle(view)
    reason = reason or _coordinate_convolutions.unwise(view)
  return _paths.choose('auto', {'incremental': reason, 'brute_force': None})


@functools.partial(jax.jit, static_argnames=('num_pairs', 'width'))
def _pairs(view, key, moves, indices, num_pairs, width, report):
  size = view.kernel.size
  destinations = moves.destinations.reshape(-1)
  indices, outside = _coordinates.within(indices, destinations.size)
  first_key, second_key = jax.random.split(key)
  places = jax.random.randint(
    first_key, (num_pairs,), 0, indices.size, jnp.int32
  )
  first = indices[places]
  # The second is drawn as the n-th of those moves that move another weight.
  offset = jax.random.randint(
    second_key, (num_pairs,), 0, indices.size, jnp.int32
  )
  second = indices[_others(indices % size, first % size, offset)]
  if choose(view).path == 'incremental':
    loss, base = _incremental(view, moves)
  else:
    loss, base = _passes(view, destinations), view.loss(view.kernel)

  def gain(chosen):
    return base - loss(chosen)

  def evaluate(first, second):
    alone = gain(first[None]) + gain(second[None])
    return gain(jnp.stack([first, second])), alone

  together, separately = _report.each(
    report, evaluate, {'first': first, 'second': second}, width=width
  )
  valid = (first % size != second % size) & ~jnp.any(outside)
  together = types.nan_where(~valid, together)
  return PairGains(
    first.astype(jnp.int32), second.astype(jnp.int32), together, separately
  )


def _passes(view, destinations):
  """Returns a function of some moves that returns the loss after them."""

  def loss(chosen):
    kernel = view.kernel.reshape(-1)
    moved = kernel.at[chosen % kernel.size].set(destinations[chosen])
    return view.loss(moved.reshape(view.kernel.shape))

  return loss


def _incremental(view, moves):
  """Returns what `_passes` does, and the loss before any move, for a convolution."""
  begun = _coordinate_convolutions.begin(view)
  changes = jnp.where(moves.directions != 0, moves.changes, 0).reshape(-1)

  def loss(chosen):
    state = begun
    for move in chosen:
      state = state.moved(move % view.kernel.size, changes[move])
    return state.measured(chosen[0] >= 0)

  return loss, begun.loss


def _others(weights, first, offset):
  """Returns for each pair the position of the n-th move of another weight.

  Args:
    weights: the weight of each move, [moves].
    first: the weight of each first move, [pairs].
    offset: n, taken modulo the number of such moves, [pairs].
  """
  order = jnp.argsort(weights)  # Stable: the moves of a weight stay in order.
  begin, end = (
    jnp.searchsorted(weights[order], first, side=side)
    for side in ('left', 'right')
  )
  same, last = end - begin, weights.size - 1

  def skip(k, position):
    next_same = order[jnp.minimum(begin + k, last)]
    passed = (k < same) & (next_same <= position)
    return jnp.where(passed, position + 1, position)

  position = offset % jnp.maximum(weights.size - same, 1)
  position = jax.lax.fori_loop(0, jnp.max(same), skip, position)
  return jnp.minimum(position, last)
