r"""Computes what moves of a convolution's weights do to the loss, given all moves before.

The products z of all examples are kept. A move of weight (k, i, c) changes their channel c
by a multiple of the input that place k of the kernel meets at every position p,

.. math:: z_{bpc} \mathrel{+}= \Delta \, x_{b,p,k,i},

and what follows is run for it, packed where it is binary (`_packed_stages`), for some
images at a time. Sums of integers stay exact; others drift by rounding.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bitjax import types
from bitjax.scans import _conv_split
from bitjax.scans import _convolution
from bitjax.scans import _line_convolutions
from bitjax.scans import _packed_stages
from bitjax.scans import _packed_steps
from bitjax.scans import _stages
from bitjax.scans import _view

__all__ = ['Convolution', 'begin', 'is_convolution', 'obstacle', 'unwise']


def is_convolution(view: _view.LayerView) -> bool:
  """Returns whether a view is that of a known convolution; static."""
  return isinstance(view.product, _convolution.Convolution)


obstacle = _conv_split.obstacle


def unwise(view: _view.LayerView) -> str | None:
  """Returns why moves are not faster so than by forward passes, or None if they are."""
  if _packed_steps.applies(view.tail):
    return None
  return 'what follows the convolution is not binary'


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Convolution:
  """The state of a convolution after some moves, in blocks of images.

  Attributes:
    stages: what follows the products; what `_stages.Add` holds is [blocks, images, ...].
    inputs: x with a position of zeros first, [blocks, channels, 1 + positions, images].
    labels: classes, [blocks, images].
    valid: which images count; of the last block some may come twice, [blocks, images].
    met: which positions of the inputs the kernel meets, [positions', places].
    padding: what padding adds there, [positions', places].
    products: z, [blocks, *spatial, units, images].
    loss: mean loss.
    groups: into how many groups channels are split.
  """

  stages: tuple[Any, ...]
  inputs: types.Array
  labels: types.Array
  valid: types.Array
  met: types.Array
  padding: types.Array
  products: types.Array
  loss: types.Array
  groups: int = dataclasses.field(metadata={'static': True})

  def moved(self, position: types.Array, change: types.Array) -> Convolution:
    """Returns the state after a move of one weight, but for its loss.

    Args:
      position: index of the weight in the flattened kernel.
      change: what the move adds to the quantized weight.
    """
    z, x = self.products, self.inputs
    units, fan_in = z.shape[-2], x.shape[1] // self.groups
    row, unit = jnp.divmod(position, units)
    place, channel = jnp.divmod(row, fan_in)
    channel += unit // (units // self.groups) * fan_in
    by = jnp.take(jnp.take(x, channel, axis=1), self.met[:, place], axis=1)
    by += self.padding[None, :, place, None].astype(by.dtype)
    by = by.reshape(*z.shape[:-2], z.shape[-1]).astype(z.dtype)
    axis = z.ndim - 2
    column = jax.lax.dynamic_index_in_dim(z, unit, axis, keepdims=False)
    column += change.astype(z.dtype) * by
    z = jax.lax.dynamic_update_index_in_dim(z, column, unit, axis)
    return dataclasses.replace(self, products=z)

  def measured(self, always: types.Array) -> types.Array:
    """Returns the mean loss; ``always`` is true, which the compiler must not know."""
    shape = (self.products.shape[-1], *self.products.shape[1:-1])
    outputs = jax.ShapeDtypeStruct(shape, self.products.dtype)

    def add(total, number):
      stages = _stages.map_examples(self.stages, lambda value: value[number])
      rest = _packed_stages.Rest(stages, outputs)
      losses = optax.softmax_cross_entropy_with_integer_labels(
        rest(self.products[number], always), self.labels[number]
      )
      return total + jnp.sum(jnp.where(self.valid[number], losses, 0)), None

    zero = jnp.zeros((), self.loss.dtype)
    numbers = jnp.arange(self.labels.shape[0])
    total, _ = jax.lax.scan(add, zero, numbers)
    return total / jnp.sum(self.valid).astype(total.dtype)

  def attempt(
    self, move: Any, least: types.Array
  ) -> tuple[Convolution, types.Array, types.Array]:
    """Makes a move if the loss falls by more than ``least``.

    Args:
      move: a `_coordinate_losses.Move`.
      least: a number of nats.

    Returns:
      The state after the attempt, the decrease of the loss, 0 if the move is not
      made, and whether it is.
    """

    def tried():
      moved = self.moved(move.position, move.change)
      return moved.measured(move.position >= 0)

    loss = jax.lax.cond(move.allowed, tried, lambda: self.loss)
    made = (self.loss - loss > least) & move.allowed
    change = jnp.where(made, move.change, 0)
    after = dataclasses.replace(
      self.moved(move.position, change), loss=jnp.where(made, loss, self.loss)
    )
    return after, jnp.where(made, self.loss - loss, 0.0), made


def begin(view: _view.LayerView) -> Convolution:
  """Returns the state before any move, for a view without an `obstacle`."""
  parts = _conv_split.split(view)
  size, images = view.labels.size, _line_convolutions.num_images(parts)
  first = jnp.arange(-(-size // images))[:, None] * images
  index = jnp.minimum(first, size - images) + jnp.arange(images)[None]
  x = parts.product.arithmetic.rounded(parts.inputs)
  met, padding = _conv_split.places(parts.product, x.shape[1:-1])
  x = x.reshape(size, -1, x.shape[-1])[index]
  x = jnp.pad(jnp.transpose(x, (0, 3, 2, 1)), [(0, 0), (0, 0), (1, 0), (0, 0)])
  stages = (*parts.front, *parts.rest)
  state = Convolution(
    stages=_stages.map_examples(stages, lambda value: value[index]),
    inputs=x,
    labels=view.labels[index],
    valid=index >= first,
    met=met,
    padding=padding,
    products=jnp.moveaxis(parts.products()[index], 1, -1),
    loss=jax.eval_shape(view.loss, view.kernel),
    groups=parts.product.groups,
  )
  return dataclasses.replace(state, loss=state.measured(size >= jnp.min(index)))
