r"""Keeps the gains of all flips of a layer up to date from flip to flip.

See `_flip_descent` for what a flip affects. The products p and the next products u
of all examples are kept, to know for which of them an activation flips.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from bitjax import sizes
from bitjax import types
from bitjax.scans import _coordinate_losses
from bitjax.scans import _flips_moves
from bitjax.scans import _flips_sign
from bitjax.scans import _split
from bitjax.scans import _stages
from bitjax.scans import _view

__all__ = ['Sums', 'begin', 'obstacle']


def obstacle(view: _view.LayerView) -> str | None:
  """Returns why gains cannot be kept up to date, or None if they can."""
  reason = _flips_sign.obstacle(view)
  if reason is None and view.coupling != 'none':
    reason = f'its scale couples the weights ({view.coupling})'
  if reason is None and not _flips_moves.is_binary(view):
    reason = 'its kernel is not binary'
  return reason


def begin(view: _view.LayerView) -> Sums:
  """Returns the state at the start, for a view without an `obstacle`."""
  parts = _split.split(view)
  products = parts.products(parts.inputs)
  next_products = parts.next_products(_stages.apply(parts.front, products))
  return Sums(
    view,
    parts.inputs,
    products.T,
    next_products,
    parts.losses(next_products, parts.labels),
    _sums(view, sizes.here().sign_examples),
  )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sums:
  """The state of a descent, after some flips.

  Attributes:
    view: the layer with its current kernel.
    inputs: x, [examples, fan_in], floating.
    products: p transposed, [units, examples].
    next_products: u, [examples, width].
    losses: loss of each example, [examples].
    totals: decrease of the loss by each flip, summed over the examples, [fan_in,
      units].
  """

  view: _view.LayerView
  inputs: types.Array
  products: types.Array
  next_products: types.Array
  losses: types.Array
  totals: types.Array

  @property
  def kernel(self) -> types.Array:
    """The current latent kernel."""
    return self.view.kernel

  def gains(self) -> types.Array:
    """Returns the gains: mean decreases of the loss, [fan_in, units]."""
    return self.totals / self.losses.size

  def loss(self) -> types.Array:
    """Returns the mean loss."""
    return jnp.mean(self.losses)

  def flip(self, choice: types.Array) -> Sums:
    """Returns the state after a flip of weight ``choice`` of the flattened kernel."""
    size = self.losses.size
    rows = min(sizes.here().sums_examples, size)
    index, unit = jnp.divmod(choice, self.kernel.shape[1])
    there = _flips_moves.moves(self.view).destinations[0, index, unit]
    moved = dataclasses.replace(
      self.view, kernel=self.kernel.at[index, unit].set(there)
    )
    parts = _split.split(self.view)
    row = parts.matrix[unit]
    change = _split.split(moved).weights[index, unit]
    change -= parts.weights[index, unit]
    front = _coordinate_losses.of_unit(parts.front, unit)
    before = self.products[unit]
    after = before + change * jnp.take(self.inputs, index, axis=1)
    tau = _stages.apply(front, after) - _stages.apply(front, before)
    ((changed,), (count,)) = _split.true_indices((tau != 0)[None], room=rows)

    def update(state):
      start, next_products, losses, totals = state
      which = jax.lax.dynamic_slice(changed, (start,), (rows,))
      safe = jnp.minimum(which, size - 1)
      # Rows that fill up the list get zero inputs, so that no move affects them.
      x = jnp.where((which < size)[:, None], self.inputs[safe], 0.0)
      labels = self.view.labels[safe]
      new, old = (
        _sums(dataclasses.replace(view, inputs=x, labels=labels), rows)
        for view in (moved, self.view)
      )
      next_rows = next_products[safe] + tau[safe, None] * row[None, :]
      next_losses = parts.losses(next_rows, labels)
      return (
        start + rows,
        next_products.at[which].set(next_rows, mode='drop'),
        losses.at[which].set(next_losses, mode='drop'),
        totals + (new - old),
      )

    _, next_products, losses, totals = jax.lax.while_loop(
      lambda state: state[0] < count,
      update,
      (0, self.next_products, self.losses, self.totals),
    )
    column = _column(moved, self.inputs, next_products, losses, after, unit)
    return Sums(
      moved,
      self.inputs,
      self.products.at[unit].set(after),
      next_products,
      losses,
      totals.at[:, unit].set(column),
    )


def _sums(view, chunk):
  """Returns the decreases by each flip, summed over the examples, [fan_in, units]."""
  changes = _flips_moves.moves(view).changes
  (_, means, _), _ = _flips_sign.moments(view, changes, chunk)
  return means[0] * view.labels.size


def _column(view, inputs, next_products, losses, products, unit):
  """Returns the summed decreases by the flips into one unit, [fan_in]."""
  parts = _split.split(view)
  before, behind = _flips_sign.cut(
    _coordinate_losses.of_unit(parts.front, unit)
  )
  changes = _flips_moves.moves(view).changes
  changes = jnp.take(changes[0], unit, axis=1)[None, :, None]
  changes = changes.astype(inputs.dtype)
  edge = _flips_sign.edge(before, changes)
  p = products[:, None]
  signs = _stages.apply(before, p)
  tau = _stages.apply(behind, -signs) - _stages.apply(behind, signs)
  side, threshold = _flips_sign.crossing(signs, edge)
  p = side * p
  farthest = p[:, 0] + jnp.max(jnp.abs(changes)) * jnp.max(
    jnp.abs(inputs), axis=1
  )
  change = _other_losses(
    parts, next_products, losses, tau[:, 0], unit, farthest >= threshold[:, 0]
  )
  arrays = [inputs, side, p, threshold, change[:, None]]
  padding = -losses.size % sizes.here().sign_group
  arrays = [jnp.pad(a, [(0, padding), (0, 0)]) for a in arrays]
  deltas = jnp.swapaxes(changes, 1, 2)
  first, _ = _flips_sign.masked_sums(deltas, *arrays)
  return -first[0, 0]


def _other_losses(parts, next_products, losses, tau, unit, active):
  """Returns what the unit's other activation adds to the active examples' losses."""
  size = losses.size
  rows = min(sizes.here().sums_examples, size)
  ((indices,), (count,)) = _split.true_indices(active[None], room=rows)

  def visit(state):
    start, changes = state
    which = jax.lax.dynamic_slice(indices, (start,), (rows,))
    safe = jnp.minimum(which, size - 1)
    moved = next_products[safe] + tau[safe, None] * parts.matrix[unit][None, :]
    new = parts.losses(moved, parts.labels[safe]) - losses[safe]
    return start + rows, changes.at[which].set(new, mode='drop')

  _, changes = jax.lax.while_loop(
    lambda state: state[0] < count, visit, (0, jnp.zeros_like(losses))
  )
  return changes
