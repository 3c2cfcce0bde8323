"""Trained networks, packed, compute every logit of whole test sets as the model does.

The reference is the model on prepared images, operation by operation (`jax.disable_jit`),
in batches of the same images. MNIST's and CIFAR-10's test images are read from the folder
that BITJAX_DATA_DIR names; without it, or without their files in it, these tests are skipped.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import data
from bitjax import deploy
from bitjax import nn
from bitjax import quantizers
from bitjax import training
from bitjax import types

SIGN = quantizers.attach(quantizers.sign(), quantizers.window(1.0))
BINARY = {
  'kernel_quantizer': SIGN,
  'input_quantizer': SIGN,
  'scaling': 'mean_abs',
}
TINY = functools.partial(nn.resnet20, stages=(1, 1), widths=(8, 16))
MLP = functools.partial(nn.binary_mlp, batch_norm=True)


def trained(model, train, updates, batch_size=64, learning_rate=4e-3):
  """Returns variables after some updates, and what prepares images."""
  recipe = training.Recipe(
    epochs=updates / (len(train.labels) // batch_size),
    batch_size=batch_size,
    optimizer='adam',
    learning_rate=learning_rate,
    augmentation=(),
  )
  phases = recipe.phases(model, train)
  feeds = data.device_feeds(train, batch_size, [0])
  fitted = training.fit(phases, feeds, [0])
  variables = training.variables_of(fitted.state, average=True)
  prepare = training.preparation(train)
  return jax.tree.map(lambda leaf: leaf[0], variables), prepare


def accuracy(model, variables, prepare, test, size=1000):
  """Compares all logits of a test set; returns the accuracy."""
  images = jax.ShapeDtypeStruct(test.images[:1].shape, np.uint8)
  network = deploy.pack_network(model, variables, images, prepare=prepare)
  right = 0
  for start in range(0, len(test.labels), size):
    part = jnp.asarray(test.images[start : start + size])
    with jax.disable_jit():
      want = model.apply(variables, prepare(part), train=False)
    got = network(part)
    assert int((got != want).sum()) == 0
    right += int((got.argmax(1) == test.labels[start : start + size]).sum())
  return right / len(test.labels)


def stored(name, split):
  """Returns a part of a data set; skips the test if its files are not there."""
  folder = os.environ.get('BITJAX_DATA_DIR')
  if not folder:
    pytest.skip('BITJAX_DATA_DIR names no folder of data')
  try:
    return data.load(name, split=split, data_dir=folder)
  except types.BadInput as error:
    pytest.skip(str(error))


def test_an_mlp_on_embedded_digits():
  train, test = (data.load('digits', split=s) for s in ('train', 'test'))
  model = MLP(hidden=(32, 24))
  assert accuracy(model, *trained(model, train, 60), test) > 0.6


@pytest.mark.slow
@pytest.mark.parametrize(
  'model',
  [
    TINY(variant='bireal', **BINARY),
    TINY(variant='react', **BINARY),
    TINY(variant='plain', **BINARY),
    TINY(variant='plain', **BINARY | {'input_quantizer': None}),
    TINY(**BINARY | {'kernel_quantizer': quantizers.lsq(2), 'scaling': 'none'}),
    nn.VGG(stages=((8, 16), (16,)), quantize_last=True, **BINARY),
  ],
  ids=['bireal', 'react', 'plain', 'W1A32', 'W2A1', 'vgg'],
)
def test_networks_on_embedded_digits(model):
  train, test = (data.load('digits', split=s) for s in ('train', 'test'))
  assert accuracy(model, *trained(model, train, 60), test) > 0.3


@pytest.mark.slow
@pytest.mark.parametrize('make', [MLP, nn.binary_weights_mlp])
def test_mlps_on_ten_thousand_digits(make):
  test = stored('mnist', 'test')
  train = data.load('mnist5k', split='train')
  model = make(hidden=(256, 256))
  found = accuracy(model, *trained(model, train, 150), test, size=10_000)
  assert len(test.labels) == 10_000 and found > 0.8


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize('variant', ['bireal', 'plain'])
def test_a_resnet_on_ten_thousand_natural_images(tmp_path, variant):
  train, test = (stored('cifar10', split) for split in ('train', 'test'))
  model = nn.resnet20(variant=variant, **BINARY)
  variables, prepare = trained(model, train, 60)
  found = accuracy(model, variables, prepare, test)
  assert len(test.labels) == 10_000 and found > 0.15
  images = jax.ShapeDtypeStruct((1, 32, 32, 3), np.uint8)
  network = deploy.pack_network(model, variables, images, prepare=prepare)
  size = deploy.save(network, tmp_path / 'resnet').stat().st_size
  seen = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
  # A mean of magnitudes is no variable, and is kept with 4 bytes a channel; thresholds
  # take fewer bytes than the normalisations that they replace.
  scales = 4 * 6 * sum(model.widths)
  promised = nn.summary(model, seen).total.memory
  assert size < 1.02 * (promised + scales)
