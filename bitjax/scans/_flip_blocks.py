r"""Descends by blocks of single moves, each of which keeps a part of what it promises.

All gains are computed, and the best move into each unit is a candidate: moves into
different units do not meet in one sum. A block of the best m of them promises the sum of
their gains, which they would save if gains added up. It is made if

.. math:: L(W) - L(W + \Delta) \ge \kappa \sum_{k \in \text{block}} g_k,

and halved if not; a single move keeps its promise, as its gain is exact. Then all
gains are computed anew. So every step lowers the loss, and where no move is left that does,
the gains are those of the end: it is certified.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.scans import _flips
from bitjax.scans import _flips_moves
from bitjax.scans import _report
from bitjax.scans import _view

__all__ = ['Record', 'descend', 'start', 'units']


class Record(NamedTuple):
  """The moves made so far; see `FlipDescent` for the attributes."""

  moved: types.Array
  losses: types.Array
  num_flips: types.Array


def start(max_flips: int, loss: types.Array) -> Record:
  """Returns a record without moves."""
  return Record(
    jnp.full(max_flips, -1, jnp.int32),
    jnp.full(max_flips + 1, loss),
    jnp.zeros((), jnp.int32),
  )


def units(view: _view.LayerView) -> tuple[types.Array, int]:
  """Returns which unit each weight of the flattened kernel feeds, and how many there are.

  Units are numbered through all layers of a network's view.
  """
  shapes = [view.kernel.shape]
  if layers := getattr(view.product, 'layers', None):
    shapes = [layer.kernel.shape for layer in layers]
  parts, first = [], 0
  for shape in shapes:
    own = jnp.arange(shape[-1], dtype=jnp.int32) + first
    parts.append(jnp.broadcast_to(own, shape).reshape(-1))
    first += shape[-1]
  return jnp.concatenate(parts), first


@functools.partial(jax.jit, static_argnames=('max_flips', 'block'))
def descend(
  view: _view.LayerView,
  tolerance: types.Scalar,
  promise: types.Scalar,
  max_flips: int,
  block: int,
  report: _report.Report | None,
) -> tuple[types.Array, Record, types.Array, types.Array]:
  """Makes blocks of moves until none lowers the loss.

  Args:
    view: the layer, or a network's view.
    tolerance: as for `flip_descent`.
    promise: the share of the promised decrease that a block must keep.
    max_flips: maximum number of moves, static.
    block: the most moves of a block, static.
    report: as for `flip_gains`.

  Returns:
    The kernel, the record, whether the end is certified, and the largest gain there.
  """
  size = view.kernel.size
  unit, number = units(view)
  block = min(block, number, max_flips)
  loss = view.loss(view.kernel)
  least = tolerance * loss

  def look(kernel):
    """Returns the best moves of a kernel, and their gains, in order."""
    found = _flips.flip_gains(dataclasses.replace(view, kernel=kernel))
    ways = found.gains.reshape(-1, size)
    way, best = jnp.argmax(ways, axis=0), jnp.max(ways, axis=0)
    top = jax.ops.segment_max(best, unit, number)
    # At a tie, the first weight of a unit.
    place = jnp.where(best == top[unit], jnp.arange(size), size)
    place = jax.ops.segment_min(place, unit, number)
    gains, order = jax.lax.top_k(top, block)
    place = place[order]
    return found.loss, gains, place, way[jnp.minimum(place, size - 1)]

  def unfinished(state):
    _, record, (_, gains, _, _) = state
    return (gains[0] > least) & (record.num_flips < max_flips)

  def step(state):
    kernel, record, (before, gains, place, way) = state
    _report.tick(report, record.num_flips, max_flips)
    moves = _flips_moves.moves(dataclasses.replace(view, kernel=kernel))
    there = moves.destinations.reshape(-1, size)[way, place]
    room = max_flips - record.num_flips
    most = jnp.minimum(jnp.sum(gains > least, dtype=jnp.int32), room)
    ranks = jnp.arange(block)

    def make(count):
      taken = jnp.where(ranks < count, place, size)
      moved = kernel.reshape(-1).at[taken].set(there, mode='drop')
      moved = moved.reshape(kernel.shape)
      return moved, view.loss(moved)

    def broken(trial):
      count, _, after = trial
      kept = jnp.sum(jnp.where(ranks < count, gains, 0)) * promise
      return (count > 1) & ~(before - after >= kept)

    def halve(trial):
      count = trial[0] // 2
      return (count, *make(count))

    count, moved, _ = jax.lax.while_loop(broken, halve, (most, *make(most)))
    now = record.num_flips + count
    at = jnp.where(ranks < count, record.num_flips + ranks, max_flips)
    seen = look(moved)
    record = Record(
      record.moved.at[at].set(place.astype(jnp.int32), mode='drop'),
      jnp.where(jnp.arange(max_flips + 1) >= now, seen[0], record.losses),
      now,
    )
    return moved, record, seen

  begin: Any = (view.kernel, start(max_flips, loss), look(view.kernel))
  kernel, record, seen = jax.lax.while_loop(unfinished, step, begin)
  return kernel, record, ~(seen[1][0] > least), seen[1][0]
