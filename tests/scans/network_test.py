"""A whole network as one layer: its loss, its moves, and searches in it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import scans
from bitjax import types

IMAGES = np.random.default_rng(0).integers(0, 256, size=(33, 4, 3), dtype='u1')
LABELS = np.arange(33) % 3


def view_and_model(make=nn.binary_mlp, seed=1, **kwargs):
  model = make(hidden=(6, 5), num_classes=3, **kwargs)
  variables = model.init(jax.random.key(seed), IMAGES)
  batch = jnp.asarray(IMAGES), jnp.asarray(LABELS)
  return nn.network_view(model, variables, *batch), model, variables


def loss_of(model, params):
  logits = model.apply({'params': params}, jnp.asarray(IMAGES))
  log_p = jax.nn.log_softmax(logits)
  return -jnp.mean(log_p[jnp.arange(LABELS.size), LABELS])


def with_kernels(params, kernels):
  return {
    name: {**leaves, 'kernel': kernel}
    for (name, leaves), kernel in zip(params.items(), kernels, strict=True)
  }


@pytest.mark.parametrize(
  'use_bias', [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_loss_and_gradient_are_those_of_the_model(use_bias):
  view, model, variables = view_and_model(use_bias=use_bias)
  params = variables['params']
  assert view.kernel.shape == (12 * 6 + 6 * 5 + 5 * 3,)
  kernels = view.product.split(view.kernel)
  for name, kernel in zip(params, kernels, strict=True):
    np.testing.assert_array_equal(kernel, params[name]['kernel'])
  np.testing.assert_allclose(view.loss(view.kernel), loss_of(model, params))
  moved = -view.kernel[::-1]
  np.testing.assert_allclose(
    view.loss(moved),
    loss_of(model, with_kernels(params, view.product.split(moved))),
    rtol=1e-6,
  )
  wanted = jax.grad(lambda params: loss_of(model, params))(params)
  found = view.product.split(jax.grad(view.loss)(view.kernel))
  for name, gradient in zip(params, found, strict=True):
    np.testing.assert_allclose(
      gradient, wanted[name]['kernel'], rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize(
  ('make', 'step', 'path'),
  [
    (nn.binary_mlp, None, 'layers: sign, sign, rank_one'),
    pytest.param(
      nn.full_precision_mlp,
      0.02,
      'layers: rank_one, rank_one, rank_one',
      marks=pytest.mark.slow,
    ),
  ],
)
def test_gains_of_all_layers_are_those_of_brute_force(make, step, path):
  view, _, _ = view_and_model(make, use_bias=True)
  fast = scans.flip_gains(view, step=step)
  slow = scans.flip_gains(view, step=step, path='brute_force')
  assert fast.path == path
  assert fast.gains.shape == slow.gains.shape
  atol = 1e-6 * float(slow.loss)
  np.testing.assert_allclose(fast.gains, slow.gains, rtol=0, atol=atol)
  np.testing.assert_allclose(
    fast.second_moments, slow.second_moments, rtol=1e-4, atol=1e-7
  )
  np.testing.assert_allclose(fast.loss, slow.loss, rtol=1e-6)
  # Every layer has moves that matter.
  for gains in view.product.split(slow.gains):
    assert np.abs(gains).max() > 50 * atol


@pytest.mark.parametrize('train', [False, True])
def test_statistics_of_the_batch_couple_examples(train):
  model = nn.binary_mlp(hidden=(6, 5), num_classes=3, batch_norm=True)
  variables = model.init(jax.random.key(1), IMAGES)
  batch = jnp.asarray(IMAGES), jnp.asarray(LABELS)
  view = nn.network_view(model, variables, *batch, train=train)
  assert view.couples_examples == train


@pytest.mark.slow
def test_gains_move_with_all_kernels():
  view, _, _ = view_and_model()
  key = jax.random.key(7)
  flipped = jax.random.bernoulli(key, 0.3, view.kernel.shape)
  moved = dataclasses.replace(
    view, kernel=jnp.where(flipped, -view.kernel, view.kernel)
  )
  fast = scans.flip_gains(moved, count_near_ties=False).gains
  slow = scans.flip_gains(moved, path='brute_force').gains
  np.testing.assert_allclose(fast, slow, rtol=0, atol=2e-6)
  assert np.abs(fast - scans.flip_gains(view).gains).max() > 1e-3


def test_rounds_take_the_best_flip_of_all_layers():
  view, _, _ = view_and_model()
  path = scans.multi_step_discrete_gradient(
    view, types.Budget(3, 'flips'), 3, 'cumulative'
  )
  kernel, losses = view.kernel, [view.loss(view.kernel)]
  for _ in range(3):
    here = dataclasses.replace(view, kernel=kernel)
    gains = scans.flip_gains(here, path='brute_force').gains
    best = jnp.argmax(gains)
    there = scans.moves(here).destinations[0]
    kernel = kernel.at[best].set(there[best])
    losses.append(view.loss(kernel))
  np.testing.assert_allclose(path.search, losses, rtol=1e-5)
  np.testing.assert_allclose(path.displacement, kernel - view.kernel, atol=1e-6)
  assert np.all(np.diff(path.search) < 0)


def test_descent_ends_where_no_flip_of_any_layer_helps():
  view, _, _ = view_and_model()
  descent = scans.flip_descent(view, 100)
  assert descent.certified
  moved = view.product.split(descent.displacement)
  assert sum(bool(jnp.any(layer != 0)) for layer in moved) > 1
  final = dataclasses.replace(view, kernel=view.kernel + descent.displacement)
  best = scans.flip_gains(final, path='brute_force').gains.max()
  assert best <= 2e-6 * descent.losses[0]


def test_bad_input():
  view, model, variables = view_and_model()
  layers = view.product.layers
  batch = view.inputs, view.labels
  with pytest.raises(types.BadInput, match='some of the Dense and Conv stages'):
    scans.network_view(*batch, [scans.Activation('relu')])
  with pytest.raises(types.BadInput, match=r'there are 1; got \[1\]'):
    scans.network_view(*batch, layers[:1], [1])
  with pytest.raises(types.BadInput, match='layers must be one of all, quant'):
    scans.network_view(*batch, layers[:1], 'every')
  with pytest.raises(types.BadInput, match='same number of examples'):
    nn.network_view(model, variables, IMAGES, LABELS[:-1])
  with pytest.raises(types.BadInput, match='same quantizer; layer 1 has None'):
    second = dataclasses.replace(layers[1], quantizer=None)
    scans.network_view(*batch, [layers[0], second])
  with pytest.raises(types.BadInput, match='scale of layer 1 couples'):
    second = dataclasses.replace(layers[1], scaling=quantizers.mean_abs())
    scans.network_view(*batch, [layers[0], second])
  with pytest.raises(types.BadInput, match='does not say that it is'):
    plain = quantizers.attach(jnp.sign, quantizers.identity())
    first = dataclasses.replace(layers[0], quantizer=plain)
    scans.network_view(*batch, [first])
  steps = [
    dataclasses.replace(
      layer,
      quantizer=quantizers.attach(
        quantizers.uniform(2, step=step), quantizers.identity()
      ),
    )
    for layer, step in zip(layers[:2], (0.5, 0.25), strict=True)
  ]
  with pytest.raises(types.BadInput, match='of layer 1 has other parameters'):
    scans.network_view(*batch, steps)
  one = dataclasses.replace(steps[0], kernel=steps[1].kernel)
  for pair, message in (
    ((steps[0], one), 'must be known, .* of layer 1 are traced'),
    (steps, 'must be known'),
  ):
    with pytest.raises(types.BadInput, match=message):
      jax.eval_shape(
        lambda a, b: scans.network_view(*batch, [a, b]).kernel, *pair
      )
  with pytest.raises(types.BadInput, match='not that of a whole network'):
    single = next(iter(view.product.views(view)))
    scans.flip_gains(single, path='layers')
