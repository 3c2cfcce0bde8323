"""Intervals over seeds and examples: known variances, coverage, and verdicts."""

import numpy as np
import pytest
from scipy import special
from scipy import stats

from bitjax.evidence import contrasts
from bitjax.evidence import twoway


def tables(num, shape, *, seeds, examples, both, arms=1, shift=0.0, draw=0):
  """Draws tables of cells with these standard deviations, [num, arms, *shape]."""
  rng = np.random.default_rng(draw)
  n, m = shape
  return (
    shift
    + seeds * rng.normal(size=(num, arms, n, 1))
    + examples * rng.normal(size=(num, arms, 1, m))
    + both * rng.normal(size=(num, arms, n, m))
  )


def guesses(num, shape, *, accuracy, seeds, examples, draw=0):
  """Draws paired differences of right guesses; examples differ in how hard they are."""
  rng = np.random.default_rng(draw)
  n, m = shape
  for _ in range(num):
    hard, arms = rng.normal(size=m), []
    for _ in range(2):
      noise = examples * rng.normal(size=m) + seeds * rng.normal(size=(n, 1))
      spread = np.sqrt(2 + examples**2 + seeds**2)
      arms.append(
        special.ndtri(accuracy) * spread + hard + noise + rng.normal(size=shape)
        > 0
      )
    yield arms[0].astype(float) - arms[1]


def test_the_mean_squares_are_those_of_the_analysis_of_variance():
  """The textbook's sums of squares add up, and give the interval by hand."""
  x = tables(1, (5, 7), seeds=1, examples=2, both=0.5)[0, 0]
  total = ((x - x.mean()) ** 2).sum()
  rows = 7 * ((x.mean(1) - x.mean()) ** 2).sum()
  columns = 5 * ((x.mean(0) - x.mean()) ** 2).sum()
  rest = (total - rows - columns) / 24
  rows, columns = rows / 4, columns / 6
  variance = rows + columns - rest
  freedom = variance**2 / (rows**2 / 4 + columns**2 / 6 + rest**2 / 24)
  half = stats.t.ppf(0.975, freedom) * np.sqrt(variance / 35)
  found = twoway.interval(x)
  np.testing.assert_allclose(
    [found.mean, found.low, found.high],
    [x.mean(), x.mean() - half, x.mean() + half],
  )
  assert (found.num, found.dropped, found.total) == (5, 0, 5)


def test_examples_that_all_agree_leave_the_interval_of_seeds():
  rows = np.random.default_rng(0).normal(size=8)
  found = twoway.interval(np.repeat(rows[:, None], 9, axis=1))
  half = stats.t.ppf(0.975, 7) * rows.std(ddof=1) / np.sqrt(8)
  np.testing.assert_allclose(found.high - found.mean, half)
  columns = np.repeat(rows[None], 9, axis=0)  # Seeds that all agree.
  np.testing.assert_allclose(
    twoway.interval(columns).high - found.mean, half, rtol=1e-6
  )
  constant = twoway.interval(np.full((4, 5), 0.1))
  assert constant.low == constant.high == pytest.approx(0.1)


def test_clustered_variances_of_cameron_gelbach_and_miller():
  """It is the sum of both clusterings less that of cells, each without its bias."""
  n, m = shape = 6, 8
  every = tables(20_000, shape, seeds=1, examples=0.5, both=2)[:, 0]
  found = [twoway.interval(x) for x in every[:2000]]
  wanted = 1 / n + 0.25 / m + 4 / (n * m)
  np.testing.assert_allclose(every.mean((1, 2)).var(), wanted, rtol=0.03)
  squares = np.stack([twoway._squares(x[None])[:, 0, 0] for x in every[:5000]])
  estimate = squares @ [1, 1, -1] / (n * m)
  np.testing.assert_allclose(estimate.mean(), wanted, rtol=0.03)
  assert all(one.low < one.mean < one.high for one in found)


def test_seeds_that_diverged_are_dropped():
  x = tables(1, (6, 5), seeds=1, examples=1, both=1)[0, 0]
  lost = x.copy()
  lost[2, 3] = np.nan
  found, wanted = twoway.interval(lost), twoway.interval(np.delete(x, 2, 0))
  assert (found.low, found.high) == (wanted.low, wanted.high)
  assert (found.num, found.dropped, found.total) == (5, 1, 6)
  verdict = contrasts.difference(
    'A', 'It rises.', lost, crossed=True, unit='', protocol=''
  )
  assert '1 of 6 samples are left out' in verdict.caveat


@pytest.mark.parametrize('shape', [(1, 5), (5, 1), (0, 3)])
def test_too_few(shape):
  found = twoway.interval(np.ones(shape))
  assert (found.low, found.high) == (-np.inf, np.inf)


