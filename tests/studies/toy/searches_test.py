"""Searches within a ball around the kernel, against plain computations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import scans
from bitjax import sweeps
from bitjax import types
from bitjax.studies import toy
from bitjax.studies.toy import searches

pytestmark = pytest.mark.study

RADIUS = 0.3


@pytest.fixture(scope='module')
def problems():
  config = toy.BallConfig(
    dataset='digits', batch_size=(40,), hidden=(8, 6), seeds=(5, 2, 3)
  )
  return config.open(sweeps.Sweep())


def pose(problems, layer, size=40, **estimators):
  trial = problems.trial(jnp.asarray(2), problems.arrays)
  model = problems.model('binary', **estimators)
  return toy.pose_problem(model, trial, size, layer=layer)


def signal_of(view, name):
  """Returns the signal of each move; JAX computes only gradient and gains."""
  if name == 'exact':
    return np.asarray(scans.flip_gains(view).gains)
  signs = np.where(np.asarray(view.kernel) >= 0, 1, -1)
  return 2 * signs * np.asarray(jax.grad(view.loss)(view.kernel))


@pytest.mark.parametrize('layer', searches.LAYERS.values())
def test_moves_of_a_layer_or_of_all_share_the_ball(problems, layer):
  posed = pose(problems, layer)
  view = posed.search
  found = searches.discrete(
    lambda: posed, types.Budget(RADIUS), prefixes=[0, 3, view.kernel.size]
  )
  for row, name in enumerate(('exact', 'linear')):
    step = scans.discrete_gradient(
      view,
      types.Budget(RADIUS),
      rank_by=2,
      signal=jnp.asarray(signal_of(view, name)),
    )
    assert found['moves'][row, 2] == step.num_moves > 3
    np.testing.assert_allclose(
      found['predicted'][row, 2], step.predicted, rtol=1e-4
    )
    early = (step.rank >= 0) & (step.rank < 3)
    ends = [
      posed.losses(view.kernel + jnp.where(made, step.displacement, 0))
      for made in (False, early, step.rank >= 0)
    ]
    for batch in ('search', 'holdout'):
      np.testing.assert_allclose(
        found[batch][row, 2], [end[batch] for end in ends], rtol=1e-5
      )
  if layer is None:
    moved = view.product.split(step.displacement)
    assert sum(bool(jnp.any(part != 0)) for part in moved) > 1


def test_by_cost_alone_every_ranking_is_the_same(problems):
  posed = pose(problems, 'Dense_0')
  view = posed.search
  found = searches.discrete(
    lambda: posed, types.Budget(RADIUS), prefixes=[0, 3, view.kernel.size]
  )
  row = searches.SIGNALS.index('cost')
  for power in range(len(searches.RANKINGS)):
    step = scans.discrete_gradient(
      view, types.Budget(RADIUS), rank_by=power, signal='cost'
    )
    assert found['moves'][row, power] == step.num_moves > 3
    end = posed.search.loss(view.kernel + step.displacement)
    np.testing.assert_allclose(found['search'][row, power, -1], end, rtol=1e-5)


def test_rounds_are_read_at_shares_of_their_number(problems):
  posed = pose(problems, 'Dense_0')
  budget = types.Budget(RADIUS)
  found = searches.rounds(
    lambda: posed,
    budget,
    'linear',
    'cumulative',
    2,
    rankings=('gain', 'per squared cost'),
  )
  path = scans.multi_step_discrete_gradient(
    posed.search, budget, 2, 'cumulative', rank_by=2, signal='linear'
  )
  np.testing.assert_allclose(
    found['search'][1], path.search[jnp.array([0, 0, 1, 1, 2])], rtol=1e-5
  )


@pytest.mark.parametrize('signal', ['random', 'cost'])
def test_rounds_that_do_not_look_at_the_loss(problems, signal):
  posed = pose(problems, 'Dense_0')
  budget = types.Budget(RADIUS)
  rankings = ('gain', 'per squared cost')
  found = searches.rounds(
    lambda: posed, budget, signal, 'even', 2, rankings=rankings
  )
  assert found['moves'].shape == (2,) and (found['moves'] > 2).all()
  # By 'cost', both rankings take the cheapest moves; by 'random', only the second.
  same = found['moves'][0] == found['moves'][1]
  assert same if signal == 'cost' else not same
  blind = dataclasses.replace(posed.search, labels=posed.holdout.labels)
  path = scans.multi_step_discrete_gradient(
    blind,
    budget,
    2,
    'even',
    rank_by=2,
    signal=signal,
    key=jax.random.fold_in(posed.noise_key, 1 << 21),
  )
  assert found['moves'][1] == path.num_moves.sum()
  moved = posed.search.kernel + path.displacement
  np.testing.assert_allclose(
    found['search'][1, -1], posed.search.loss(moved), rtol=1e-5
  )


def test_directions_reach_the_edge_of_the_ball(problems):
  def look(**estimators):
    return pose(problems, 'Dense_0', **estimators)

  found = searches.ste(look, types.Budget(RADIUS), rates=(0.5, 1.0))
  view = look().search
  narrow = look(activation_estimator=quantizers.window(0.5)).search
  gradients = {
    'gradient': jax.grad(view.loss)(view.kernel),
    'variant': jax.grad(narrow.loss)(view.kernel),
  }
  gradients['sign'] = jnp.sign(gradients['gradient'])
  for name, gradient in gradients.items():
    moved = view.kernel - RADIUS * gradient / jnp.linalg.norm(gradient)
    row = searches.DIRECTIONS.index(name)
    np.testing.assert_allclose(
      found['search'][row, -1], view.loss(moved), rtol=1e-5
    )


def test_reliability_compares_both_batches(problems):
  posed = pose(problems, 'Dense_0')
  found = searches.reliability(lambda: posed)
  views = {'A': posed.search, 'B': posed.holdout}
  for row, pair in enumerate(searches.PAIRS):
    a, b = (
      np.ravel(signal_of(views[batch], name))
      for name, batch in (side.split() for side in pair.split(', '))
    )
    np.testing.assert_allclose(
      found['correlation'][row], np.corrcoef(a, b)[0, 1], rtol=1e-4
    )


@pytest.mark.parametrize(
  ('balls', 'layers', 'num_rounds', 'words'),
  [
    (('l2',), ('first',), (1,), 'written norm:radius'),
    (('l3:1',), ('first',), (1,), "linf.*got 'l3:1'"),
    (('l2:0',), ('first',), (1,), r"to 1e\+12; got 'l2:0'"),
    (('l2:1',), ('all',), (1,), "begin with 'first'"),
    (('l2:1',), ('first',), (4, 2), 'num_rounds must grow'),
  ],
)
def test_bad_input(balls, layers, num_rounds, words):
  with pytest.raises(types.BadInput, match=words):
    searches.check(balls, layers, num_rounds)


def test_rounds_need_what_contrasts_are_about():
  cell = ('l2:1',), ('first',), (1,)
  with pytest.raises(types.BadInput, match='round_rankings must list'):
    searches.check(*cell, ('gain',))
  with pytest.raises(types.BadInput, match="round_signals must list 'linear'"):
    searches.check(*cell, round_signals=('exact', 'cost'))
