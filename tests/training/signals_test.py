"""Flips that follow smoothed gains: Bop by brute force, leaf by leaf."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import data
from bitjax import nn
from bitjax import quantizers
from bitjax import scans
from bitjax import training
from bitjax import transforms
from bitjax import types

LAYERS = ('Dense_0', 'Dense_1')
MODEL = nn.binary_mlp(hidden=(5,), num_classes=3)
TAU, GAMMA = 2e-3, 0.5


def sign(x):
  return np.where(x >= 0, 1.0, -1.0)


def loss(weights, x, labels):
  """The mean cross-entropy of the binary network, in float64."""
  for layer, w in enumerate(weights):
    x = (sign(x) if layer else x) @ w / np.sqrt(len(w))
  return np.mean(np.log(np.exp(x).sum(1)) - x[np.arange(len(x)), labels])


def worth(weights, layer, place, x, labels, rate):
  """What a flip is worth if no other weight of the layer is flipped, or all are."""
  moved = [w.copy() for w in weights]
  if rate:
    moved[layer] = -moved[layer]
    moved[layer][place] *= -1
  before = loss(moved, x, labels)
  moved[layer][place] *= -1
  return before - loss(moved, x, labels)


def signal_of(weights, x, labels, rate):
  """The gains divided by the change of each weight, with the sign of a gradient."""
  found = [np.zeros(w.shape) for w in weights]
  for layer, w in enumerate(weights):
    for place in np.ndindex(*w.shape):
      gain = worth(weights, layer, place, x, labels, rate)
      found[layer][place] = gain / (2 * w[place])
  return found


def bop():
  return transforms.bop(TAU, GAMMA)


@pytest.mark.parametrize(
  'rate', [pytest.param(0.0, marks=pytest.mark.slow), 1.0]
)
def test_training_is_bop_by_brute_force(tiny, rate):
  task = tiny.task(
    MODEL, bop(), signal=training.CoFlips(rate, 1), progress=None
  )
  part, steps = tiny.dataset(), 7
  begun = tiny.start(task, 3)
  found = tiny.train(task, until=steps, scored=False).state.params
  weights = [
    sign(np.asarray(begun.params[layer]['kernel'][0], np.float64))
    for layer in LAYERS
  ]
  feed = data.device_feed(part, tiny.BATCH, 3)
  x = np.asarray(tiny.prepare(jnp.asarray(part.images)), np.float64)
  x = x.reshape(len(x), -1)
  averages, flips = [np.zeros(w.shape) for w in weights], 0
  for rows in feed.chunk(0, steps):
    signal = signal_of(weights, x[rows], part.labels[rows], rate)
    for w, m, g in zip(weights, averages, signal, strict=True):
      m[...] = (1 - GAMMA) * m + GAMMA * g
      turned = w * m > TAU
      w[turned] *= -1
      flips += turned.sum()
  assert flips > 10
  for layer, w in zip(LAYERS, weights, strict=True):
    np.testing.assert_array_equal(sign(found[layer]['kernel'][0]), w)
    # Magnitudes stay.
    np.testing.assert_array_equal(
      np.abs(found[layer]['kernel']), np.abs(begun.params[layer]['kernel'])
    )


@pytest.fixture(scope='module')
def posed(tiny):
  """A network with a normalisation, a real layer and a binary one that is scaled."""
  part = tiny.dataset(12)
  model = tiny.Net()
  images = tiny.prepare(jnp.asarray(part.images))
  return model, model.init(jax.random.key(1), images), images, part.labels


def test_only_binary_kernels_change_and_scales_are_held(posed):
  model, variables, images, labels = posed
  signal, key = training.CoFlips(0.1, 8), jax.random.key(4)
  ones = jax.tree.map(jnp.ones_like, variables['params'])
  found = signal(ones, model, variables, images, labels, key)
  kernel = found['Block_0'].pop('kernel')
  ones['Block_0'].pop('kernel')
  assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), found, ones))
  view = nn.layer_view(model, variables, images, labels, 'Block_0', train=False)
  layers = sorted(['Dense_0', 'Block_0', 'Dense_1'])
  own = jax.random.fold_in(key, layers.index('Block_0'))
  wanted = scans.smoothed_gains(view.freeze_scale(), own, 0.1, 8)
  changes = -2 * sign(variables['params']['Block_0']['kernel'])
  np.testing.assert_allclose(kernel, -wanted.gains / changes, rtol=1e-5)


@pytest.mark.slow
def test_other_draws_at_each_update_and_the_same_again(tiny, tmp_path, same):
  task = tiny.task(MODEL, bop(), signal=training.CoFlips(0.2, 2))
  whole = tiny.train(task, scored=False).state

  def stop():
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    tiny.train(task, tmp_path, scored=False, report=tiny.Stop(2, stop))
  assert same(tiny.train(task, tmp_path, scored=False).state, whole)
  other = dataclasses.replace(task, signal=training.CoFlips(0.4, 2))
  assert not same(tiny.train(other, scored=False).state, whole)


def test_bad_input(tiny, posed):
  _, variables, images, labels = posed
  plain = tiny.Net(weights=None, inputs=None)
  for call, words in (
    (lambda: training.CoFlips(1.5), r'flip_rate must be in \[0'),
    (lambda: training.CoFlips(0.1, 0), 'draws must be an integer >= 1'),
    (
      lambda: training.CoFlips()(
        variables['params'], plain, variables, images, labels,
        jax.random.key(0),
      ),
      'CoFlips needs a layer with weights of two levels',
    ),
    (
      lambda: tiny.task(MODEL, signal=training.CoFlips(), smoothing=0.1),
      'leave out smoothing and distillation',
    ),
    (
      lambda: training.Task(
        MODEL, optax.sgd(0.1), None, tiny.prepare,
        problem=training.Reconstruction(), signal=training.CoFlips(),
      ),
      'signal is for classifications',
    ),
  ):  # fmt: skip
    with pytest.raises(types.BadInput, match=words):
      call()


def test_more_levels_are_left_alone(tiny):
  ternary = quantizers.attach(quantizers.ternary(0.5), quantizers.identity())
  model = tiny.Net(weights=ternary, scaling='none')
  images, labels = jnp.ones((2, 4, 4, 1)), jnp.array([0, 1])
  variables = model.init(jax.random.key(0), images)
  with pytest.raises(types.BadInput, match='the model has none'):
    training.CoFlips()(
      variables['params'], model, variables, images, labels, jax.random.key(0)
    )
