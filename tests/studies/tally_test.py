"""The tally tells intervals that cover from those that are too narrow, or too wide."""

import numpy as np
import pytest
from scipy import stats

from tests.studies import claims
from tests.studies import tally

SEEDS, TRIALS, FAMILIES, ARMS = 12, 200, 4, 6
ALONE = stats.t.ppf(0.975, SEEDS - 1)
TOGETHER = stats.t.ppf(0.5 + 0.95 ** (1 / ARMS) / 2, SEEDS - 1)


def tallied(critical, kind=claims.JOINT, inner=1.8):
  """Returns the tally of families of means, of half-widths in standard errors."""
  samples = np.random.default_rng(0).normal(
    size=(TRIALS, FAMILIES, ARMS, SEEDS)
  )
  means = samples.mean(-1)
  errors = samples.std(-1, ddof=1) / np.sqrt(SEEDS)
  counts = tally.Tally(SEEDS)

  def claim(index, mean, half, narrow):
    ends = mean - half, mean + half
    return claims.Claim(
      kind, mean, *ends, family=index[0], inner=(mean - narrow, mean + narrow)
    )

  labels = list(np.ndindex(FAMILIES, ARMS))
  truth = {index: claims.Claim(kind, 0.0, -1.0, 1.0) for index in labels}
  for mean, error in zip(means, errors, strict=True):
    counts.add(
      truth,
      {
        index: claim(
          index, mean[index], critical * error[index], inner * error[index]
        )
        for index in labels
      },
    )
  return counts


def test_intervals_that_hold_at_once():
  counts = tallied(TOGETHER)
  counts.check(alike=True)
  row = counts.at_once()
  assert len(row.rates) == FAMILIES and 0.92 < row.rates.mean() < 0.98
  assert counts.at_once(tally.APART).rates.size == FAMILIES
  np.testing.assert_allclose(counts.excess(), 1, atol=0.1)
  assert len(counts.sizes().rates) == 2 * FAMILIES * ARMS
  assert abs(counts.sizes().rates.mean() - 0.05) < 0.01
  lines = counts.rows('study', 'normal')
  assert all(line.count('|') == tally.HEAD.count('|') / 2 for line in lines)
  line = counts.summary('study', 'normal')
  assert line.count('|') == tally.SUMMARY.count('|') / 2
  assert line.endswith('| – |')  # There are no shares.
  assert lines[0].startswith(f'| study | normal | all | 24 | {TRIALS} | 0.99')


@pytest.mark.parametrize(
  'options',
  [
    {'critical': ALONE},
    {'critical': 1.5 * TOGETHER},
    {'critical': 0.8 * ALONE},
    {'critical': TOGETHER, 'inner': 1.2},
  ],
)
def test_others_are_found_out(options):
  """Too narrow at once, too wide, too narrow alone; tests that reject too often."""
  with pytest.raises(AssertionError):
    tallied(**options).check(alike=True)


def test_shares_that_are_not_defined_are_counted():
  counts, nan = tally.Tally(SEEDS), float('nan')
  share = claims.SINGLE + claims.SHARE
  one = claims.Claim(share, 1.0, 0.5, 1.5)
  none = claims.Claim(share, nan, -np.inf, np.inf)
  for found in (one, none, one, one):
    counts.add({'a': one, 'b': none}, {'a': found, 'b': found})
  assert counts.coverage().rates == [1.0] and counts.coverage().trials == [3]
  assert counts.undefined().rates == [0.25]
  assert counts.absent().rates == [0.75]
