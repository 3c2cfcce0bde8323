"""A packed MLP as a chain of matrix-vector units, and its simulation."""

from __future__ import annotations

import dataclasses
import itertools
from typing import NamedTuple

from amaranth.hdl import Module
from amaranth.hdl import Shape
from amaranth.hdl import Signal
from amaranth.lib import fifo
from amaranth.lib import wiring
from amaranth.sim import Simulator
import numpy as np

from bitjax import deploy
from bitjax import nn
from bitjax import packed
from bitjax import types
from hardware.matrix_vector import MatrixVector

__all__ = [
  'Accelerator',
  'Layer',
  'Run',
  'fold',
  'layers_of',
  'simulate',
  'sums_of',
]

_PRODUCTS = {'bytes_dense': 8, 'binary_dense': 1}


class Layer(NamedTuple):
  """A layer of a packed network.

  Attributes:
    weights: ±1, [inputs, outputs].
    low: thresholds, integers [outputs]; None in the last layer.
    flip: booleans [outputs], where an output is turned; None in the last layer.
    input_bits: 8 for bytes, 1 for ±1.
  """

  weights: np.ndarray
  low: np.ndarray | None
  flip: np.ndarray | None
  input_bits: int

  def unit(self, pe: int, simd: int) -> nn.MatrixVectorUnit:
    """Returns the model of cycles and look-up tables of the layer's unit."""
    inputs, outputs = self.weights.shape
    return nn.MatrixVectorUnit(
      inputs=inputs,
      outputs=outputs,
      pe=pe,
      simd=simd,
      input_bits=self.input_bits,
      output_bits=0 if self.low is None else 1,
    )


def layers_of(network: deploy.Network) -> list[Layer]:
  """Returns the layers of a packed MLP of bytes.

  Args:
    network: a packed network whose binary layers follow each other.

  Raises:
    BadInput: for another network; it names the operation.
  """
  layers, ops = [], list(network.ops)
  at = -1
  if ops[0].name == 'reshape':
    at = 0
  while at + 1 < len(ops):
    op = ops[at + 1]
    if op.name not in _PRODUCTS or op.args[0] != at:
      break
    params = dict(op.params)
    words = np.asarray(network.arrays[op.args[1]])
    weights = np.asarray(packed.unpack(words, params['length'], 0))
    low = flip = None
    at += 1
    after = ops[at + 1] if at + 1 < len(ops) else None
    if after is not None and after.name == 'threshold':
      low, flip = (np.asarray(network.arrays[name]) for name in after.args[1:])
      at += 1
    layers.append(Layer(weights, low, flip, _PRODUCTS[op.name]))
    if low is None:
      return layers
  raise types.BadInput(
    'the network must be an MLP of bytes whose layers are all binary, such as '
    f'nn.binary_mlp; operation {at + 1} is {ops[min(at + 1, len(ops) - 1)].name}.'
  )


def sums_of(network: deploy.Network, images: np.ndarray) -> np.ndarray:
  """Returns the sums of the last layer, integers [images, classes].

  They are those of the packed network itself, whose operations after the last product are
  left away.
  """
  last = max(n for n, op in enumerate(network.ops) if op.name in _PRODUCTS)
  cut = dataclasses.replace(network, ops=network.ops[: last + 1])
  return np.asarray(cut(images))


def fold(layers: list[Layer], most_cycles: int) -> list[tuple[int, int]]:
  """Returns ``(pe, simd)`` of each layer, so that a vector takes at most some cycles.

  What a unit puts out at a time is what the next one takes at a time. Of all such choices it is the
  one with the fewest look-up tables by FINN's formula.

  Args:
    layers: the layers.
    most_cycles: cycles of a vector in the slowest unit.

  Raises:
    BadInput: if no choice is as fast.
  """
  # The cheapest way to each width of the stream behind the layers so far.
  ways: dict[int | None, tuple[int, list[tuple[int, int]]]] = {None: (0, [])}
  for layer in layers:
    inputs, outputs = layer.weights.shape
    found: dict[int | None, tuple[int, list[tuple[int, int]]]] = {}
    for before, (luts, chosen) in ways.items():
      for simd in _divisors(inputs) if before is None else (before,):
        if inputs % simd:
          continue
        for pe in _divisors(outputs):
          unit = layer.unit(pe, simd)
          whole = luts + unit.luts
          if (
            unit.cycles <= most_cycles
            and whole < found.get(pe, (whole + 1,))[0]
          ):
            found[pe] = whole, [*chosen, (pe, simd)]
    ways = found
  if not ways:
    raise types.BadInput(
      f'no folding of these layers takes at most {most_cycles} cycles.'
    )
  return min(ways.values(), key=lambda way: way[0])[1]


def _divisors(number):
  return [n for n in range(1, number + 1) if not number % n]


