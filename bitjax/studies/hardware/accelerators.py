"""The fastest chain of matrix-vector units that fits into some look-up tables.

Each layer of integers has a unit of its own (`bitjax.nn.MatrixVectorUnit`), through which images
stream. A unit may compute several outputs and take several inputs at a time; what limits
the rate of images is the unit that takes the most cycles, so all units are folded to at
most that many. An image passes through them one after another.
"""

from __future__ import annotations

import bisect
from typing import NamedTuple

from bitjax import nn

__all__ = ['Chain', 'fastest']

_LARGEST_INTEGER = 8  # Bits; wider operands are floats, which have no unit.
_NEVER = 2**62  # Tables that nothing has.


class Chain(NamedTuple):
  """A chain of units.

  Attributes:
    interval: cycles between two images.
    latency: cycles of one image, from its first value to its last output.
    luts: look-up tables of all units.
  """

  interval: int
  latency: int
  luts: int


def fastest(costs: nn.Summary, luts: int) -> Chain | None:
  """Returns the chain with the shortest interval between images.

  Args:
    costs: of the network. Layers with an operand of more than 8 bits are left out.
    luts: look-up tables that there are.

  Returns:
    The chain; None if none fits, or if no layer multiplies integers.
  """
  rows = [
    row
    for row in costs.layers
    if row.macs and max(max(bits) for bits in row.macs) <= _LARGEST_INTEGER
  ]
  if not rows:
    return None
  layers = [
    _options(row, 0 if row is rows[-1] else _output_bits(rows, at))
    for at, row in enumerate(rows)
  ]
  limits = sorted({cycles for options in layers for cycles, _ in options})

  def chosen(limit):
    """Returns (tables, cycles) of each layer, with the fewest tables in a limit of cycles."""
    return [
      min(
        ((n, cycles) for cycles, n in options if cycles <= limit),
        default=(_NEVER, limit),
      )
      for options in layers
    ]

  def fits(limit):
    return sum(n for n, _ in chosen(limit)) <= luts

  # More cycles need no more tables, so the limits that fit are the last ones.
  at = bisect.bisect_left(limits, True, key=fits)
  if at == len(limits):
    return None
  found = chosen(limits[at])
  cycles = [own for _, own in found]
  return Chain(max(cycles), sum(cycles), sum(n for n, _ in found))


def _output_bits(rows, at):
  """Returns the bits of a layer's outputs, which are those that the next one reads."""
  return min(input_bits for input_bits, _ in rows[at + 1].macs)


def _options(row, output_bits):
  """Returns the cycles and tables of every way to fold a layer."""
  unit = nn.MatrixVectorUnit.of(row, output_bits=output_bits)
  return [
    (one.cycles, one.luts)
    for pe in _divisors(unit.outputs)
    for simd in _divisors(unit.inputs)
    for one in (
      nn.MatrixVectorUnit.of(row, pe=pe, simd=simd, output_bits=output_bits),
    )
  ]


def _divisors(number):
  return [d for d in range(1, number + 1) if number % d == 0]
