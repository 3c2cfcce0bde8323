"""The tiny layer: no arm beats its optimum; the additive bound is a best sum."""

import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest
import xarray

from bitjax import scans
from bitjax import sweeps
from bitjax import types
from bitjax.studies import discrete_optimum
from bitjax.studies import toy
from bitjax.studies.discrete_optimum import arms

pytestmark = pytest.mark.study

# The configuration of the smoke run, so that both share a program.
CONFIG = discrete_optimum.STUDY.config(
  **discrete_optimum.STUDY.presets['smoke']
)
(SIZE,) = CONFIG.batch_size
WEIGHTS = math.prod(CONFIG.hidden)


@pytest.fixture(scope='module')
def problems():
  return CONFIG.open(sweeps.Sweep())


@pytest.fixture(scope='module')
def view(problems):
  trial = problems.trial(jnp.asarray(2), problems.arrays)
  posed = toy.pose_problem(
    problems.model('binary'), trial, SIZE, layer=arms.LAYER
  )
  return posed.search


def test_arms_do_not_beat_the_optimum(problems, view):
  results = arms.compare(
    problems,
    sweeps.Sweep(),
    rates=CONFIG.learning_rates.values,
    train_steps=CONFIG.train_steps,
  )
  assert (results.decrease <= results.optimum + 1e-5).all()
  assert (results.optimum > 0).any()
  at = results.sel(seed=2, state='initialised')
  np.testing.assert_allclose(at.loss, view.loss(view.kernel), rtol=1e-5)
  for power, name in enumerate(('gain', 'per cost', 'per squared cost')):
    step = scans.discrete_gradient(view, problems.budget, rank_by=power)
    best = scans.prefix_scan(view, step, range(WEIGHTS + 1)).search.min()
    np.testing.assert_allclose(
      at.decrease.sel(arm=f'exact {name}'), at.loss - best, atol=1e-5
    )
  np.testing.assert_allclose(
    at.bound, arms.additive_bound(view, problems.budget), rtol=1e-4
  )


@pytest.mark.parametrize(
  ('norm', 'radius'), [('l2', 0.9), ('l1', 1.5), ('flips', 2.5), ('linf', 0.5)]
)
def test_additive_bound_is_the_best_sum(view, norm, radius):
  bound = float(arms.additive_bound(view, types.Budget(radius, norm)))
  gains = np.ravel(scans.flip_gains(view).gains)
  cost = np.ravel(jnp.abs(scans.moves(view).destinations[0] - view.kernel))
  share = {
    'l2': (cost / radius) ** 2, 'l1': cost / radius,
    'flips': np.full(WEIGHTS, 1 / radius), 'linf': 2.0 * (cost > radius),
  }[norm]  # fmt: skip
  best = most = 0.0
  for chosen in itertools.product([False, True], repeat=WEIGHTS):
    chosen = np.asarray(chosen)
    if share[chosen].sum() > 1:
      continue
    best = max(best, gains[chosen].sum())
    # One more move, for the part of its cost that the budget still allows.
    for k in np.flatnonzero(~chosen & (share <= 1)):
      part = min((1 - share[chosen].sum()) / max(share[k], 1e-9), 1)
      most = max(most, gains[chosen].sum() + part * gains[k])
  assert best > 0
  np.testing.assert_allclose(bound, max(best, most), rtol=1e-5)


@pytest.mark.parametrize('hidden', [(4,), (5, 5)])
def test_bad_input(hidden):
  with pytest.raises(types.BadInput, match='1 to 20 weights between them'):
    arms.check(hidden)


@pytest.mark.parametrize('seeds', [1, 40])
def test_one_seed_has_no_interval(seeds):
  draw = np.random.default_rng(0)
  where, shape = ('state', 'seed'), (2, seeds)
  results = xarray.Dataset(
    {
      'loss': (where, np.ones(shape)),
      'optimum': (where, np.full(shape, 0.5)),
      'bound': (where, np.full(shape, 0.6)),
      'decrease': (
        (*where, 'arm'),
        draw.uniform(0.1, 0.4, (*shape, len(arms.ARMS))),
      ),
    },
    {'state': ['initialised', 'trained'], 'arm': list(arms.ARMS)},
  )
  bound, optimum, *_ = discrete_optimum.STUDY.verdicts(results)
  assert bound.primary and not optimum.primary
  np.testing.assert_allclose(bound.effect, 0.1)
  if seeds > 1:
    assert (bound.verdict, bound.num_seeds) == ('supported', seeds)
    return
  for found in (bound, optimum):
    assert (found.verdict, found.num_seeds) == ('inconclusive', 1)
    assert found.caveat == 'One seed: no interval.'
