r"""Computes the losses after the first m of a list of moves, for growing m.

From one m to the next only the moves in between are made. For a view without an
`obstacle` the products p of all examples are kept, so that a move of weight (i, j)
costs one row of the transposed p,

.. math:: p_{j:} \mathrel{+}= \Delta\, x_{:i},

and each m costs the rest of the network, which is cheap behind a layer of many inputs.
Where many moves lie between two m, the product is computed as a whole; where none do,
nothing is computed.

For a convolution the moves are breakpoints of a line (`_line_convolutions`), whose
positions are the values of m.

If inputs and weights are integers and sums stay below 2^24, p is that of a forward
pass, to the bit, and so are the losses. Otherwise rounding may decide a sign.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bitjax import sizes
from bitjax import types
from bitjax.scans import _convolution
from bitjax.scans import _line_breakpoints
from bitjax.scans import _line_convolutions
from bitjax.scans import _line_steps
from bitjax.scans import _report
from bitjax.scans import _split
from bitjax.scans import _stages
from bitjax.scans import _view

__all__ = ['forward_passes', 'incremental', 'obstacle', 'unwise']


def obstacle(view: _view.LayerView) -> str | None:
  """Returns why `incremental` does not apply to a view, or None if it does."""
  if view.coupling != 'none':
    return f'its scale couples the weights ({view.coupling})'
  return _line_steps.obstacle(view)


def unwise(view: _view.LayerView) -> str | None:
  """Returns why `incremental` is not worth it for a view, or None if it is."""
  return _line_steps.unwise(view)


def incremental(
  view: _view.LayerView,
  displacement: types.Array,
  rank: types.Array,
  counts: types.Array,
  report: Any = None,
) -> types.Array:
  """Returns the losses after the first m moves, for a view without an `obstacle`.

  Args:
    view: the layer before any move.
    displacement: sum of all moves, of the kernel's shape.
    rank: how many moves come before a weight's own; -1 if it has none.
    counts: the values of m in growing order, int32 [counts].
    report: progress; None for no report.

  Returns:
    Mean losses in nats, [counts].
  """
  moved, weights = (
    _stages.Dense(kernel, view.quantizer).quantized
    for kernel in (view.kernel + displacement, view.kernel)
  )
  change = (moved - weights).reshape(-1)
  size, units = change.size, view.kernel.shape[-1]
  slot = jnp.where(rank >= 0, rank, size).reshape(-1)
  places = jnp.arange(size, dtype=jnp.int32)
  order = jnp.zeros(size, jnp.int32).at[slot].set(places, mode='drop')
  if isinstance(view.product, _convolution.Convolution):
    begun = _line_convolutions.start(view, weights)
    breakpoints = _line_breakpoints.Breakpoints(
      *jnp.divmod(order, units),
      change=change[order],
      value=moved.reshape(-1)[order],
      position=jnp.searchsorted(counts, places, side='right'),
    )
    stop = jnp.asarray(counts.size)
    return _line_convolutions.losses(begun, breakpoints, stop, report=report)[
      counts
    ]
  parts = _split.split(view)
  inputs = parts.inputs.T

  def one(number, products):
    index = order[number]
    row, unit = jnp.divmod(index, units)
    return products.at[unit].add(change[index] * inputs[row])

  share = sizes.here().prefix_share

  def visit(carry, count):
    products, done, loss = carry

    def whole():
      made = (rank >= 0) & (rank < count)
      weights = jnp.where(made, moved, parts.weights)
      return parts.products(parts.inputs, weights).T

    def step_by_step():
      return jax.lax.fori_loop(done, count, one, products)

    def advance():
      new = jax.lax.cond(count - done > size // share, whole, step_by_step)
      return new, _loss(parts, new)

    products, loss = jax.lax.cond(
      count == done, lambda: (products, loss), advance
    )
    return (products, count, loss), loss

  products = parts.products(parts.inputs).T
  begin = products, jnp.zeros((), counts.dtype), _loss(parts, products)
  return _report.scan(report, visit, begin, counts)[1]


def _loss(parts, products):
  activations = _stages.apply(parts.front, products.T)
  return jnp.mean(parts.losses(parts.next_products(activations), parts.labels))


def forward_passes(
  view: _view.LayerView,
  displacement: types.Array,
  rank: types.Array,
  counts: types.Array,
  report: Any = None,
) -> types.Array:
  """Returns what `incremental` does, for any view: a forward pass per distinct m.

  Args:
    view: the layer before any move.
    displacement: sum of all moves, of the kernel's shape.
    rank: how many moves come before a weight's own; -1 if it has none.
    counts: the values of m in growing order, int32 [counts].
    report: progress; None for no report.

  Returns:
    Mean losses in nats, [counts].
  """

  def visit(carry, count):
    done, loss = carry

    def advance():
      made = (rank >= 0) & (rank < count)
      return view.loss(view.kernel + jnp.where(made, displacement, 0.0))

    loss = jax.lax.cond(count == done, lambda: loss, advance)
    return (count, loss), loss

  dtype = jax.eval_shape(view.loss, view.kernel).dtype
  begin = jnp.full((), -1, counts.dtype), jnp.zeros((), dtype)
  return _report.scan(report, visit, begin, counts)[1]
