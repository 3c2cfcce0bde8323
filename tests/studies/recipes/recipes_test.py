"""Every network and quantizer that a flag can name."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray

from bitjax import sweeps
from bitjax import training
from bitjax import types as bitjax_types
from bitjax.studies import recipes

IMAGES = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)


def shapes(model):
  key = jax.eval_shape(lambda: jax.random.key(0))
  return jax.eval_shape(
    lambda key, images: model.init(
      {'params': key, 'quantizer': key}, images, train=False
    ),
    key,
    IMAGES,
  )


@pytest.mark.parametrize('network', ['resnet4', 'resnet18', 'vgg_small'])
def test_binary_layers_are_those_with_quantizers(network):
  """The expression for Bop and clipping matches all of them and no others."""
  residual = {name for name in recipes.NETWORKS if name.startswith('resnet')}
  assert len({recipes.NETWORKS[name].binary for name in residual}) == 1
  model = recipes.build(
    network,
    'plain',
    'learned_dsq1',
    'none',
    num_classes=7,
    init_name='xavier',
  )
  params = shapes(model)['params']
  found, _ = jax.tree.flatten_with_path(params)
  paths = [
    jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in found
  ]
  quantized = {p.split('/kernel_q')[0] for p in paths if 'kernel_q' in p}
  assert quantized
  tx = training.optimizer(
    'bop', 0.1, binary=(recipes.NETWORKS[network].binary,)
  )
  state = jax.eval_shape(tx.init, params)
  (averages,) = (
    leaf.momentum
    for leaf in jax.tree.leaves(
      state, is_leaf=lambda leaf: hasattr(leaf, 'momentum')
    )
    if hasattr(leaf, 'momentum')
  )
  found, _ = jax.tree.flatten_with_path(averages)
  flipped = {
    jax.tree_util.keystr(path, simple=True, separator='/').removesuffix(
      '/kernel'
    )
    for path, _ in found
  }
  assert flipped == quantized
  assert params['Dense_0']['kernel'].shape[-1] == 7


@pytest.mark.parametrize('weights', recipes.WEIGHTS)
def test_weights(weights):
  model = recipes.build(
    'resnet4', 'plain', weights, 'none', num_classes=3, init_name='xavier'
  )
  assert shapes(model)['params']


@pytest.mark.parametrize('inputs', recipes.ACTIVATIONS)
def test_inputs(inputs):
  model = recipes.build(
    'resnet4', 'react', 'none', inputs, num_classes=3, init_name='xavier'
  )
  assert shapes(model)['params']


def test_half_width_is_that_of_the_window():
  models = [
    recipes.build(
      'resnet4',
      'plain',
      'none',
      'sign',
      num_classes=3,
      init_name='xavier',
      half_width=width,
    )
    for width in (1.0, 0.5)
  ]
  one, half = (training.describe(m)['input_quantizer'] for m in models)
  assert one == half.replace('_window(0.5', '_window(1.0') and one != half


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'network': 'resnet21'}, 'network must be one of resnet20'),
    ({'variant': 'bi'}, 'variant must be one of plain, bireal, react'),
    ({'weights': 'sgn'}, 'weights must be one of none, sign'),
    ({'activations': 'sgn'}, 'activations must be one of none, sign'),
    ({'network': 'vgg_small', 'variant': 'react'}, 'no variant but plain'),
  ],
)
def test_unknown_names(change, message):
  options = {
    'network': 'resnet4',
    'variant': 'plain',
    'weights': 'none',
    'activations': 'none',
    'num_classes': 3,
    'init_name': 'xavier',
  } | change
  with pytest.raises(bitjax_types.BadInput, match=message):
    recipes.build(**options)


def test_a_configuration_is_a_recipe():
  config = recipes.NetworkConfig(
    network='vgg_small',
    weights='sign',
    optimizer='bop',
    frozen=('Dense_0',),
    warmup=0.1,
  )
  recipe = training.Recipe(**config.recipe())
  assert recipe.binary == ('Conv_[1-9]',) and recipe.frozen == ('Dense_0',)
  assert (recipe.optimizer, recipe.warmup) == ('bop', 0.1)
  assert training.Recipe(**recipes.TrainConfig().recipe())


@pytest.mark.parametrize(
  ('flags', 'decay'),
  [
    ({}, None),
    ({'activations': 'lsq2'}, None),
    ({'activations': 'pact2', 'weight_decay': 0.25}, 0.25),
    ({'activations': 'pact4', 'quantizer_decay': 0.5}, 0.5),
    ({'weights': 'learned_dsq1', 'quantizer_decay': 0.0}, 0.0),
  ],
)
def test_pact_decays_its_alpha_as_the_weights(flags, decay):
  config = recipes.NetworkConfig(**flags)
  assert training.Recipe(**config.recipe()).quantizer_decay == decay


@pytest.mark.slow
def test_pact_trains_its_alpha():
  """It starts amid its inputs, so that their gradients move it."""
  config = recipes.NetworkConfig(
    dataset='digits', network='resnet4', activations='pact2', batch_size=16
  )
  train, *_ = config.open(sweeps.Sweep())
  ((_, model),) = config.stages(10)
  recipe = training.Recipe(**config.recipe())
  (phase,) = recipe.phases(model, train)
  images = phase.task.prepare(jnp.asarray(train.images[:16]))
  labels = jax.nn.one_hot(train.labels[:16], 10)

  @jax.jit
  def run(key):
    variables = model.init(key, images)
    params, rest = (
      variables['params'],
      {k: v for k, v in variables.items() if k != 'params'},
    )

    def loss(params):
      logits, _ = model.apply(
        {'params': params, **rest}, images, train=True, mutable=['batch_stats']
      )
      return optax.softmax_cross_entropy(logits, labels).mean()

    def step(carry, _):
      params, state = carry
      value, grads = jax.value_and_grad(loss)(params)
      updates, state = phase.task.tx.update(grads, state, params)
      return (optax.apply_updates(params, updates), state), value

    start = (params, phase.task.tx.init(params))
    (after, _), losses = jax.lax.scan(step, start, None, 20)
    return params, after, losses

  before, after, losses = run(jax.random.key(0))
  assert losses[-1] < 0.8 * losses[0]
  for layer in ('Conv_0', 'Conv_1'):
    old, new = (
      params['Block_0'][layer]['input_quantizer']['alpha']
      for params in (before, after)
    )
    assert 0.5 < old < 3
    assert abs(new - old) > 0.002 * old


def test_stages():
  config = recipes.NetworkConfig(
    weights='sign', activations='sign', staged=0.25
  )
  (first, early), (last, late) = config.stages(10)
  assert (first, last) == (0.25, 1.0)
  assert early.kernel_quantizer is None and early.scaling == 'none'
  assert late.kernel_quantizer is recipes.WEIGHTS['sign'].quantizer
  assert early.input_quantizer is late.input_quantizer is not None
  full = config.full_precision(10)
  assert full.kernel_quantizer is None and full.input_quantizer is None


def test_batches_that_devices_cannot_share():
  """They are refused before anything is recorded or written."""
  devices = types.SimpleNamespace(shape={'lanes': 1, 'batch': 2})
  sweep = sweeps.Sweep(mesh=devices)
  config = recipes.TrainConfig(dataset='digits', batch_size=15)
  with pytest.raises(bitjax_types.BadInput, match='divisible by the 2 devices'):
    config.open(sweep)
  assert not sweep.records
  dataclasses.replace(config, batch_size=16).open(sweep)
  assert sweep.records


def test_right_answers_are_unpacked_in_order():
  """Any axes, a number of examples that fills no byte, and a network that diverged."""
  draw = np.random.default_rng(0)
  right = draw.integers(0, 2, (2, 3, 11)).astype(bool)
  accuracy = right.mean(-1)
  accuracy[1, 2] = np.nan
  results = xarray.Dataset(
    {
      'test_right': (('arm', 'seed', 'test_byte'), np.packbits(right, axis=-1)),
      'test_accuracy': (('arm', 'seed'), accuracy),
    },
    {'arm': ['a', 'b'], 'seed': [4, 5, 6]},
    {'test_examples': 11},
  )
  found = recipes.right(results.transpose('test_byte', ...))
  assert found.dims == ('arm', 'seed', 'test_example')
  assert found.sel(arm='b', seed=6).isnull().all()
  np.testing.assert_array_equal(found.sel(arm='a'), right[0])
  np.testing.assert_allclose(found.mean('test_example'), accuracy)
