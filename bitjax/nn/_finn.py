r"""What a streaming matrix-vector unit takes on an FPGA: look-up tables and cycles.

The unit multiplies a matrix of H outputs by W inputs with vectors that stream in. Each cycle P
processing elements (``pe``) take S inputs (``simd``), so a vector takes
:math:`(H / P)(W / S)` cycles. With inputs of a bits, weights of w bits, outputs of o bits and sums
of s bits, it takes about

.. math::
  300 + 1.1 P \bigl[S (2 \lceil (w + a) / 6 \rceil - 1)(w + a) + (w + a)(2 S - 1)
    + s + (2^o - 1) s (\lceil t / 64 \rceil + 1)\bigr]
    + P S w \lceil m / 64 \rceil

look-up tables (LUTs): multipliers, an adder tree, the accumulator, thresholds (t = H / P for each
element) with comparators, and the weights (m = W H / (P S) words), of which the last two count
where they lie in LUTs and not in block memory.

References:
  The model of resources of FINN's matrix-vector-activation unit; Umuroglu et al., FINN: a
  framework for fast, scalable binarized neural network inference, 2017.
"""

from __future__ import annotations

import dataclasses
import math

from bitjax import types
from bitjax.nn import _summary

__all__ = ['MatrixVectorUnit']

_LUT_DEPTH = 64  # Words of a memory that one LUT holds a bit of.


@dataclasses.dataclass(frozen=True)
class MatrixVectorUnit:
  """A matrix-vector unit of FINN's kind.

  Attributes:
    inputs: width of the matrix, W; of a convolution all values of a patch.
    outputs: height of the matrix, H.
    pe: outputs that are computed at a time, P; divides ``outputs``.
    simd: inputs that are taken at a time, S; divides ``inputs``.
    vectors: vectors of an example: 1, or the positions of a convolution's output.
    input_bits: bits of an input.
    weight_bits: bits of a weight.
    output_bits: bits of an output; 0 if sums leave the unit without thresholds.
    weights_in_luts: whether the weights, and thresholds, lie in LUTs.
  """

  inputs: int
  outputs: int
  pe: int = 1
  simd: int = 1
  vectors: int = 1
  input_bits: int = 1
  weight_bits: int = 1
  output_bits: int = 1
  weights_in_luts: bool = True

  def __post_init__(self):
    for name in ('inputs', 'outputs', 'pe', 'simd', 'vectors'):
      types.check_integer(name, getattr(self, name), 1)
    for name in ('input_bits', 'weight_bits'):
      types.check_integer(name, getattr(self, name), 1)
    types.check_integer('output_bits', self.output_bits, 0)
    for part, whole in (('pe', 'outputs'), ('simd', 'inputs')):
      if getattr(self, whole) % getattr(self, part):
        raise types.BadInput(
          f'{part} must divide {whole} = {getattr(self, whole)}; got '
          f'{getattr(self, part)}.'
        )

  @classmethod
  def of(
    cls, layer: _summary.LayerSummary, *, pe: int = 1, simd: int = 1,
    output_bits: int = 1, weights_in_luts: bool = True,
  ) -> MatrixVectorUnit:  # fmt: skip
    """Returns the unit of a layer.

    Args:
      layer: a row of what `summary` returned, with MACs.
      pe: as in the class.
      simd: as in the class.
      output_bits: as in the class.
      weights_in_luts: as in the class.

    Raises:
      BadInput: for a layer without MACs, and for ``pe`` and ``simd`` that do not
        divide its size.
    """
    if not layer.macs or not layer.output_shape:
      raise types.BadInput(
        f'layer must have MACs; {layer.path or layer.kind} has none.'
      )
    ((input_bits, weight_bits), macs), *_ = layer.macs.items()
    *positions, outputs = layer.output_shape
    vectors = math.prod(positions)
    return cls(
      inputs=macs // (vectors * outputs),
      outputs=outputs,
      pe=pe,
      simd=simd,
      vectors=vectors,
      input_bits=input_bits,
      weight_bits=weight_bits,
      output_bits=output_bits,
      weights_in_luts=weights_in_luts,
    )

  @property
  def sum_bits(self) -> int:
    """Bits of the sums."""
    grown = math.ceil(math.log2(self.inputs))
    return self.weight_bits + self.input_bits + grown

  @property
  def cycles(self) -> int:
    """Cycles of an example."""
    rows, columns = self.outputs // self.pe, self.inputs // self.simd
    return rows * columns * self.vectors

  @property
  def luts(self) -> int:
    """Look-up tables, rounded down."""
    bits = self.weight_bits + self.input_bits
    multipliers = self.simd * (2 * math.ceil(bits / 6) - 1) * bits
    adders = bits * (2 * self.simd - 1)
    levels = 2**self.output_bits - 1
    thresholds = comparators = weights = 0
    if self.weights_in_luts:
      depth = math.ceil(self.outputs // self.pe / _LUT_DEPTH)
      thresholds = levels * self.sum_bits * depth
      comparators = levels * self.sum_bits
      words = self.inputs * self.outputs // (self.pe * self.simd)
      width = self.pe * self.simd * self.weight_bits
      weights = width * math.ceil(words / _LUT_DEPTH)
    element = multipliers + adders + self.sum_bits + thresholds + comparators
    return int(300 + 1.1 * self.pe * element + weights)
