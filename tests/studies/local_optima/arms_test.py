"""Local optima: one lane against plain computations."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import scans
from bitjax import sweeps
from bitjax.studies import toy
from bitjax.studies.local_optima import arms

pytestmark = pytest.mark.study

SIZE = 40
ESTIMATORS = ('normal', 'EDE')  # All tests share one program.


@pytest.fixture(scope='module')
def problems():
  config = toy.Config(
    dataset='digits', batch_size=(SIZE,), hidden=(6, 5), seeds=(5, 2)
  )
  return config.open(sweeps.Sweep())


def compare(problems, estimators, learning_rates):
  return arms.compare(
    problems,
    sweeps.Sweep(),
    estimators=estimators,
    learning_rates=learning_rates,
    train_steps=40,
    max_flips=200,
    perturbed=(3,),
    num_pairs=4,
    stream=20,
  ).sel(seed=2)


def test_untrained_lane_is_the_plain_computation(problems):
  # A learning rate of almost 0, so that the network stays as it was.
  results = compare(problems, ESTIMATORS, (1e-20,)).sel(estimator='normal')
  trial = problems.trial(jnp.asarray(2), problems.arrays)
  posed = toy.pose_problem(problems.model('binary'), trial, SIZE)
  whole = toy.pose_problem(problems.model('binary'), trial, SIZE, layer=None)
  for name, loss in posed.losses(posed.kernel).items():
    np.testing.assert_allclose(results[f'trained_{name}'], loss, rtol=1e-5)
  gains = scans.flip_gains(whole.search, path='brute_force').gains
  held = scans.flip_gains(whole.holdout, path='brute_force').gains
  better = np.asarray(gains) > 1e-6 * float(posed.search.loss(posed.kernel))
  np.testing.assert_allclose(
    results['improving'].sel(layer='all'), better.mean(), atol=2e-3
  )
  np.testing.assert_allclose(
    results['holds'].sel(layer='all'), (held[better] > 0).mean(), atol=1e-2
  )
  descent = scans.flip_descent(posed.search, 200, path='recompute')
  assert results['certified'] == descent.certified == 1
  end = posed.losses(posed.kernel + descent.displacement)
  for name, loss in end.items():
    np.testing.assert_allclose(results[f'descended_{name}'], loss, rtol=1e-4)
  moved = dataclasses.replace(
    posed.search, kernel=posed.kernel + descent.displacement
  )
  assert results['is_optimum'].sel(layer='Dense_0') == 0
  assert scans.flip_gains(moved).gains.max() <= 1e-5


def test_training_and_flips_lower_the_training_loss(problems):
  rates = 1e-20, 1e-2
  results = compare(problems, ESTIMATORS, rates)
  before = results['tuning_search'].sel(learning_rate=rates[0])
  assert before[0] == before[1]
  for estimator in ESTIMATORS:
    found = results.sel(estimator=estimator)
    assert found['chosen_rate'] == rates[1]
    tuned = found['tuning_search'].sel(learning_rate=rates[1])
    trained, descended = found['trained_search'], found['descended_search']
    np.testing.assert_allclose(trained, tuned, rtol=1e-4)
    assert before[0] > trained > descended > 0
    assert found['perturbed_search'][0] > descended
  losses = results['trained_search']
  assert losses[0] != losses[1]
