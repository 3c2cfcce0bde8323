r"""Computes the loss after each breakpoint of a line of a quantized kernel.

Between breakpoints the loss is constant, so a scan needs one evaluation for each
*distinct* kernel, however fine its grid. These evaluations are cheap: breakpoint e
moves one unit's products by a multiple of one input,

.. math:: p_{bj} \leftarrow p_{bj} + \Delta_e \, x_{bi}, \qquad e = (i, j),

and leaves the activation h of most examples as it is. The next product of the other
examples moves along one row of its matrix,
:math:`u_b \leftarrow u_b + \delta_{eb} V_{j:}`, and the rest of the network is
evaluated for them alone.

A block of breakpoints is processed at once, by matrix products only: they compute the
units' products after each breakpoint (the moves of the block times a triangular
matrix), and the u of each changed (breakpoint, example) pair (the changes of h up
to the breakpoint, times rows of V). Breakpoints at one position, such as those between
two rates of a grid, change the kernel together, so only the last one lists pairs.

If inputs and weights are integers and sums stay below 2^24, p is exact in any
order, and so is u behind a sign with integer V. Otherwise rounding may decide a
sign; the examples that this may affect are counted.

A convolution moves whole channels, which is another file's matter (`_line_convolutions`).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bitjax import sizes
from bitjax import sums
from bitjax import types
from bitjax.scans import _conv_split
from bitjax.scans import _convolution
from bitjax.scans import _line_breakpoints
from bitjax.scans import _line_convolutions
from bitjax.scans import _packed_steps
from bitjax.scans import _report
from bitjax.scans import _split
from bitjax.scans import _stages
from bitjax.scans import _view

__all__ = ['Start', 'losses', 'obstacle', 'start', 'unwise']


class Start(NamedTuple):
  """The state of a network at the start of a line, whatever its direction."""

  inputs: types.Array  # x transposed, [fan_in, examples].
  labels: types.Array  # y, [examples].
  sizes: types.Array  # Sums of |x|, [examples].
  integers: types.Array  # Whether all x are integers.
  parts: _split.Split
  weights: types.Array  # The quantized kernel, [fan_in, units].
  products: types.Array  # p transposed, [units, examples].
  next_products: types.Array  # u, [examples, width].
  losses: types.Array  # [examples].


class _Network(NamedTuple):
  """The parts of a network that do not change along the line."""

  inputs: types.Array  # x transposed, [fan_in, examples].
  labels: types.Array  # y, [examples].
  slack: types.Array | None  # Bound on the rounding of p, [examples].
  parts: _split.Split


class _State(NamedTuple):
  """The state of the network at one point of the line."""

  products: types.Array  # p transposed, [units, examples].
  next_products: types.Array  # u, [examples, width].
  losses: types.Array  # [examples].
  uncertain: types.Array  # [examples], if rounding may have decided a sign.


class _Changes(NamedTuple):
  """The effects of a block of breakpoints on the examples."""

  activations: types.Array  # Changes of h, [breakpoints, examples].
  rows: types.Array  # Rows of V that u moves along, [breakpoints, width].
  listed: types.Array  # Whether the loss is evaluated, [breakpoints, examples].


def obstacle(view: _view.LayerView) -> str | None:
  """Returns why a view cannot be scanned so, or None if it can.

  Its kernel's quantizer, and a scale that depends on the kernel, are others' matters.
  """
  if isinstance(view.product, _convolution.Convolution):
    return _conv_split.obstacle(view)
  if reason := _split.obstacle(view):
    return reason
  activations = [s for s in view.tail if isinstance(s, _stages.Activation)]
  if any(jnp.ndim(leaf) for leaf in jax.tree.leaves(activations)):
    return 'an activation has parameters of its own for each unit'
  return None


def unwise(view: _view.LayerView) -> str | None:
  """Returns why a view without an `obstacle` is not scanned faster so, or None."""
  is_convolution = isinstance(view.product, _convolution.Convolution)
  if is_convolution and not _packed_steps.applies(view.tail):
    return 'what follows the convolution is not binary'
  return None


@jax.jit
def start(
  view: _view.LayerView, weights: types.Array
) -> Start | _line_convolutions.Start:
  """Returns the state that all lines from one quantized kernel share.

  Args:
    view: the layer, without an `obstacle`.
    weights: the quantized kernel.
  """
  if isinstance(view.product, _convolution.Convolution):
    return _line_convolutions.start(view, weights)
  parts = _split.split(view)
  inputs = parts.inputs
  products = parts.products(inputs, weights).T
  units = jnp.arange(products.shape[0])
  next_products = parts.next_products(_front(parts, products, units).T)
  return Start(
    inputs=inputs.T,
    labels=parts.labels,
    sizes=jnp.sum(jnp.abs(inputs), axis=1),
    # Reducing rows first, then their results, takes a fifth of the time of one
    # reduction over both axes.
    integers=jnp.all(jnp.all(inputs == jnp.round(inputs), axis=1)),
    parts=parts,
    weights=weights,
    products=products,
    next_products=next_products,
    losses=parts.losses(next_products, parts.labels),
  )


@functools.partial(jax.jit, static_argnames='width')
def losses(
  begun: Start | _line_convolutions.Start,
  breakpoints: _line_breakpoints.Breakpoints,
  stop: types.Array,
  width: int | None = None,
  report: Any = None,
) -> tuple[types.Array, types.Array]:
  """Returns the mean losses before the first breakpoint and after each one.

  Args:
    begun: the state of the network at the start of the line.
    breakpoints: the breakpoints of the line.
    stop: position of those breakpoints that the line does not meet.
    width: breakpoints that are processed at a time, or images of a convolution; None
      for a good choice.
    report: progress; None for no report.

  Returns:
    The losses, [1 + breakpoints]: entry n is that of the kernel after n breakpoints;
    of several at one position, only the last one's entry counts. And the number of
    examples for which, somewhere on the line, a sign in front of the next product is
    within the bound of rounding; 0 for a convolution.
  """
  if isinstance(begun, _line_convolutions.Start):
    after = _line_convolutions.losses(begun, breakpoints, stop, width, report)
    return after, jnp.zeros((), jnp.int32)
  count = jnp.sum(breakpoints.position < stop, dtype=jnp.int32)
  size = breakpoints.position.size
  block = min(width or sizes.here().line_breakpoints, size)
  padded = _line_breakpoints.Breakpoints(
    *(jnp.append(leaf, jnp.zeros(block, leaf.dtype)) for leaf in breakpoints)
  )
  slack = _slack(begun, breakpoints)
  network = _Network(begun.inputs, begun.labels, slack, begun.parts)
  units = jnp.arange(begun.products.shape[0])
  state = _State(
    begun.products,
    begun.next_products,
    begun.losses,
    _undecided(network, begun.products, units),
  )
  after = jnp.zeros(size + block + 1, state.losses.dtype)
  after = after.at[0].set(jnp.mean(state.losses))

  def body(carry):
    first, state, after = carry
    _report.tick(report, first, count, block)
    now = _line_breakpoints.Breakpoints(
      *(jax.lax.dynamic_slice_in_dim(leaf, first, block) for leaf in padded)
    )
    met = first + jnp.arange(block) < count
    now = now._replace(change=jnp.where(met, now.change, 0))
    state, means = _advance(network, state, now)
    after = jax.lax.dynamic_update_slice_in_dim(after, means, first + 1, 0)
    return first + block, state, after

  _, state, after = jax.lax.while_loop(
    lambda carry: carry[0] < count, body, (jnp.zeros_like(count), state, after)
  )
  # After the last breakpoint the loss stays what it is.
  after = after[jnp.minimum(jnp.arange(size + 1), count)]
  return after, jnp.sum(state.uncertain, dtype=jnp.int32)


def _slack(begun, breakpoints):
  """Returns a bound on the rounding of p, [examples]; None if no sign follows p."""
  if not any(getattr(s, 'kind', '') == 'sign' for s in begun.parts.front):
    return None
  weights, (row, column, change, *_) = begun.weights, breakpoints
  # Weights are monotone along the line, so their magnitudes are largest at an end.
  largest = jnp.max(jnp.abs(weights))
  moved = weights.at[row, column].add(change)
  largest = jnp.maximum(largest, jnp.max(jnp.abs(moved)))
  total = begun.sizes * largest
  integers = (
    begun.integers
    & jnp.all(weights == jnp.round(weights))
    & jnp.all(change == jnp.round(change))
  )
  moves = jnp.zeros(weights.shape[1], total.dtype)
  moves = moves.at[column].add((change != 0).astype(total.dtype))
  eps = jnp.finfo(total.dtype).eps
  bound = (begun.inputs.shape[0] + jnp.max(moves)) * eps * total
  if coarse := begun.parts.arithmetic.roundoff:
    integers &= sums.unrounded(begun.parts.inputs, weights, moved)
    bound += 4 * coarse * total
  return jnp.where(integers & (2 * total < 2 / eps), 0, bound)


def _undecided(network, products, units):
  """Returns whether any sign of each example is within the bound of rounding."""
  if network.slack is None:
    return jnp.zeros(network.labels.shape, bool)
  low = _front(network.parts, products - network.slack[None, :], units)
  high = _front(network.parts, products + network.slack[None, :], units)
  return jnp.any(low != high, axis=0)


def _front(parts, products, units):
  """Returns the activations h of some units, [units, examples]."""

  def of_units(vector):
    return vector[units][:, None] if jnp.ndim(vector) else vector

  for stage in parts.front:
    if isinstance(stage, _stages.Affine):
      # The same expression as in `Affine`, with the axis of units first.
      scale, shift = of_units(stage.scale), of_units(stage.shift)
      products = products * scale + shift
    else:
      products = stage(products)
  return products


def _advance(network, state, breakpoints):
  """Returns the state after a block of breakpoints, and the mean loss after each."""
  row, unit, change, _, position = breakpoints
  step = jnp.arange(position.size)
  until = step[:, None] >= step[None, :]
  same_unit = unit[:, None] == unit[None, :]
  moves = network.inputs[row] * change[:, None]
  start = state.products[unit]
  products = start + _product((same_unit & until).astype(moves.dtype), moves)
  # The old activation is that after the unit's previous breakpoint, bit for bit.
  previous = jnp.max(jnp.where(same_unit & ~until.T, step[None, :], -1), axis=1)
  new = _front(network.parts, products, unit)
  old = jnp.where(
    (previous >= 0)[:, None],
    new[previous],
    _front(network.parts, start, unit),
  )
  # Whether a breakpoint is the last at its position.
  ends = jnp.append(position[1:] != position[:-1], True)
  together = (position[:, None] == position[None, :]) & until & ends[:, None]
  changes = _Changes(
    activations=new - old,
    rows=network.parts.matrix[unit],
    listed=_product(
      together.astype(jnp.float32), (new != old).astype(jnp.float32)
    )
    > 0,
  )
  example_losses, means = _new_losses(network, state, changes)
  ends = ~jnp.any(same_unit & ~until, axis=1)  # The last breakpoint of a unit.
  nowhere = state.products.shape[0]
  state = _State(
    state.products.at[jnp.where(ends, unit, nowhere)].set(
      products, mode='drop'
    ),
    state.next_products + _product(changes.activations.T, changes.rows),
    example_losses,
    state.uncertain | _undecided(network, products, unit),
  )
  return state, means


def _product(a, b):
  return jnp.matmul(a, b, precision='highest')


def _new_losses(network, state, changes):
  """Returns losses of the examples after the block, and means after each breakpoint."""
  block, num_examples = changes.listed.shape
  listed, activations = changes.listed.T, changes.activations.T
  counts = jnp.sum(listed, axis=1, dtype=jnp.int32)
  ends = jnp.cumsum(counts)
  step = jnp.arange(block)
  num_rows = min(sizes.here().line_pairs, num_examples)

  def evaluate(carry):
    first, table = carry
    slot = first + jnp.arange(num_rows)
    example = jnp.searchsorted(ends, slot, side='right')
    example = jnp.minimum(example, num_examples - 1)
    rank = slot - (ends - counts)[example]
    # The breakpoint of a pair is the position of the true entry of that rank.
    now = jnp.sum(jnp.cumsum(listed[example], axis=1) <= rank[:, None], axis=1)
    past = jnp.where(step[None, :] <= now[:, None], activations[example], 0)
    next_products = state.next_products[example] + _product(past, changes.rows)
    new = network.parts.losses(next_products, network.labels[example])
    now = jnp.where(slot < ends[-1], now, block)
    return first + num_rows, table.at[now, example].set(new, mode='drop')

  _, table = jax.lax.while_loop(
    lambda carry: carry[0] < ends[-1],
    evaluate,
    (
      jnp.zeros((), jnp.int32),
      jnp.zeros(changes.listed.shape, state.losses.dtype),
    ),
  )

  if sizes.here().line_loop:
    return _passed_on(state.losses, changes.listed, table)
  return _passed_on_at_once(state.losses, changes.listed, table)


def _passed_on(losses, listed, table):
  """Returns the losses after the last breakpoint, and the mean after each.

  Args:
    losses: of the examples before the block, [examples].
    listed: where the table holds a new loss, [breakpoints, examples].
    table: new losses, [breakpoints, examples].
  """

  def pass_on(losses, news):
    listed, new = news
    losses = jnp.where(listed, new, losses)
    return losses, jnp.mean(losses)

  return jax.lax.scan(pass_on, losses, (listed, table))


def _passed_on_at_once(losses, listed, table):
  """Returns what `_passed_on` does, without a loop."""
  step = jnp.arange(listed.shape[0])[:, None]
  newest = jax.lax.cummax(jnp.where(listed, step, -1), axis=0)
  new = jnp.take_along_axis(table, jnp.maximum(newest, 0), axis=0)
  found = jnp.where(newest >= 0, new, losses[None, :])
  return found[-1], jnp.mean(found, axis=1)
