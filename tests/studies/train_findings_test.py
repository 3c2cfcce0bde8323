"""What trainings say, judged on tables whose answer is known."""

import numpy as np
import pytest
import xarray

from bitjax.studies import dsq_findings
from bitjax.studies import train_findings

SEEDS = 6
NOISE = np.linspace(-0.002, 0.002, SEEDS)


def trained(test=0.9, train=0.95, flips=(1e-2, 1e-4)):
  """Two layers, as many epochs as there are shares of flips."""
  layered = np.stack([np.multiply(flips, f) for f in (0.5, 1.5)], -1)
  wobble = 10 ** (10 * NOISE)
  return xarray.Dataset(
    {
      'test_accuracy': ('seed', test + NOISE),
      'clean_train_accuracy': ('seed', train - NOISE),
      'validation_accuracy': (
        ('seed', 'epoch'),
        np.stack([0 * NOISE, NOISE + 0.8], 1),
      ),
      'flip_ratio': (
        ('seed', 'epoch', 'layer'),
        np.stack([layered * np.array([[1.0], [w]]) for w in wobble]),
      ),
    },
    {'seed': range(SEEDS), 'epoch': [1, 2], 'layer': ['a', 'b']},
  )


@pytest.mark.parametrize(
  ('target', 'verdict', 'effect'),
  [
    (85.0, 'supported', 5.0),
    (95.0, 'contradicted', -5.0),
    (90.0, 'inconclusive', 0),
  ],
)
def test_reaches(target, verdict, effect):
  found = train_findings.reaches(trained(), target)
  assert (found.verdict, found.num_seeds, found.primary) == (
    verdict,
    SEEDS,
    True,
  )
  np.testing.assert_allclose(found.effect, effect, atol=1e-9)
  np.testing.assert_allclose(found.details['test accuracy, %'], 90)
  np.testing.assert_allclose(found.details['validation accuracy, %'], 80)
  assert f'{target:g} %' in found.claim


@pytest.mark.parametrize(
  ('train', 'verdict'),
  [(0.95, 'supported'), (0.85, 'contradicted'), (0.9, 'inconclusive')],
)
def test_generalisation(train, verdict):
  found = train_findings.generalisation(trained(train=train))
  assert (found.finding, found.verdict) == ('N14', verdict)
  np.testing.assert_allclose(found.effect, 100 * (train - 0.9), atol=1e-9)
  np.testing.assert_allclose(
    found.details['training accuracy, %'], 100 * train, rtol=1e-6
  )


@pytest.mark.parametrize(
  ('flips', 'verdict', 'effect'),
  [
    ((1e-2, 1e-4), 'supported', 2.0),
    ((1e-4, 1e-2), 'contradicted', -2.0),
    ((1e-3, 1e-3), 'inconclusive', 0.0),
  ],
)
def test_settles(flips, verdict, effect):
  found = train_findings.settles(trained(flips=flips))
  assert found.verdict == verdict
  np.testing.assert_allclose(found.effect, effect, atol=1e-6)
  np.testing.assert_allclose(
    found.details['first epoch, flips per weight and update'], flips[0]
  )


def test_signs_that_never_move():
  found = train_findings.settles(trained(flips=(0.0, 0.0)))
  assert found.verdict != 'supported' and found.effect == 0


def compared(bits=(1, 2), rates=(0.3, 1.0), seeds=SEEDS, **points):
  """Points of test accuracy above 0.5 by arm; of two rates the first is bad.

  Its validation loss is worse, but for seed 0, whose own says otherwise.
  """
  arms = list(dsq_findings.ARMS)
  shape = (len(bits), len(arms), len(rates), seeds)
  # Of each arm and seed: no two arms have the same noise.
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
  return {found.finding: found for found in dsq_findings.judge(results)}


def test_rates_are_tuned_on_other_seeds():
  found = dsq_findings.tuned(compared())
  assert found.test_accuracy.dims == ('bits', 'arm', 'seed')
  np.testing.assert_allclose(found.test_accuracy, 0.5, atol=1e-3)
  # With one seed there are no others.
  alone = dsq_findings.tuned(compared(seeds=1))
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
