"""What the protocols choose: losses, and whether a grid was wide enough."""

import numpy as np
import pytest
import xarray

from bitjax.evidence import protocols
from bitjax.studies.multistep_ste import choices

RATES, STEPS = [0.1, 1.0, 10.0], [0, 1, 2, 3]


def table(best, step):
  """Losses of four tested and two tuning seeds, lowest at a rate and a step.

  Args:
    best: index of the best rate, by seed.
    step: index of the best step, for all seeds.
  """
  away = np.abs(np.arange(3) - np.reshape(best, [-1, 1]))[:, :, None]
  away = away + np.abs(np.arange(4) - step)
  dims = ('seed', 'step_size', 'step')
  coords = {'seed': [0, 1, 2, 3, 8, 9], 'step_size': RATES, 'step': STEPS}
  losses = xarray.DataArray(1.0 + away, coords, dims)
  results = xarray.Dataset({'multi_search': losses, 'multi_holdout': losses})
  return protocols.apart(results, (8, 9), ['multi_holdout'])


@pytest.mark.parametrize(
  ('tuning', 'step', 'rate', 'at_rate', 'at_step'),
  [
    ((1, 1), 2, 1.0, 0, 0),
    ((2, 2), 3, 10.0, 1, 1),
    ((0, 0), 0, 0.1, 1, 0),  # The start is no edge of the grid.
  ],
)
def test_choices_at_the_edge_are_counted(tuning, step, rate, at_rate, at_step):
  results = table([0, 1, 1, 1, *tuning], step)
  made = choices.made(results, 'multi', 'multi')
  assert made['tuned rate, multi'] == rate
  assert made['tuned step, multi'] == step
  assert made['tuned otherwise, multi'] == 0
  assert made['rate at the edge of the grid, multi, deployable'] == at_rate
  assert made['step at the edge of the grid, multi, deployable'] == at_step
  each = choices.made(results, 'multi', 'multi', 'oracle')
  assert each == {
    'rate at the edge of the grid, multi, oracle': 0.25,
    'step at the edge of the grid, multi, oracle': at_step,
  }


def test_tuning_seeds_that_disagree_are_reported():
  made = choices.made(table([1, 1, 1, 1, 0, 2], 1), 'multi', 'multi')
  assert 0 < made['tuned otherwise, multi'] < 1


def test_losses_are_those_of_the_setting_that_tuning_seeds_choose():
  found = choices.losses(table([0, 1, 2, 1, 2, 2], 1), 'multi')
  assert found.seed.values.tolist() == [0, 1, 2, 3]
  np.testing.assert_array_equal(found, [3, 2, 1, 2])
