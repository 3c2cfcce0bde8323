"""What networks cost, which cost the same, and the fastest chain of units, by enumeration."""

import itertools
import math

import jax
import numpy as np
import pytest

from bitjax import nn
from bitjax.studies.hardware import accelerators
from bitjax.studies.hardware import accounts
from bitjax.studies.hardware import arms as arms_lib
from bitjax.studies.hardware import boolnet
from bitjax.studies.recipes import families

BYTES = jax.ShapeDtypeStruct((1, 6), 'uint8')


def divisors(number):
  return [d for d in range(1, number + 1) if number % d == 0]


@pytest.mark.parametrize('luts', [2000, 1000, 1150, 950, 10**6])
def test_the_fastest_chain_is_the_best_of_all_foldings(luts):
  family = families.Family('mlp', (6,), 4, {})
  costs = nn.summary(family.model(families.Cell('1', 3)), BYTES)
  rows = [row for row in costs.layers if row.macs]
  sizes = [(3, 6), (3, 3), (4, 3)]  # Outputs and inputs.
  outputs = [1, 1, 0]  # Bits.
  best = None
  folds = [
    [(pe, simd) for pe in divisors(h) for simd in divisors(w)] for h, w in sizes
  ]
  for chosen in itertools.product(*folds):
    units = [
      nn.MatrixVectorUnit.of(row, pe=pe, simd=simd, output_bits=bits)
      for row, (pe, simd), bits in zip(rows, chosen, outputs, strict=True)
    ]
    if sum(unit.luts for unit in units) <= luts:
      interval = max(unit.cycles for unit in units)
      best = interval if best is None else min(best, interval)
  found = accelerators.fastest(costs, luts)
  if best is None:
    assert found is None
  else:
    assert found.interval == best and found.luts <= luts
    assert found.interval <= found.latency <= 3 * found.interval


def test_floats_have_no_unit():
  family = families.Family('mlp', (6,), 4, {})
  image = jax.ShapeDtypeStruct((1, 6), 'float32')
  costs = nn.summary(family.model(families.Cell('32', 3)), image)
  assert accelerators.fastest(costs, 10**6) is None


def test_equal_costs():
  family = families.Family('mlp', (3, 3, 1), 5, {})
  bits = ('1', '4', '32')
  costs = {
    'energy': lambda cell: family.energy(cell).middle,
    'memory': lambda cell: family.costs(cell).total.memory,
  }
  rows = arms_lib.series(family, bits, 5)
  for name, cost in costs.items():
    assert rows[name][1] == families.Cell('4', 5)
    target = cost(rows[name][1])
    for own, cell in zip(bits, rows[name], strict=True):
      if own == '4':
        continue
      errors = {  # Costs grow with the width, so neighbours tell.
        width: abs(math.log(cost(families.Cell(own, width)) / target))
        for width in (cell.width - 1, cell.width, cell.width + 1)
        if width
      }
      assert errors[cell.width] == min(errors.values()), (name, own)
  cells = arms_lib.every(family, bits, (5, 2), 5)
  assert len(set(cells)) == len(cells)
  assert {*cells} == {
    *(families.Cell(b, w) for b in bits for w in (2, 5)),
    *rows['energy'],
    *rows['memory'],
  }


def test_counted_networks(monkeypatch):
  name = 'ResNet-20, W1A1, Bi-Real'
  monkeypatch.setattr(accounts, 'COUNTED', {name: accounts.COUNTED[name]})
  found = accounts.counted()
  assert found.counted.values.tolist() == [name]
  # docs/costs.md: 2.2 to 3.2, 0.61, 0.89 and 17.2 microjoules.
  energy = found.counted_energy.sel(counted=name)
  np.testing.assert_allclose(
    energy.sel(side='low').values, [2.19, 0.609, 0.89, 17.2], rtol=5e-3
  )
  np.testing.assert_allclose(
    energy.sel(part='arithmetic', side='high'), 3.24, rtol=5e-3
  )
  # Of the layers in full precision, the first and the last, 442 368 and 640 products of
  # 4.6 picojoules.
  real = found.float_energy.sel(counted=name, part='arithmetic')
  np.testing.assert_allclose(real, 4.6e-6 * (442_368 + 640), rtol=1e-6)


def test_published_operations():
  """Ours lack some four million of normalisations, and so on, that they count."""
  found = boolnet.counted()
  ratio = found.boolnet_operations / found.published_operations
  np.testing.assert_allclose(ratio, 1, atol=0.035)


def test_a_network_of_slices_by_hand():
  total = boolnet.summary(boolnet.PUBLISHED['BaseNet, k = 4'].design).total
  first, last = 64 * 3 * 49 * 112**2, 512 * 1000
  assert total.flops == first + last
  stages = [(64, 56), (128, 28), (256, 14), (512, 7)]
  binary = sum(4 * 9 * out**2 * side**2 for out, side in stages)
  # The first convolution of a stage has half as many inputs; shortcuts read all slices.
  binary -= sum(9 * out**2 * side**2 // 2 for out, side in stages[1:])
  binary += sum(2 * out**2 * (2 * side) ** 2 for out, side in stages[1:])
  assert total.macs[1, 1] == binary
  read = sum(4 * 4 * out * side**2 for out, side in stages)
  # First convolutions read maps of twice the side and half the channels, twice in all.
  read += sum(4 * out * side**2 * (2 - 1) for out, side in stages[1:])
  read += sum(4 * out * side**2 * 2 for out, side in stages[1:])
  assert total.features[1] == read
  assert total.shortcuts == {1: sum(16 * out * side**2 for out, side in stages)}
