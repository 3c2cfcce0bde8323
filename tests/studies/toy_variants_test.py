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
from bitjax.studies import toy
from bitjax.studies import toy_config
from bitjax.studies import toy_training
from bitjax.studies import toy_variants

SIZE = 40
RATES = (0.1, 1.0)
WIDE = toy_variants.Variant('wide', 9, kernel=quantizers.window(9.0))
NARROW = toy_variants.Variant('narrow', 0.3, activation=quantizers.window(0.3))


@pytest.fixture(scope='module')
def problem():
  config = toy_config.ToyConfig(
    dataset='digits', batch_size=(SIZE,), hidden=(8, 6), seeds=(5, 2)
  )
  return config.open(sweeps.Sweep())


@pytest.fixture(scope='module')
def results(problem):
  return toy_variants.compare(
    problem,
    sweeps.Sweep(),
    [toy_variants.NORMAL, WIDE, NARROW],
    RATES,
    everywhere=['normal', 'narrow 0.3'],
    few_rates=(0.5,),
    half_widths=(0.5, 1.0),
    num_groups=2,
    train_steps=30,
  )


def pose(problem, seed=2, **estimators):
  seed = jnp.asarray(seed)
  return problem.pose('binary', seed, problem.arrays, **estimators)


def at(results, name, seed=2, state='initialised', **labels):
  return results[name].sel(seed=seed, state=state, **labels).values


def test_discrete_gradient_is_what_forced_weights_do(problem):
  view = pose(problem).search
  found = toy_variants.discrete(view)
  for place in [(0, 0), (20, 3), (63, 7)]:
    up, down = (view.loss(view.kernel.at[place].set(s)) for s in (1.0, -1.0))
    np.testing.assert_allclose(found[place], (up - down) / 2, atol=2e-7)


@pytest.mark.parametrize(
  ('name', 'estimators'),
  [
    ('normal', {}),
    ('narrow 0.3', {'activation_estimator': NARROW.activation}),
  ],
)
def test_a_lane_is_the_plain_computation(problem, results, name, estimators):
  posed = pose(problem, **estimators)
  gradient = jax.grad(posed.search.loss)(posed.kernel)
  found = toy.single_step(posed, problem.budget, jnp.float32(RATES))
  for output in ('search', 'holdout', 'flips'):
    got = at(results, output, variant=name)
    np.testing.assert_allclose(got, found[output], rtol=1e-5)
  truth = toy_variants.discrete(posed.search)
  # By halves, as there: what cancels exactly in one sum need not in another.
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
  # Ranks and signs hang on entries that are zero but for the rounding of sums.
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


def test_central_difference_is_discrete_where_it_reaches(problem, results):
  view = pose(problem).search
  step = jnp.median(jnp.abs(view.kernel))
  near = jnp.abs(view.kernel) <= step
  central = toy_variants.discrete(view) * near / step
  # By definition: both losses, one step up and one step down.
  place = (20, 3)
  ends = [view.loss(view.kernel.at[place].add(sign * step)) for sign in (1, -1)]
  np.testing.assert_allclose(
    central[place], (ends[0] - ends[1]) / (2 * step), atol=1e-5
  )
  gradient = jax.grad(view.loss)(view.kernel)
  np.testing.assert_allclose(
    at(results, 'central_cosine', variant='normal'),
    measures.agreement(gradient, central).cosine,
    atol=1e-4,
  )


def test_all_layers_step_together(problem, results):
  assert results.chosen.values.tolist() == ['normal', 'narrow 0.3']
  model = problem.model('binary')
  experiment = problem.experiment(jnp.asarray(2), problem.arrays)
  batch = experiment.batches[SIZE][0]

  def loss(variables):
    logits = model.apply(variables, batch.inputs)
    chosen = jnp.take_along_axis(
      jax.nn.log_softmax(logits), batch.labels[:, None], axis=1
    )
    return -jnp.mean(chosen)

  gradient = jax.grad(loss)(experiment.variables)
  size = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))
  rate = 0.5 * problem.budget.radius / size
  moved = jax.tree.map(
    lambda w, g: w - rate * g, experiment.variables, gradient
  )
  found = at(results, 'all_search', chosen='normal', few_rate=0.5)
  np.testing.assert_allclose(found, loss(moved), rtol=1e-4)


def test_what_enters_the_windows(problem, results):
  view = pose(problem).search
  entered = np.abs(view.pre_activations(view.kernel))
  for half_width in (0.5, 1.0):
    found = at(
      results, 'entering_share', layer='Dense_0', half_width=half_width
    )
    np.testing.assert_allclose(found, (entered <= half_width).mean(), rtol=1e-6)


def test_training_lowers_the_loss_and_sees_neither_batch(problem, results):
  before = at(results, 'start_holdout')
  after = at(results, 'start_holdout', state='trained')
  assert after < before - 0.1
  images = problem.dataset.images
  _, key, _ = toy.seed_keys(2)
  places = data.remainder(key, len(images), SIZE)
  assert len(set(places.tolist())) == len(images) - 2 * SIZE
  left = {tuple(row) for row in images[places].reshape(len(places), -1)}
  posed = pose(problem)
  for view in (posed.search, posed.holdout):
    assert not left & {tuple(row) for row in np.asarray(view.inputs, np.uint8)}


def test_bad_input(problem):
  with pytest.raises(ValueError, match=r'num_groups must divide .* 40; got 3'):
    toy_variants.compare(
      problem, sweeps.Sweep(), [toy_variants.NORMAL], RATES, everywhere=(),
      few_rates=(1.0,), half_widths=(1.0,), num_groups=3, train_steps=1,
    )  # fmt: skip
  with pytest.raises(ValueError, match='leave none'):
    data.remainder(jax.random.key(0), 20, 10)
  config = toy_config.ToyConfig(
    dataset='digits', batch_size=(16,), hidden=(4,), augment='shift'
  )
  with pytest.raises(ValueError, match='--augment=shift'):
    toy_training.trained(config.open(sweeps.Sweep()), 'binary', 3)
