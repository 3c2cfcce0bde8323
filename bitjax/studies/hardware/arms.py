"""The networks that the study trains: a grid of bits and widths, and some of equal cost."""

from __future__ import annotations

from collections.abc import Sequence

from bitjax.studies.recipes import families

__all__ = ['PRIMARY', 'REFERENCE', 'SERIES', 'every', 'series']

SERIES = ('energy', 'memory')  # What is equal.
PRIMARY = '1'  # Bits of the network that the primary contrast compares ...
REFERENCE = '4'  # ... with that of so many bits.


def series(
  family: families.Family, bits: Sequence[str], width: int
) -> dict[str, list[families.Cell]]:
  """Returns the networks that cost as much as that of 4 bits and a width.

  Energies are bands; their geometric middles are equal, as nearly as widths allow.

  Args:
    family: the networks.
    bits: names in `families.BITS`.
    width: width of the network of 4 bits.

  Returns:
    For each of `SERIES` one network for each number of bits.
  """
  costs = {
    'energy': lambda cell: family.energy(cell).middle,
    'memory': lambda cell: family.costs(cell).total.memory,
  }
  reference = families.Cell(REFERENCE, width)
  return {
    name: [families.equal(own, reference, cost) for own in bits]
    for name, cost in costs.items()
  }


def every(
  family: families.Family,
  bits: Sequence[str],
  widths: Sequence[int],
  width: int,
) -> list[families.Cell]:
  """Returns the grid and both series, each network once, in a fixed order."""
  cells = [families.Cell(name, w) for w in sorted(widths) for name in bits]
  for row in series(family, bits, width).values():
    cells += row
  return list(dict.fromkeys(cells))
