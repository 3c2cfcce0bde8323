r"""A matrix-vector unit: binary weights, streamed inputs, and thresholds, in Amaranth.

The unit multiplies a ±1 matrix of H outputs by W inputs with vectors that stream in, S values
(``simd``) at a time, and computes P outputs (``pe``) at a time. So each vector is read once, in
W / S beats, kept, and used for H / P rows of outputs: (H / P)(W / S) cycles. Each cycle each of the
P elements adds

.. math::
  2\,\mathrm{popcount}(x \odot w) - S \quad\text{or}\quad \sum_i w_i x_i

to its sum, for inputs of one bit (a bit is +1 or -1, :math:`\odot` is XNOR) or of several (unsigned
integers). With thresholds an output is one bit, ``(sum >= low) != flip``; without, the sum.

Streams follow Amaranth's rules: a beat moves when both sides are ready, and a unit whose output
is not taken waits. Outputs are registered; nothing else is pipelined, since what is checked
here are bits, cycles and look-up tables, not the clock.
"""

from __future__ import annotations

from amaranth.hdl import Cat
from amaranth.hdl import Module
from amaranth.hdl import Mux
from amaranth.hdl import Signal
from amaranth.hdl import signed
from amaranth.hdl import unsigned
from amaranth.lib import data
from amaranth.lib import memory
from amaranth.lib import stream
from amaranth.lib import wiring
import numpy as np

__all__ = ['MatrixVector']


