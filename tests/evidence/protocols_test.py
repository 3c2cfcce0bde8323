"""Oracle and deployable choices against loops over seeds."""

import numpy as np
import pytest
import xarray

from bitjax.evidence import intervals
from bitjax.evidence import protocols


@pytest.fixture
def outcomes():
  rng = np.random.default_rng(0)
  shape = (4, 3, 2, 5)
  dims = ('seed', 'rate', 'draw', 'step')
  return xarray.Dataset(
    {
      'search': (dims, rng.normal(size=shape)),
      'holdout': (dims, rng.normal(size=shape)),
    },
    coords={'seed': [7, 3, 9, 1], 'rate': [0.1, 0.2, 0.3], 'step': range(5)},
  )


def test_oracle_takes_the_lowest_loss_on_a(outcomes):
  outcomes['search'][2, 1, 0, 3] = np.nan
  chosen = protocols.oracle(outcomes, ['rate', 'step'])
  for seed in range(4):
    for draw in range(2):
      cell = outcomes.isel(seed=seed, draw=draw)
      search = cell['search'].values
      index = np.unravel_index(np.nanargmin(search), search.shape)
      found = chosen.isel(seed=seed, draw=draw)
      assert found['search'] == search[index]
      assert found['holdout'] == cell['holdout'].values[index]
      assert found['rate'] == cell['rate'][index[0]]


def _with_tuning(outcomes):
  return protocols.apart(outcomes, [9, 1], ['holdout'])


def test_tuning_seeds_are_apart(outcomes):
  found = _with_tuning(outcomes)
  assert found.seed.values.tolist() == [7, 3]
  assert found.tuning_seed.values.tolist() == [9, 1]
  np.testing.assert_array_equal(found.search, outcomes.search[:2])
  np.testing.assert_array_equal(found.tuning_holdout, outcomes.holdout[2:])
  assert 'tuning_search' not in found


def test_deployable_takes_the_lowest_mean_loss_of_tuning_seeds(outcomes):
  found = _with_tuning(outcomes)
  found['tuning_holdout'][1, 2, :, 4] = np.nan
  chosen = protocols.deployable(found, ['rate', 'step'])
  assert 'tuning_seed' not in chosen.dims and chosen.seed.size == 2
  means = found.tuning_holdout.mean('draw').fillna(np.inf).mean('tuning_seed')
  rate, step = np.unravel_index(np.argmin(means.values), means.shape)
  np.testing.assert_array_equal(
    chosen.holdout, found.holdout.isel(rate=rate, step=step)
  )
  assert chosen.rate == found.rate[rate]


def test_no_tested_seed_affects_the_choice(outcomes):
  found = _with_tuning(outcomes)
  chosen = protocols.deployable(found, ['rate', 'step'])
  found['search'] *= -1
  found['holdout'] += np.random.default_rng(1).normal(size=found.holdout.shape)
  again = protocols.deployable(found, ['rate', 'step'])
  assert (again.rate, again.step) == (chosen.rate, chosen.step)


def test_without_tuning_seeds_nothing_can_be_tuned(outcomes):
  with pytest.raises(ValueError, match='tuning_holdout'):
    protocols.deployable(outcomes, ['rate', 'step'])


def test_how_often_another_setting_would_have_been_chosen(outcomes):
  """Two tuning seeds that disagree, and two that agree."""
  losses = np.array([[[1.0, 2.0], [4.0, 2.5]], [[1.0, 2.0], [1.0, 2.0]]])
  outcomes = xarray.Dataset(
    {'tuning_holdout': (('arm', 'tuning_seed', 'rate'), losses)}
  )
  found = protocols.unsettled(outcomes, ['rate'])
  # Means 2.5 and 2.25 choose the second rate; the first seed alone, drawn twice in a
  # quarter of resamples, the first.
  np.testing.assert_allclose(found, [0.25, 0], atol=0.05)


def test_arm_strips_its_prefix():
  results = xarray.Dataset(
    {
      'a_search': ('seed', [1.0, 2.0]),
      'b_search': ('seed', [3.0, 4.0]),
      'tuning_a_holdout': ('tuning_seed', [5.0, 6.0]),
      'a_flips': ('seed', [1, 2]),
    },
    coords={'seed': [0, 1]},
  )
  found = protocols.select_arm(results, 'a', seed=1)
  assert list(found) == ['search', 'flips', 'tuning_holdout']
  assert found['search'] == 2.0
  assert list(protocols.losses(found)) == ['search', 'tuning_holdout']


@pytest.mark.slow
@pytest.mark.parametrize(
  ('num', 'on_tested'), [(8, 0.92), (16, 0.84), (32, 0.73)]
)
def test_coverage_of_a_contrast_of_tuned_methods(num, on_tested):
  """Of two methods with 20 rates that are equally good; tuned on others, and on tested."""
  rng = np.random.default_rng(num)
  apart, together = [], []
  for _ in range(1000):
    losses = rng.normal(size=(num + 4, 2, 20))
    dims = ('seed', 'method', 'rate')
    found = xarray.Dataset({'holdout': (dims, losses)}).assign_coords(
      seed=range(num + 4)
    )
    found = protocols.apart(found, range(num, num + 4), ['holdout'])
    chosen = protocols.deployable(found, ['rate']).holdout
    apart.append(_covers(chosen.transpose('method', 'seed').values))
    losses = losses[:num]
    others = (losses.sum(axis=0) - losses).argmin(axis=-1)
    own = np.take_along_axis(losses, others[..., None], axis=-1)[..., 0]
    together.append(_covers(own.T))
  print(num, np.mean(apart), np.mean(together))
  assert 0.93 <= np.mean(apart) <= 0.975
  assert np.mean(together) == pytest.approx(on_tested, abs=0.04)


def _covers(methods):
  found = intervals.interval(methods[0] - methods[1], num_resamples=1000)
  return found.low <= 0 <= found.high
