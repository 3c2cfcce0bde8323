r"""Computes what a move does to the loss, given all moves made before it.

For a view without an obstacle (`_flips_rank_one.obstacle`), the products p and the
next products u of all examples are kept. A move of weight (i, j) changes row j of the
(transposed) p, and those rows of u whose example's activation changes:

.. math:: p_{j:} \mathrel{+}= \Delta\, x_{:i}, \qquad
  u_{b:} \mathrel{+}= \tau_b V_{j:}, \qquad
  \tau_b = \mathrm{front}_j(p_{jb} + \Delta x_{bi}) - \mathrm{front}_j(p_{jb}).

Only the losses of those examples are computed anew. A convolution before a binary rest
has a state of its own (`_coordinate_convolutions`). Any other view costs a forward pass for
each move.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bitjax import sizes
from bitjax import types
from bitjax.scans import _coordinate_convolutions
from bitjax.scans import _flips_rank_one
from bitjax.scans import _paths
from bitjax.scans import _split
from bitjax.scans import _stages
from bitjax.scans import _view

__all__ = ['Generic', 'Incremental', 'Move', 'begin', 'of_unit']


class Move(NamedTuple):
  """A move of one weight.

  Attributes:
    position: index of the weight in the flattened kernel.
    destination: its latent value after the move.
    change: what the move adds to the quantised weight.
    allowed: whether the move may be made; if not, no losses are computed for it.
  """

  position: types.Array
  destination: types.Array
  change: types.Array
  allowed: types.Array


def choose(view: _view.LayerView) -> _paths.Choice:
  """Returns whether moves are tried incrementally or by forward passes."""
  if _coordinate_convolutions.is_convolution(view):
    reason = _coordinate_convolutions.obstacle(view)
    reason = reason or _coordinate_convolutions.unwise(view)
  else:
    reason = _flips_rank_one.obstacle(view)
  return _paths.choose('auto', {'incremental': reason, 'forward_passes': None})


def begin(
  view: _view.LayerView,
) -> Incremental | _coordinate_convolutions.Convolution | Generic:
  """Returns a view's state before any move; `Generic` if it has an obstacle."""
  if choose(view).path == 'forward_passes':
    return Generic(view, view.kernel, view.loss(view.kernel))
  if _coordinate_convolutions.is_convolution(view):
    return _coordinate_convolutions.begin(view)
  parts = _split.split(view)
  products = parts.products(parts.inputs)
  next_products = parts.next_products(_stages.apply(parts.front, products))
  return Incremental(
    parts,
    parts.inputs.T,
    products.T,
    next_products,
    parts.losses(next_products, parts.labels),
  )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Generic:
  """The state of any view, which tries each move by a forward pass.

  Attributes:
    view: the layer.
    kernel: latent kernel with all moves so far.
    loss: mean loss with all moves so far.
  """

  view: _view.LayerView
  kernel: types.Array
  loss: types.Array

  def attempt(
    self, move: Move, least: types.Array
  ) -> tuple[Generic, types.Array, types.Array]:
    """Makes a move if the loss falls by more than ``least``.

    Returns:
      The state after the attempt, the decrease of the loss, 0 if the move is not
      made, and whether it is.
    """
    moved = self.kernel.reshape(-1).at[move.position].set(move.destination)
    moved = moved.reshape(self.kernel.shape)
    loss = jax.lax.cond(
      move.allowed, self.view.loss, lambda _: self.loss, moved
    )
    made = (self.loss - loss > least) & move.allowed
    return (
      Generic(
        self.view,
        jnp.where(made, moved, self.kernel),
        jnp.where(made, loss, self.loss),
      ),
      jnp.where(made, self.loss - loss, 0.0),
      made,
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Incremental:
  """The state of a view without an obstacle, which computes only what changes.

  Attributes:
    parts: the network, with the weights before any move.
    inputs: x transposed, [fan_in, examples].
    products: p transposed, with all moves so far, [units, examples].
    next_products: u, with all moves so far, [examples, width].
    losses: loss of each example, with all moves so far, [examples].
  """

  parts: _split.Split
  inputs: types.Array
  products: types.Array
  next_products: types.Array
  losses: types.Array

  def attempt(
    self, move: Move, least: types.Array
  ) -> tuple[Incremental, types.Array, types.Array]:
    """Makes a move if the loss falls by more than ``least``.

    Returns:
      The state after the attempt, the decrease of the loss, 0 if the move is not
      made, and whether it is.
    """
    size = self.losses.size
    rows = min(sizes.here().coordinate_examples, size)
    input_index, unit = jnp.divmod(move.position, self.products.shape[0])
    before = self.products[unit]
    after = before + move.change * self.inputs[input_index]
    front = of_unit(self.parts.front, unit)
    tau = _stages.apply(front, after) - _stages.apply(front, before)
    changed = (tau != 0) & move.allowed
    ((indices,), (count,)) = _split.true_indices(changed[None], room=rows)
    row = self.parts.matrix[unit]

    def moved(start, next_products):
      which = jax.lax.dynamic_slice(indices, (start,), (rows,))
      safe = jnp.minimum(which, size - 1)
      new = next_products[safe] + tau[safe, None] * row[None, :]
      return which, safe, new, self.parts.losses(new, self.parts.labels[safe])

    def add(state):
      start, total = state
      which, safe, _, new = moved(start, self.next_products)
      fall = jnp.where(which < size, self.losses[safe] - new, 0.0)
      return start + rows, total + jnp.sum(fall)

    zero = jnp.zeros((), self.losses.dtype)
    _, total = jax.lax.while_loop(lambda s: s[0] < count, add, (0, zero))
    decrease = total / size
    made = (decrease > least) & move.allowed

    def update(state):
      start, next_products, losses = state
      which, _, new_rows, new = moved(start, next_products)
      next_products = next_products.at[which].set(new_rows, mode='drop')
      return start + rows, next_products, losses.at[which].set(new, mode='drop')

    count = jnp.where(made, count, 0)
    _, next_products, losses = jax.lax.while_loop(
      lambda s: s[0] < count, update, (0, self.next_products, self.losses)
    )
    products = self.products.at[unit].set(jnp.where(made, after, before))
    state = dataclasses.replace(
      self, products=products, next_products=next_products, losses=losses
    )
    return state, jnp.where(made, decrease, 0.0), made


def of_unit(
  stages: tuple[_stages.Stage, ...], unit: types.Array
) -> tuple[_stages.Stage, ...]:
  """Returns pointwise stages with the scales and shifts of one unit."""

  def pick(vector):
    return vector[unit] if jnp.ndim(vector) else vector

  return tuple(
    _stages.Affine(pick(stage.scale), pick(stage.shift))
    if isinstance(stage, _stages.Affine)
    else stage
    for stage in stages
  )