class MatrixVector(wiring.Component):
  """The unit; its ports are the streams ``i`` and ``o``."""

  def __init__(
    self,
    weights: np.ndarray,
    low: np.ndarray | None = None,
    flip: np.ndarray | None = None,
    *,
    pe: int = 1,
    simd: int = 1,
    input_bits: int = 1,
  ):
    """Makes a unit.

    Args:
      weights: [inputs, outputs], ±1.
      low: integers [outputs], the thresholds; None for sums as outputs.
      flip: booleans [outputs], where an output is turned.
      pe: outputs that are computed at a time; divides their number.
      simd: inputs that are taken at a time; divides their number.
      input_bits: 1 for inputs of ±1, more for unsigned integers.

    Raises:
      ValueError: for weights that are not ±1, and sizes that do not divide.
    """
    weights = np.asarray(weights)
    if weights.ndim != 2 or not (np.abs(weights) == 1).all():
      raise ValueError('weights must be a matrix of ±1.')
    inputs, outputs = weights.shape
    for name, part, whole in (('pe', pe, outputs), ('simd', simd, inputs)):
      if part < 1 or whole % part:
        raise ValueError(f'{name} must divide {whole}; got {part}.')
    self.weights, self.pe, self.simd = weights > 0, pe, simd
    self.input_bits = input_bits
    # The largest sum, and the integer above it, which no sum reaches.
    self.most = inputs * (2**input_bits - 1)
    self.sum_shape = signed((self.most + 1).bit_length() + 1)
    self.low = low
    self.flip = flip
    shape = self.sum_shape if low is None else unsigned(1)
    super().__init__(
      {
        'i': wiring.In(
          stream.Signature(data.ArrayLayout(unsigned(input_bits), simd))
        ),
        'o': wiring.Out(stream.Signature(data.ArrayLayout(shape, pe))),
      }
    )

  @property
  def rows(self) -> int:
    """How often a vector is used."""
    return self.weights.shape[1] // self.pe

  @property
  def columns(self) -> int:
    """Beats of a vector."""
    return self.weights.shape[0] // self.simd

  @property
  def registers(self) -> int:
    """Bits that it keeps, but for the vector: sums, outputs and counters."""
    counts = self.rows, self.columns, self.rows * self.columns
    counters = sum((count - 1).bit_length() for count in counts)
    output = self.o.payload.as_value()
    return self.pe * self.sum_shape.width + len(output) + 1 + counters

  def elaborate(self, platform):
    """Returns the circuit."""
    del platform
    m = Module()
    row, column = Signal(range(self.rows)), Signal(range(self.columns))
    place = Signal(range(self.rows * self.columns))
    first, last = Signal(), Signal()
    free, go = Signal(), Signal()
    m.d.comb += [
      first.eq(row == 0),
      last.eq(column == self.columns - 1),
      free.eq(~self.o.valid | self.o.ready | ~last),
      go.eq((self.i.valid | ~first) & free),
      self.i.ready.eq(first & free),
    ]
    beat = self._inputs(m, first, column, go)
    registers, sums = self._sums(m, beat, place, column)
    with m.If(self.o.ready):
      m.d.sync += self.o.valid.eq(0)
    with m.If(go):
      m.d.sync += [column.eq(column + 1), place.eq(place + 1)]
      with m.If(last):
        m.d.sync += [column.eq(0), row.eq(row + 1), self.o.valid.eq(1)]
        for out, value in zip(
          self.o.payload, self._outputs(m, sums, row), strict=True
        ):
          m.d.sync += out.eq(value)
        with m.If(row == self.rows - 1):
          m.d.sync += [row.eq(0), place.eq(0)]
      for register, value in zip(registers, sums, strict=True):
        m.d.sync += register.eq(value)
    return m

  def _inputs(self, m, first, column, go):
    """Returns the present beat: from the stream, or as it was kept from there."""
    given = self.i.payload.as_value()
    if self.rows == 1:
      return self.i.payload
    m.submodules.kept = kept = memory.Memory(
      shape=unsigned(len(given)), depth=self.columns, init=[]
    )
    write, read = kept.write_port(), kept.read_port(domain='comb')
    beat = Signal(self.i.payload.shape())
    m.d.comb += [
      write.addr.eq(column),
      write.data.eq(given),
      write.en.eq(go & first),
      read.addr.eq(column),
      beat.as_value().eq(Mux(first, given, read.data)),
    ]
    return beat

  def _sums(self, m, beat, place, column):
    """Returns the registers of the sums, and the sums with the present beat."""
    words = self.weights.T.reshape(self.rows, self.pe, self.columns, self.simd)
    words = words.transpose(0, 2, 1, 3).reshape(-1, self.pe * self.simd)
    weights = _read_only(m, 'weights', words, place)
    registers, sums = [], []
    for element in range(self.pe):
      bits = weights[element * self.simd : (element + 1) * self.simd]
      if self.input_bits == 1:
        equal = ~(Cat(*beat) ^ bits)
        added = 2 * _tree([equal[n] for n in range(self.simd)]) - self.simd
      else:
        added = _tree(
          [Mux(bits[n], beat[n], -beat[n]) for n in range(self.simd)]
        )
      register = Signal(self.sum_shape, name=f'sum_{element}')
      total = Signal(self.sum_shape, name=f'total_{element}')
      m.d.comb += total.eq(Mux(column == 0, 0, register) + added)
      registers.append(register)
      sums.append(total)
    return registers, sums

  def _outputs(self, m, sums, row):
    if self.low is None:
      return sums
    # No sum is outside of [-most, most], so neither need a threshold be.
    low = np.clip(self.low, -self.most, self.most + 1)
    low = low.astype(np.int64).reshape(self.rows, self.pe, 1)
    width = self.sum_shape.width
    bits = low >> np.arange(width) & 1
    flip = np.asarray(self.flip, np.int64).reshape(self.rows, self.pe, 1)
    words = np.concatenate([bits, flip], 2).reshape(self.rows, -1)
    found = _read_only(m, 'thresholds', words, row)
    outputs = []
    for element, total in enumerate(sums):
      own = found[element * (width + 1) : (element + 1) * (width + 1)]
      outputs.append((total >= own[:width].as_signed()) ^ own[width])
    return outputs


def _read_only(m, name, words, address):
  """Returns the word at an address of a memory of [words, bits]."""
  init = [
    int(''.join('01'[bit] for bit in word[::-1]), 2) for word in words * 1
  ]
  if len(init) == 1:
    value = Signal(words.shape[1], init=init[0], name=name)
    return value
  m.submodules[name] = store = memory.Memory(
    shape=unsigned(words.shape[1]), depth=len(init), init=init
  )
  read = store.read_port(domain='comb')
  m.d.comb += read.addr.eq(address)
  return read.data


def _tree(values):
  """Returns a sum by pairs."""
  while len(values) > 1:
    rest = values[len(values) // 2 * 2 :]
    values = [a + b for a, b in zip(values[::2], values[1::2], strict=False)]
    values += rest
  return values[0]
