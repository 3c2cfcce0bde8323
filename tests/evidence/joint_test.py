"""Intervals of several arms at once: coverage by simulation, width, known answers."""

import math

import numpy as np
import pytest
from scipy import stats

from bitjax import evidence
from bitjax.evidence import joint

FEW = {'num_resamples': 1000}


def _joint_coverage(draws, truth=0.0):
  """Returns how often all intervals cover, and the mean half-width in standard errors."""
  hits, widths = [], []
  for rows in draws:
    found = evidence.simultaneous(rows, **FEW)
    hits.append(all(each.low <= truth <= each.high for each in found))
    error = np.std(rows[0], ddof=1) / math.sqrt(len(rows[0]))
    widths.append((found[0].high - found[0].low) / 2 / error)
  return np.mean(hits), np.mean(widths)


@pytest.mark.parametrize(('num', 'arms', 'shared'), [(8, 5, 0.3), (30, 5, 0.5)])
def test_all_arms_are_covered_at_once(num, arms, shared):
  rng = np.random.default_rng(num)
  common = rng.normal(size=(200, 1, num))
  own = rng.normal(size=(200, arms, num))
  draws = math.sqrt(shared) * common + math.sqrt(1 - shared) * own
  coverage, width = _joint_coverage(draws)
  assert coverage >= 0.905  # 0.95 minus three standard errors.
  bonferroni = stats.t.ppf(1 - 0.025 / arms, num - 1)
  assert width < 1.03 * bonferroni


@pytest.mark.slow
@pytest.mark.parametrize('num', [4, 8, 12, 19, 24])
@pytest.mark.parametrize('arms', [2, 6, 36])
@pytest.mark.parametrize('shared', [0.0, 0.5, 0.9])
def test_all_arms_are_covered_at_once_for_many_sizes(num, arms, shared):
  rng = np.random.default_rng(num + arms)
  common = rng.normal(size=(1000, 1, num))
  own = rng.normal(size=(1000, arms, num))
  draws = math.sqrt(shared) * common + math.sqrt(1 - shared) * own
  coverage, width = _joint_coverage(draws)
  assert 0.93 <= coverage <= 0.985
  bonferroni = stats.t.ppf(1 - 0.025 / arms, num - 1)
  assert width < (1.03 if num < joint.FEW else 1.25) * bonferroni


@pytest.mark.parametrize('num', [2, 5, 12])
def test_one_arm_has_the_interval_of_t(num):
  rows = np.random.default_rng(num).normal(size=(1, num))
  (found,) = evidence.simultaneous(rows)
  expected = stats.t.interval(
    0.95, num - 1, rows.mean(), stats.sem(rows[0], ddof=1)
  )
  np.testing.assert_allclose((found.low, found.high), expected, rtol=1e-9)


def test_equal_arms_are_one_arm():
  row = np.random.default_rng(0).normal(size=12)
  (alone,) = evidence.simultaneous([row])
  for found in evidence.simultaneous([row, row, 2 * row]):
    assert (found.high - found.low) / found.mean == pytest.approx(
      (alone.high - alone.low) / alone.mean, rel=0.02
    )


@pytest.mark.parametrize('num', [12, 20])
def test_wider_than_each_alone_and_constants(num):
  values = np.random.default_rng(0).normal(size=(6, num))
  values[2] = 4.0
  together = evidence.simultaneous(values)
  for row, found in zip(values, together, strict=True):
    alone = evidence.interval(row)
    assert found.low <= alone.low and alone.high <= found.high
  assert (together[2].low, together[2].high) == (4.0, 4.0)
  values[0, 3] = math.nan
  again = evidence.simultaneous(values)
  assert {(f.num, f.dropped, f.total) for f in again} == {(num - 1, 1, num)}


@pytest.mark.parametrize('num', [3, 8, 30])
def test_equal_samples_do_not_vary_by_the_rounding_of_their_mean(num):
  equal = np.full(num, 0.1)
  noise = np.random.default_rng(num).normal(size=num)
  (alone,) = evidence.simultaneous([noise], **FEW)
  first, second = evidence.simultaneous([equal, noise], **FEW)
  assert first.low == first.high == pytest.approx(0.1)
  np.testing.assert_allclose(
    (second.low, second.high), (alone.low, alone.high), rtol=1e-12
  )


@pytest.mark.parametrize('num', [8, 25])
def test_shares(num):
  rng = np.random.default_rng(num)
  parts = rng.normal(size=(3, num))
  wholes = 8 + rng.normal(size=(3, num))
  wholes[1] -= 8
  found = evidence.simultaneous(parts, wholes)
  for row, whole, each in zip(parts, wholes, found, strict=True):
    alone = evidence.share(row, whole)
    np.testing.assert_equal(each.mean, alone.mean)
    assert each.low <= alone.low and alone.high <= each.high
  assert math.isnan(found[1].mean)
  # What is not defined does not widen the others.
  rest = evidence.simultaneous(parts[::2], wholes[::2])
  assert [found[0], found[2]] == rest


def test_bounds():
  rows = [[0.9, 0.2, -0.7], [0.1, 0.2, 0.3]]
  free = evidence.simultaneous(rows)
  kept = evidence.simultaneous(rows, bounds=(-1, 1))
  assert max(found.high for found in free) > 1
  for a, b in zip(free, kept, strict=True):
    assert (b.low, b.high) == (max(a.low, -1), min(a.high, 1))


def test_one_cluster_and_wrong_shapes():
  (arm,) = evidence.simultaneous([[1.0]])
  assert (arm.mean, arm.low, arm.high) == (1.0, -math.inf, math.inf)
  for arguments in ((np.zeros(3),), (np.zeros((2, 3)), np.zeros((2, 4)))):
    with pytest.raises(ValueError, match='arms'):
      evidence.simultaneous(*arguments)


def test_bounds_of_what_is_not_defined():
  noise = np.random.default_rng(0).normal(size=(2, 12))
  noise -= noise.mean(axis=1, keepdims=True)
  found = evidence.simultaneous([noise[0]] * 2, [noise[1]] * 2, bounds=(0, 1))
  assert all(math.isnan(arm.mean) and arm.high == math.inf for arm in found)
