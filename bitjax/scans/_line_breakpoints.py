r"""Where the weights of a quantized kernel change along a line.

Along ``W - eta * d`` a quantized weight changes only at its breakpoints, for the
sign at ``eta = W / d``. Which learning rate is a weight's first after one is not
found by comparing ``W / d`` with ``eta``: products and differences round, and the
intervals are half-open (sign(0) = +1: a positive weight flips after its breakpoint,
a negative one at it). Only ``q(W - eta * d)`` itself knows, so it is evaluated, in
the expression that brute force evaluates. Rounding is monotone, and so are
staircases; hence each weight's changes are found by bisection, over the rates of a
sorted grid or over *all* rates that floating point can represent.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bitjax import quantizers
from bitjax import types

__all__ = ['AllRates', 'Breakpoints', 'Grid', 'find', 'num_levels']


_FEW = 8192  # Breakpoints that are found rather than sorted out.


class Breakpoints(NamedTuple):
  """Changes of single weights, in the order in which the line meets them.

  Room is for as many as there can be; the others come last and change nothing.
  """

  row: types.Array  # [breakpoints], input of the weight.
  column: types.Array  # [breakpoints], its unit.
  change: types.Array  # [breakpoints], its new value minus the old one.
  place: types.Array  # [breakpoints], first position on the line after it.


def num_levels(quantizer: quantizers.Quantize | None) -> int | None:
  """How many values a quantizer has; None if it is not known to be a staircase.

  A staircase is elementwise and monotone; it says so by its attribute
  ``num_levels``, a static integer.
  """
  return getattr(quantizers.staircase(quantizer), 'num_levels', None)


class Grid(NamedTuple):
  """The places of a line that are on a grid: indices of sorted rates."""

  rates: types.Array  # [rates].

  def rate(self, place: types.Array) -> types.Array:
    """The rate at each place, at the nearest one beyond the ends."""
    return self.rates[jnp.clip(place, 0, self.rates.size - 1)]

  def ends(self) -> tuple[types.Array, types.Array]:
    """The first place, and the one after the last."""
    size = jnp.asarray(self.rates.size, jnp.int32)
    return jnp.zeros_like(size), size


class AllRates(NamedTuple):
  """All places of a line between two floating-point rates, those included.

  Places number the floats: as integers, their bits are in the order of the
  magnitudes, and the negative ones are put the other way round.
  """

  low: types.Array
  high: types.Array

  def rate(self, place: types.Array) -> types.Array:
    """The rate at each place, at the nearest one beyond the ends."""
    first, stop = self.ends()
    bits = _ordered(jnp.clip(place, first, stop - 1))
    return jax.lax.bitcast_convert_type(bits, self.low.dtype)

  def ends(self) -> tuple[types.Array, types.Array]:
    """The first place, and the one after the last."""
    integer = jnp.dtype(f'int{jnp.finfo(self.low.dtype).bits}')
    first, last = (
      _ordered(jax.lax.bitcast_convert_type(rate, integer)) for rate in self
    )
    return first, last + 1


def _ordered(bits):
  """Bits of floats to integers in their order, and back."""
  info = jnp.iinfo(bits.dtype)
  return bits ^ ((bits >> (info.bits - 1)) & info.max)


@jax.jit  # Not for speed: op by op, W - eta * d may round differently.
def find(
  kernel: types.Array,
  direction: types.Array,
  quantizer: quantizers.Quantize,
  line: Grid | AllRates,
) -> tuple[types.Array, Breakpoints]:
  """Finds all breakpoints of a line.

  Args:
    kernel: W, [fan_in, units].
    direction: d, of the same shape.
    quantizer: q, with a number of levels.
    line: its places.

  Returns:
    The quantized kernel at the line's first place, and the breakpoints. Those
    that are not met are at the place after the last one.
  """
  levels = num_levels(quantizer)
  if levels is None:
    raise types.BadInput('The quantizer needs a known number of levels.')
  start, stop = line.ends()

  def value(place):
    return quantizer(kernel - line.rate(place) * direction)

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

  place = jnp.broadcast_to(start, kernel.shape)
  first = old = value(place)
  places, changes = [], []
  for _ in range(levels - 1):  # No weight changes more often.
    place = first_change(jnp.minimum(place, stop - 1), old)
    new = value(place)
    places.append(place)
    changes.append(new - old)
    old = new
  place = jnp.stack(places).ravel()
  order, place = _sort(place, stop)
  row, column = jnp.divmod(order % kernel.size, kernel.shape[1])
  change = jnp.where(place < stop, jnp.stack(changes).ravel()[order], 0)
  return first, Breakpoints(row, column, change, place)


def _sort(place, stop):
  """Stable order of the places before ``stop``, and the places in it.

  What is not met may come in any order, so where few are met, those few are found
  and sorted, which is ten times faster than sorting all.
  """

  def sort_all():
    order = jnp.argsort(place)
    return order, place[order]

  def find_few():
    found = jnp.nonzero(place < stop, size=few, fill_value=0)[0]
    met = jnp.where(jnp.arange(few) < count, place[found], stop)
    rank = jnp.argsort(met)
    others = jnp.full(place.size - few, stop)
    order = jnp.concatenate([found[rank], jnp.zeros_like(others)])
    return order, jnp.concatenate([met[rank], others])

  few = min(_FEW, place.size)
  count = jnp.sum(place < stop)
  return jax.lax.cond(count <= few, find_few, sort_all)


def _middle(low, high):
  return (low & high) + ((low ^ high) >> 1)  # (low + high) // 2 may overflow.
