r"""E2: all single moves of a layer, whatever its activation.

A move of weight (i, j) adds :math:`\Delta_{ij} x_{bi}` to one product, changes one
activation by tau, and the next product by tau times one row of its matrix: a
rank-one update, then the rest of the network (see `_flips_tails`).

Moves of the same unit that add the same to it share their evaluation. Where all
changes have one magnitude, an example has two distinct moves, up and down, for
each distinct *value* among its inputs: images of bytes have few, MNIST's 66 for
784 pixels on average. So each example gets a table

.. math:: T_{v,\pm,j} = \ell_b(p_{bj} \pm \Delta v) - \ell_b(p_{bj}),

and the gain of (i, j) is a sum over examples of T at the row of input i:

.. math:: g_{\pm,ij} = -\frac1B \sum_b T_{v(b,i),\pm,j}.

The tables are as long as the batch's examples need, without a bound to be known
beforehand; inputs that are all different cost one row each.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.scans import _flips_moves
from bitjax.scans import _flips_tails
from bitjax.scans import _split
from bitjax.scans import _view

__all__ = ['moments', 'obstacle']

# Examples whose tables are built together, and numbers in memory while part of
# their rows is evaluated: measured on a CPU.
_GROUP = 4
_NUMBERS = 1 << 18
_ROWS = 64  # At most as many at a time.

apply = _split.apply


def obstacle(view: _view.LayerView) -> str | None:
  """Why this path does not apply to a view, or None if it does."""
  reason = _split.obstacle(view)
  if reason is None and view.coupling != 'none':
    reason = (
      f'its scale couples the weights ({view.coupling}); use '
      'view.freeze_scale()'
    )
  return reason


def moments(
  view: _view.LayerView, moves: _flips_moves.Moves, chunk: int
) -> tuple[types.Array, types.Array, types.Array]:
  """Mean loss, and first and second moments of each move's decrease.

  Args:
    view: a layer without an `obstacle`.
    moves: all moves of its kernel.
    chunk: examples at a time.

  Returns:
    The mean loss, and the means over the examples of the decrease of the loss
    and of its square, [moves, fan_in, units] each.
  """
  parts = _split.split(view)
  changes = jnp.swapaxes(moves.changes, 0, 1)  # [fan_in, moves, units].
  if moves.spacing is not None:
    # Both directions of every weight; each then has those that it can make.
    signs = jnp.array([1.0, -1.0], changes.dtype)
    changes = moves.spacing * signs.reshape(1, 2, 1)
  group = min(_GROUP, view.labels.size)
  chunk = group * -(-min(chunk, view.labels.size) // group)
  shape = (*view.kernel.shape[:1], changes.shape[1], view.kernel.shape[1])
  dtype = jnp.result_type(parts.inputs, parts.weights)
  zeros = jnp.zeros((shape[0], math.prod(shape[1:])), dtype)
  nothing = (jnp.zeros((), dtype), zeros, zeros)

  def block(carry, batch):
    totals, table = carry
    x, y, valid = batch
    values, rows, counts = (
      _all_inputs(x) if moves.spacing is None else _distinct(x)
    )
    order = jnp.argsort(counts)  # Tables of a group are equally long.
    examples = [
      a[order].reshape(-1, group, *a.shape[1:])
      for a in (x, y, valid, values, rows, counts)
    ]

    def visit(carry, examples):
      (loss, first, second), table = carry
      x, y, valid, values, rows, counts = examples
      base, table = _tabulate(parts, changes, x, y, values, counts, table)
      # Unrolled, so that a sum is loaded and stored once for all of them.
      for entries, row in zip(table, rows, strict=True):
        entry = jnp.take(entries, row, axis=0)
        first, second = first + entry, second + entry * entry
      return ((loss + jnp.sum(base * valid), first, second), table), None

    # Sums of a chunk first, then of all: half as many digits are lost.
    (sums, table), _ = jax.lax.scan(visit, (nothing, table), examples)
    return (jax.tree.map(jnp.add, totals, sums), table), None

  # One table, filled again and again: rows beyond its length are never read.
  table = jnp.zeros((group, shape[0] + _ROWS, zeros.shape[1]), dtype)
  valid = jnp.ones(view.labels.size, bool)
  batches = _split.batches((view.inputs, view.labels, valid), chunk)
  (totals, _), _ = jax.lax.scan(block, (nothing, table), batches)
  loss, *sums = (total / view.labels.size for total in totals)
  first, second = (_per_move(total.reshape(shape), moves) for total in sums)
  return loss, -first, second


def _per_move(sums, moves):
  """Sums [fan_in, directions, units] as [moves, fan_in, units]."""
  sums = jnp.swapaxes(sums, 0, 1)
  if moves.spacing is None:
    return sums
  up, down = sums
  return jnp.select(
    [moves.changes > 0, moves.changes < 0], [up[None], down[None]], 0.0
  )


def _all_inputs(x):
  """Every input as a value of its own."""
  size, fan_in = x.shape
  rows = jnp.broadcast_to(jnp.arange(fan_in), x.shape)
  return x, rows, jnp.full(size, fan_in)


def _distinct(x):
  """Distinct values of each example, each input's place among them, number.

  Args:
    x: [examples, fan_in].

  Returns:
    Values [examples, fan_in], each example's first; places of the same shape;
    how many values there are, [examples].
  """
  order = jnp.argsort(x, axis=1)
  ordered = jnp.take_along_axis(x, order, axis=1)
  new = ordered[:, 1:] != ordered[:, :-1]
  rank = jnp.pad(jnp.cumsum(new, axis=1), [(0, 0), (1, 0)])
  example = jnp.arange(x.shape[0])[:, None]
  places = jnp.zeros_like(rank).at[example, order].set(rank)
  values = jnp.zeros_like(x).at[example, rank].set(ordered)
  return values, places, rank[:, -1] + 1


def _tabulate(parts, changes, x, y, values, counts, table):
  """Losses, and changes of the loss by value: the first rows of the table.

  Args:
    parts: the network.
    changes: of the weights, [rows or 1, directions, units or 1].
    x: inputs of a few examples, [examples, fan_in].
    y: labels, [examples].
    values: what the changes multiply, [examples, rows].
    counts: how many of the values are wanted, [examples].
    table: written over, [examples, rows and more, directions * units].
  """
  p = parts.products(x)
  h = apply(parts.front, p)
  # All stages are monotone: no move leads beyond the two largest.
  reach = jnp.max(jnp.abs(changes), axis=(0, 1))[None, :] * jnp.max(
    jnp.abs(x), axis=1, keepdims=True
  )
  ends = [jnp.abs(apply(parts.front, p + s * reach) - h) for s in (1, -1)]
  tail = _flips_tails.tail(parts, h, jnp.max(jnp.maximum(*ends), axis=1), y)
  size, units = p.shape
  per_row = size * changes.shape[1] * units * tail.width
  rows = max(1, min(_ROWS, _NUMBERS // per_row))
  padding = [(0, 0), (0, rows)]
  values = jnp.pad(values, padding)
  if changes.shape[0] > 1:
    changes = jnp.pad(changes, [(0, rows), (0, 0), (0, 0)])

  def fill(state):
    start, table = state
    part = jax.lax.dynamic_slice_in_dim(values, start, rows, axis=1)
    change = changes
    if changes.shape[0] > 1:
      change = jax.lax.dynamic_slice_in_dim(changes, start, rows)
    moved = p[:, None, None, :] + part[:, :, None, None] * change[None]
    tau = apply(parts.front, moved) - h[:, None, None, :]
    entry = jnp.where(tau == 0, 0.0, tail.changes(tau))
    entry = entry.reshape(size, rows, -1)
    return start + rows, jax.lax.dynamic_update_slice(
      table, entry, (0, start, 0)
    )

  longest = jnp.max(counts)
  _, table = jax.lax.while_loop(
    lambda state: state[0] < longest, fill, (0, table)
  )
  return tail.base, table
