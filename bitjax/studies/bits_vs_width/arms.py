"""The trainings that the study compares: networks of a grid, their labels and starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bitjax.studies.recipes import families

__all__ = ['KINDS', 'PRIMARY', 'REFERENCE', 'SERIES', 'Arm', 'every', 'series']

# What is learned, and from where: the labels from random weights, random labels from
# random weights, or the labels from a trained network of full precision.
KINDS = ('scratch', 'random', 'projected')
SERIES = ('width', 'bits', 'operations')  # What is equal.
PRIMARY = '1'  # Bits of the network that the primary contrast compares ...
REFERENCE = (
  '4'  # ... with that of so many bits, and all others are compared with.
)


class Arm(NamedTuple):
  """One kind of training.

  Attributes:
    cell: the network.
    kind: one of `KINDS`.
  """

  cell: families.Cell
  kind: str = 'scratch'

  def __str__(self) -> str:
    """Returns its label, such as ``'1 bit, width 26, random'``."""
    return f'{self.cell}{"" if self.kind == "scratch" else f", {self.kind}"}'


def series(
  family: families.Family,
  bits: Sequence[str],
  equal: Sequence[str],
  width: int,
) -> dict[str, list[families.Cell]]:
  """Returns the networks that equal that of 4 bits and a width, by what is equal.

  Args:
    family: the networks.
    bits: names in `families.BITS`.
    equal: some of `SERIES`.
    width: width of the network of 4 bits.

  Returns:
    For each of ``equal`` one network for each number of bits.
  """
  costs = {'bits': family.total_bits, 'operations': family.operations}
  found: dict[str, list[families.Cell]] = {}
  for measure in equal:
    cost = costs.get(measure)
    found[measure] = [
      families.Cell(name, width)
      if cost is None
      else families.equal(name, families.Cell(REFERENCE, width), cost)
      for name in bits
    ]
  return found


def every(
  family: families.Family,
  bits: Sequence[str],
  widths: Sequence[int],
  kinds: Sequence[str],
  equal: Sequence[str],
  width: int,
) -> list[Arm]:
  """Returns the arms, each once, in a fixed order.

  The grid and all series learn from random weights. Random labels, and starts from full
  precision, are for networks of equal width and of equal total bits only.

  Args:
    family: the networks.
    bits: names in `families.BITS`.
    widths: widths of the grid.
    kinds: some of `KINDS`.
    equal: some of `SERIES`.
    width: width of the network of 4 bits that the series equal.
  """
  rows = series(family, bits, equal, width)
  cells = [families.Cell(name, w) for w in sorted(widths) for name in bits]
  cells += [cell for name in equal for cell in rows[name]]
  few = [cell for name in equal if name != 'operations' for cell in rows[name]]
  # All kinds of a network stand together, since they share its programs.
  return [
    Arm(cell, kind)
    for cell in dict.fromkeys(cells)
    for kind in KINDS
    if kind in kinds and (kind == 'scratch' or cell in few)
  ]
