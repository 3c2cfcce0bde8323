"""What networks cost, which cost the same, and what disturbs them."""

import math

import jax
import numpy as np
import pytest

from bitjax import data
from bitjax.studies.bits_vs_width import arms as arms_lib
from bitjax.studies.bits_vs_width import disturbed
from bitjax.studies.recipes import families
from tests.studies.bits_vs_width import counted


@pytest.fixture(scope='module')
def mlps():
  return families.Family('mlp', (3, 3, 1), 5, {})


@pytest.mark.parametrize('bits', families.BITS)
def test_costs_by_hand(mlps, bits):
  width, cell = 7, families.Cell(bits, 7)
  first, rest = 9 * width, width * width + width * 5
  assert mlps.weights(cell) == first + rest
  exact = {'1.58': math.log2(3)}.get(bits, float(bits))
  np.testing.assert_allclose(mlps.total_bits(cell), exact * (first + rest))
  stored = math.ceil(exact)
  if bits == '32':
    wanted = first + rest
  else:  # Images have 8 bits, activations as many as weights.
    wanted = (8 * stored * first + stored**2 * rest) / 64
  assert mlps.operations(cell) == wanted


def test_convolutions_count_where_they_are_quantized():
  family = families.Family('resnet8', (8, 8, 3), 10, {})
  cell = families.Cell('1', 4)
  # Six convolutions in three blocks; not the first, nor the classifier.
  kernels = 4 * 4 * 2 + 4 * 8 + 8 * 8 + 8 * 16 + 16 * 16
  assert family.weights(cell) == 9 * kernels


@pytest.mark.parametrize('target', [0.5, 1, 5, 24, 25, 36, 40, 1000])
def test_matching_finds_the_nearest_of_all_widths(target):
  def cost(width):
    return width * width + 3.0

  wanted = min(range(1, 100), key=lambda w: abs(math.log(cost(w) / target)))
  assert families.matching(cost, target) == wanted


def test_series_and_arms():
  mlps = counted.Counted()
  bits, equal = ('1', '4', '32'), ('bits', 'width', 'operations')
  rows = arms_lib.series(mlps, bits, equal, 6)
  assert [cell.width for cell in rows['width']] == [6, 6, 6]
  for cost, name in (
    (mlps.total_bits, 'bits'),
    (mlps.operations, 'operations'),
  ):
    assert rows[name][1] == families.Cell('4', 6)
    for cell in rows[name]:
      target = cost(rows[name][1])
      others = [cell._replace(width=max(1, cell.width + d)) for d in (-1, 0, 1)]
      nearest = min(others, key=lambda c: abs(math.log(cost(c) / target)))
      assert cost(nearest) == cost(cell)
  arms = arms_lib.every(mlps, bits, (3, 6), arms_lib.KINDS, equal, 6)
  assert len(set(arms)) == len(arms)
  scratch = {arm.cell for arm in arms if arm.kind == 'scratch'}
  grid = {families.Cell(b, w) for b in bits for w in (3, 6)}
  assert scratch == grid | {cell for row in rows.values() for cell in row}
  for kind in ('random', 'projected'):
    few = {arm.cell for arm in arms if arm.kind == kind}
    assert few == {*rows['bits'], *rows['width']}
  only = arms_lib.every(mlps, bits, (3,), ('scratch',), ('bits',), 6)
  assert {arm.cell for arm in only} == {
    *rows['bits'], *(families.Cell(b, 3) for b in bits)
  }  # fmt: skip


def test_noise():
  images = np.full((500, 4, 4, 1), 8, np.uint8)
  labels = np.zeros(500, np.int32)
  plain = data.Dataset('half', 'test', images, labels, 10, 1 / 16)
  same = disturbed.noisy(plain, 0.0)
  np.testing.assert_array_equal(same.images, images)
  for noise in (0.1, 0.2):
    found = disturbed.noisy(plain, noise)
    assert found.images.max() <= 16 and found.scale == plain.scale
    # Rounding adds the variance of a uniform number.
    wanted = math.sqrt((16 * noise) ** 2 + 1 / 12)
    np.testing.assert_allclose(found.images.std(), wanted, rtol=0.05)
    again = disturbed.noisy(plain, noise)
    np.testing.assert_array_equal(found.images, again.images)


def test_flips():
  variables = {
    'params': {
      'Dense_0': {'kernel': np.ones((2, 40, 50)), 'bias': np.ones((2, 9))},
      'Conv_0': {'kernel': np.ones((2, 40, 50))},
    },
    'batch_stats': {'Dense_0': {'kernel': np.ones((2, 9))}},
  }
  found = disturbed.flipped(variables, [3, 4], 0.1, r'Dense_\d')
  kernel = found['params']['Dense_0'].pop('kernel')
  assert set(np.unique(kernel)) == {-1, 1}
  np.testing.assert_allclose((kernel < 0).mean((1, 2)), 0.1, atol=0.03)
  assert (kernel[0] != kernel[1]).any()
  rest = jax.tree.leaves(found)
  assert all((leaf == 1).all() for leaf in rest)
  one = disturbed.flipped(variables, [3, 4], 1.0, r'Dense_\d')
  assert (one['params']['Dense_0']['kernel'] == -1).all()
  alone = disturbed.flipped(
    jax.tree.map(lambda leaf: leaf[1:], variables), [4], 0.1, r'Dense_\d'
  )
  np.testing.assert_array_equal(
    alone['params']['Dense_0']['kernel'][0], kernel[1]
  )
