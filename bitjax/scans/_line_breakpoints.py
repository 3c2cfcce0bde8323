r"""Finds where the weights of a quantized kernel change along a line.

Along ``W - eta * d`` a quantized weight changes only at its breakpoints, for the
sign at ``eta = W / d``. Comparing ``W / d`` with ``eta`` would not find the first
learning rate after a breakpoint: products and differences round, and the intervals
are half-open (sign(0) = +1: a positive weight flips after its breakpoint, a negative
one at it). Only ``q(W - eta * d)`` itself decides, so it is evaluated, by the same
expression as in brute force. Rounding is monotone, and so are staircases; hence each
weight's changes are found by bisection, over the rates of a sorted grid or over *all*
rates that floating point can represent.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bitjax import quantizers
from bitjax import sizes
from bitjax import types

__all__ = ['AllRates', 'Breakpoints', 'Grid', 'find', 'num_levels']


class Breakpoints(NamedTuple):
  """Changes of single weights, in the order in which the line meets them.

  The arrays are as long as there can be breakpoints; unused entries come last and
  change nothing.
  """

  row: types.Array  # [breakpoints], input of the weight.
  column: types.Array  # [breakpoints], its unit.
  change: types.Array  # [breakpoints], its new value minus the old one.
  value: types.Array  # [breakpoints], its new value.
  position: types.Array  # [breakpoints], first position on the line after it.


def num_levels(quantizer: quantizers.Quantize | None) -> int | None:
  """Returns how many levels a quantizer has; None if not known to be a staircase.

  A staircase is elementwise and monotone; it says so by its attribute
  ``num_levels``, a static integer.
  """
  return getattr(quantizers.staircase(quantizer), 'num_levels', None)


class Grid(NamedTuple):
  """A line whose positions are the indices of sorted rates."""

  rates: types.Array  # [rates].

  def rate(self, position: types.Array) -> types.Array:
    """Returns the rate at each position; beyond the ends, that of the nearest."""
    return self.rates[jnp.clip(position, 0, self.rates.size - 1)]

  def ends(self) -> tuple[types.Array, types.Array]:
    """Returns the first position, and the one after the last."""
    size = jnp.asarray(self.rates.size, jnp.int32)
    return jnp.zeros_like(size), size


class AllRates(NamedTuple):
  """A line whose positions are all floating-point rates from ``low`` to ``high``.

  Positions number the floats: read as integers, their bits are in the order of the
  magnitudes, and those of negative floats are reversed.
  """

  low: types.Array
  high: types.Array

  def rate(self, position: types.Array) -> types.Array:
    """Returns the rate at each position; beyond the ends, that of the nearest."""
    first, stop = self.ends()
    bits = _ordered(jnp.clip(position, first, stop - 1))
    return jax.lax.bitcast_convert_type(bits, self.low.dtype)

  def ends(self) -> tuple[types.Array, types.Array]:
    """Returns the first position, and the one after the last."""
    integer = jnp.dtype(f'int{jnp.finfo(self.low.dtype).bits}')
    first, last = (
      _ordered(jax.lax.bitcast_convert_type(rate, integer)) for rate in self
    )
    return first, last + 1


def _ordered(bits):
  """Maps the bits of floats to integers in the order of the floats, and back."""
  info = jnp.iinfo(bits.dtype)
  return bits ^ ((bits >> (info.bits - 1)) & info.max)


@jax.jit  # Needed for exactness: op by op, W - eta * d may round differently.
def find(
  kernel: types.Array,
  direction: types.Array,
  quantizer: quantizers.Quantize,
  line: Grid | AllRates,
) -> tuple[types.Array, Breakpoints]:
  """Finds all breakpoints of a line.

  Args:
    kernel: W, [fan_in, units], or of any other shape, whose last axis then counts as
      the units.
    direction: d, of the same shape.
    quantizer: q, with a known number of levels.
    line: the positions to search.

  Returns:
    The quantized kernel at the line's first position, and the breakpoints. Those
    that the line does not meet are at the position after its last one.
  """
  levels = num_levels(quantizer)
  if levels is None:
    raise types.BadInput('The quantizer needs a known number of levels.')
  start, stop = line.ends()

  def value(position):
    return quantizer(kernel - line.rate(position) * direction)

  def first_change(low, old):
    def unfinished(bounds):
      low, high = bounds
      return jnp.any(_middle(low, high) != low)

    def halve(bounds):
      low, high = bounds
      middle = _middle(low, high)
      same = value(middle) == old
      return jnp.where(same, middle, low), jnp.where(same, high, middle)

    high = jnp.broadcast_to(stop, kernel.shape)
    return jax.lax.while_loop(unfinished, halve, (low, high))[1]

  position = jnp.broadcast_to(start, kernel.shape)
  first = old = value(position)
  positions, changes, values = [], [], []
  for _ in range(levels - 1):  # No weight changes more often.
    position = first_change(jnp.minimum(position, stop - 1), old)
    new = value(position)
    positions.append(position)
    changes.append(new - old)
    values.append(new)
    old = new
  position = jnp.stack(positions).ravel()
  order, position = _sort(position, stop)
  row, column = jnp.divmod(order % kernel.size, kernel.shape[-1])
  change = jnp.where(position < stop, jnp.stack(changes).ravel()[order], 0)
  new = jnp.stack(values).ravel()[order]
  return first, Breakpoints(row, column, change, new, position)


def _sort(position, stop):
  """Returns a stable order of the positions before ``stop``, and them sorted.

  Breakpoints that are not met may come in any order. So where few are met, only those
  are listed and sorted, which is ten times faster than sorting all.
  """

  def sort_all():
    order = jnp.argsort(position)
    return order, position[order]

  def find_few():
    found = jnp.nonzero(position < stop, size=few, fill_value=0)[0]
    met = jnp.where(jnp.arange(few) < count, position[found], stop)
    rank = jnp.argsort(met)
    others = jnp.full(position.size - few, stop)
    order = jnp.concatenate([found[rank], jnp.zeros_like(others)])
    return order, jnp.concatenate([met[rank], others])

  few = min(sizes.here().line_sorted, position.size)
  count = jnp.sum(position < stop)
  return jax.lax.cond(count <= few, find_few, sort_all)


def _middle(low, high):
  return (low & high) + ((low ^ high) >> 1)  # (low + high) // 2 may overflow.
