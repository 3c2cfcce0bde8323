"""What is kept of each method, against plain computations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import scans
from bitjax import sweeps
from bitjax.studies.discrete_optimisers import arms
from bitjax.studies.discrete_optimisers import networks
from bitjax.studies.discrete_optimisers import study

pytestmark = pytest.mark.study

CONFIG = study.Config(
  batch_size=(32,), hidden=(1, 2), seeds=(0, 1, 2), tuning_seeds=(9,),
  train_steps=8, updates=16, max_flips=40,
)  # fmt: skip
# The first is what others are compared with, and one has a control of its own.
FEW = {name: arms.METHODS[name] for name in ('STE, Adam', 'genetic')}


@pytest.fixture(scope='module')
def results():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(arms, 'METHODS', FEW)
    yield arms.compare(CONFIG.open(sweeps.Sweep()), sweeps.Sweep())


@pytest.fixture(scope='module')
def posed():
  """The tiny network of seed 1, at both starts."""
  problems = CONFIG.open(sweeps.Sweep())
  network = networks.every(CONFIG, 64)[0]
  own = networks.Networks(network, CONFIG, problems.dataset)
  arrays = own.problems.arrays
  weights = jax.jit(own.checkpoint)(1, arrays)
  return [own.pose(start, 1, weights, arrays)[0] for start in (0, 1)]


def test_networks_by_their_signs():
  found = networks.every(dataclasses.replace(CONFIG, deeper=7), 64)
  assert [n.signs for n in found] == [16, 64, 128]
  assert [n.hidden for n in found] == [(4, 4), (1, 7), (2, 7)]


def test_every_method_begins_at_the_same_kernels(results, posed):
  at = results.sel(signs=16, seed=1, effort=0, arm=list(FEW))
  for start, problem in zip(networks.STARTS, posed, strict=True):
    for batch, loss in problem.losses(problem.kernel).items():
      np.testing.assert_allclose(at[batch].sel(start=start), loss, rtol=1e-5)
  assert (at.moved == 0).all()
  # Both starts have all but this kernel in common.
  first, second = (p.search for p in posed)
  np.testing.assert_array_equal(first.inputs, second.inputs)
  assert (np.sign(first.kernel) != np.sign(second.kernel)).any()


def test_the_optimum_bounds_all_and_descents_are_those_of_the_scan(
  results, posed
):
  tiny = results.sel(signs=16)
  assert (tiny.search.sel(arm=list(FEW)) >= tiny.optimum - 1e-5).all()
  assert (tiny.descended_search >= tiny.optimum - 1e-5).all()
  assert results.sel(signs=64).optimum.isnull().all()
  at = tiny.sel(seed=1)
  for start, problem in zip(networks.STARTS, posed, strict=True):
    found = scans.flip_descent(problem.search, 40, path='recompute')
    own = at.sel(start=start)
    assert own.num_flips == found.num_flips and own.certified == 1
    end = problem.losses(problem.kernel + found.displacement)
    np.testing.assert_allclose(own.descended_holdout, end['holdout'], rtol=1e-4)
  # Where no flip is left, none improves.
  assert (tiny.improving.sel(arm=arms.DESCENT) == 0).all()
  assert (tiny.improving.sel(arm='STE, Adam') > 0).any()


def test_settings_are_chosen_on_the_tuning_seed_alone(results):
  found = results.sel(arm=list(FEW))
  last = found.tuning_holdout.sel(effort=1, tuning_seed=9, drop=True)
  np.testing.assert_array_equal(
    found.chosen.transpose(*last.isel(choice=0, drop=True).dims),
    last.argmin('choice'),
  )
  assert results.seed.values.tolist() == [0, 1, 2]


def test_random_flips_are_as_many_as_those_of_the_genetic_search(
  results, posed
):
  assert (results.random_search.sel(effort=0) == results.search.sel(
    effort=0, arm='genetic')).all()  # fmt: skip
  moved = results.moved.sel(arm='genetic')
  numbers = moved * results.signs
  np.testing.assert_allclose(numbers, np.rint(numbers), atol=1e-3)
  # In the tiny network the loss is that of some set of as many flips.
  at = results.sel(signs=16, seed=1, start='random', effort=1)
  number = int(np.rint(16 * at.moved.sel(arm='genetic')))
  view = posed[1].search
  base = np.asarray(view.kernel).ravel()
  loss = jax.jit(view.loss)
  wanted = float(at.random_search)
  patterns = (
    np.where((n >> np.arange(16)) & 1, -base, base)
    for n in range(1 << 16)
    if n.bit_count() == number
  )
  assert any(
    abs(float(loss(jnp.asarray(p.reshape(4, 4)))) - wanted) < 1e-5
    for p in patterns
  )


def test_time_is_kept(results):
  found = results.sel(arm=list(FEW))
  for name in ('seconds', 'wall', 'descent_seconds'):
    assert (found[name] > 0).all()
