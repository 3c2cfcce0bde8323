"""Oracle and deployable choices against loops over seeds."""

import numpy as np
import pytest
import xarray

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


def test_deployable_never_looks_at_its_own_seed(outcomes):
  outcomes['holdout'][1, 2, :, 4] = np.nan
  chosen = protocols.deployable(outcomes, ['rate', 'step'])
  for seed in range(4):
    others = outcomes['holdout'].drop_isel(seed=seed).mean('draw')
    means = others.fillna(np.inf).mean('seed').values
    index = np.unravel_index(np.argmin(means), means.shape)
    for draw in range(2):
      found = chosen.isel(seed=seed, draw=draw)
      assert (
        found['holdout']
        == outcomes['holdout'].values[seed, index[0], draw, index[1]]
      )
  changed = outcomes.copy(deep=True)
  changed['holdout'][0] += 100
  assert (
    protocols.deployable(changed, ['rate', 'step'])['rate'][0]
    == chosen['rate'][0]
  )


def test_one_seed_cannot_be_tuned(outcomes):
  chosen = protocols.deployable(outcomes.isel(seed=[0]), ['rate', 'step'])
  assert np.isnan(chosen['holdout']).all()


def test_arm_strips_its_prefix():
  results = xarray.Dataset(
    {'a_search': ('seed', [1.0, 2.0]), 'b_search': ('seed', [3.0, 4.0])},
    coords={'seed': [0, 1]},
  )
  found = protocols.select_arm(results, 'a', seed=1)
  assert list(found) == ['search'] and found['search'] == 2.0
