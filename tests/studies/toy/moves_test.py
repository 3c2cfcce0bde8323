"""The toy problem: what a seed shares, and what each arm reports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import sweeps
from bitjax import types
from bitjax.studies import toy

pytestmark = pytest.mark.study

BUDGET = types.Budget(0.1)


@pytest.fixture(scope='module')
def problems():
  config = toy.BallConfig(
    dataset='digits', batch_size=(16, 40), hidden=(8,), seeds=(5, 2)
  )
  sweep = sweeps.Sweep()
  problems = config.open(sweep)
  assert sweep.records['data_checksum'] == problems.dataset.checksum
  return problems


def pose(problems, network='binary', seed=2, **kwargs):
  return problems.pose(network, jnp.asarray(seed), problems.arrays, **kwargs)


def test_networks_of_a_seed_share_weights_and_batches(problems):
  binary, real = pose(problems), pose(problems, 'full_precision')
  np.testing.assert_array_equal(binary.kernel, real.kernel)
  np.testing.assert_array_equal(binary.search.inputs, real.search.inputs)
  other = pose(problems, seed=5)
  assert (binary.kernel != other.kernel).any()
  assert (binary.search.labels != other.search.labels).any()


def test_batches_are_disjoint_and_of_the_size_asked_for(problems):
  small, large = pose(problems, batch_size=16), pose(problems)
  assert small.search.inputs.shape[0] == 16
  assert large.search.inputs.shape[0] == large.holdout.inputs.shape[0] == 40
  images = problems.dataset.images.reshape(len(problems.dataset.labels), -1)
  unique = len(np.unique(images, axis=0)) == len(images)
  rows = {tuple(row) for row in np.asarray(large.search.inputs)}
  assert unique
  assert not rows & {tuple(row) for row in np.asarray(large.holdout.inputs)}


def test_single_step_is_the_loss_along_the_gradient(problems):
  problem = pose(problems)
  fractions = jnp.array([0.1, 1.0])
  found = toy.single_step(problem, BUDGET, fractions)
  gradient = jax.grad(problem.search.loss)(problem.kernel)
  unit = BUDGET.radius / np.linalg.norm(gradient)
  for index, fraction in enumerate(fractions):
    kernel = problem.kernel - fraction * unit * gradient
    np.testing.assert_allclose(
      found['holdout'][index], problem.holdout.loss(kernel), rtol=1e-6
    )
    np.testing.assert_allclose(found['used'][index], fraction, rtol=1e-5)


@pytest.mark.parametrize('norm', ['linf', 'flips'])
def test_every_arm_stays_in_the_ball(problems, norm):
  problem, budget = pose(problems), types.Budget(0.1, norm)
  if norm == 'flips':
    budget = types.Budget(5.0, norm)
  rates = jnp.array([0.3, 1.0])
  arms = {
    'single': toy.single_step(problem, budget, rates),
    'steepest': (
      toy.single_step(problem, budget, rates, steepest=True)
      if norm != 'flips'
      else {}
    ),
    'noisy': toy.noisy_single_step(problem, budget, rates, 0.5),
    'restarts': toy.restarts(problem, budget, 1.0, jnp.arange(3)),
    'multi': toy.multi_step(problem, budget, 3, 0.7, noise=0.5, draw=1),
  }
  for name, outputs in arms.items():
    if outputs:
      assert set(outputs) == set(toy.REPORTED), name
      assert (outputs['used'] <= 1 + 1e-5).all(), name
      assert (outputs['used'] > 0).any(), name


@pytest.mark.parametrize('optimizer', list(toy.OPTIMIZERS))
def test_step_size_one_reaches_the_edge(problems, optimizer):
  found = toy.multi_step(pose(problems), BUDGET, 1, 1.0, optimizer=optimizer)
  np.testing.assert_allclose(found['used'][1], 1.0, rtol=0.02)


def test_first_step_of_sgd_is_the_single_step(problems):
  problem = pose(problems)
  several = toy.multi_step(problem, BUDGET, 2, 0.5)
  single = toy.single_step(problem, BUDGET, jnp.array([0.5]))
  np.testing.assert_allclose(several['holdout'][1], single['holdout'][0])
  np.testing.assert_array_equal(several['flips'][1], single['flips'][0])
