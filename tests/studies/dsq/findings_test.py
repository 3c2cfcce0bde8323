"""N13, judged on tables whose answer is known."""

import numpy as np
import pytest
import xarray

from bitjax.studies.dsq import arms as arms_lib
from bitjax.studies.dsq import figure
from bitjax.studies.dsq import findings

SEEDS = 6


def compared(bits=(1, 2), rates=(0.3, 1.0), seeds=SEEDS, **points):
  """Returns outcomes whose test accuracy is 0.5 plus the `points` of its arm.

  Of two rates, the first has the lower accuracy and the higher validation loss, but
  the validation loss of seed 0 alone prefers it.
  """
  arms = list(arms_lib.ARMS)
  shape = (len(bits), len(arms), len(rates), seeds)
  # Each arm and seed draws its own noise, so that no two arms are equal.
  noise = 1e-4 * np.random.default_rng(0).normal(size=shape)
  accuracy = 0.5 + noise
  for arm, value in points.items():
    accuracy[:, arms.index(arm.replace('_', ' '))] += value
  loss = np.ones(shape)
  if len(rates) > 1:
    accuracy[:, :, 0] -= 0.2
    loss[:, :, 0] = 2.0
    loss[:, :, 0, 0] = 0.1
  dims = ('bits', 'arm', 'rate', 'seed')
  loss = np.stack([3 - loss, loss], -1)  # The last epoch counts.
  return xarray.Dataset(
    {
      'test_accuracy': (dims, accuracy),
      'validation_loss': ((*dims, 'epoch'), loss),
    },
    {
      'bits': list(bits),
      'arm': arms,
      'rate': list(rates),
      'seed': range(seeds),
      'epoch': [1, 2],
    },
  )


def judged(results):
  return {found.finding: found for found in findings.judge(results)}


def test_rates_are_tuned_on_other_seeds():
  found = findings.tuned(compared())
  assert found.test_accuracy.dims == ('bits', 'arm', 'seed')
  np.testing.assert_allclose(found.test_accuracy, 0.5, atol=1e-3)
  # One seed has no others to be tuned on, and takes its own choice.
  alone = findings.tuned(compared(seeds=1))
  np.testing.assert_allclose(alone.test_accuracy, 0.3, atol=1e-3)


def test_claims():
  found = judged(compared(falling=0.02, learned=-0.01, falling_window=0.03))
  assert [v.finding for v in found.values() if v.primary] == ['N13, 1 bit']
  for bits in (1, 2):
    for finding, verdict, effect in (
      ('N13', 'supported', 2.0),
      ('N13 learned', 'contradicted', -1.0),
      ('N13 hardtanh', 'supported', 1.0),
      ('N13 soft', 'supported', 3.0),
    ):
      one = found[f'{finding}, {bits} bit']
      assert one.verdict == verdict and one.num_seeds == SEEDS, finding
      np.testing.assert_allclose(one.effect, effect, atol=0.05)
  details = found['N13, 1 bit'].details
  np.testing.assert_allclose(
    [details['falling'], details['fixed 0.2']], [52, 50], atol=0.05
  )


def test_nothing_is_claimed_without_a_difference():
  found = judged(compared())
  assert {one.verdict for one in found.values()} == {'inconclusive'}


def test_an_arm_of_ones_own_is_some_other_gradient():
  results = compared()
  own = results.sel(arm=['falling']).assign_coords(arm=['my:hard(1)'])
  found = judged(xarray.concat([results, own], 'arm'))['N13 soft, 1 bit']
  assert '1 bit: some other gradient ends better than' in found.claim
  assert any('my:hard(1)' in name for name in found.details)


def test_no_two_curves_of_the_figure_look_alike():
  arms = [*arms_lib.ARMS, *(f'my:own({number})' for number in range(9))]
  results = xarray.Dataset(
    {
      'flip_ratio': (
        ('epoch', 'rate', 'seed', 'layer', 'arm'),
        np.ones((2, 1, 1, 1, len(arms))),
      )
    },
    {'epoch': [1, 2], 'arm': arms},
  )
  pyplot = pytest.importorskip('matplotlib.pyplot')
  fig, ax = pyplot.subplots()
  figure._flips(ax, results, arms)
  looks = {(line.get_color(), str(line._dash_pattern)) for line in ax.lines}
  pyplot.close(fig)
  assert len(looks) == len(ax.lines) == len(arms)


def test_arms_that_were_not_trained():
  results = compared(bits=(2,), falling=0.02)
  results = results.sel(arm=['fixed 0.2', 'falling'])
  found = judged(results)
  assert list(found) == ['N13, 2 bit']
  assert found['N13, 2 bit'].primary


def test_a_training_that_diverged_is_left_out():
  results = compared(falling=0.02)
  results['test_accuracy'].loc[{'arm': 'falling', 'seed': 2}] = np.nan
  found = judged(results)['N13, 1 bit']
  assert (found.verdict, found.num_seeds) == ('supported', SEEDS - 1)
  assert found.details['diverged'] == 1


def test_seeds_that_diverged(as_if_not_run):
  results = compared(falling=0.02, learned=-0.01)
  as_if_not_run(findings.judge, results, ['validation_loss'])


def test_one_seed_has_no_interval():
  found = judged(compared(falling=0.02, seeds=1))
  assert len(found) == 8
  for one in found.values():
    assert (one.verdict, one.num_seeds) == ('inconclusive', 1)
    assert one.caveat.startswith('One seed: no interval.')
  np.testing.assert_allclose(found['N13, 1 bit'].effect, 2, atol=0.1)