class Accelerator(wiring.Component):
  """Units of all layers, each of which feeds the next.

  Between two of them is a queue of one vector: a unit takes inputs only while it computes its
  first row, and the one before would wait meanwhile.
  """

  def __init__(self, layers: list[Layer], folding: list[tuple[int, int]]):
    """Makes a chain of units.

    Args:
      layers: the layers.
      folding: ``(pe, simd)`` of each; see `fold`.

    Raises:
      BadInput: if a unit does not take what the one before puts out.
    """
    for (pe, _), (_, simd) in itertools.pairwise(folding):
      if pe != simd:
        raise types.BadInput(
          f'a unit with pe={pe} needs simd={pe} in the next; got {simd}.'
        )
    self.units = [
      MatrixVector(
        layer.weights, layer.low, layer.flip, pe=pe, simd=simd,
        input_bits=layer.input_bits,
      )
      for layer, (pe, simd) in zip(layers, folding, strict=True)
    ]  # fmt: skip
    first, last = self.units[0], self.units[-1]
    super().__init__(
      {'i': first.signature.members['i'], 'o': last.signature.members['o']}
    )

  def elaborate(self, platform):
    """Returns the circuit."""
    del platform
    m = Module()
    for number, unit in enumerate(self.units):
      m.submodules[f'unit_{number}'] = unit
    pairs = itertools.pairwise(self.units)
    for number, (unit, following) in enumerate(pairs):
      m.submodules[f'queue_{number}'] = queue = fifo.SyncFIFO(
        width=unit.pe, depth=following.columns
      )
      m.d.comb += [
        queue.w_data.eq(unit.o.payload.as_value()),
        queue.w_en.eq(unit.o.valid),
        unit.o.ready.eq(queue.w_rdy),
        following.i.payload.as_value().eq(queue.r_data),
        following.i.valid.eq(queue.r_rdy),
        queue.r_en.eq(following.i.ready),
      ]
    wiring.connect(m, wiring.flipped(self.i), self.units[0].i)
    wiring.connect(m, self.units[-1].o, wiring.flipped(self.o))
    return m


class Run(NamedTuple):
  """What a simulation gave.

  Attributes:
    outputs: bits or sums, integers [vectors, outputs].
    cycles: the cycle in which each vector's last output was taken, [vectors].
  """

  outputs: np.ndarray
  cycles: np.ndarray


def simulate(
  component: MatrixVector | Accelerator,
  vectors: np.ndarray,
  *,
  taken: list[bool] | None = None,
) -> Run:
  """Streams vectors through a component, cycle by cycle.

  Args:
    component: a unit, or a chain of them.
    vectors: integers [vectors, inputs]; bits for inputs of ±1.
    taken: in which cycles outputs are taken, over and over; None for all cycles.
  """
  units = getattr(component, 'units', [component])
  bits, simd = units[0].input_bits, units[0].simd
  beats = _words(np.asarray(vectors).reshape(-1, simd), bits)
  pe, shape = units[-1].pe, component.o.payload.shape().elem_shape
  num_outputs = units[-1].weights.shape[1]
  m = Module()
  m.submodules.component = component
  cycle = Signal(64)
  m.d.sync += cycle.eq(cycle + 1)
  outputs: list[int] = []
  cycles: list[int] = []

  async def feed(ctx):
    ctx.set(component.i.valid, 1)
    for beat in beats:
      ctx.set(component.i.payload.as_value(), beat)
      await ctx.tick().until(component.i.ready)
    ctx.set(component.i.valid, 0)

  async def collect(ctx):
    pattern = taken or [True]
    step = 0
    payload = component.o.payload.as_value()
    while len(outputs) < len(vectors) * num_outputs:
      ready = pattern[step % len(pattern)]
      step += 1
      ctx.set(component.o.ready, ready)
      _, _, at, valid, value = await ctx.tick().sample(
        cycle, component.o.valid, payload
      )
      if ready and valid:
        outputs.extend(_values(value, pe, shape))
        cycles.append(at)

  simulator = Simulator(m)
  simulator.add_clock(1e-6)
  simulator.add_testbench(feed, background=True)
  simulator.add_testbench(collect)
  simulator.run()
  beats_out = num_outputs // pe
  return Run(
    np.asarray(outputs).reshape(-1, num_outputs),
    np.asarray(cycles)[beats_out - 1 :: beats_out],
  )


def _words(rows, bits):
  """Returns an integer of each row, the first value in its lowest bits."""
  return [
    sum(int(value) << (bits * n) for n, value in enumerate(row)) for row in rows
  ]


def _values(word, number, shape):
  width, is_signed = Shape.cast(shape).width, Shape.cast(shape).signed
  found = [word >> (width * n) & ((1 << width) - 1) for n in range(number)]
  if is_signed:
    found = [v - (1 << width) * (v >> (width - 1)) for v in found]
  return found
