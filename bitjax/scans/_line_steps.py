r"""The loss after each breakpoint of a line, for a piecewise constant kernel.

Between breakpoints the loss is constant, so a scan needs one evaluation for each
*distinct* kernel, however fine its grid. And those are cheap: breakpoint e moves
one unit's products by a multiple of one input,

.. math:: p_{bj} \leftarrow p_{bj} + \Delta_e \, x_{bi}, \qquad e = (i, j),

and leaves the activation h of most examples as it is. The others' next product
moves along one row of its matrix, :math:`u_b \leftarrow u_b + \delta_{eb} V_{j:}`,
and they alone pay for the rest of the network.

A block of breakpoints is treated at once, which makes it all matrix products: the
units' products after each breakpoint (the moves of the block times a triangular
matrix), and the u of each changed (breakpoint, example) pair (the changes of h up
to the breakpoint, times rows of V). Breakpoints at one place, in one cell of a
grid, change the kernel together: only the last one lists pairs.

If inputs and weights are integers and sums stay below 2^24, p is exact in any
order, and so is u behind a sign with integer V. Otherwise rounding may decide a
sign; the examples that this may concern are counted.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.scans import _line_breakpoints
from bitjax.scans import _split
from bitjax.scans import _view

__all__ = ['Start', 'losses', 'start']

_BLOCK = 64  # Breakpoints that are treated at once.
_ROWS = 1024  # Pairs whose loss is evaluated at once.


class Start(NamedTuple):
  """A network before the first breakpoint, whatever the direction."""

  inputs: types.Array  # x transposed, [fan_in, examples].
  labels: types.Array  # y, [examples].
  sizes: types.Array  # Sums of |x|, [examples].
  integers: types.Array  # Are all x integers?
  parts: _split.Split
  weights: types.Array  # The quantized kernel, [fan_in, units].
  products: types.Array  # p transposed, [units, examples].
  following: types.Array  # u, [examples, width].
  losses: types.Array  # [examples].


class _Network(NamedTuple):
  """What does not change along the line."""

  inputs: types.Array  # x transposed, [fan_in, examples].
  labels: types.Array  # y, [examples].
  slack: types.Array | None  # Bound of the rounding of p, [examples].
  parts: _split.Split


class _State(NamedTuple):
  """The network at one point of the line."""

  products: types.Array  # p transposed, [units, examples].
  following: types.Array  # u, [examples, width].
  losses: types.Array  # [examples].
  uncertain: types.Array  # [examples], may rounding have decided a sign?


class _Changes(NamedTuple):
  """What a block of breakpoints does to the examples."""

  activations: types.Array  # Changes of h, [breakpoints, examples].
  rows: types.Array  # Of V, that u moves along, [breakpoints, width].
  listed: types.Array  # Where the loss is new, [breakpoints, examples].


@jax.jit
def start(view: _view.LayerView, weights: types.Array) -> Start:
  """What all lines share that begin with one quantized kernel.

  Args:
    view: the layer, without an obstacle to its split.
    weights: the quantized kernel, [fan_in, units].
  """
  parts = _split.split(view)
  inputs = parts.inputs
  products = _split.product(inputs, weights).T
  units = jnp.arange(products.shape[0])
  following = parts.following(_front(parts, products, units).T)
  return Start(
    inputs=inputs.T,
    labels=parts.labels,
    sizes=jnp.sum(jnp.abs(inputs), axis=1),
    # By rows first: two passes over them cost a fifth of one over all.
    integers=jnp.all(jnp.all(inputs == jnp.round(inputs), axis=1)),
    parts=parts,
    weights=weights,
    products=products,
    following=following,
    losses=parts.losses(following, parts.labels),
  )


@functools.partial(jax.jit, static_argnames='width')
def losses(
  begun: Start,
  breakpoints: _line_breakpoints.Breakpoints,
  stop: types.Array,
  width: int | None = None,
) -> tuple[types.Array, types.Array]:
  """Mean losses before the first and after each breakpoint.

  Args:
    begun: the network at the start of the line.
    breakpoints: of the line.
    stop: place of those breakpoints that the line does not meet.
    width: breakpoints that are treated at a time; None for a good choice.

  Returns:
    Losses, [1 + breakpoints]: entry n is that of the kernel after n of them; of
    several at one place only the last one's entry counts. And the number of
    examples for which, somewhere on the line, a sign in front of the next
    product is within the bound of rounding.
  """
  count = jnp.sum(breakpoints.place < stop)
  size = breakpoints.place.size
  block = min(width or _BLOCK, size)
  padded = _line_breakpoints.Breakpoints(
    *(jnp.append(leaf, jnp.zeros(block, leaf.dtype)) for leaf in breakpoints)
  )
  slack = _slack(begun, breakpoints)
  network = _Network(begun.inputs, begun.labels, slack, begun.parts)
  units = jnp.arange(begun.products.shape[0])
  state = _State(
    begun.products,
    begun.following,
    begun.losses,
    _undecided(network, begun.products, units),
  )
  after = jnp.zeros(size + block + 1, state.losses.dtype)
  after = after.at[0].set(jnp.mean(state.losses))

  def body(carry):
    first, state, after = carry
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
  return after, jnp.sum(state.uncertain)


def _slack(begun, breakpoints):
  """Bound of the rounding of p, [examples]; None if no sign can depend on it."""
  if not any(getattr(s, 'kind', '') == 'sign' for s in begun.parts.front):
    return None
  weights, (row, column, change, _) = begun.weights, breakpoints
  # Levels are monotone along the line: none is larger than those at its ends.
  largest = jnp.maximum(
    jnp.max(jnp.abs(weights)),
    jnp.max(jnp.abs(weights.at[row, column].add(change))),
  )
  total = begun.sizes * largest
  integers = (
    begun.integers
    & jnp.all(weights == jnp.round(weights))
    & jnp.all(change == jnp.round(change))
  )
  moves = jnp.zeros(weights.shape[1]).at[column].add(change != 0)
  eps = jnp.finfo(total.dtype).eps
  bound = (begun.inputs.shape[0] + jnp.max(moves)) * eps * total
  return jnp.where(integers & (2 * total < 2 / eps), 0, bound)


def _undecided(network, products, units):
  """Whether any of an example's signs is within the bound of rounding."""
  if network.slack is None:
    return jnp.zeros(network.labels.shape, bool)
  low = _front(network.parts, products - network.slack[None, :], units)
  high = _front(network.parts, products + network.slack[None, :], units)
  return jnp.any(low != high, axis=0)


