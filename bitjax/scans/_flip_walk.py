"""Walks from flip to flip: one weight at a time is tried, and flipped or left.

A walk keeps what `_coordinate_losses` keeps, the products of all examples, so that a flip
is tried by computing only what it changes, where the view allows that. Which weight is
tried, and which change of the loss is accepted, is the caller's choice: annealing
accepts some rises.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.scans import _coordinate_losses
from bitjax.scans import _flips_moves
from bitjax.scans import _text
from bitjax.scans import _view

__all__ = ['FlipWalk', 'check_binary', 'flip_walk']


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FlipWalk:
  """Where a walk is: a pytree, to be carried by loops.

  Attributes:
    flipped: which weights are on the other side of their start, bool, flattened.
    start: the latent kernel at the start, flattened.
    destinations: the latent value of each weight that is flipped, flattened.
    changes: what the first flip of each weight adds to the quantized one, flattened.
    network: what is kept of the network; not for others to read.
    shape: the kernel's shape.
  """

  flipped: types.Array
  start: types.Array
  destinations: types.Array
  changes: types.Array
  network: Any
  shape: tuple[int, ...] = dataclasses.field(metadata={'static': True})

  @property
  def kernel(self) -> types.Array:
    """The latent kernel with all flips so far."""
    kernel = jnp.where(self.flipped, self.destinations, self.start)
    return kernel.reshape(self.shape)

  def attempt(
    self, index: types.Array, least: types.Scalar = 0.0
  ) -> tuple[FlipWalk, types.Array, types.Array]:
    """Flips a weight if the loss then falls by more than ``least``.

    Args:
      index: a weight of the flattened kernel, int32.
      least: in nats of the mean loss; negative to accept a rise, -inf to flip anyway.

    Returns:
      The walk after the attempt, the decrease of the mean loss (0 if there is no
      flip), and whether there is one, bool.
    """
    back = self.flipped[index]
    network, decrease, made = self.network.attempt(
      _coordinate_losses.Move(
        index,
        jnp.where(back, self.start[index], self.destinations[index]),
        jnp.where(back, -self.changes[index], self.changes[index]),
        jnp.ones((), bool),
      ),
      least,
    )
    flipped = self.flipped.at[index].set(back ^ made)
    return (
      dataclasses.replace(self, flipped=flipped, network=network),
      decrease,
      made,
    )

  def __repr__(self) -> str:
    return _text.describe(self, weights=self.flipped)


def flip_walk(view: _view.LayerView) -> FlipWalk:
  """Returns a walk at its start, the view's kernel.

  A flip costs at most the share of the network behind the layer where
  `coordinate_discrete_gradient` is incremental (see `plan`), else a forward pass.
  Sums that are updated drift by rounding, so begin anew after many thousand flips;
  sums of integers do not.

  Args:
    view: a layer with a kernel of two levels.

  Raises:
    BadInput: for any other kernel, or an empty batch or kernel.
  """
  moves = check_binary(view)
  return FlipWalk(
    jnp.zeros(view.kernel.size, bool),
    view.kernel.reshape(-1),
    moves.destinations.reshape(-1),
    moves.changes.reshape(-1),
    _coordinate_losses.begin(view),
    view.kernel.shape,
  )


def check_binary(view: _view.LayerView) -> _flips_moves.Moves:
  """Returns the moves of a kernel of two levels.

  Raises:
    BadInput: for any other kernel, or an empty batch or kernel.
  """
  _view.check_filled(view)
  if view.quantizer is None or not _flips_moves.is_binary(view):
    raise types.BadInput(
      'Flips need a kernel of two levels; that of this layer is not binary.'
    )
  return _flips_moves.moves(view)
