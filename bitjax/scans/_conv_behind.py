"""Evaluates what signs of a convolution do to losses, for many masks at a time.

A mask turns some signs of one channel of one image. If the next layer is a convolution,
its sums change by the products with that channel; they are kept unscaled until they are
changed, so that sums of signs by signs stay exact, and ties are ties. Then the rest of the
network follows. Each mask is a *lane*. Where convolutions that follow are binary, lanes are
innermost, and signs are packed (`_packed_steps`). Masks of a channel are subsets of the few
positions that can turn at all, so at a position of a second convolution many lanes
look alike: if it is large, what they share is multiplied once (`_packed_distinct`).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bitjax import packed
from bitjax import sizes
from bitjax import types
from bitjax.scans import _conv_split
from bitjax.scans import _packed_steps
from bitjax.scans import _stages

__all__ = ['Network', 'Rest', 'changes', 'lanes', 'network', 'prepared']

# Weights of a binary convolution from which on equal patches are multiplied once.
_LARGE = 1 << 18
_GROUPS = 8  # Groups of masks among which it finds equal ones.


class Rest(NamedTuple):
  """Stages behind a layer's signs, with weights and scales computed once.

  Attributes:
    conv: the convolution that comes next; None if something else does.
    met: which position each place of its kernel meets, counted from 1, and 0 for
      padding, [positions', places]; None, like the next one, without a convolution.
    kernel: what its sums change by for a unit of each channel, [out, places, next].
    steps: what follows it, lanes innermost; None if no convolution of it is binary.
    shares: the place in them of a convolution that multiplies equal patches once; None
      if there is none.
  """

  conv: _stages.Conv | None
  met: types.Array | None
  kernel: types.Array | None
  steps: tuple[Any, ...] | None
  shares: int | None


class Network(NamedTuple):
  """What lies behind the signs of some examples.

  Attributes:
    h: activations, [examples, *spatial, out].
    other: what they become where the sign turns.
    labels: classes, [examples].
    losses: their losses, [examples].
    sums: the next convolution's sums, unscaled, [examples, *spatial', next]; None if
      something else comes next.
    stages: the stages behind the signs, or behind that convolution.
  """

  h: types.Array
  other: types.Array
  labels: types.Array
  losses: types.Array
  sums: types.Array | None
  stages: tuple[_stages.Stage, ...]


def prepared(
  stages: tuple[_stages.Stage, ...], h: jax.ShapeDtypeStruct
) -> Rest:
  """Prepares the stages behind signs, for all examples.

  Args:
    stages: the stages.
    h: shape and dtype of what they are applied to, [examples, *spatial, out].
  """
  if not stages or not isinstance(stages[0], _stages.Conv):
    return Rest(None, None, None, None, None)
  ((plain,), sums) = _packed_steps.prepared(stages[:1], h)
  conv = plain.stage
  product = conv.product
  # What pads the inputs does not change.
  met, _ = _conv_split.places(product, h.shape[1:-1])
  kernel = product.arithmetic.rounded(conv.layer.kernel)
  inner, out = kernel.shape[-2:]
  group, inside = jnp.divmod(jnp.arange(h.shape[-1]), inner)
  kernel = jnp.moveaxis(kernel.reshape(-1, inner, out), 1, 0)[inside]
  mine = jnp.arange(out)[None] // (out // product.groups) == group[:, None]
  steps, _ = _packed_steps.prepared(stages[1:], sums)
  if not any(map(_is_packed, steps)):
    steps = None
  kernel = jnp.where(mine[:, None], kernel, 0)
  return Rest(conv, met, kernel, steps, _sharing(steps))


def _sharing(steps):
  """Returns the place of a large binary convolution that comes first; None if none does."""
  for place, step in enumerate(steps or ()):
    if isinstance(step, _packed_steps.Binary):
      return place if step.layer.kernel.size >= _LARGE else None
    if not isinstance(step, _packed_steps.Plus) and not (
      isinstance(step, _packed_steps.Plain) and step.entrywise
    ):
      return None
  return None


def _is_packed(step):
  if isinstance(step, _packed_steps.Branches):
    return any(map(_is_packed, (*step.body, *step.shortcut)))
  return isinstance(step, _packed_steps.Binary)


def network(
  rest: Rest,
  stages: tuple[_stages.Stage, ...],
  h: types.Array,
  other: types.Array,
  labels: types.Array,
) -> Network:
  """Returns what lies behind the signs of some examples.

  Args:
    rest: the prepared stages.
    stages: the stages, of these examples.
    h: activations, [examples, *spatial, out].
    other: what they become where the sign turns.
    labels: classes, [examples].
  """
  if rest.conv is None:
    losses = _losses(_stages.apply(stages, h), labels)
    return Network(h, other, labels, losses, None, stages)
  conv, stages = rest.conv, stages[1:]
  sums = conv.product(h, conv.layer.kernel)
  logits = _stages.apply(stages, conv.layer.rescale(sums))
  return Network(h, other, labels, _losses(logits, labels), sums, stages)


def _losses(logits, labels):
  return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def lanes(rest: Rest, network: Network, most: int) -> int:
  """Returns how many masks are evaluated at a time, of at most so many."""
  each = _group(network)
  return min(each if rest.shares is None else _GROUPS * each, most)


def _group(network):
  """Returns of how many masks activations are in memory at a time."""
  held = network.h if network.sums is None else network.sums
  each = max(network.h[0].size, held[0].size)
  return max(1, sizes.here().mask_lanes // each)


def changes(
  rest: Rest,
  network: Network,
  index: types.Array,
  examples: types.Array,
  channels: types.Array,
  words: types.Array,
  always: types.Array,
) -> types.Array:
  """Returns by how much losses rise where masks' signs turn, [lanes].

  Args:
    rest: the prepared stages.
    network: what lies behind the signs of some examples.
    index: which of all examples these are, [examples].
    examples: whose loss, of these, [lanes].
    channels: the channels that the masks are of, [lanes].
    words: the masks, [lanes, words].
    always: a boolean that is true, which the compiler must not know.
  """
  shape = network.h.shape[1:-1]
  mask = packed.unpack(words, math.prod(shape), dtype=bool)
  if network.sums is None:
    there = jax.nn.one_hot(channels, network.h.shape[-1], dtype=bool)[:, None]
    turn = (mask[:, :, None] & there).reshape(len(words), *shape, -1)
    x = jnp.where(turn, network.other[examples], network.h[examples])
    logits = _stages.apply(_of(network.stages, examples), x)
  else:
    logits = _behind_sums(
      rest, network, index, examples, channels, mask, always
    )
  labels, before = network.labels[examples], network.losses[examples]
  return _losses(logits, labels) - before


def _of(stages, examples):
  return _stages.map_examples(stages, lambda x: x[examples])


def _behind_sums(rest, network, index, examples, channels, mask, always):
  """Returns the logits, [lanes, classes]."""
  by_channel = jnp.moveaxis(network.other - network.h, -1, 1)

  def changed(examples, channels, mask):
    """Returns changes [lanes, positions, places] and kernels [lanes, places, next]."""
    change = by_channel[examples, channels].reshape(mask.shape)
    change = jnp.pad(jnp.where(mask, change, 0), [(0, 0), (1, 0)])
    return change[:, rest.met], rest.kernel[channels].astype(change.dtype)

  sums, layer = network.sums, rest.conv.layer
  if rest.steps is None:
    change, kernel = changed(examples, channels, mask)
    moved = jnp.einsum(
      'lpk,lko->lpo', change, kernel, precision=jax.lax.Precision.HIGHEST
    )
    sums = sums[examples]
    sums += moved.reshape(sums.shape).astype(sums.dtype)
    return _stages.apply(_of(network.stages, examples), layer.rescale(sums))

  def first(examples, channels, mask):
    """Returns what follows the convolution, [*spatial, next, lanes]."""
    change, kernel = (
      jnp.moveaxis(x, 0, -1) for x in changed(examples, channels, mask)
    )

    def moved():
      total = jnp.moveaxis(sums, 0, -1)[..., examples]
      more = jnp.zeros((), change.dtype)
      for place in range(len(kernel)):
        more = more + change[:, place, None] * kernel[None, place]
      total += more.reshape(total.shape).astype(total.dtype)
      x = layer.rescale(_packed_steps.outermost(total))
      return _packed_steps.innermost(x)

    return _packed_steps.Value(moved)

  def run(steps, examples, x):
    steps = tuple(_taken(step, index[examples]) for step in steps)
    return _packed_steps.run(steps, x, always)

  if rest.shares is None:
    x = run(rest.steps, examples, first(examples, channels, mask))
    return _packed_steps.outermost(x())
  return _shared(rest, _group(network), first, run, examples, channels, mask)


def _shared(rest, size, first, run, examples, channels, mask):
  """Returns the logits [lanes, classes], with equal patches of lanes multiplied once.

  Stages before and behind that are run for groups of so many lanes, which fit in a cache.
  """
  count = len(examples)
  lanes = jnp.arange(-(-count // size) * size).reshape(-1, size)
  lanes = jnp.minimum(lanes, count - 1)
  before, binary = rest.steps[: rest.shares], rest.steps[rest.shares]
  behind = rest.steps[rest.shares + 1 :]

  def words(group):
    x = first(*(a[group] for a in (examples, channels, mask)))
    x = run(before, examples[group], x)
    # A pass of its own: sums are not computed again for each bit.
    x.made(group[0] >= 0)
    return _packed_steps.signs(x())

  found = jnp.moveaxis(jax.lax.map(words, lanes), 0, -2)
  found = found.reshape(*found.shape[:3], -1)
  sums = binary.shared(found)

  def logits(group):
    x = _packed_steps.Value(lambda: binary.rescale(sums(group)))
    return _packed_steps.outermost(run(behind, examples[group], x)())

  found = jax.lax.map(logits, lanes)
  return found.reshape(lanes.size, -1)[:count]


def _taken(step, index):
  """Returns a step of some examples."""
  if isinstance(step, _packed_steps.Plus):
    return _packed_steps.Plus(step.value[..., index])
  if isinstance(step, _packed_steps.Branches):
    return dataclasses.replace(
      step,
      body=tuple(_taken(s, index) for s in step.body),
      shortcut=tuple(_taken(s, index) for s in step.shortcut),
    )
  return step
