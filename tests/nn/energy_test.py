"""Energies and FPGA resources, against numbers worked out by hand."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import types

SIGN = quantizers.attach(quantizers.sign(), quantizers.identity())
IMAGES = jax.ShapeDtypeStruct((1, 32, 32, 3), 'float32')
BIT = nn.EnergyBand(0.00375, 0.03)


class TestTable:
  """Energies of single operations and accesses."""

  @pytest.mark.parametrize(
    ('bits', 'low', 'high'),
    [
      ((1, 1), 0.00375, 0.03),
      ((2, 2), 4 * 0.00375, 4 * 0.03),
      ((8, 1), 8 * 0.00375, 0.1),  # An addition of 32 bits is less.
      ((8, 8), 64 * 0.00375, 0.3),  # A product and an addition.
      ((32, 1), 0.9, 0.9),
      ((1, 32), 0.9, 0.9),
      ((32, 2), 4.6, 4.6),
      ((16, 16), 1.5, 1.5),
      ((16, 1), 0.4, 0.4),
      ((32, 32), 4.6, 4.6),
    ],
  )
  def test_operations(self, bits, low, high):
    got = nn.EnergyTable().mac(*bits)
    assert got == pytest.approx((low, high), rel=1e-12)
    assert got.middle == pytest.approx(math.sqrt(low * high))

  @pytest.mark.parametrize(
    ('capacity', 'wanted'),
    [
      (0, 10),
      (8 << 10, 10),
      (16 << 10, math.sqrt(200)),
      (32 << 10, 20),
      (1 << 20, 100),
      (1 << 25, 500),
    ],
  )
  def test_accesses(self, capacity, wanted):
    table = nn.EnergyTable(on_chip_bytes=capacity)
    assert table.on_chip_access() == pytest.approx(wanted, rel=1e-12)

  @pytest.mark.parametrize(
    ('change', 'words'),
    [
      ({'dram': (2.0, 1.0)}, 'dram must be'),
      ({'dram': (0.0, 1.0)}, 'dram must be'),
      ({'on_chip': {}}, 'at least one capacity'),
      ({'on_chip': {0: 1.0}}, 'on_chip: capacities'),
      ({'on_chip': {8: -1.0}}, 'on_chip: energies'),
      ({'add_int8': 0.0}, 'add_int8 must be'),
      ({'on_chip_bytes': -1}, 'on_chip_bytes must be'),
    ],
  )
  def test_bad_input(self, change, words):
    with pytest.raises(types.BadInput, match=words):
      nn.EnergyTable(**change)


class TestEnergy:
  """Energies of networks."""

  def test_a_binary_mlp(self):
    images = jax.ShapeDtypeStruct((3, 28, 28, 1), 'uint8')
    got = nn.energy(nn.summary(nn.binary_mlp(), images))
    assert got.weights_on_chip
    low, high = got.total.arithmetic
    assert low == pytest.approx(0.00375 * (8 * 200_704 + 68_096))
    assert high == pytest.approx(0.1 * 200_704 + 0.03 * 68_096)
    each = 100 / 64  # Picojoules a bit in a memory of 1 MiB.
    assert got.total.weights == pytest.approx((each * 268_800,) * 2)
    assert got.total.features.low == pytest.approx(each * 2 * (8 * 784 + 512))
    assert got.total.shortcuts == (0, 0)
    assert got.layers[1].total.low == pytest.approx(
      0.00375 * 65_536 + each * (65_536 + 512)
    )
    assert str(got).splitlines()[-1] == 'nJ an example; weights on the chip'

  def test_what_does_not_fit_on_the_chip_comes_from_dram(self):
    images = jax.ShapeDtypeStruct((1, 784), 'float32')
    costs = nn.summary(nn.full_precision_mlp(), images)
    got = nn.energy(costs)
    assert not got.weights_on_chip
    per_bit = 1300 / 64
    assert got.total.weights.low == pytest.approx(per_bit * 32 * 268_800)
    assert got.total.weights.high == pytest.approx(2 * got.total.weights.low)
    values = 32 * (784 + 256 + 256)
    assert got.total.features.low == pytest.approx(2 * values * 100 / 64)
    small = nn.energy(costs, nn.EnergyTable(on_chip_bytes=0))
    assert small.total.features.low == pytest.approx(2 * values * per_bit)
    large = nn.energy(costs, nn.EnergyTable(on_chip_bytes=1 << 22))
    assert large.weights_on_chip
    assert 'uJ an example; weights in DRAM' in str(got)

  def test_equal_operations_and_unequal_energy(self):
    """A shortcut around every convolution costs no operation, and two thirds more."""
    plain, bireal = (
      nn.summary(
        nn.resnet20(
          variant=variant, kernel_quantizer=SIGN, input_quantizer=SIGN
        ),
        IMAGES,
      )
      for variant in ('plain', 'bireal')
    )
    assert plain.total.operations == bireal.total.operations
    low, high = nn.energy(plain).total, nn.energy(bireal).total
    assert high.total.low > 1.5 * low.total.high
    assert high.shortcuts.low == 2 * low.shortcuts.low
    assert high.shortcuts.low > 0.75 * high.total.high

  def test_a_total_is_the_sum_of_its_layers(self):
    got = nn.energy(nn.summary(nn.binary_mlp(hidden=(3, 5)), jnp.zeros((1, 7))))
    for side in (0, 1):
      assert got.total.total[side] == pytest.approx(
        math.fsum(row.total[side] for row in got.layers)
      )


class TestMatrixVectorUnit:
  """FINN's model."""

  def test_by_hand(self):
    # Sums of 144 products of 1 by 1 bit: 1 + 1 + 8 bits.
    unit = nn.MatrixVectorUnit(144, 16, pe=4, simd=12, vectors=1024)
    assert unit.sum_bits == 10
    assert unit.cycles == 4 * 12 * 1024
    # Multipliers 12 * 1 * 2, adders 2 * 23, sum 10, threshold 10, comparator 10.
    element = 24 + 46 + 10 + 10 + 10
    # 48 words of 48 bits.
    assert unit.luts == int(300 + 1.1 * 4 * element + 48)

  def test_more_bits_and_block_memory(self):
    unit = nn.MatrixVectorUnit(
      *(64, 128, 2, 8, 1), input_bits=4, weight_bits=3, output_bits=2
    )
    # ceil(7 / 6) = 2; 3 + 4 + 6 = 13 bits; 64 thresholds of an element: one deep.
    element = 8 * 3 * 7 + 7 * 15 + 13 + 3 * 13 * 1 + 3 * 13
    assert unit.luts == int(300 + 1.1 * 2 * element + 2 * 8 * 3 * 8)
    block = dataclasses.replace(unit, weights_in_luts=False)
    assert block.luts == int(300 + 1.1 * 2 * (8 * 3 * 7 + 7 * 15 + 13))
    bare = dataclasses.replace(unit, output_bits=0)
    assert bare.luts == int(300 + 1.1 * 2 * (168 + 105 + 13) + 384)

  def test_of_a_layer(self):
    model = nn.resnet20(kernel_quantizer=SIGN, input_quantizer=SIGN)
    rows = {row.path: row for row in nn.summary(model, IMAGES).layers}
    got = nn.MatrixVectorUnit.of(rows['Block_0/Conv_0'], pe=4, simd=12)
    assert got == nn.MatrixVectorUnit(144, 16, 4, 12, 1024)
    dense = nn.MatrixVectorUnit.of(rows['Dense_0'], output_bits=0)
    assert (dense.inputs, dense.outputs, dense.vectors) == (64, 10, 1)
    with pytest.raises(types.BadInput, match='Block_0 has none'):
      nn.MatrixVectorUnit.of(rows['Block_0'])

  @pytest.mark.parametrize('change', [{'pe': 3}, {'simd': 5}])
  def test_parts_divide_the_whole(self, change):
    with pytest.raises(types.BadInput, match='must divide'):
      nn.MatrixVectorUnit(144, 16, **change)
