"""Findings of a training, judged on tables whose answer is known."""

import numpy as np
import pytest
import xarray

from bitjax.studies.train_cifar import findings

SEEDS, EXAMPLES = 6, 1000
NOISE = np.linspace(-0.002, 0.002, SEEDS)


def trained(test=0.9, train=0.95, flips=(1e-2, 1e-4)):
  """Returns outcomes of two layers, with one epoch for each share of flips.

  Networks are right on a share of all test examples that lie at even distances.
  """
  layered = np.stack([np.multiply(flips, f) for f in (0.5, 1.5)], -1)
  wobble = 10 ** (10 * NOISE)
  at = np.arange(EXAMPLES) * 7 % 10 / 10 + 1e-3
  right = np.repeat(at[None] < test, SEEDS, axis=0)
  right[np.arange(SEEDS), np.arange(SEEDS)] ^= True  # Each errs on its own.
  return xarray.Dataset(
    {
      'test_right': (('seed', 'test_byte'), np.packbits(right, axis=-1)),
      'right': (('seed', 'test_example'), 100.0 * right),
      'test_accuracy': ('seed', right.mean(-1)),
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
    {'test_examples': EXAMPLES},
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
  found = findings.reaches(trained(), target)
  assert (found.verdict, found.num_seeds, found.primary) == (
    verdict,
    SEEDS,
    True,
  )
  np.testing.assert_allclose(found.effect, effect, atol=0.11)
  np.testing.assert_allclose(found.details['test accuracy, %'], 90, atol=0.11)
  np.testing.assert_allclose(found.details['validation accuracy, %'], 80)
  assert f'{target:g} %' in found.claim


@pytest.mark.parametrize(
  ('train', 'verdict'),
  [(0.95, 'supported'), (0.85, 'contradicted'), (0.9, 'inconclusive')],
)
def test_generalisation(train, verdict):
  found = findings.generalisation(trained(train=train))
  assert (found.finding, found.verdict) == ('overfitting', verdict)
  np.testing.assert_allclose(found.effect, 100 * (train - 0.9), atol=0.11)
  np.testing.assert_allclose(
    found.details['training accuracy, %'], 100 * train, rtol=1e-6
  )


@pytest.mark.parametrize(
  ('flips', 'verdict', 'effect'),
  [
    ((1e-2, 1e-4), 'supported', 2.0),
    ((1e-4, 1e-2), 'contradicted', -2.0),
    ((1e-3, 1e-3), 'equivalent', 0.0),
    ((1.5e-3, 1e-3), 'equivalent', np.log10(1.5)),
  ],
)
def test_settles(flips, verdict, effect):
  found = findings.settles(trained(flips=flips))
  assert found.verdict == verdict
  np.testing.assert_allclose(found.effect, effect, atol=1e-6)
  np.testing.assert_allclose(
    found.details['first epoch, flips per weight and update'], flips[0]
  )


def test_signs_that_never_move():
  found = findings.settles(trained(flips=(0.0, 0.0)))
  assert found.verdict != 'supported' and found.effect == 0


def test_other_test_images_are_in_the_interval():
  """Seeds that agree on every image leave the error of a share of 1000 images."""
  results = trained()
  right = np.repeat(results.right.values[:1], SEEDS, axis=0)
  results['right'].values[:] = right
  found = findings.reaches(results, 85.0)
  half = 1.962 * right[0].std(ddof=1) / np.sqrt(EXAMPLES)
  np.testing.assert_allclose(found.high - found.effect, half, rtol=1e-3)


def test_seeds_that_diverged(as_if_not_run):
  """Old results give a network of NaN an accuracy, but no loss."""
  results = trained().assign(
    test_loss=('seed', np.ones(SEEDS)),
    clean_train_loss=('seed', np.ones(SEEDS)),
  )
  results.attrs['target'] = 85.0
  as_if_not_run(findings.judge, results, ['test_loss'])
  as_if_not_run(findings.judge, results, ['clean_train_loss', 'test_loss'])


def test_one_seed_has_no_interval():
  alone = trained().isel(seed=[0]).assign_attrs(target=50.0)
  for found in findings.judge(alone):
    assert (found.verdict, found.num_seeds) == ('inconclusive', 1)
    assert found.caveat.startswith('One seed: no interval.')
