r"""Computes the gains of all moves of a convolution that feeds a sign activation.

A move changes one channel of the pre-activations, by an amount for each position. What it
does to an image's loss depends only on the *mask*, the positions where the sign turns:

.. math::
  m_b = \{p : \mathrm{sign}(z_{bpc} + D x_{bpki}) \ne \mathrm{sign}(z_{bpc})\}, \qquad
  \ell_b' - \ell_b = d_{bc}(m_b).

Most moves turn few signs, many turn none, which costs nothing, and many turn the same
ones. So each image's masks are packed into words of 32 positions, and each distinct mask of
a channel is evaluated once. If the next layer is a convolution, its sums move by those of
a single channel; they are kept unscaled until they are moved, so that sums of signs by
signs stay exact, and ties are ties. Then the rest of the network follows.

Signs are decided by the network's own stages, evaluated at every moved value, which costs
about as much as the layer itself. Equal masks are found by sorting hashes and comparing
neighbours word by word: hashes that collide may cost an evaluation more, and change no
result. Where inputs are not integers, the moved value is rounded once more than the network
rounds it, so an example within rounding of the threshold may be decided either way; such near
ties are counted by `_conv_ties`. Those of signs in later layers are not.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import sizes
from bitjax import types
from bitjax.scans import _conv_behind
from bitjax.scans import _conv_split
from bitjax.scans import _conv_turns
from bitjax.scans import _flips_moves
from bitjax.scans import _packed_distinct
from bitjax.scans import _report
from bitjax.scans import _split
from bitjax.scans import _stages
from bitjax.scans import _view

__all__ = ['moments', 'obstacle', 'unwise']

_FEW_POSITIONS = 64
_SHARED = 4  # A sample is small below one weight in so many.


def obstacle(view: _view.LayerView) -> str | None:
  """Returns why this path does not apply to a view, or None if it does."""
  if reason := _conv_split.obstacle(view):
    return reason
  if _conv_turns.cut(view.tail) is None:
    return (
      'its layer does not feed a sign activation by stages that keep channels '
      'apart'
    )
  return None


def unwise(
  view: _view.LayerView, coordinates: types.Array | None
) -> str | None:
  """Returns why few moves of a view share a mask, or None if many do; a static fact.

  Measured on a ResNet-20: the path `_conv_tail` is nine times slower for all flips of a
  layer of 8 x 8 positions, but three times faster for 256 of them, and two to seventeen
  times faster for some flips of layers of 32 x 32 and 16 x 16 positions.
  """
  if coordinates is not None and _SHARED * coordinates.size < view.kernel.size:
    return 'few moves of a sample of the weights turn the same signs'
  if _conv_turns.positions(view) > _FEW_POSITIONS:
    return (
      f'few moves turn the same signs of images of more than {_FEW_POSITIONS} '
      'positions'
    )
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
    moves: all moves of its kernel.
    coordinates: indices in the flattened kernel, of the weights whose moves are
      evaluated; None for all.
    chunk: examples at a time; None for as many as suit the device.
    report: progress; None for no report.

  Returns:
    The mean loss, and the means over the examples of the decrease of the loss and of
    its square, [moves, *kernel.shape] or [moves, coordinates] each.
  """
  parts = _conv_split.split(view)
  bits = _conv_turns.has_bits(view, moves, _cut(parts).before)
  rest = _rest(parts)
  size, shape = view.labels.size, moves.changes.shape
  dtype = jax.eval_shape(view.losses, view.kernel).dtype
  chunk = min(size, chunk or _examples(parts, moves.changes))
  asked = jnp.ones(shape, bool)
  if coordinates is not None:
    asked = jnp.zeros((shape[0], view.kernel.size), bool)
    asked = asked.at[:, coordinates].set(True).reshape(shape)
  asked = asked.reshape(-1, shape[-1]).T  # [out, moves of a channel]

  def block(totals, start):
    index = start + jnp.arange(chunk)
    some = _conv_split.take(parts, index)
    network, words = _masks(some, rest, moves, bits)
    valid = index < size
    needed = asked[None] & valid[:, None, None]
    words = tuple(jnp.where(needed, word, 0) for word in words)
    change = _changes(rest, network, jnp.minimum(index, size - 1), words)
    losses = jnp.where(valid, network.losses, 0)
    sums = jnp.sum(losses), jnp.sum(change, axis=0), jnp.sum(change**2, axis=0)
    return jax.tree.map(lambda a, b: a + b.astype(dtype), totals, sums), None

  zeros = tuple(jnp.zeros(s, dtype) for s in ((), asked.shape, asked.shape))
  starts = jnp.arange(0, size, chunk)
  (loss, *sums), _ = _report.scan(report, block, zeros, starts)
  first, second = ((total / size).T.reshape(shape) for total in sums)
  if coordinates is not None:
    first, second = (
      x.reshape(shape[0], -1)[:, coordinates] for x in (first, second)
    )
  return loss / size, -first, second


