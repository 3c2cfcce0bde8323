"""Arms of the discrete study: lanes against plain computations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import measures
from bitjax import quantizers
from bitjax import scans
from bitjax import studies
from bitjax import types
from bitjax.studies import discrete_arms
from bitjax.studies import discrete_findings as findings
from bitjax.studies import toy
from bitjax.studies import toy_config
from bitjax.studies import toy_discrete

RADIUS = 0.3


@pytest.fixture(scope='module')
def problem():
  config = toy_config.ToyConfig(
    dataset='digits', batch_size=(40,), hidden=(8, 6), seeds=(5, 2, 3)
  )
  return config.open(studies.Sweep())


@pytest.fixture(scope='module')
def results(problem):
  return toy_discrete.compare(
    problem,
    studies.Sweep(),
    balls=(f'l2:{RADIUS}',),
    layers=('first',),
    rates=(0.5, 1.0),
    step_sizes=(1.0,),
    optimizers=('sgd',),
    num_rounds=(2,),
    num_candidates=10,
    train_steps=5,
    states=('initialised',),
  )


def pose(problem, layer, size=40, **estimators):
  experiment = problem.experiment(jnp.asarray(2), problem.arrays)
  model = problem.model('binary', **estimators)
  return toy.pose_problem(model, experiment, size, layer=layer)


def at(results, name, **labels):
  found = results[name].sel(seed=2, state='initialised')
  labels = {k: v for k, v in labels.items() if k in found.dims}
  return (
    found.sel(labels)
    .isel({d: 0 for d in ('ball', 'step_size') if d in found.dims})
    .values
  )


def test_arms_are_the_plain_computations(problem, results):
  posed = pose(problem, 'Dense_0')
  view, budget = posed.search, types.Budget(RADIUS)
  step = scans.discrete_gradient(
    view, budget, rank_by='gain_per_squared_cost', holdout=posed.holdout
  )
  labels = {'signal': 'exact', 'ranking': 'per squared cost'}
  assert at(results, 'discrete_moves', **labels) == step.num_moves > 0
  np.testing.assert_allclose(
    at(results, 'discrete_predicted', **labels), step.predicted, rtol=1e-4
  )
  for name in ('search', 'holdout'):
    losses = at(results, f'discrete_{name}', **labels)
    wanted = posed.losses(posed.kernel + step.displacement)[name]
    np.testing.assert_allclose(losses[-1], wanted, rtol=1e-5)
    np.testing.assert_allclose(
      losses[0], posed.losses(posed.kernel)[name], rtol=1e-6
    )
  path = scans.multi_step_discrete_gradient(
    view, budget, 2, 'cumulative', rank_by=2, signal='linear'
  )
  found = at(
    results, 'rounds_search', split='cumulative', num_rounds=2,
    **(labels | {'signal': 'linear'}),
  )  # fmt: skip
  np.testing.assert_allclose(found[[0, 2, 4]], path.search, rtol=1e-5)
  narrow = pose(problem, 'Dense_0', activation_estimator=quantizers.window(0.5))
  for direction, source in (('gradient', view), ('variant', narrow.search)):
    gradient = jax.grad(source.loss)(view.kernel)
    moved = view.kernel - RADIUS * gradient / jnp.linalg.norm(gradient)
    np.testing.assert_allclose(
      at(results, 'ste_search', direction=direction)[-1],
      view.loss(moved),
      rtol=1e-5,
    )


def test_all_layers_share_the_ball(problem):
  posed = pose(problem, None)
  view = posed.search
  gradient = jax.grad(view.loss)(view.kernel)
  signal = -gradient * scans.moves(view).changes[0]
  step = scans.discrete_gradient(
    view, types.Budget(RADIUS), rank_by=2, signal=signal
  )
  found = discrete_arms.discrete(
    lambda: posed, types.Budget(RADIUS), prefixes=[0, 3, view.kernel.size]
  )
  place = discrete_arms.SIGNALS.index('linear'), 2
  np.testing.assert_allclose(found['moves'][place], step.num_moves)
  np.testing.assert_allclose(
    found['search'][place][-1],
    view.loss(view.kernel + step.displacement),
    rtol=1e-5,
  )
  moved = view.product.split(step.displacement)
  assert sum(bool(jnp.any(layer != 0)) for layer in moved) > 1


def test_reliability_compares_both_batches(problem, results):
  posed = pose(problem, 'Dense_0')
  gains = [
    np.ravel(scans.flip_gains(v).gains) for v in (posed.search, posed.holdout)
  ]
  labels = {'batch_size': 40, 'pair': 'exact A, exact B'}
  np.testing.assert_allclose(
    at(results, 'reliability_correlation', **labels),
    np.corrcoef(*gains)[0, 1],
    rtol=1e-4,
  )
  view = posed.search
  signs = np.where(np.asarray(view.kernel) >= 0, 1, -1)
  linear = np.ravel(2 * signs * np.asarray(jax.grad(view.loss)(view.kernel)))
  labels['pair'] = 'linear A, exact B'
  np.testing.assert_allclose(
    at(results, 'reliability_correlation', **labels),
    np.corrcoef(linear, gains[1])[0, 1],
    rtol=1e-4,
  )
  assert set(measures.Agreement._fields) == {
    name.removeprefix('reliability_')
    for name in results.data_vars
    if name.startswith('reliability_')
  }


def test_whole_budget_is_the_last_point_and_oracle_the_best(results):
  where = {'ball': f'l2:{RADIUS}', 'layers': 'first', 'state': 'initialised'}
  options = {'signal': 'random', 'ranking': 'gain'}
  losses = results['discrete_search'].sel(where).sel(options)
  for protocol, wanted in (
    ('all', losses.isel(prefix=-1)),
    ('oracle', losses.min('prefix')),
  ):
    found = findings.reached(
      results, 'discrete', protocol, 'search', **where, **options
    )
    np.testing.assert_array_equal(found.values, wanted.values)


def test_causes_are_told_apart(results):
  """Losses are replaced by ones whose verdicts are known."""
  where = {'ball': f'l2:{RADIUS}', 'layers': 'first', 'state': 'initialised'}
  noise = 1 + 0.001 * np.random.default_rng(0).normal(size=results.seed.size)
  known = results.copy(deep=True)

  def put(name, value, **labels):
    cells = known[name]
    shape = [-1 if d == 'seed' else 1 for d in cells.dims if d not in labels]
    cells.loc[labels] = value * noise.reshape(shape)

  for batch in ('search', 'holdout'):
    put(f'discrete_{batch}', 2.0)
    put(f'ste_{batch}', 1.0)
    put(f'discrete_{batch}', 0.5, signal='exact', ranking='per squared cost')
    put(f'discrete_{batch}', 0.4, signal='linear', ranking='per squared cost')
  noise = 1 + 0.001 * np.random.default_rng(1).normal(size=results.seed.size)
  put('discrete_search', 0.3, signal='exact', ranking='per squared cost')
  found = {
    verdict.finding: verdict
    for judge in (findings.bound, findings.held_out, findings.causes)
    for verdict in judge(known, where)
  }
  assert found['N3 bound'].verdict == 'contradicted'
  np.testing.assert_allclose(found['N3 bound'].effect, -np.log(2), atol=0.01)
  assert found['N3 held out'].verdict == 'supported'
  assert found['cause: ranking'].verdict == 'supported'
  assert found['cause: signal, A'].verdict == 'supported'
  assert found['cause: signal, B'].verdict == 'contradicted'


@pytest.mark.parametrize(
  ('balls', 'layers', 'num_rounds', 'words'),
  [
    (('l2',), ('first',), (1,), 'written norm:radius'),
    (('l3:1',), ('first',), (1,), 'linf'),
    (('l2:0',), ('first',), (1,), 'radius must be > 0'),
    (('l2:1',), ('all',), (1,), "begin with 'first'"),
    (('l2:1',), ('first',), (4, 2), 'num_rounds must grow'),
  ],
)
def test_bad_input(balls, layers, num_rounds, words):
  with pytest.raises(ValueError, match=words):
    discrete_arms.check(balls, layers, num_rounds)
