"""Claims about windows, judged on tables whose answer is known."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray

from bitjax.evidence import plots
from bitjax.studies.fitted_windows import arms as arms_lib
from bitjax.studies.fitted_windows import figure
from bitjax.studies.fitted_windows import findings
from tests.studies import answered

SEEDS = 6
LAYERS = ['Dense_0', 'Dense_1', 'Dense_2']


def compared(seeds=SEEDS, **points):
  """Returns outcomes whose test accuracy is 0.5 plus the `points` of its arm.

  Networks differ in one answer of 4000 at random. Tuning agrees on the second rate and the
  last value of the parameter. Widths fall from 1 to 0.25 before Dense_1, and double that
  before Dense_2.
  """
  names = list(arms_lib.ARMS)
  draw = np.random.default_rng(0)
  shape = (len(names), seeds)
  points = {name.replace('_', ' '): value for name, value in points.items()}
  answers = answered.answered(names, seeds, points)
  tuning = np.ones((len(names), 3, 2, 4)) + np.arange(3)[::-1, None, None]
  tuning[:, :, 0] += 1
  width = np.zeros((*shape, 3, 3))
  width[names.index('fitted'), ..., 1] = [1, 0.5, 0.25]
  width[names.index('fitted'), ..., 2] = [2, 1, 0.5]
  width *= 1 + 0.01 * draw.normal(size=width.shape)
  dims = ('arm', 'seed')
  _, accuracy = answers['test_accuracy']
  return xarray.Dataset(
    {
      **answers,
      'clean_train_accuracy': (dims, accuracy + 0.1),
      'validation_loss': ((*dims, 'epoch'), np.ones((*shape, 3))),
      'width': ((*dims, 'epoch', 'layer'), width),
      'tuning_validation_loss': (
        ('arm', 'shape', 'rate', 'tuning_seed'),
        tuning,
      ),
    },
    {
      'arm': names,
      'rate': [0.3, 1.0],
      'shape': [0, 1, 2],
      'seed': range(seeds),
      'tuning_seed': range(1000, 1004),
      'epoch': [1, 2, 3],
      'layer': LAYERS,
    },
    {'test_examples': answered.EXAMPLES},
  )


def judged(results):
  return {found.finding: found for found in findings.judge(results)}


def test_claims():
  found = judged(
    compared(
      relative_Gaussian=0.02,
      fixed_window=-0.02,
      relative_window=0.01,
      fitted=0.05,
    )
  )
  assert [v.finding for v in found.values() if v.primary] == ['relative']
  for finding, verdict, effect in (
    ('relative', 'supported', 2.0),
    ('fixed', 'contradicted', -2.0),
    ('relative, window', 'supported', 3.0),
    ('fitted', 'supported', 5.0),
    ('fitted, beyond one number', 'supported', 3.0),
    ('any', 'supported', 5.0),
    ('widths, layers', 'supported', 1.0),
    ('widths, training', 'supported', 2.0),
  ):
    one = found[finding]
    assert one.verdict == verdict and one.num_seeds == SEEDS, finding
    np.testing.assert_allclose(one.effect, effect, atol=0.06)
  details = found['relative'].details
  np.testing.assert_allclose(
    [
      details['accuracy, relative Gaussian'],
      details['accuracy, window 1'],
      details['sigma / spread, relative Gaussian'],
      details['rate, relative Gaussian'],
      details['rate, window 1'],  # With the factor of its last setting.
    ],
    [52, 50, 0.8, 1.0, 1.47],
    atol=0.06,
  )


def flipped(**points):
  """Returns outcomes of Bop, whose accuracy is 0.5 plus the points of its signal."""
  kinds = ['STE', 'exact gains', 'smoothed gains']
  names = ['window 1', 'Bi-Real', 'EDE']
  table = compared(
    **{
      name: points.get(kind.split()[0], 0.0)
      for name, kind in zip(('window_1', 'Bi-Real', 'EDE'), kinds, strict=True)
    }
  )
  return table.sel(arm=names).assign_coords(arm=[f'Bop by {k}' for k in kinds])


def test_claims_of_bop():
  found = judged(flipped(smoothed=0.03, exact=-0.02))
  assert [*found] == ['Bop', 'Bop, averaged', 'Bop, exact']
  assert [v.finding for v in found.values() if v.primary] == ['Bop']
  for finding, verdict, effect in (
    ('Bop', 'supported', 3.0),
    ('Bop, averaged', 'supported', 5.0),
    ('Bop, exact', 'contradicted', -2.0),
  ):
    assert found[finding].verdict == verdict
    np.testing.assert_allclose(found[finding].effect, effect, atol=0.06)
  details = found['Bop'].details
  assert details['gamma at first, Bop by STE'] == 0.03
  assert details['rate, Bop by smoothed gains'] == 1.0
  with plots.style():
    drawn = figure.page(flipped())
    assert len(drawn['figure'].axes) == 2
    plt.close('all')


def test_what_does_not_matter_is_equivalent():
  found = judged(compared())
  for finding in ('relative', 'fixed', 'fitted', 'any'):
    assert found[finding].verdict == 'equivalent', finding


def test_fitted_widths():
  results = compared()
  assert findings.fitted_layers(results) == LAYERS[1:]
  without = results.sel(arm=[*arms_lib.PRIMARY])
  assert findings.fitted_layers(without) == []
  assert [*judged(without)] == ['relative', 'any']


def test_a_training_that_diverged_is_left_out():
  results = compared(relative_Gaussian=0.02)
  results['test_accuracy'].loc[{'arm': 'relative Gaussian', 'seed': 2}] = np.nan
  found = judged(results)['relative']
  assert (found.verdict, found.num_seeds) == ('supported', SEEDS - 1)
  assert found.details['diverged'] == 1


def test_seeds_that_diverged(as_if_not_run):
  results = compared(relative_Gaussian=0.02, fitted=0.01)
  as_if_not_run(findings.judge, results, ['validation_loss'])


def test_one_seed_has_no_interval():
  for one in judged(compared(seeds=1)).values():
    assert (one.verdict, one.num_seeds) == ('inconclusive', 1)


@pytest.mark.parametrize('names', [None, arms_lib.PRIMARY])
def test_figures(names):
  results = compared()
  if names is not None:
    results = results.sel(arm=[*names])
  with plots.style():
    drawn = figure.page(results)
    assert len(drawn['figure'].axes) == 2
    assert len(drawn['figure_supplement'].axes) == (2 if names is None else 1)
    plt.close('all')
