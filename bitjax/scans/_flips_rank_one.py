r"""Computes the gains of all moves of a layer by rank-one updates of the next product.

A move of weight (i, j) adds :math:`\Delta_{ij} x_{bi}` to one product, changes one
activation by tau, and the next product by tau times one row of its matrix. That is a
rank-one update, after which the rest of the network is evaluated (see
`_flips_tails`). It works for any activation.

Moves that add the same amount to the same unit share one evaluation. Where all
changes have one magnitude, an example has two distinct moves, up and down, for
each distinct *value* among its inputs: images of bytes have few, MNIST's 66 for
784 pixels on average. So each example gets a table

.. math:: T_{v,\pm,j} = \ell_b(p_{bj} \pm \Delta v) - \ell_b(p_{bj}),

and the gain of (i, j) is a sum over examples of T at the row of input i:

.. math:: g_{\pm,ij} = -\frac1B \sum_b T_{v(b,i),\pm,j}.

The tables are as long as the examples of the batch need, without a bound that must be
known in advance; inputs that all differ cost one row each.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import sizes
from bitjax import types
from bitjax.scans import _flips_moves
from bitjax.scans import _flips_tails
from bitjax.scans import _report
from bitjax.scans import _split
from bitjax.scans import _stages
from bitjax.scans import _view

__all__ = ['moments', 'obstacle']

apply = _stages.apply


def obstacle(view: _view.LayerView) -> str | None:
  """Returns why this path does not apply to a view, or None if it does."""
  reason = _split.obstacle(view)
  if reason is None and view.coupling != 'none':
    reason = (
      f'its scale couples the weights ({view.coupling}); use '
      'view.freeze_scale()'
    )
  return reason


def moments(
  view: _view.LayerView,
  moves: _flips_moves.Moves,
  chunk: int,
  report: Any = None,
) -> tuple[types.Array, types.Array, types.Array]:
  """Returns the mean loss, and the first two moments of its decrease by each move.

  Args:
    view: a layer without an `obstacle`.
    moves: all moves of its kernel.
    chunk: examples at a time.
    report: progress; None for no report.

  Returns:
    The mean loss, and the means over the examples of the decrease of the loss
    and of its square, [moves, fan_in, units] each.
  """
  parts = _split.split(view)
  changes = jnp.swapaxes(moves.changes, 0, 1)  # [fan_in, moves, units].
  if moves.spacing is not None:
    # Both directions are evaluated for every weight; `_per_move` then picks those
    # that the weight can take.
    signs = jnp.array([1.0, -1.0], changes.dtype)
    changes = moves.spacing * signs.reshape(1, 2, 1)
  group = min(sizes.here().rank_one_group, view.labels.size)
  chunk = group * -(-min(chunk, view.labels.size) // group)
  shape = (*view.kernel.shape[:1], changes.shape[1], view.kernel.shape[1])
  dtype = parts.dtype
  zeros = jnp.zeros((shape[0], math.prod(shape[1:])), dtype)
  nothing = (jnp.zeros((), dtype), zeros, zeros)

  def block(carry, batch):
    totals, table = carry
    x, y, valid = batch
    values, rows, counts = (
      _all_inputs(x) if moves.spacing is None else _distinct(x)
    )
    # A group's tables are as long as its longest, so similar ones are grouped.
    order = jnp.argsort(counts)
    examples = [
      a[order].reshape(-1, group, *a.shape[1:])
      for a in (x, y, valid, values, rows, counts)
    ]

    def visit(carry, examples):
      (loss, first, second), table = carry
      x, y, valid, values, rows, counts = examples
      base, table = _tabulate(parts, changes, x, y, values, counts, table)
      # Unrolled, so that each sum is loaded and stored once for the whole group.
      for entries, row in zip(table, rows, strict=True):
        entry = jnp.take(entries, row, axis=0)
        first, second = first + entry, second + entry * entry
      return (
        (loss + jnp.sum(base * valid.astype(base.dtype)), first, second),
        table,
      ), None

    # Summing within chunks first, then over chunks, halves the digits that are lost.
    (sums, table), _ = jax.lax.scan(visit, (nothing, table), examples)
    return (jax.tree.map(jnp.add, totals, sums), table), None

  # One table is reused for all groups: rows left over from others are never read.
  longest = shape[0] + sizes.here().rank_one_rows
  table = jnp.zeros((group, longest, zeros.shape[1]), dtype)
  valid = jnp.ones(view.labels.size, bool)
  batches = _split.batches((parts.inputs, view.labels, valid), chunk)
  (totals, _), _ = _report.scan(report, block, (nothing, table), batches)
  loss, *sums = (total / view.labels.size for total in totals)
  first, second = (_per_move(total.reshape(shape), moves) for total in sums)
  return loss, -first, second


def _per_move(sums, moves):
  """Turns sums [fan_in, directions, units] into [moves, fan_in, units]."""
  sums = jnp.swapaxes(sums, 0, 1)
  if moves.spacing is None:
    return sums
  up, down = sums
  return jnp.select(
    [moves.directions > 0, moves.directions < 0], [up[None], down[None]], 0.0
  )


def _all_inputs(x):
  """Returns what `_distinct` does, with every input as a value of its own."""
  size, fan_in = x.shape
  rows = jnp.broadcast_to(jnp.arange(fan_in, dtype=jnp.int32), x.shape)
  return x, rows, jnp.full(size, fan_in, jnp.int32)


def _distinct(x):
  """Finds the distinct values among the inputs of each example.

  Args:
    x: inputs, [examples, fan_in].

  Returns:
    The distinct values of each example at the start of its row, [examples, fan_in];
    the index of each input among them, of the same shape; and the number of distinct
    values, [examples].
  """
  order = jnp.argsort(x, axis=1)
  ordered = jnp.take_along_axis(x, order, axis=1)
  new = ordered[:, 1:] != ordered[:, :-1]
  rank = jnp.pad(jnp.cumsum(new, axis=1, dtype=jnp.int32), [(0, 0), (1, 0)])
  example = jnp.arange(x.shape[0])[:, None]
  rows = jnp.zeros_like(rank).at[example, order].set(rank)
  values = jnp.zeros_like(x).at[example, rank].set(ordered)
  return values, rows, rank[:, -1] + 1


def _tabulate(parts, changes, x, y, values, counts, table):
  """Fills the first rows of the table with changes of the loss, one row per value.

  Args:
    parts: the network.
    changes: changes of the weights, [rows or 1, directions, units or 1].
    x: inputs of a few examples, [examples, fan_in].
    y: labels, [examples].
    values: input values that the changes multiply, [examples, rows].
    counts: how many of the values each example needs, [examples].
    table: the table to overwrite, [examples, rows and more, directions * units].

  Returns:
    The losses before any move, [examples], and the table.
  """
  p = parts.products(x)
  h = apply(parts.front, p)
  # All stages are monotone, so the largest moves up and down bound all changes.
  reach = jnp.max(jnp.abs(changes), axis=(0, 1))[None, :] * jnp.max(
    jnp.abs(x), axis=1, keepdims=True
  )
  ends = [jnp.abs(apply(parts.front, p + s * reach) - h) for s in (1, -1)]
  tail = _flips_tails.tail(parts, h, jnp.max(jnp.maximum(*ends), axis=1), y)
  size, units = p.shape
  per_row = size * changes.shape[1] * units * tail.width
  here = sizes.here()
  rows = max(1, min(here.rank_one_rows, here.rank_one_numbers // per_row))
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
