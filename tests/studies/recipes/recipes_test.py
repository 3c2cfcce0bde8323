"""Every network and quantizer that a flag can name."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import pytest

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
