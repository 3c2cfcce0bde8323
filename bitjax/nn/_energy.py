r"""How much energy a network takes, from what it computes and what it moves.

.. math::
  E = \sum_{\mathrm{MACs}} e_{\mathrm{MAC}}(a, b)
    + \sum_{\mathrm{memories}} 64^{-1} \, \mathrm{bits} \cdot e_{\mathrm{access}}

Energies of an operation and of an access are those of a table, which is published for adders,
multipliers and memories, but not for an XNOR and its share of a popcount. That one is
an assumption, as a DRAM's access is known to a factor of two, so every result is a *band*
from the least to the most that the table allows. It says which of two networks takes more only
where their bands do not overlap.

Each value is read from the smallest memory that holds it: on the chip if there is room, else from
DRAM. Leakage, clocks, control and the movement of partial sums are not counted.

References:
  Horowitz, Computing's energy problem (and what we can do about it), 2014: the table, for
  45 nm and 0.9 V.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import itertools
import math
from typing import NamedTuple

from bitjax import types
from bitjax.nn import _summary
from bitjax.nn import _tables

__all__ = ['Energy', 'EnergyBand', 'EnergyTable', 'LayerEnergy', 'energy']

_ACCESS = 64  # Bits of an access to a memory.
_LARGEST_INTEGER = 8


class EnergyBand(NamedTuple):
  """The least and the most that a quantity may be.

  Attributes:
    low: the least.
    high: the most.
  """

  low: float
  high: float

  @property
  def middle(self) -> float:
    """The geometric mean of both."""
    return math.sqrt(self.low * self.high)


def _sum(bands) -> EnergyBand:
  lows, highs = zip((0.0, 0.0), *bands, strict=True)
  return EnergyBand(math.fsum(lows), math.fsum(highs))


def _times(band, number) -> EnergyBand:
  return EnergyBand(number * band[0], number * band[1])


_CAPACITIES = {8 << 10: 10.0, 32 << 10: 20.0, 1 << 20: 100.0}


@dataclasses.dataclass(frozen=True)
class EnergyTable:
  """Picojoules of operations and of accesses to memories.

  Attributes:
    add_int8: an addition of 8-bit integers.
    add_int32: an addition of 32-bit integers, such as to a sum.
    multiply_int8: a product of 8-bit integers.
    add_float16: an addition of 16-bit floats.
    add_float32: an addition of 32-bit floats.
    multiply_float16: a product of 16-bit floats.
    multiply_float32: a product of 32-bit floats.
    bit_operation: an XNOR of two bits and its share of a popcount: an assumption, from
      an eighth of an addition of 8 bits (a popcount of n bits takes about n full adders) to a
      whole one.
    on_chip: an access to 64 bits of a memory on the chip, by its capacity in bytes;
      between two capacities it grows as a power of the capacity.
    dram: an access to 64 bits of DRAM, the least and the most.
    on_chip_bytes: capacity of the memory on the chip.
  """

  add_int8: float = 0.03
  add_int32: float = 0.1
  multiply_int8: float = 0.2
  add_float16: float = 0.4
  add_float32: float = 0.9
  multiply_float16: float = 1.1
  multiply_float32: float = 3.7
  bit_operation: EnergyBand = EnergyBand(0.03 / 8, 0.03)
  on_chip: Mapping[int, float] = dataclasses.field(
    default_factory=lambda: dict(_CAPACITIES)
  )
  dram: EnergyBand = EnergyBand(1300.0, 2600.0)
  on_chip_bytes: int = 1 << 20

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.name == 'on_chip_bytes':
        types.check_integer('on_chip_bytes', value, 0)
      elif field.name == 'on_chip':
        if not value:
          raise types.BadInput('on_chip must give at least one capacity.')
        for size, each in value.items():
          types.check_integer('on_chip: capacities', size, 1)
          types.check_positive('on_chip: energies', each, finite=True)
      elif isinstance(value, tuple):
        low, high = value
        types.check_positive(field.name, low, finite=True)
        types.check_positive(field.name, high, finite=True)
        if low > high:
          raise types.BadInput(
            f'{field.name} must be (low, high) with low <= high; got {value}.'
          )
      else:
        types.check_positive(field.name, value, finite=True)

  def mac(self, input_bits: int, weight_bits: int) -> EnergyBand:
    """Returns the picojoules of a multiply-accumulate operation.

    Integers of at most 8 bits are multiplied bit by bit, as ``input_bits * weight_bits``
    bit operations, or by a multiplier and an adder, whichever takes less. A float times one
    bit is an addition.

    Args:
      input_bits: bits of the input.
      weight_bits: bits of the weight.
    """
    bits = sorted((input_bits, weight_bits))
    if bits[1] <= _LARGEST_INTEGER:
      serial = _times(self.bit_operation, input_bits * weight_bits)
      parallel = self.add_int32 + (self.multiply_int8 if bits[0] > 1 else 0.0)
      return EnergyBand(min(serial.low, parallel), min(serial.high, parallel))
    half = bits[1] <= 16
    add = self.add_float16 if half else self.add_float32
    multiply = self.multiply_float16 if half else self.multiply_float32
    each = add + (multiply if bits[0] > 1 else 0.0)
    return EnergyBand(each, each)

  def on_chip_access(self) -> float:
    """Returns the picojoules of an access to 64 bits on the chip."""
    known = sorted(self.on_chip.items())
    if self.on_chip_bytes <= known[0][0] or len(known) == 1:
      return known[0][1]
    pairs = list(itertools.pairwise(known))
    (small, less), (large, more) = next(
      (pair for pair in pairs if self.on_chip_bytes <= pair[1][0]), pairs[-1]
    )
    power = math.log(more / less) / math.log(large / small)
    return less * (self.on_chip_bytes / small) ** power


@dataclasses.dataclass(frozen=True)
class LayerEnergy:
  """Picojoules of a layer, or of a whole model, for one example.

  Attributes:
    path: the path of the layer, as in `LayerSummary`.
    arithmetic: multiply-accumulate operations.
    weights: reading the variables once.
    features: writing and reading what its products read.
    shortcuts: writing and reading the shortcuts that it adds.
  """

  path: str
  arithmetic: EnergyBand
  weights: EnergyBand
  features: EnergyBand
  shortcuts: EnergyBand

  @property
  def total(self) -> EnergyBand:
    """The sum of the four."""
    return _sum((self.arithmetic, self.weights, self.features, self.shortcuts))


@dataclasses.dataclass(frozen=True)
class Energy:
  """The energy of a model, layer by layer; ``str`` of it is a table.

  Attributes:
    layers: those of the summary, in its order.
    total: their sum.
    weights_on_chip: whether all variables were taken to lie on the chip.
  """

  layers: tuple[LayerEnergy, ...]
  total: LayerEnergy
  weights_on_chip: bool

  def __str__(self) -> str:
    """Returns a table, each number from the least to the most."""
    unit, size = ('uJ', 1e6) if self.total.total.high >= 1e6 else ('nJ', 1e3)
    parts = ('arithmetic', 'weights', 'features', 'shortcuts', 'total')
    table = [['layer', *parts]]
    for row in (*self.layers, self.total):
      name = 'total' if row is self.total else row.path or '(model)'
      bands = (getattr(row, part) for part in parts)
      table.append(
        [_tables.shorten(name, 24), *(_range(band, size) for band in bands)]
      )
    head, rule, *rows, total = _tables.align(table, 1)
    where = 'on the chip' if self.weights_on_chip else 'in DRAM'
    return '\n'.join(
      [
        head,
        rule,
        *rows,
        rule,
        total,
        '',
        f'{unit} an example; weights {where}',
      ]
    )


def energy(costs: _summary.Summary, table: EnergyTable | None = None) -> Energy:
  """Returns how much energy one example takes.

  Variables lie on the chip if there is room for them beside the largest layer's feature
  maps and shortcuts; else each is read from DRAM once. Feature maps and
  shortcuts of a layer lie on the chip if they fit there; else they are written to DRAM and read.

  Args:
    costs: what `summary` returned.
    table: energies of operations and accesses; None for those of the reference.

  Returns:
    An `Energy`.
  """
  table = EnergyTable() if table is None else table
  near = EnergyBand(table.on_chip_access(), table.on_chip_access())
  most = max((row.moved / 2 for row in costs.layers), default=0.0)
  resident = costs.total.memory + most <= table.on_chip_bytes

  def moved(bits: float, fits: bool) -> EnergyBand:
    return _times(near if fits else table.dram, bits / _ACCESS)

  def of(row: _summary.LayerSummary) -> LayerEnergy:
    fits = row.moved / 2 <= table.on_chip_bytes
    features, shortcuts = (
      sum(2 * bits * number for bits, number in counts.items())
      for counts in (row.features, row.shortcuts)
    )
    return LayerEnergy(
      row.path,
      _sum(_times(table.mac(*bits), n) for bits, n in row.macs.items()),
      moved(8 * row.memory, resident),
      moved(features, fits),
      moved(shortcuts, fits),
    )

  layers = tuple(map(of, costs.layers))
  names = ('arithmetic', 'weights', 'features', 'shortcuts')
  total = (_sum(getattr(row, name) for row in layers) for name in names)
  return Energy(layers, LayerEnergy('', *total), resident)


def _range(band, unit):
  low, high = (f'{side / unit:.3g}' for side in band)
  return low if low == high else f'{low} to {high}'
