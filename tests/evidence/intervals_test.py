"""Statistics: coverage by simulation, known answers, scipy as the oracle."""

import math

import numpy as np
import pytest
from scipy import stats

from bitjax import evidence
from bitjax.evidence import intervals

FEW = {'num_resamples': 2000}


def _coverage(intervals, truth=0.0):
  return np.mean([found.low <= truth <= found.high for found in intervals])


@pytest.mark.parametrize('num', [3, 6, 7, 8, 30])
def test_interval_covers_the_mean_of_normal_samples(num):
  draws = np.random.default_rng(num).normal(size=(1500, num))
  coverage = _coverage(evidence.interval(draw, **FEW) for draw in draws)
  assert 0.92 <= coverage <= 0.98


@pytest.mark.parametrize('num', [8, 30])
def test_interval_covers_the_mean_of_skewed_samples(num):
  draws = np.random.default_rng(num).exponential(size=(1000, num)) - 1
  coverage = _coverage(evidence.interval(draw, **FEW) for draw in draws)
  assert coverage >= 0.88  # The t interval covers as little there.


@pytest.mark.parametrize('num', [8, 30])
def test_log_variance_ratio_covers(num):
  draws = np.random.default_rng(num).normal(size=(800, 2, num))
  found = [evidence.log_variance_ratio(2 * a, b, **FEW) for a, b in draws]
  assert _coverage(found, math.log(4)) >= 0.92
  apart = [evidence.log_variance_ratio(a[1:], b, **FEW) for a, b in draws[:400]]
  assert _coverage(apart) >= 0.92


def test_interval_agrees_with_t_where_they_must():
  sample = np.random.default_rng(0).normal(3, 2, size=400)
  found = evidence.interval(sample)
  low, high = stats.t.interval(
    0.95, 399, sample.mean(), stats.sem(sample, ddof=1)
  )
  np.testing.assert_allclose([found.low, found.high], [low, high], rtol=5e-3)
  few = sample[:5]
  found = evidence.interval(few, level=0.9)
  expected = stats.t.interval(0.9, 4, few.mean(), stats.sem(few, ddof=1))
  np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-12)


def test_interval_is_wider_than_the_plain_percentiles():
  sample = np.random.default_rng(0).normal(size=8)
  found = evidence.interval(sample)
  draws = np.random.default_rng(0).choice(sample, (10_000, 8)).mean(axis=1)
  low, high = np.percentile(draws, [2.5, 97.5])
  ratio = (found.high - found.low) / (high - low)
  expected = math.sqrt(8 / 7) * stats.t.ppf(0.975, 7) / stats.norm.ppf(0.975)
  assert ratio == pytest.approx(expected, rel=0.06)


def test_repeats_are_averaged_within_their_cluster():
  rng = np.random.default_rng(0)
  values = rng.normal(size=(9, 4))
  assert evidence.interval(values) == evidence.interval(values.mean(axis=1))


def test_what_is_not_finite_is_dropped_and_counted():
  clean = np.arange(8.0)
  dirty = [*clean, math.nan, math.inf]
  found, expected = evidence.interval(dirty), evidence.interval(clean)
  assert (found.low, found.high) == (expected.low, expected.high)
  assert (found.num, found.dropped) == (8, 2)
  rows = np.stack([clean, clean], axis=1)
  rows[3, 1] = math.nan
  assert evidence.interval(rows).mean == expected.mean
  assert evidence.interval(rows).dropped == 1