def _front(parts, products, units):
  """h of some units, [units, examples]."""

  def of_units(vector):
    return vector[units][:, None] if jnp.ndim(vector) else vector

  for stage in parts.front:
    if isinstance(stage, _view.Affine):
      # The expression of `Affine`, with units first.
      scale, shift = of_units(stage.scale), of_units(stage.shift)
      products = products * scale + shift
    else:
      products = stage(products)
  return products


def _advance(network, state, breakpoints):
  """The state after a block of breakpoints, and the mean loss after each."""
  row, unit, change, place = breakpoints
  step = jnp.arange(place.size)
  until = step[:, None] >= step[None, :]
  same_unit = unit[:, None] == unit[None, :]
  moves = network.inputs[row] * change[:, None]
  start = state.products[unit]
  products = start + _product((same_unit & until).astype(moves.dtype), moves)
  # An activation before is that after the unit's last breakpoint, to the bit.
  previous = jnp.max(jnp.where(same_unit & ~until.T, step[None, :], -1), axis=1)
  new = _front(network.parts, products, unit)
  old = jnp.where(
    (previous >= 0)[:, None],
    new[previous],
    _front(network.parts, start, unit),
  )
  ends = jnp.append(place[1:] != place[:-1], True)  # The last at its place.
  together = (place[:, None] == place[None, :]) & until & ends[:, None]
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
    state.following + _product(changes.activations.T, changes.rows),
    example_losses,
    state.uncertain | _undecided(network, products, unit),
  )
  return state, means


def _product(a, b):
  return jnp.matmul(a, b, precision='highest')


def _new_losses(network, state, changes):
  """Each example's loss after the block, and the mean after each breakpoint."""
  block, num_examples = changes.listed.shape
  listed, activations = changes.listed.T, changes.activations.T
  counts = jnp.sum(listed, axis=1, dtype=jnp.int32)
  ends = jnp.cumsum(counts)
  step = jnp.arange(block)
  num_rows = min(_ROWS, num_examples)

  def evaluate(carry):
    first, table = carry
    slot = first + jnp.arange(num_rows)
    example = jnp.searchsorted(ends, slot, side='right')
    example = jnp.minimum(example, num_examples - 1)
    rank = slot - (ends - counts)[example]
    # The breakpoint of a pair: the place of the true entry of that rank.
    now = jnp.sum(jnp.cumsum(listed[example], axis=1) <= rank[:, None], axis=1)
    past = jnp.where(step[None, :] <= now[:, None], activations[example], 0)
    following = state.following[example] + _product(past, changes.rows)
    new = network.parts.losses(following, network.labels[example])
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

  def pass_on(losses, news):
    listed, new = news
    losses = jnp.where(listed, new, losses)
    return losses, jnp.mean(losses)

  return jax.lax.scan(pass_on, state.losses, (changes.listed, table))