def test_bad_tables():
  with pytest.raises(ValueError, match=r'must be \[seeds, examples\]'):
    twoway.interval(np.ones(3))
  with pytest.raises(ValueError, match='margin of an equivalence must be > 0'):
    twoway.equivalence(np.ones((3, 3)), 0.0)


def test_bounds():
  x = np.array([[100.0, 100], [100, 0], [100, 100]])
  found = twoway.interval(x, bounds=(0, 100))
  assert 0 <= found.low < found.high == 100


def test_intervals_of_one_arm_and_of_equal_arms_are_the_same():
  one, other = tables(2, (6, 9), seeds=1, examples=1, both=1)[:, 0]
  alone = twoway.interval(one)
  found = twoway.simultaneous([one, one, 2 * one])
  np.testing.assert_allclose(found[0].low, alone.low, rtol=0.02)
  apart = twoway.simultaneous([one, other])[0]
  assert apart.high - apart.low > 1.05 * (alone.high - alone.low)


@pytest.mark.parametrize(
  ('shift', 'difference', 'equivalent', 'any_arm'),
  [
    (2.0, 'supported', 'contradicted', 'supported'),
    (0.0, 'equivalent', 'supported', 'equivalent'),
    (-2.0, 'contradicted', 'contradicted', 'contradicted'),
    (0.5, 'inconclusive', 'inconclusive', 'inconclusive'),
  ],
)
def test_verdicts(shift, difference, equivalent, any_arm):
  x = tables(2, (8, 50), seeds=0.1, examples=0.3, both=1, shift=shift)[:, 0]
  info = {'crossed': True, 'unit': 'points', 'protocol': 'test'}
  found = contrasts.difference('A', 'It rises.', x[0], smallest=0.5, **info)
  assert (found.verdict, found.num_seeds) == (difference, 8)
  found = contrasts.equivalent('A', 'It stays.', x[0], 0.5, **info)
  assert found.verdict == equivalent and found.details['margin'] == 0.5
  arms = dict(zip('ab', x, strict=True))
  found = contrasts.any_arm('A', 'One rises.', arms, smallest=0.5, **info)
  assert found.verdict == any_arm
  assert found.details['a low'] < found.details['a'] < found.details['a high']
  found = contrasts.difference('A', 'It rises.', x[0][:1], **info)
  assert (found.verdict, found.num_seeds) == ('inconclusive', 1)
  assert found.caveat.startswith('One seed: no interval.')
  for judged in (
    lambda: contrasts.difference('A', 'a.', x[0], whole=x[0], **info),
    lambda: contrasts.equivalent('A', 'a.', x[0], 0.5, whole=x[0], **info),
    lambda: contrasts.any_arm('A', 'a.', arms, wholes=arms, **info),
  ):
    with pytest.raises(ValueError, match='shares have no interval over seeds'):
      judged()


@pytest.mark.slow
@pytest.mark.parametrize(
  ('shape', 'case'),
  [
    ((12, 355), {'accuracy': 0.97, 'seeds': 0.1, 'examples': 0.3}),
    ((12, 355), {'accuracy': 0.97, 'seeds': 0.0, 'examples': 0.5}),
    ((12, 355), {'accuracy': 0.7, 'seeds': 0.1, 'examples': 0.5}),
    ((32, 355), {'accuracy': 0.97, 'seeds': 0.1, 'examples': 0.3}),
    ((4, 355), {'accuracy': 0.97, 'seeds': 0.1, 'examples': 0.3}),
    ((8, 100), {'accuracy': 0.9, 'seeds': 0.2, 'examples': 0.5}),
  ],
)
def test_coverage_of_accuracies(shape, case):
  """Two arms of equal accuracy: in 95 % of the cases the interval holds 0."""
  num = 4000
  covered = sum(
    found.low <= 0 <= found.high
    for found in map(twoway.interval, guesses(num, shape, **case))
  )
  assert 0.94 <= covered / num <= 0.96


@pytest.mark.slow
def test_an_interval_of_seeds_alone_does_not_cover():
  """What the two-way interval is for."""
  cases = guesses(2000, (32, 355), accuracy=0.97, seeds=0.1, examples=0.3)
  rows = np.stack([x.mean(axis=1) for x in cases])
  half = stats.t.ppf(0.975, 31) * rows.std(axis=1, ddof=1) / np.sqrt(32)
  assert np.mean(np.abs(rows.mean(axis=1)) <= half) < 0.9


@pytest.mark.slow
def test_coverage_of_several_arms_at_once():
  num = 2000
  sizes = {'seeds': 0.1, 'examples': 1.0, 'both': 1.0}
  arms = tables(num, (12, 60), arms=7, **sizes)
  differences = arms[:, 1:] - arms[:, :1]
  covered = sum(
    all(one.low <= 0 <= one.high for one in twoway.simultaneous(own))
    for own in differences
  )
  assert 0.94 <= covered / num <= 0.96