def test_too_few_samples_know_nothing():
  one = evidence.interval([2.0])
  assert (one.mean, one.low, one.high) == (2.0, -math.inf, math.inf)
  none = evidence.interval([math.nan])
  assert math.isnan(none.mean) and none.num == 0
  ratio = evidence.share([2.0], [4.0])
  assert (ratio.mean, ratio.low, ratio.high) == (0.5, -math.inf, math.inf)
  assert evidence.share([math.nan], [1.0]).num == 0
  found = evidence.log_variance_ratio([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
  assert (found.low, found.high) == (-math.inf, math.inf)
  assert evidence.log_variance_ratio([], []).num == 0


def test_same_seed_same_interval():
  sample = np.random.default_rng(0).normal(size=12)
  assert evidence.interval(sample) == evidence.interval(sample)
  assert evidence.interval(sample, seed=1) != evidence.interval(sample)


def test_an_end_that_is_zero_but_for_rounding_is_zero():
  """The samples are differences of accuracies, in percent, from float32."""
  more = [-2, -3, -5, -5, -3, 3, 0, -23, -1, 5, 1, 0, 2, -2, -6, -5]
  exact = np.array(more) / 3.55
  ratios = [(np.arange(320, 336) + np.array(k)) / 355 for k in (more, 0)]
  rounded = 100 * np.diff(np.float32(ratios)[::-1], axis=0)[0]
  assert rounded.dtype == np.float32 and np.any(rounded != exact)
  for samples in (exact, rounded):
    found = evidence.interval(samples)
    assert found.high == 0 and found.low == pytest.approx(-1.848, abs=0.01)
    assert evidence.judge(found) == 'inconclusive'
    flipped = evidence.interval(-samples)
    assert evidence.judge(flipped) == 'inconclusive'


@pytest.mark.parametrize(
  'centre, verdict',
  [(0.0, 'supported'), (5.0, 'contradicted'), (1.0, 'inconclusive')],
)
def test_equivalence(centre, verdict):
  differences = centre + np.random.default_rng(0).normal(scale=0.2, size=20)
  found = evidence.equivalence(differences, 1.0)
  assert found.verdict == verdict
  assert found.interval.low < found.inner.low < found.inner.high
  assert found.inner == evidence.interval(differences, level=0.9)


def test_no_difference_found_is_not_equivalence():
  differences = np.random.default_rng(0).normal(scale=3.0, size=8)
  assert evidence.equivalence(differences, 0.5).verdict == 'inconclusive'
  with pytest.raises(ValueError, match='margin'):
    evidence.equivalence(differences, 0.0)


def test_an_equivalence_of_shares_takes_the_whole_into_account():
  noise = np.random.default_rng(0).normal(size=(2, 12))
  part, whole = 0.02 + 0.01 * noise[0], 2 + noise[1]
  found = evidence.equivalence(part, 0.05, whole=whole)
  assert found.verdict == 'supported'
  assert found.interval == evidence.share(part, whole)
  assert found.inner == evidence.share(part, whole, level=0.9)
  undefined = evidence.equivalence(part, 0.05, whole=whole - 2)
  assert undefined.verdict == 'inconclusive'
  assert math.isnan(undefined.interval.mean)


@pytest.mark.parametrize(
  'low, high, options, verdict',
  [
    (1, 2, {}, 'supported'),
    (-2, -1, {}, 'contradicted'),
    (-1, 1, {}, 'inconclusive'),
    (0, 0, {}, 'inconclusive'),
    (1, 2, {'direction': -1}, 'contradicted'),
    (-2, -1, {'direction': -1}, 'supported'),
    (1, 2, {'smallest': 1.5}, 'inconclusive'),
    (1, 2, {'smallest': 0.5}, 'supported'),
    (1, 2, {'smallest': 3}, 'equivalent'),
    (-1, 2, {'smallest': 3}, 'equivalent'),
    (-4, 2, {'smallest': 3}, 'inconclusive'),
    (-5, -4, {'smallest': 3}, 'contradicted'),
    (-5, -4, {'direction': -1, 'smallest': 3}, 'supported'),
    (0, 0, {'smallest': 3}, 'equivalent'),
    (-2, -1, {'direction': -1, 'smallest': 0.5}, 'supported'),
    (-math.inf, math.inf, {}, 'inconclusive'),
    (math.nan, math.nan, {}, 'inconclusive'),
  ],
)
def test_judge(low, high, options, verdict):
  found = intervals.Interval(0.0, float(low), float(high), 8)
  assert evidence.judge(found, **options) == verdict


def test_judge_checks_the_claim():
  found = intervals.Interval(0.0, -1.0, 1.0, 8)
  for options in ({'direction': 0}, {'smallest': -1.0}):
    with pytest.raises(ValueError):
      evidence.judge(found, **options)


@pytest.mark.parametrize('num', [3, 5, 8, 30])
def test_equal_samples_do_not_vary_by_the_rounding_of_their_mean(num):
  equal = np.full(num, 0.1)
  found = evidence.interval(equal, **FEW)
  assert found.low == found.high == found.mean
  noise = np.random.default_rng(num).normal(size=num)
  assert evidence.log_variance_ratio(equal, noise, **FEW).mean == -np.inf


def test_log_variance_ratio_within_clusters():
  rng = np.random.default_rng(0)
  a = rng.normal(scale=0.5, size=(12, 40))
  b = rng.normal(scale=1.0, size=(12, 40))
  found = evidence.log_variance_ratio(a, b)
  expected = np.log(a.var(axis=1, ddof=1) / b.var(axis=1, ddof=1))
  assert found.mean == pytest.approx(expected.mean(), rel=1e-12)
  assert found.low < math.log(0.25) < found.high
  assert evidence.judge(found, direction=-1) == 'supported'


@pytest.mark.parametrize('samples', [1.0, np.zeros((2, 2, 2))])
def test_shapes_are_checked(samples):
  with pytest.raises(ValueError, match='clusters'):
    evidence.interval(samples)
  with pytest.raises(ValueError, match='clusters'):
    evidence.log_variance_ratio(samples, samples)


@pytest.mark.parametrize('num', [2, 3, 6, 12])
def test_intervals_of_bounded_samples_stay_within_and_lose_no_coverage(num):
  rng = np.random.default_rng(num)
  # Correlations near 0.6, whose mean is known from many of them.
  draws = np.tanh(0.7 + 0.6 * rng.standard_normal((200, num)))
  truth = np.tanh(0.7 + 0.6 * rng.standard_normal(200_000)).mean()
  covered = []
  for samples in draws:
    free = intervals.interval(samples)
    kept = intervals.interval(samples, bounds=(-1, 1))
    assert -1 <= kept.low <= kept.mean <= kept.high <= 1
    assert (kept.low, kept.high) == (max(free.low, -1), min(free.high, 1))
    covered.append([found.low <= truth <= found.high for found in (free, kept)])
  assert np.array_equal(*np.transpose(covered))
  assert np.mean(covered) > 0.87


def test_bounds_keep_a_single_cluster_unknown_and_refuse_other_samples():
  alone = intervals.interval([0.5], bounds=(0, 1))
  assert (alone.low, alone.high) == (-np.inf, np.inf)
  with pytest.raises(ValueError, match='samples must lie within'):
    intervals.interval([40.0, 60.0], bounds=(0, 1))


@pytest.mark.parametrize(
  ('hits', 'num', 'wanted'),
  [
    # The ends solve binomial tails of 2.5 %: https://doi.org/10.1093/biomet/26.4.404
    (25, 40, (0.45801, 0.77272)),
    (12, 12, (0.73535, 1.0)),
    (0, 10, (0.0, 0.30850)),
  ],
)
def test_exact_intervals_of_shares(hits, num, wanted):
  holds = np.array([1.0] * hits + [0.0] * (num - hits) + [np.nan])
  found = intervals.proportion(holds)
  np.testing.assert_allclose((found.low, found.high), wanted, atol=1e-4)
  assert (found.mean, found.num, found.dropped) == (hits / num, num, 1)
  # At each end the count that was seen, or a more extreme one, has a chance of 2.5 %.
  if hits:
    np.testing.assert_allclose(stats.binom.sf(hits - 1, num, found.low), 0.025)
  if hits < num:
    np.testing.assert_allclose(stats.binom.cdf(hits, num, found.high), 0.025)
