"""Fieller's interval against its definition, and its coverage by simulation."""

import math

import numpy as np
import pytest
from scipy import optimize
from scipy import stats

from bitjax import evidence


def _inverted(part, whole, level=0.95):
  """Returns the ratios at which a t test of part - ratio * whole has p = 1 - level."""

  def excess(ratio):
    return stats.ttest_1samp(part - ratio * whole, 0).pvalue - (1 - level)

  ratio = part.mean() / whole.mean()
  return (
    optimize.brentq(excess, ratio - 50, ratio, xtol=1e-13),
    optimize.brentq(excess, ratio, ratio + 50, xtol=1e-13),
  )


@pytest.mark.parametrize('num', [3, 8, 30])
@pytest.mark.parametrize('joint', [-0.9, 0.0, 0.9])
def test_the_t_test_rejects_what_lies_outside(num, joint):
  rng = np.random.default_rng(num)
  whole = rng.normal(size=num)
  part = joint * whole + 0.5 * rng.normal(size=num) + 1
  whole = whole + 10
  found = evidence.share(part, whole)
  np.testing.assert_allclose(
    (found.low, found.high), _inverted(part, whole), rtol=1e-9
  )
  assert found.mean == pytest.approx(part.mean() / whole.mean())


@pytest.mark.parametrize('joint', [0.0, 2.0])
def test_coverage_where_the_whole_is_noisy(joint):
  """The whole lies 4 standard errors above 0; a fixed denominator covers less."""
  rng = np.random.default_rng(0)
  truth, hits = joint, []
  for _ in range(1000):
    whole = 1 + 0.7 * rng.normal(size=8)
    part = joint * whole + 0.3 * rng.normal(size=8)
    found = evidence.share(part, whole)
    if not math.isnan(found.mean):
      hits.append(found.low <= truth <= found.high)
  assert len(hits) > 500
  assert 0.93 <= np.mean(hits) <= 0.97


@pytest.mark.parametrize('whole', [-1.0, 0.0, 0.1])
def test_a_share_of_what_may_be_nothing_is_not_defined(whole):
  noise = np.random.default_rng(0).normal(size=(2, 12))
  noise -= noise.mean(axis=1, keepdims=True)
  found = evidence.share(1 + noise[0], whole + noise[1])
  assert math.isnan(found.mean)
  assert (found.low, found.high, found.num) == (-math.inf, math.inf, 12)


def test_proportional_samples_have_an_exact_share():
  whole = np.random.default_rng(0).uniform(1, 2, size=9)
  found = evidence.share(0.1 * whole, whole)
  np.testing.assert_allclose(
    (found.low, found.mean, found.high), 0.1, rtol=1e-7
  )
  assert evidence.share(np.full(9, 0.1), np.full(9, 0.3)).low == pytest.approx(
    1 / 3, rel=1e-12
  )


def test_pairs_are_dropped_together_and_repeats_are_averaged():
  rng = np.random.default_rng(0)
  part, whole = rng.uniform(1, 2, size=(2, 9, 3))
  found = evidence.share(part, whole)
  assert found == evidence.share(part.mean(axis=1), whole.mean(axis=1))
  part[2], whole[4] = np.nan, np.inf
  kept = np.delete(np.arange(9), [2, 4])
  some, rest = (
    evidence.share(part, whole),
    evidence.share(part[kept], whole[kept]),
  )
  assert (some.low, some.high) == (rest.low, rest.high)
  assert (some.num, some.dropped, some.total) == (7, 6, 27)


def test_samples_of_other_shapes_are_no_pairs():
  """Not even where they would broadcast: one number a seed, and one a repeat."""
  with pytest.raises(ValueError, match='of one shape'):
    evidence.share(np.ones((4, 4)), np.ones(4))


def test_bounds():
  part = np.array([0.9, 1.0, 0.8, 1.0, 0.7])
  free = evidence.share(part, np.ones(5))
  kept = evidence.share(part, np.ones(5), bounds=(0, 1))
  assert free.high > kept.high == 1 and free.low == kept.low