def _cut(parts):
  found = _conv_turns.cut((*parts.front, *parts.rest))
  assert found is not None
  return found


def _examples(parts, changes):
  """Returns how many examples are done at a time."""
  one = _conv_split.take(parts, jnp.zeros(1, int))
  before = _cut(one).before
  signs = jax.eval_shape(lambda o: _stages.apply(before, o.products()), one)
  words = -(-math.prod(signs.shape[1:-1]) // _conv_turns.BITS)
  patches = jax.eval_shape(lambda one: one.patches(), one).size
  each = changes.size * (words + 4) + patches
  return max(1, sizes.here().mask_numbers // each)


def _masks(parts, rest, moves, bits):
  """Returns the network behind the signs, and masks, words [examples, out, moves]."""
  before, behind, stages = _cut(parts)
  z = parts.products()
  signs = _stages.apply(before, z)
  h, other = (_stages.apply(behind, s) for s in (signs, -signs))
  words = _conv_turns.masks(parts, before, moves, z, bits)
  return _conv_behind.network(rest, stages, h, other, parts.labels), words


def _rest(parts):
  """Returns the stages behind the signs, prepared."""
  before, behind, stages = _cut(parts)
  h = jax.eval_shape(
    lambda parts: _stages.apply((*before, *behind), parts.products()), parts
  )
  return _conv_behind.prepared(stages, h)


def _changes(rest, network, index, words):
  """Returns by how much each move raises each loss, [examples, out, moves].

  Args:
    rest: the prepared stages behind the signs.
    network: what lies behind the signs of some examples.
    index: which of all examples these are, [examples].
    words: masks, words of [examples, out, moves].
  """
  shape, (_, channels, size) = words[0].shape, words[0].shape
  words = tuple(word.reshape(-1, size) for word in words)
  order = _packed_distinct.order(words)
  words = tuple(jnp.take_along_axis(w, order, axis=1) for w in words)
  same, turns = jnp.ones(order.shape, bool), jnp.zeros(order.shape, bool)
  for word in words:
    same &= jnp.pad(word[:, 1:] == word[:, :-1], [(0, 0), (1, 0)])
    turns |= word != 0
  distinct = (turns & ~same).reshape(-1)
  some = _conv_behind.lanes(rest, network, distinct.size)
  ((listed,), (count,)) = _split.true_indices(distinct[None], room=some)
  words = jnp.stack([word.reshape(-1) for word in words], axis=1)

  def evaluate(state):
    start, changes = state
    which = jax.lax.dynamic_slice(listed, (start,), (some,))
    which = jnp.minimum(which, distinct.size - 1)
    example, channel = jnp.divmod(which // size, channels)
    found = _conv_behind.changes(
      rest, network, index, example, channel, words[which], start >= 0
    )
    return start + some, jax.lax.dynamic_update_slice(changes, found, (start,))

  changes = jnp.zeros(distinct.size + some, network.losses.dtype)
  _, changes = jax.lax.while_loop(
    lambda state: state[0] < count, evaluate, (0, changes)
  )
  number = jnp.cumsum(distinct, dtype=jnp.int32) - 1
  change = changes[jnp.maximum(number, 0)].reshape(order.shape)
  change = jnp.where(turns, change, 0)
  rows = jnp.arange(len(order))[:, None]
  return jnp.zeros_like(change).at[rows, order].set(change).reshape(shape)
