r"""Computes the loss of a convolution after each breakpoint of a line.

Breakpoint e moves one output channel c, at every position p of an image b, by a multiple
of the input that its weight meets there,

.. math:: z_{bpc} \leftarrow z_{bpc} + \Delta_e \, x_{b,p,k,i}, \qquad e = (k, i, c),

so the convolution itself is not computed again. Sums of integers are exact however often
they are moved. Where products are not of ±1 and integers, or many weights change at once,
the convolution is computed with the weights after the change, which is as exact.

What follows sees all of its inputs change, and is run once for each distinct kernel:
packed where it is binary (`_packed_steps`), for as many images at a time as suit the
cache. The network in front of the layer is never run.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bitjax import sizes
from bitjax import types
from bitjax.scans import _conv_split
from bitjax.scans import _line_breakpoints
from bitjax.scans import _packed_stages
from bitjax.scans import _packed_steps
from bitjax.scans import _report
from bitjax.scans import _stages
from bitjax.scans import _view

__all__ = ['Start', 'losses', 'num_images', 'start']

# Bytes of what the kernel meets, for the images that are computed at a time.
_MOST_PATCHES = 1 << 28
_FULL = 16  # Images that fill a vector.
_FEW = (
  128  # A share of the weights, 1 / _FEW, moves sums faster than a convolution.
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Start:
  """A convolution at the start of a line.

  Attributes:
    parts: the network, cut behind the layer, with the weights at the start.
    signs: whether the inputs are +1 and -1.
  """

  parts: _conv_split.ConvSplit
  signs: bool = dataclasses.field(metadata={'static': True})


def start(view: _view.LayerView, weights: types.Array) -> Start:
  """Returns the state that all lines from one quantized kernel share.

  Args:
    view: the layer, without a `_conv_split.obstacle`.
    weights: the quantized kernel.
  """
  parts = dataclasses.replace(_conv_split.split(view), weights=weights)
  return Start(parts, _conv_split.has_sign_inputs(view))


@functools.partial(jax.jit, static_argnames='width')
def losses(
  begun: Start,
  breakpoints: _line_breakpoints.Breakpoints,
  stop: types.Array,
  width: int | None = None,
  report: Any = None,
) -> types.Array:
  """Returns the mean losses before the first breakpoint and after each one.

  Args:
    begun: the layer at the start of the line.
    breakpoints: the breakpoints of the line.
    stop: position of those breakpoints that the line does not meet.
    width: images at a time; None for as many as suit the device.
    report: progress; None for no report.

  Returns:
    The losses, [1 + breakpoints]: entry n is that of the kernel after n breakpoints;
    of several at one position, only the last one's entry counts.
  """
  position = breakpoints.position
  count = jnp.sum(position < stop, dtype=jnp.int32)
  # The number of breakpoints up to each one's position.
  until = jnp.searchsorted(position, position, side='right').astype(jnp.int32)
  parts, size = begun.parts, begun.parts.labels.size
  images = num_images(parts, width)
  steps = -(-size // images)

  def block(total, number):
    # The last block begins earlier, so that it is full; what came before is not valid.
    first = number * images
    index = jnp.minimum(first, size - images) + jnp.arange(images)
    some = dataclasses.replace(begun, parts=_conv_split.take(parts, index))
    done = _report.part(report, number, steps)
    sums = _sums(some, index >= first, breakpoints, until, count, done)
    return total + sums, None

  dtype = jax.eval_shape(_logits, parts, jax.eval_shape(parts.products)).dtype
  zeros = jnp.zeros(position.size + 1, dtype)
  total, _ = jax.lax.scan(block, zeros, jnp.arange(steps))
  # After the last breakpoint the loss stays what it is.
  return total[jnp.minimum(jnp.arange(position.size + 1), count)] / size


def _logits(parts, z):
  return _stages.apply((*parts.front, *parts.rest), z)


def num_images(parts: _conv_split.ConvSplit, width: int | None = None) -> int:
  """Returns how many images are computed at a time; ``width`` where it is given."""
  _, *spatial, units = jax.eval_shape(parts.products).shape
  positions, size = math.prod(spatial), parts.labels.size
  fan_in = math.prod(parts.weights.shape[:-1]) * parts.product.groups
  room = _MOST_PATCHES // (4 * positions * fan_in)
  most = width or max(_FULL, sizes.here().tail_numbers // (positions * units))
  most = max(1, min(most, room, size))
  images = -(-size // -(-size // most))
  if images > _FULL and width is None:
    images = min(size, -(-images // 8) * 8)
  return images


def _sums(begun, valid, breakpoints, until, count, report):
  """Returns the sums of the losses of some images, [1 + breakpoints]."""
  parts, (row, column, change, value, position) = begun.parts, breakpoints
  groups, units = parts.product.groups, parts.weights.shape[-1]
  stages, z = (*parts.front, *parts.rest), jax.eval_shape(parts.products)
  rest = None
  if _packed_steps.applies(parts.rest):
    rest = _packed_stages.Rest(stages, z)

  def loss(products, always):
    if rest is None:
      logits = _stages.apply(stages, _packed_steps.outermost(products))
    else:
      logits = rest(products, always)
    each = optax.softmax_cross_entropy_with_integer_labels(logits, parts.labels)
    return jnp.sum(jnp.where(valid, each, 0))

  def anew(products, weights, first, end):
    del products, first, end
    moved = dataclasses.replace(parts, weights=weights)
    return _packed_steps.innermost(moved.products())

  patches, few = None, jnp.zeros((), jnp.int32)
  if begun.signs:
    patches = jnp.transpose(parts.patches(), (2, 4, 3, 1, 0)).astype(z.dtype)
    patches = patches.reshape(-1, *z.shape[1:-1], z.shape[0])
    integers = _are_integers(parts.weights, value, patches)
    few = jnp.where(integers, max(1, parts.weights.size // _FEW), 0)

  def incremental(products, weights, first, end):
    del weights

    def move(number, products):
      unit = column[number]
      met = row[number] * groups + unit // (units // groups)
      by = jax.lax.dynamic_index_in_dim(patches, met, keepdims=False)
      axis = products.ndim - 2
      old = jax.lax.dynamic_index_in_dim(products, unit, axis, keepdims=False)
      new = old + change[number].astype(old.dtype) * by
      return jax.lax.dynamic_update_index_in_dim(products, new, unit, axis)

    return jax.lax.fori_loop(first, end, move, products)

  def step(carry):
    first, products, weights, after = carry
    end = until[first]
    _report.tick(report, first, count, end - first)

    def put(number, weights):
      return weights.at[row[number], column[number]].set(value[number])

    weights = jax.lax.fori_loop(first, end, put, weights)
    state = products, weights.reshape(parts.weights.shape), first, end
    if begun.signs:
      products = jax.lax.cond(end - first <= few, incremental, anew, *state)
    else:
      products = anew(*state)
    return (
      end,
      products,
      weights,
      after.at[end].set(loss(products, end > first)),
    )

  products = _packed_steps.innermost(parts.products())
  begin = loss(products, count >= 0)
  after = jnp.zeros(position.size + 1, begin.dtype).at[0].set(begin)
  begin = (
    jnp.zeros_like(count),
    products,
    parts.weights.reshape(-1, units),
    after,
  )
  *_, after = jax.lax.while_loop(lambda carry: carry[0] < count, step, begin)
  return after


def _are_integers(weights, values, patches):
  """Returns whether sums are of integers, and exact, for these values of the weights."""
  arrays = weights, values, patches
  most, moved, inputs = (jnp.max(jnp.abs(x)) for x in arrays)
  bound = math.prod(weights.shape[:-1]) * jnp.maximum(most, moved) * inputs
  whole = [jnp.all(x == jnp.round(x)) for x in arrays]
  exact = 2 * bound < 2 / jnp.finfo(bound.dtype).eps
  return functools.reduce(jnp.logical_and, whole) & exact
