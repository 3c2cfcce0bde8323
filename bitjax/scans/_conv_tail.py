r"""Computes gains of single moves by running the rest of the network, and only that.

A move changes one channel of the layer's products by the shifted input channel that
its weight meets, so no product is computed again:

.. math:: p'_{b \cdot c} = p_{b \cdot c} + \Delta \, x_{b \cdot k}

What precedes the layer is cached in the view. A move that turns no sign of a layer that
feeds only signs changes nothing, and costs nothing more. What follows is run for some images
at a time, so that they stay in the cache, and for one move after another. Where the
rest is binary it is packed (`_packed_stages`). The sums of a convolution that comes next
change by the products with one channel only, packed or not (`_float_stages`). Nothing is
approximated: the scales of the rest are applied to the same sums, in the same order, as
the network does; sums of reals are rounded once more. A
compiler may still round a product and a sum once or twice (a fused multiply-add), which
may turn a sign that is within rounding of its threshold, as between two compilations
of the network itself.

A move costs the work behind the layer; `_conv_costs` estimates it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bitjax import sizes
from bitjax import types
from bitjax.scans import _conv_split
from bitjax.scans import _convolution
from bitjax.scans import _flips_moves
from bitjax.scans import _float_stages
from bitjax.scans import _packed_stages
from bitjax.scans import _packed_steps
from bitjax.scans import _report
from bitjax.scans import _split
from bitjax.scans import _stages
from bitjax.scans import _view

__all__ = ['moments', 'obstacle']

# Bytes of what the kernel meets and of the outputs, for the images at a time.
_MOST = 1 << 28
_FULL = 16  # Images that fill a vector.


def obstacle(view: _view.LayerView) -> str | None:
  """Returns why this path does not apply to a view, or None if it does."""
  if view.product is not None and not isinstance(
    view.product, _convolution.Convolution
  ):
    return 'its product is neither the matrix product nor a known convolution'
  if reason := _split.opaque(view):
    return reason
  if view.couples_examples:
    return 'normalisation by batch statistics couples its examples'
  return None


def moments(
  view: _view.LayerView,
  moves: _flips_moves.Moves,
  coordinates: types.Array | None,
  chunk: int | None,
  report: Any = None,
) -> tuple[types.Array, types.Array, types.Array]:
  """Returns the mean loss, and the first two moments of its decrease by each move.

  Args:
    view: a layer without an `obstacle`.
    moves: the moves of its kernel.
    coordinates: indices in the flattened kernel, [coordinates]; None for all.
    chunk: images at a time; None for as many as suit the device.
    report: progress; None for no report.

  Returns:
    The mean loss, and the means over the examples of the decrease of the loss and of its
    square, ``[moves, *kernel.shape]`` or [moves, coordinates].
  """
  listed, shape = _listed(view, moves, coordinates)
  size = view.labels.size
  steps = -(-size // _images(view, chunk))
  images = -(-size // steps)
  if images > _FULL and chunk is None:
    images = min(size, -(-images // 8) * 8)
  steps = -(-size // images)

  def block(totals, number):
    # The last block begins earlier, so that it is full; what came before is not valid.
    begin = number * images
    start = jnp.minimum(begin, size - images)

    def some(x):
      return jax.lax.dynamic_slice_in_dim(x, start, images)

    part = view.map_examples(some)
    valid = start + jnp.arange(images) >= begin
    done = _report.part(report, number, steps)
    sums = _sums(part, valid, listed, done)
    return jax.tree.map(jnp.add, totals, sums), None

  dtype = jax.eval_shape(lambda view: view.losses(view.kernel), view).dtype
  count = listed[0].size
  zeros = tuple(jnp.zeros(shape, dtype) for shape in ((), count, count))
  (loss, first, second), _ = jax.lax.scan(block, zeros, jnp.arange(steps))
  return (
    loss / size,
    first.reshape(shape) / size,
    second.reshape(shape) / size,
  )


def _listed(view, moves, coordinates):
  """Returns each move's index, its change and its destination; and their shape."""
  arithmetic = _arithmetic(view)
  changes = moves.changes
  if arithmetic.rounds and view.quantizer is not None:
    here = arithmetic.rounded(view.quantizer(view.kernel))
    changes = jnp.stack(
      [
        arithmetic.rounded(view.quantizer(there)) - here
        for there in moves.destinations
      ]
    )
  elif arithmetic.rounds:
    changes = arithmetic.rounded(moves.destinations) - arithmetic.rounded(
      view.kernel
    )
  changes = jnp.where(moves.directions != 0, changes, 0)
  ways, shape = changes.shape[0], changes.shape
  arrays = [a.reshape(ways, -1) for a in (changes, moves.destinations)]
  indices = jnp.arange(view.kernel.size)
  if coordinates is not None:
    indices, shape = coordinates, (ways, *coordinates.shape)
    arrays = [a[:, coordinates] for a in arrays]
  return (
    jnp.tile(indices.reshape(-1), ways),
    *(a.reshape(-1) for a in arrays),
  ), shape


def _arithmetic(view):
  return getattr(view.product, 'arithmetic', view.arithmetic)


