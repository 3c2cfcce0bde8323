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
from bitjax.studies.variant_ste import families
from bitjax.studies.variant_ste import thresholds

pytestmark = pytest.mark.study

SIZE = 40
RATES = (0.1, 1.0)
WIDE = toy.Variant('wide', 9, kernel=quantizers.window(9.0))
NARROW = toy.Variant('narrow', 0.3, activation=quantizers.window(0.3))
LAYERWISE = families.layerwise((2.0,), 2)


@pytest.fixture(scope='module')
def problems():
  config = toy.BallConfig(
    dataset='digits', batch_size=(SIZE,), hidden=(8, 6), seeds=(5, 2)
  )
  return config.open(sweeps.Sweep())


@pytest.fixture(scope='module')
def networks(problems):
  return toy.States(problems, toy.STATES, 30)


@pytest.fixture(scope='module')
def results(networks):
  return arms.compare(
    networks,
    sweeps.Sweep(),
    [toy.NORMAL, WIDE, NARROW, *LAYERWISE],
    RATES,
    everywhere=['normal', 'narrow 0.3'],
    few_rates=(0.5,),
    half_widths=(0.5, 1.0),
    num_groups=2,
  )


@pytest.fixture(scope='module')
def shifted(networks):
  return thresholds.compare(networks, sweeps.Sweep(), (0.5,), num_groups=2)


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
  assert results.chosen.values.tolist()[:2] == ['normal', 'narrow 0.3']
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


class Plain:
  """The network of one seed and its straight-through gradients, in float64."""

  def __init__(self, problems, seed=2):
    trial = problems.trial(jnp.asarray(seed), problems.arrays)
    params = trial.variables['params']
    self.layers = problems.layers
    self.kernels = [
      np.float64(params[layer]['kernel']) for layer in self.layers
    ]
    self.batches = [
      (
        np.float64(batch.inputs).reshape(SIZE, -1) * problems.dataset.scale,
        np.asarray(batch.labels),
      )
      for batch in trial.batches[SIZE]
    ]
    entering, _ = self.forward(self.batches[0][0])
    self.spreads = [np.sqrt(np.mean(z**2)) for z in entering]

  def forward(self, x, shifts=(0, 0), kernels=None):
    entering, outputs = [], [x]
    for kernel, shift in zip(
      kernels or self.kernels, (*shifts, 0), strict=True
    ):
      signs = np.where(kernel >= 0, 1, -1)
      entering.append(outputs[-1] @ signs / np.sqrt(len(kernel)) - shift)
      outputs.append(np.where(entering[-1] >= 0, 1.0, -1.0))
    return entering, outputs

  def loss(self, batch, kernels=None, shifts=(0, 0)):
    x, labels = batch
    return np.mean(-self.scores(x, shifts, kernels)[range(len(x)), labels])

  def scores(self, x, shifts=(0, 0), kernels=None):
    logits = self.forward(x, shifts, kernels)[0][-1]
    return logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))

  def gradient(self, batch, half_widths=(1, 1), heights=(1, 1), shifts=(0, 0)):
    x, labels = batch
    entering, outputs = self.forward(x, shifts)
    back = np.exp(self.scores(x, shifts))
    back[range(len(x)), labels] -= 1
    back, found = back / len(x), []
    for layer in (2, 1, 0):
      scale = 1 / np.sqrt(len(self.kernels[layer]))
      found.append(scale * outputs[layer].T @ back)
      if layer:
        signs = np.where(self.kernels[layer] >= 0, 1, -1)
        inside = np.abs(entering[layer - 1]) <= half_widths[layer - 1]
        back = heights[layer - 1] * inside * (scale * back @ signs.T)
    return found[::-1]


@pytest.mark.parametrize(
  ('name', 'units'),
  [
    ('window in second layer 0.5', ((1, 0), (0.5, 0))),
    ('relative window in first layer 2', ((0, 2), (1, 0))),
    ('relative window in all layers 2', ((0, 2), (0, 2))),
  ],
)
def test_windows_in_units_of_the_spread(problems, results, name, units):
  plain = Plain(problems)
  rms = at(results, 'entering_rms')
  np.testing.assert_allclose(rms, plain.spreads, rtol=1e-5)
  half_widths = [
    absolute + relative * spread
    for (absolute, relative), spread in zip(
      units, plain.spreads[:2], strict=True
    )
  ]
  own = [plain.gradient(batch, half_widths) for batch in plain.batches]
  expected = np.corrcoef(*(np.ravel(gradient[0]) for gradient in own))[0, 1]
  found = at(results, 'reliability', variant=name)
  np.testing.assert_allclose(found, expected, atol=1e-5)
  for kept in (False, True):
    heights = 1 / np.array(half_widths) if kept else (1, 1)
    direction = plain.gradient(plain.batches[0], half_widths, heights)
    size = np.sqrt(sum(np.sum(each**2) for each in direction))
    rate = 0.5 * problems.budget.radius / size
    moved = [
      w - rate * g for w, g in zip(plain.kernels, direction, strict=True)
    ]
    chosen = name + families.KEPT * kept
    for which, output in enumerate(('all_search', 'all_holdout')):
      found = at(results, output, chosen=chosen, few_rate=0.5)
      expected = plain.loss(plain.batches[which], moved)
      np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_thresholds_in_units_of_the_spread(problems, results, shifted):
  plain = Plain(problems)
  for place, inside in families.places(2).items():
    shifts = 0.5 * np.array(inside) * plain.spreads[:2]
    labels = {'place': place, 'threshold': 0.5}
    expected = plain.loss(plain.batches[0], shifts=shifts)
    found = at(shifted, 'shifted_loss', **labels)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    own = [
      np.ravel(plain.gradient(batch, shifts=shifts)[0])
      for batch in plain.batches
    ]
    found = at(shifted, 'shifted_reliability', **labels)
    np.testing.assert_allclose(found, np.corrcoef(*own)[0, 1], atol=1e-5)
    x, classes = plain.batches[0]
    halves = [slice(None, SIZE // 2), slice(SIZE // 2, None)]
    parts = [
      plain.gradient((x[half], classes[half]), shifts=shifts)[1]
      for half in halves
    ]
    found = at(shifted, 'shifted_batch_variance', layer='Dense_1', **labels)
    expected = np.mean(np.var(parts, axis=0, ddof=1))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    none = at(shifted, 'shifted_reliability', place=place, threshold=0)
    normal = at(results, 'reliability', variant='normal')
    np.testing.assert_allclose(none, normal, atol=1e-6)


def test_a_scaled_input_of_the_sign_is_a_window_that_keeps_its_mass():
  """Dividing the sign's input by c is no threshold of another kind."""
  x, g = jnp.linspace(-3, 3, 61), jnp.arange(61.0)
  window, c = quantizers.window, 0.7
  sign = quantizers.attach(quantizers.sign(), window(1.0))
  found = jax.grad(lambda x: jnp.sum(g * sign(x / c)))(x)
  np.testing.assert_array_equal(sign(x / c), sign(x))
  np.testing.assert_allclose(found, window(c, 1 / c)(g, x, x, 1.0), rtol=1e-6)


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
