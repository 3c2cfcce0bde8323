"""The bound and the share of the optimum, judged on a table whose answer is known."""

import numpy as np
import pytest
import xarray

from bitjax.studies.discrete_optimum import arms
from bitjax.studies.discrete_optimum import findings

SEEDS = 40


def table(bound=1.5):
  noise = 1e-3 * np.random.default_rng(0).normal(size=(len(arms.ARMS), SEEDS))
  decrease = 0.5 + noise
  decrease[arms.ARMS.index('exact per squared cost')] += 0.3
  return xarray.Dataset(
    {
      'loss': (('state', 'seed'), np.full((1, SEEDS), 2.0)),
      'optimum': (('state', 'seed'), 1 + noise[:1]),
      'bound': (('state', 'seed'), bound + noise[:1]),
      'decrease': (('state', 'arm', 'seed'), decrease[None]),
    },
    {'state': ['trained'], 'arm': list(arms.ARMS), 'seed': range(SEEDS)},
  )


@pytest.mark.parametrize(
  ('bound', 'verdict'),
  [(1.5, 'supported'), (0.5, 'contradicted'), (3.5, 'contradicted')],
)
def test_known_answers(bound, verdict):
  near, share, *_ = findings.judge(table(bound))
  assert (near.verdict, near.primary) == (verdict, True)
  assert share.verdict == 'supported'
  np.testing.assert_allclose(share.effect, 0.3, atol=1e-2)


def test_what_is_left_and_what_comes_nearest():
  rows = table()
  rows.decrease.loc[{'arm': findings.NEAREST}] += 0.2
  found = findings.judge(rows)
  left = [v for v in found if v.finding == 'N3 left, trained']
  ahead = [v for v in found if v.finding == 'N3 nearest, trained']
  assert len(left) == len(arms.ARMS) == len(ahead) + 1
  for verdict in left + ahead:
    of_exact = verdict.claim.startswith('exact per squared cost:')
    of_nearest = verdict.claim.startswith(f'{findings.NEAREST}:')
    effect = 0.2 - 0.3 * of_exact
    if verdict in left:
      effect = 0.5 - 0.3 * of_exact - 0.2 * of_nearest
    np.testing.assert_allclose(verdict.effect, effect, atol=1e-2)
    below = of_exact and verdict in ahead
    assert verdict.verdict == ('contradicted' if below else 'supported')


def test_a_share_of_networks_counts_from_the_margin_on():
  """If the bound holds in 40 of 40, at least in .9119: .0119 above nine of ten."""
  (found,) = [v for v in findings.judge(table()) if v.primary]
  assert found.details['smallest that counts'] == findings.MARGIN
  assert found.low == pytest.approx(0.025 ** (1 / SEEDS) - 0.9)
  assert found.low > findings.MARGIN and found.verdict == 'supported'
  less = findings.judge(table().isel(seed=slice(38)))[0]
  assert 0 < less.low < findings.MARGIN and less.verdict == 'inconclusive'


def test_seeds_that_diverged(as_if_not_run):
  """A comparison with NaN is false, which is no evidence against the claim."""
  as_if_not_run(findings.judge, table(), ['loss'])
  as_if_not_run(findings.judge, table(), ['bound', 'decrease'])


def test_a_dozen_networks_are_too_few_for_nine_of_ten():
  """Also if it holds in all of them: with 0.9, that has a chance of 28 %."""
  few = findings.judge(table().isel(seed=slice(12)))[0]
  assert (few.verdict, few.high) == ('inconclusive', pytest.approx(0.1))
  assert findings.judge(table())[0].verdict == 'supported'
