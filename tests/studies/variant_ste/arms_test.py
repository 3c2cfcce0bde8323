"""Variants on the toy problem: one lane against a plain computation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import data
from bitjax import measures
from bitjax import quantizers
from bitjax import sweeps
from bitjax import types
from bitjax.studies import toy
from bitjax.studies import variant_ste
from bitjax.studies.variant_ste import arms

pytestmark = pytest.mark.study

SIZE = 40
RATES = (0.1, 1.0)
WIDE = toy.Variant('wide', 9, kernel=quantizers.window(9.0))
NARROW = toy.Variant('narrow', 0.3, activation=quantizers.window(0.3))


@pytest.fixture(scope='module')
def problems():
  config = toy.BallConfig(
    dataset='digits', batch_size=(SIZE,), hidden=(8, 6), seeds=(5, 2)
  )
  return config.open(sweeps.Sweep())


@pytest.fixture(scope='module')
def results(problems):
  return arms.compare(
    problems,
    sweeps.Sweep(),
    [toy.NORMAL, WIDE, NARROW],
    RATES,
    everywhere=['normal', 'narrow 0.3'],
    few_rates=(0.5,),
    half_widths=(0.5, 1.0),
    num_groups=2,
    train_steps=30,
  )


def pose(problems, seed=2, **estimators):
  seed = jnp.asarray(seed)
  return problems.pose('binary', seed, problems.arrays, **estimators)


def at(results, name, seed=2, state='initialised', **labels):
  return results[name].sel(seed=seed, state=state, **labels).values


def test_discrete_gradient_is_what_forced_weights_do(problems):
  view = pose(problems).search
  found = arms.discrete(view)
  for index in [(0, 0), (20, 3), (63, 7)]:
    up, down = (view.loss(view.kernel.at[index].set(s)) for s in (1.0, -1.0))
    np.testing.assert_allclose(found[index], (up - down) / 2, atol=2e-7)


@pytest.mark.parametrize(
  ('name', 'estimators'),
  [
    ('normal', {}),
    ('narrow 0.3', {'activation_estimator': NARROW.activation}),
  ],
)
def test_a_lane_is_the_plain_computation(problems, results, name, estimators):
  posed = pose(problems, **estimators)
  gradient = jax.grad(posed.search.loss)(posed.kernel)
  found = toy.single_step(posed, problems.budget, jnp.float32(RATES))
  for output in ('search', 'holdout', 'flips'):
    got = at(results, output, variant=name)
    np.testing.assert_allclose(got, found[output], rtol=1e-5)
  truth = arms.discrete(posed.search)
  # Halves, as in the study: what cancels in one sum need not in another.
  halves = [
    dataclasses.replace(
      posed.search,
      inputs=posed.search.inputs[part],
      labels=posed.search.labels[part],
    )
    for part in (slice(None, SIZE // 2), slice(SIZE // 2, None))
  ]
  split = [jax.grad(half.loss)(posed.kernel) for half in halves]
  agreed = measures.agreement((split[0] + split[1]) / 2, truth)
  # Ranks and signs depend on entries that are zero but for the rounding of sums.
  for kind in ('cosine', 'correlation', 'top_precision'):
    np.testing.assert_allclose(
      at(results, f'discrete_{kind}', variant=name),
      getattr(agreed, kind),
      atol=1e-4,
    )
  other = jax.grad(posed.holdout.loss)(posed.kernel)
  np.testing.assert_allclose(
    at(results, 'reliability', variant=name),
    np.corrcoef(np.ravel(gradient), np.ravel(other))[0, 1],
    atol=1e-5,
  )
  start = at(results, 'start_holdout')
  np.testing.assert_allclose(start, posed.holdout.loss(posed.kernel), rtol=1e-6)


def test_a_variant_that_changes_nothing_is_the_normal_one(results):
  assert (results['affected'].sel(variant='wide 9') == 0).all()
  assert (results['affected'].sel(variant='narrow 0.3') > 0).all()
  for output in (*toy.REPORTED, 'central_cosine', 'reliability'):
    normal = results[output].sel(variant='normal').values
    other = results[output].sel(variant='wide 9').values
    np.testing.assert_array_equal(other, normal)


def test_central_difference_is_discrete_where_it_reaches(problems, results):
  view = pose(problems).search
  step = jnp.median(jnp.abs(view.kernel))
  near = jnp.abs(view.kernel) <= step
  central = arms.discrete(view) * near / step
  # The definition: the losses one step up and one step down.
  index = (20, 3)
  ends = [view.loss(view.kernel.at[index].add(sign * step)) for sign in (1, -1)]
  np.testing.assert_allclose(
    central[index], (ends[0] - ends[1]) / (2 * step), atol=1e-5
  )
  gradient = jax.grad(view.loss)(view.kernel)
  np.testing.assert_allclose(
    at(results, 'central_cosine', variant='normal'),
    measures.agreement(gradient, central).cosine,
    atol=1e-4,
  )


def test_all_layers_step_together(problems, results):
  assert results.chosen.values.tolist() == ['normal', 'narrow 0.3']
  model = problems.model('binary')
  trial = problems.trial(jnp.asarray(2), problems.arrays)
  batch = trial.batches[SIZE][0]

  def loss(variables):
    logits = model.apply(variables, batch.inputs)
    chosen = jnp.take_along_axis(
      jax.nn.log_softmax(logits), batch.labels[:, None], axis=1
    )
    return -jnp.mean(chosen)

  gradient = jax.grad(loss)(trial.variables)
  size = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))
  rate = 0.5 * problems.budget.radius / size
  moved = jax.tree.map(lambda w, g: w - rate * g, trial.variables, gradient)
  found = at(results, 'all_search', chosen='normal', few_rate=0.5)
  np.testing.assert_allclose(found, loss(moved), rtol=1e-4)


def test_what_enters_the_windows(problems, results):
  view = pose(problems).search
  entered = np.abs(view.pre_activations(view.kernel))
  for half_width in (0.5, 1.0):
    found = at(
      results, 'entering_share', layer='Dense_0', half_width=half_width
    )
    np.testing.assert_allclose(found, (entered <= half_width).mean(), rtol=1e-6)


def test_training_lowers_the_loss_and_sees_neither_batch(problems, results):
  before = at(results, 'start_holdout')
  after = at(results, 'start_holdout', state='trained')
  assert after < before - 0.1
  images = problems.dataset.images
  _, key, _ = toy.seed_keys(2)
  rows = data.remainder(key, len(images), SIZE)
  assert len(set(rows.tolist())) == len(images) - 2 * SIZE
  left = {tuple(row) for row in images[rows].reshape(len(rows), -1)}
  posed = pose(problems)
  for view in (posed.search, posed.holdout):
    assert not left & {tuple(row) for row in np.asarray(view.inputs, np.uint8)}


def test_bad_input():
  with pytest.raises(types.BadInput, match='leave none'):
    data.remainder(jax.random.key(0), 20, 10)
  config = variant_ste.STUDY.config(
    dataset='digits',
    batch_size=(16,),
    hidden=(4,),
    augment='shift',
    states=toy.STATES[:1],
  )
  with pytest.raises(types.BadInput, match='augment=shift'):
    toy.trained(config.open(sweeps.Sweep()), 'binary', 3)
