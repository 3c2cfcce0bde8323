"""Gradients, exact gains and steps, against plain computations with the network itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import data
from bitjax import nn
from bitjax.studies.resnet_windows import estimators
from bitjax.studies.resnet_windows import gradients
from bitjax.studies.resnet_windows import models as models_lib
from bitjax.studies.resnet_windows import networks
from bitjax.studies.resnet_windows import statics
from bitjax.studies.resnet_windows import study

NAMES = ('window 0.5', 'relative window 0.5', 'EDE, halfway', 'no window')
LAYERS = ['Block_0/Conv_0', 'Block_0/Conv_1']
OPTIONS = {'activation': 'identity', 'precision': 'highest', 'dtype': 'float32'}
RATES, BUDGET = (0.5, 1.0), 0.3


def network(estimator, **options):
  return networks.build('resnet4', estimator, 10, **OPTIONS, **options)


def batch(seed, size=4):
  images = jax.random.normal(jax.random.key(seed), (size, 4, 4, 1))
  return data.Batch(images, jnp.arange(size) % 3)


SEARCH, HOLDOUT = batch(1), batch(2)


def loss_of(name, variables, batch):
  """The loss of the network that has the estimator, as one would write it."""
  estimator = estimators.of(name)
  model = network(estimator.make(), shifted=True)
  logits = model.apply(variables, batch.inputs, progress=estimator.progress)
  return optax.softmax_cross_entropy_with_integer_labels(
    logits, batch.labels
  ).mean()


@pytest.fixture(scope='module')
def problem():
  return gradients.Problem(
    lambda estimator: network(estimator, shifted=True),
    LAYERS,
    NAMES,
    (0.5, 1.0),
    num_parts=2,
    sample=24,
  )


@pytest.fixture(scope='module')
def variables(problem):
  images = batch(3, 16).inputs
  found = networks.initial(network(None), small(), 5)
  assert networks.layers('resnet4', found['params']) == LAYERS
  params = networks.with_thresholds(found['params'], dict.fromkeys(LAYERS, 0.1))
  return problem.calibrated({**found, 'params': params}, images)


def small():
  images = np.zeros((3, 4, 4, 1), np.uint8)
  images[0, 0, 0] = 255
  return data.Dataset(
    'd', 'all', images, np.arange(3, dtype=np.int32), 10, 1 / 255
  )


@pytest.fixture(scope='module')
def gains(problem, variables):
  return problem.gains(variables, SEARCH, HOLDOUT, jax.random.key(0))


@pytest.fixture(scope='module')
def taken(problem, variables, gains):
  return [
    problem.take(number, variables, SEARCH, HOLDOUT, gains)
    for number in range(len(NAMES))
  ]


def kernel(tree, layer):
  block, name = layer.split('/')
  return tree['params'][block][name]['kernel']


@pytest.mark.slow
def test_normalisations_have_the_statistics_of_the_images(variables):
  images = batch(3, 16).inputs
  model = network(estimators.of('window 1').make(), shifted=True)
  fresh, _ = model.apply(variables, images, train=True, mutable='batch_stats')
  np.testing.assert_allclose(model.apply(variables, images), fresh, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('number', range(len(NAMES)))
def test_gradients_are_those_of_the_network_with_the_estimator(
  taken, variables, number
):
  name = NAMES[number]
  halves = [
    jax.tree.map(lambda leaf, at=at: leaf[at], SEARCH)
    for at in (slice(2), slice(2, None))
  ]
  each = [
    jax.grad(lambda v, half=half: loss_of(name, v, half))(variables)
    for half in halves
  ]
  for index, layer in enumerate(LAYERS):
    rows = np.stack([kernel(one, layer) for one in each]).astype(float)
    np.testing.assert_allclose(
      taken[number].directions[layer], rows.mean(0), rtol=1e-4, atol=1e-7
    )
    numbers = {
      k: float(v[index])
      for k, v in taken[number].numbers.items()
      if v.ndim == 1
    }
    np.testing.assert_allclose(
      [numbers['mean'], numbers['batch_variance'], numbers['norm']],
      [rows.mean(), rows.var(0, ddof=1).mean(), np.linalg.norm(rows.mean(0))],
      rtol=1e-3,
      atol=1e-7,
    )


@pytest.mark.slow
def test_what_passes_is_what_gradient_passing_measures(taken, variables):
  """Of whole batches of two; relative windows see each part by itself."""
  for name in ('window 0.5', 'no window'):
    model = network(estimators.of(name).make(), shifted=True)
    whole = nn.gradient_passing(
      model, variables, SEARCH.inputs, SEARCH.labels, half_width=0.5
    )
    rows = [row for row in whole.layers if row.kernel_norm is not None]
    numbers = taken[NAMES.index(name)].numbers
    np.testing.assert_allclose(
      numbers['passing'], [row.input_mass for row in rows], rtol=1e-4
    )
    np.testing.assert_allclose(
      numbers['entering_share'][:, 0], [row.input_share for row in rows], 1e-5
    )
    rms = [np.hypot(row.input_mean, row.input_std) for row in rows]
    np.testing.assert_allclose(numbers['entering_rms'], rms, rtol=1e-4)


@pytest.mark.slow
def test_gains_and_cosines_by_flips(taken, variables, gains):
  flat_loss = jax.jit(lambda v, b: loss_of('window 1', v, b))
  for layer in LAYERS:
    sample = gains.samples[layer]
    for exact, one in ((gains.search, SEARCH), (gains.holdout, HOLDOUT)):
      before = flat_loss(variables, one)
      for at in (0, 7):
        moved = jax.tree.map(lambda leaf: leaf, variables)
        block, name = layer.split('/')
        w = moved['params'][block][name]['kernel']
        index = np.unravel_index(int(sample.coordinates[at]), w.shape)
        moved['params'][block][name]['kernel'] = w.at[index].multiply(-1)
        np.testing.assert_allclose(
          exact[layer][at], before - flat_loss(moved, one), atol=2e-6
        )
  for number in range(len(NAMES)):
    for index, layer in enumerate(LAYERS):
      at = gains.samples[layer].coordinates
      signs = np.where(np.ravel(kernel(variables, layer))[at] >= 0, 1, -1)
      predicted = signs * np.ravel(taken[number].directions[layer])[at]
      for name, exact in (
        ('cosine', gains.search),
        ('holdout_cosine', gains.holdout),
      ):
        other = np.asarray(exact[layer], float)
        size = np.linalg.norm(predicted) * np.linalg.norm(other)
        np.testing.assert_allclose(
          taken[number].numbers[name][index],
          predicted @ other / size,
          atol=1e-5,
        )
        assert taken[number].numbers[f'{name}_error'][index] > 0
  # Behind the last layer is no sign, so that its gradient nearly is the gain.
  assert taken[0].numbers['cosine'][-1] > 0.95


@pytest.mark.slow
def test_steps_by_hand(problem, taken, variables):
  directions = taken[0].directions
  found = problem.step(
    variables, directions, SEARCH, HOLDOUT, RATES, BUDGET, alone=True
  )

  def after(layers, fraction):
    slopes = {layer: np.asarray(directions[layer], float) for layer in layers}
    weights = {
      layer: np.asarray(kernel(variables, layer), float) for layer in layers
    }
    length = np.sqrt(sum((w**2).sum() for w in weights.values()))
    slope = np.sqrt(sum((d**2).sum() for d in slopes.values()))
    moved = jax.tree.map(lambda leaf: leaf, variables)
    flips = 0
    for layer in layers:
      block, name = layer.split('/')
      w = weights[layer] - fraction * BUDGET * length / slope * slopes[layer]
      flips += ((w >= 0) != (weights[layer] >= 0)).sum()
      moved['params'][block][name]['kernel'] = jnp.asarray(w, jnp.float32)
    return [loss_of('window 1', moved, b) for b in (SEARCH, HOLDOUT)], flips

  count = sum(kernel(variables, layer).size for layer in LAYERS)
  for at, fraction in enumerate(RATES):
    losses, flips = after(LAYERS, fraction)
    got = found['all_search'][at], found['all_holdout'][at]
    np.testing.assert_allclose(got, losses, rtol=1e-5)
    np.testing.assert_allclose(found['all_flips'][at], flips / count, rtol=1e-5)
    losses, _ = after(LAYERS[1:], fraction)
    got = found['layer_search'][1, at], found['layer_holdout'][1, at]
    np.testing.assert_allclose(got, losses, rtol=1e-5)
  none = {layer: jnp.zeros_like(d) for layer, d in directions.items()}
  still = problem.step(variables, none, SEARCH, HOLDOUT, RATES, BUDGET)
  start = problem.losses(variables, SEARCH, HOLDOUT)
  np.testing.assert_array_equal(still['all_holdout'], [start[1]] * 2)
  np.testing.assert_array_equal(still['all_flips'], 0)


def test_batches_are_disjoint_and_held_out():
  config = study.Config(**study.PRESETS['smoke'] | {'seeds': (0, 1)})
  parts, _ = config.load()
  numbered = np.arange(len(parts.validation.labels), dtype=np.int32)
  validation = dataclasses.replace(
    parts.validation, labels=numbered, num_classes=len(numbered)
  )
  parts = parts._replace(validation=validation)
  drawn = [statics.batches(config, parts, seed) for seed in (0, 0, 1)]
  a, b = (np.asarray(part.labels) for part in drawn[0][:2])
  assert len({*a} | {*b}) == 2 * config.images
  np.testing.assert_array_equal(drawn[0][0].labels, drawn[1][0].labels)
  assert {*a} != {*np.asarray(drawn[2][0].labels)}


class Fake:
  """A sweep whose trainings return the weights that they started from, plus 1."""

  def __init__(self):
    self.asked = []

  def keep(self, sweep, phases, train, *, name, given, rate, seeds, **options):
    del sweep, train, options
    self.asked.append((name, rate, tuple(seeds)))
    fake = self

    class Kept:
      def variables(self, label, seeds):
        assert list(phases) == [label]
        fake.phases = phases[label]
        return [
          jax.tree.map(lambda x: x + 1, one) for one in given(label, seeds)
        ]

    return Kept()


def test_where_networks_start(monkeypatch):
  fake = Fake()
  monkeypatch.setattr(models_lib.recipes, 'keep', fake.keep)
  config = study.Config(
    **study.PRESETS['smoke'] | {'pretraining_rate': 0.25, 'learning_rate': 0.4}
  )
  parts, _ = config.load()
  models = models_lib.Models(config, parts.train, None, 'resnet4')
  random, other = models.variables('initialised', [0, 1])
  assert not np.array_equal(*(kernel(x, LAYERS[0]) for x in (random, other)))
  (pretrained,) = models.variables('pretrained', [0])
  (trained,) = models.variables('trained', [0], 2.0)
  for layer in LAYERS:
    start = kernel(random, layer)
    np.testing.assert_array_equal(kernel(pretrained, layer), start + 1)
    np.testing.assert_array_equal(kernel(trained, layer), start + 1 + 1)
  seeds = (*config.seeds, *config.tuning_seeds)
  assert fake.asked == [
    ('pretraining_resnet4', 1.0, seeds), ('trained_resnet4', 2.0, seeds)
  ]  # fmt: skip
  (phase,) = models.phases(None)
  assert isinstance(phase.task.model.input_quantizer, networks.Hardtanh)
  assert phase.task.model.kernel_quantizer is None
  assert models.phases('window 1') is models.phases('window 1')
  (phase,) = models.phases('window 1')
  assert 'half_width' not in repr(phase.task.model.input_quantizer)
  assert phase.task.model.activation == 'identity'