def _images(view, chunk):
  """Returns how many images are computed at a time, at most."""
  one = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), view.inputs
  )
  outputs = jax.eval_shape(
    lambda view, x: _products(dataclasses.replace(view, inputs=x)), view, one
  )
  met = jax.eval_shape(
    lambda view, x: _met(dataclasses.replace(view, inputs=x), outputs),
    view,
    one,
  )
  room = _MOST // (4 * (met.size + outputs.size))
  if chunk is None:
    numbers = sizes.here().tail_numbers
    chunk = max(_FULL, numbers // math.prod(outputs.shape[1:]))
  return max(1, min(chunk, room, view.labels.size))


def _groups(view):
  return getattr(view.product, 'groups', 1)


def _products(view):
  """Returns the layer's unscaled products, [examples, *spatial, units]."""
  layer = _layer(view, view.kernel)
  multiply = view.product or view.arithmetic.matmul
  z = multiply(view.inputs, layer.quantized)
  return (
    z if view.product is not None else z.astype(types.promoted(z, view.kernel))
  )


def _layer(view, kernel):
  return _stages.Dense(
    kernel, view.quantizer, view.scaling, view.affine, view.arithmetic
  )


def _met(view, products):
  """Returns an array of what the kernel meets, of which `_meets` takes one weight's."""
  x = _arithmetic(view).rounded(view.inputs).astype(products.dtype)
  if view.product is None:
    return jnp.moveaxis(x, (0, -1), (-1, 0))
  window = _window(view)
  if window is not None:
    edges = [(0, 0, 0), *((*pair, 0) for pair in window.padding), (0, 0, 0)]
    x = jnp.transpose(x, (3, 1, 2, 0))
    return jax.lax.pad(x, np.array(window.pad_value, x.dtype), edges)
  found = _conv_split.patches(view.product, view.inputs)
  found = jnp.transpose(found, (2, 3, 1, 0)).astype(products.dtype)
  return found.reshape(-1, *products.shape[1:-1], found.shape[-1])


def _meets(view, met, place, channel, spatial):
  """Returns what the weights of a place and channel meet, [*spatial, images]."""
  window = None if view.product is None else _window(view)
  if window is None:
    channels = view.kernel.shape[-2] * _groups(view)
    return jax.lax.dynamic_index_in_dim(
      met, place * channels + channel, keepdims=False
    )
  row, column = jnp.divmod(place, view.kernel.shape[1])
  extents = [
    (size - 1) * stride + 1
    for size, stride in zip(spatial, window.strides, strict=True)
  ]
  found = jax.lax.dynamic_slice(
    met, (channel, row, column, 0), (1, *extents, met.shape[-1])
  )
  rows, columns = window.strides
  return found[0, ::rows, ::columns]


def _window(view):
  find = getattr(view.product, 'window', None)
  return None if find is None else find(view.inputs.shape[1:-1])


def _sums(view, valid, listed, report):
  """Returns sums over some images of the loss, and of its decreases and their squares."""
  products = _products(view)
  met = _met(view, products)
  products = _packed_steps.innermost(products)
  groups, (fan_in, units) = _groups(view), view.kernel.shape[-2:]
  narrow = view.coupling != 'tensor'

  def rescale(p, kernel):
    z = _layer(view, kernel).rescale(_packed_steps.outermost(p))
    return _packed_steps.innermost(z)

  def losses(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, view.labels)

  outputs = rescale(products, view.kernel)
  rest: _packed_stages.Rest | _float_stages.Rest
  if _packed_steps.applies(view.tail):
    z = jax.eval_shape(_packed_steps.outermost, outputs)
    rest = _packed_stages.Rest(view.tail, z)
  else:
    rest = _float_stages.Rest(view.tail)
  logits = rest(outputs, jnp.sum(valid) >= 0)
  unmoved = losses(logits)
  base: Any = rest.base(outputs, logits) if narrow else None

  def move(number, index, change, destination):
    # That it is no constant keeps passes apart.
    always = number >= 0
    position, unit = jnp.divmod(index, units)
    place, channel = jnp.divmod(position, fan_in)
    channel += unit // (units // groups) * fan_in
    meets = _meets(view, met, place, channel, products.shape[:-2])
    column = jax.lax.dynamic_index_in_dim(
      products, unit, products.ndim - 2, keepdims=False
    )
    column += change.astype(column.dtype) * meets
    kernel = view.kernel
    if view.coupling != 'none':
      kernel = kernel.reshape(-1).at[index].set(destination)
      kernel = kernel.reshape(view.kernel.shape)
    spread = column[..., None, :]
    if base is not None:

      def scaled():
        return rescale(jnp.broadcast_to(spread, products.shape), kernel)

      moved = rest.moved(base, unit, scaled, always)
    else:
      units_of = jax.lax.broadcasted_iota(
        jnp.int32, products.shape, products.ndim - 2
      )
      moved = rest(
        rescale(jnp.where(units_of == unit, spread, products), kernel), always
      )
    decrease = jnp.where(valid, unmoved - losses(moved), 0)
    return jnp.sum(decrease), jnp.sum(decrease**2)

  count = listed[0].size
  numbers = jnp.arange(count)
  _, (first, second) = _report.scan(
    report,
    lambda carry, one: (carry, move(*one)),
    None,
    (numbers, *listed),
  )
  return jnp.sum(jnp.where(valid, unmoved, 0)), first, second
