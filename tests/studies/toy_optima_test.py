"""Local optima: one lane against plain computations, and known verdicts."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import xarray

from bitjax import scans
from bitjax import sweeps
from bitjax.studies import optima_findings as findings
from bitjax.studies import toy
from bitjax.studies import toy_config
from bitjax.studies import toy_optima

SIZE = 40


@pytest.fixture(scope='module')
def problem():
  config = toy_config.ToyConfig(
    dataset='digits', batch_size=(SIZE,), hidden=(6, 5), seeds=(5, 2)
  )
  return config.open(sweeps.Sweep())


def compare(problem, estimators, learning_rates):
  return toy_optima.compare(
    problem,
    sweeps.Sweep(),
    estimators=estimators,
    learning_rates=learning_rates,
    train_steps=40,
    max_flips=200,
    perturbed=(3,),
    num_pairs=4,
    stream=20,
  ).sel(seed=2)


def test_untrained_lane_is_the_plain_computation(problem):
  # Practically 0: the network stays what it was.
  results = compare(problem, ('normal',), (1e-20,)).sel(estimator='normal')
  experiment = problem.experiment(jnp.asarray(2), problem.arrays)
  posed = toy.pose_problem(problem.model('binary'), experiment, SIZE)
  whole = toy.pose_problem(
    problem.model('binary'), experiment, SIZE, layer=None
  )
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


def test_training_and_flips_lower_the_training_loss(problem):
  rates = 1e-20, 1e-2
  results = compare(problem, ('normal', 'EDE'), rates)
  before = results['tuning_search'].sel(learning_rate=rates[0])
  assert before[0] == before[1]
  for estimator in ('normal', 'EDE'):
    found = results.sel(estimator=estimator)
    assert found['chosen_rate'] == rates[1]
    tuned = found['tuning_search'].sel(learning_rate=rates[1])
    trained, descended = found['trained_search'], found['descended_search']
    np.testing.assert_allclose(trained, tuned, rtol=1e-4)
    assert before[0] > trained > descended > 0
    assert found['perturbed_search'][0] > descended
  losses = results['trained_search']
  assert losses[0] != losses[1]


def test_more_perturbed_weights_than_there_are(problem):
  with pytest.raises(ValueError, match=r'perturbed .* at most 384.*got 385'):
    toy_optima.compare(
      problem,
      sweeps.Sweep(),
      estimators=('normal',),
      learning_rates=(1e-3,),
      train_steps=1,
      max_flips=1,
      perturbed=(385,),
      num_pairs=1,
      stream=20,
    )


def test_verdicts_of_a_known_table():
  seeds, rng = 12, np.random.default_rng(0)
  dims = ('estimator', 'seed')
  shape = (2, seeds)

  def values(value, *extra):
    noise = 1 + 0.001 * rng.normal(size=(*shape, *extra))
    return np.broadcast_to(value, (*shape, *extra)) * noise

  table = {f'trained_{batch}': (dims, values(0.5)) for batch in findings.NAMES}
  table |= {
    'descended_search': (dims, values(0.05)),
    'descended_holdout': (dims, values(0.75)),
    'additivity': (dims, values(0.4)),
  }
  for name in ('num_flips', 'certified', 'accuracy_search', 'accuracy_holdout'):
    table[name] = (dims, values(1.0))
  layered = (*dims, 'layer')
  shares = {
    'improving': 0.4, 'significant': 0.1, 'mirrored': 0.2, 'holds': 0.6,
    'significant_holds': 0.5, 'random_holds': 0.5, 'is_optimum': 0.0,
    'mean_holdout': 0.01,
  }  # fmt: skip
  table |= {name: (layered, values(x, 1)) for name, x in shares.items()}
  other = table['improving'][1]
  other[1] *= 0.5  # The other estimator ends nearer to an optimum.
  again = (*dims, 'perturbed')
  table |= {
    'again_search': (again, values(0.05, 1)),
    'again_holdout': (again, values(0.35, 1)),
    'again_certified': (again, values(1.0, 1)),
    'perturbed_search': (again, values(0.3, 1)),
  }
  results = xarray.Dataset(
    table,
    {
      'estimator': ['normal', 'other'], 'seed': range(seeds), 'layer': ['all'], 'perturbed': [8],
    },
  )  # fmt: skip
  verdicts = {
    verdict.finding: verdict
    for part in (
      findings.descent(results, 'normal'),
      findings.optimum(results, 'normal'),
      findings.nearest(results),
      findings.escape(results, 'normal'),
    )
    for verdict in part
  }
  judged = {name: verdict.verdict for name, verdict in verdicts.items()}
  primary = verdicts['N15 descent, held-out']
  assert primary.primary and not verdicts['N15 descent, training'].primary
  np.testing.assert_allclose(primary.effect, np.log(0.5 / 0.75), atol=0.01)
  assert judged['N15 descent, held-out'] == 'contradicted'
  assert judged['N15 descent, training'] == 'supported'
  assert judged['N15 optimum'] == 'contradicted'
  assert judged['N15 holds'] == 'supported'
  assert judged['N15 additivity'] == 'supported'
  assert judged['N15 nearest'] == 'supported'
  assert judged['N16 escape, held-out, 8 flips'] == 'supported'
