"""Local optima: one lane against plain computations."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import scans
from bitjax import sweeps
from bitjax.studies import local_optima
from bitjax.studies import toy
from bitjax.studies.local_optima import arms
from bitjax.studies.local_optima import controls
from bitjax.studies.local_optima import networks

pytestmark = pytest.mark.study

SIZE, SCALE = 40, 1 / 16  # Examples; the unit of the pixels.
ESTIMATORS = ('normal', 'EDE')  # All tests share one program.


@pytest.fixture(scope='module')
def problems():
  config = local_optima.study.Config(
    dataset='digits',
    batch_size=(SIZE,),
    hidden=(6, 5),
    seeds=(5, 2),
    tuning_seeds=(9, 7),
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
  assert results['tuning_holdout'].tuning_seed.values.tolist() == [9, 7]
  assert 'tuning_seed' not in results['trained_search'].coords
  untrained = toy.pose_problem(
    problems.model('binary'),
    problems.trial(jnp.asarray(2), problems.arrays),
    SIZE,
  )
  before = untrained.losses(untrained.kernel)['search']
  for estimator in ESTIMATORS:
    found = results.sel(estimator=estimator)
    means = found['tuning_holdout'].mean('tuning_seed').values
    assert found['chosen_rate'] == rates[means.argmin()] == rates[1]
    trained, descended = found['trained_search'], found['descended_search']
    assert before > trained > descended > 0
    assert found['perturbed_search'][0] > descended
  losses = results['trained_search']
  assert losses[0] != losses[1]


def test_a_falling_rate_is_the_cosine():
  rate = networks.schedule(0.3, True, 8)
  wanted = [0.15 * (1 + np.cos(np.pi * n / 8)) for n in range(9)]
  np.testing.assert_allclose([rate(n) for n in range(9)], wanted, atol=1e-7)
  assert networks.schedule(0.3, False, 8)(5) == np.float32(0.3)


@pytest.fixture(scope='module')
def trained_longer(problems):
  return controls.binary(
    problems,
    sweeps.Sweep(),
    estimator='normal',
    learning_rates=(1e-2,),
    train_steps=40,
    times=(1, 3),
    max_flips=200,
    few_flips=3,
    stream=20,
  ).sel(seed=2)


def test_controls_differ_in_the_training_alone(problems, trained_longer):
  results = compare(problems, ESTIMATORS, (1e-2,)).sel(estimator='normal')
  same = trained_longer.sel(updates=1, schedule='constant')
  names = 'trained_holdout', 'descended_holdout', 'num_flips', 'significant'
  for name in names:
    np.testing.assert_array_equal(same[f'control_{name}'], results[name])
  losses = trained_longer['control_trained_search'].values
  assert np.unique(losses).size == losses.size == 4
  assert losses[1].max() < losses[0].min()  # More updates, lower losses.
  few = trained_longer['control_few_search'].values
  assert np.all(losses > few)
  assert np.all(few > trained_longer['control_descended_search'].values)


@pytest.mark.parametrize(('times', 'schedule'), [(3, 'cosine')])
def test_a_control_is_trained_as_it_says(
  problems, trained_longer, times, schedule
):
  trial = problems.trial(jnp.asarray(2), problems.arrays)
  steps = 40 * times
  variables = toy.train(
    problems.model('binary'),
    trial.variables,
    trial.batches[SIZE][0],
    jnp.arange(SIZE),
    networks.keys(trial)[0],
    num_steps=steps,
    learning_rate=optax.cosine_decay_schedule(1e-2, steps),
    anneal=True,
  )
  posed = toy.pose_problem(
    problems.model('binary'), trial._replace(variables=variables), SIZE
  )
  found = trained_longer.sel(updates=times, schedule=schedule)
  losses = posed.losses(posed.kernel)
  np.testing.assert_allclose(
    found['control_trained_holdout'], losses['holdout'], rtol=1e-5
  )
  descent = scans.flip_descent(posed.search, 3, path='recompute')
  few = posed.losses(posed.kernel + descent.displacement)
  np.testing.assert_allclose(
    found['control_few_holdout'], few['holdout'], rtol=1e-5
  )


def test_moves_of_a_weight_in_full_precision():
  kernel = jnp.asarray([3.0, -1.0, 0.0, -4.0])
  size = 2 * np.sqrt(26 / 4)
  view = scans.LayerView(
    jnp.ones((1, 1)), kernel[None], jnp.zeros(1, int), (), None
  )
  wanted = {
    True: [-3.0, 1.0, 0.0, 4.0],
    False: [3 - size, -1 + size, -size, -4 + size],
  }
  for negates, there in wanted.items():
    moves = controls.Moves.of(kernel, negates)
    assert np.array_equal(moves(kernel), kernel)
    found = scans.moves(dataclasses.replace(view, quantizer=moves))
    assert not found.paired
    np.testing.assert_allclose(found.destinations[0, 0], there, rtol=1e-6)
    # Except at 0, a move from the other side of 0 leads back.
    back = dataclasses.replace(view, quantizer=moves)
    back = dataclasses.replace(back, kernel=found.destinations[0])
    crossed = np.sign(there) == -np.sign(kernel)
    again = scans.moves(back).destinations[0, 0]
    np.testing.assert_allclose(again[crossed], kernel[crossed], atol=1e-6)


def test_full_precision_is_the_plain_computation(problems):
  results = controls.full_precision(
    problems,
    sweeps.Sweep(),
    learning_rates=(1e-20,),  # The network stays as it was.
    num_steps=4,
    few_flips=2,
  ).sel(seed=2)
  trial = problems.trial(jnp.asarray(2), problems.arrays)
  kernels = [
    np.asarray(layer['kernel'], float)
    for layer in trial.variables['params'].values()
  ]
  training, other = (float64(batch) for batch in trial.batches[SIZE])
  before = [loss(kernels, *batch) for batch in (training, other)]
  np.testing.assert_allclose(
    results['precise_trained_holdout'], before[1], rtol=1e-5
  )
  for move in controls.MOVES:
    found = results.sel(move=move)
    gains = [
      single_gains(kernels, number, move, training) for number in range(3)
    ]
    every = np.concatenate([each.ravel() for each in gains])
    np.testing.assert_allclose(
      found['precise_improving'].sel(layer='all'),
      (every > 1e-6 * before[0]).mean(),
      atol=2e-3,
    )
    np.testing.assert_allclose(
      found['precise_best'].sel(layer='Dense_1'), gains[1].max(), rtol=1e-3
    )
    best = [
      np.array(each) for each in kernels
    ]  # Two of the best moves, one after the other.
    size = 2 * np.sqrt((kernels[0] ** 2).mean())
    for _ in range(2):
      now = single_gains(best, 0, move, training, size)
      place = np.unravel_index(now.argmax(), now.shape)
      best[0][place] = there(best[0][place], move, size)
    for name, batch in (('search', training), ('holdout', other)):
      np.testing.assert_allclose(
        found[f'precise_few_{name}'], loss(best, *batch), rtol=1e-4
      )


def float64(batch):
  inputs = np.asarray(batch.inputs, float).reshape(SIZE, -1)
  return inputs * SCALE, np.asarray(batch.labels)


def loss(kernels, x, labels):
  for kernel in kernels[:-1]:
    x = np.maximum(x @ kernel, 0)
  logits = x @ kernels[-1]
  norm = np.log(np.exp(logits).sum(-1))
  return (norm - logits[np.arange(len(labels)), labels]).mean()


def there(w, move, size):
  return -w if move == 'negation' else w - size * (1 if w >= 0 else -1)


def single_gains(kernels, number, move, batch, size=None):
  kernel = kernels[number]
  size = 2 * np.sqrt((kernel**2).mean()) if size is None else size
  before, gains = loss(kernels, *batch), np.zeros(kernel.shape)
  for place in np.ndindex(*kernel.shape):
    moved = [np.array(each) for each in kernels]
    moved[number][place] = there(kernel[place], move, size)
    gains[place] = before - loss(moved, *batch)
  return gains
