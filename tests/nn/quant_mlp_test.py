"""A perceptron whose quantizers stand before its layers, against a loop in float64."""

import jax
import numpy as np
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import types

SIGN = quantizers.attach(quantizers.sign(), quantizers.window())
IMAGES = np.random.default_rng(0).normal(size=(5, 3, 3, 2)).astype(np.float32)


def made(**fields):
  options = {'kernel_quantizer': SIGN, 'input_quantizer': SIGN}
  model = nn.QuantMLP((7, 6), 4, **options | fields)
  return model, jax.jit(model.init)(jax.random.key(0), IMAGES)


@pytest.mark.parametrize('examples', [1, 5])
def test_it_is_its_products_and_normalisations(examples):
  model, variables = made(scaling='mean_abs')
  kernels = [
    np.asarray(variables['params'][f'Dense_{i}']['kernel'], np.float64)
    for i in range(3)
  ]
  assert [kernel.shape for kernel in kernels] == [(18, 7), (7, 6), (6, 4)]
  x = IMAGES[:examples].reshape(examples, -1).astype(np.float64)
  for layer, kernel in enumerate(kernels):
    if layer:  # Its running statistics are 0 and 1.
      x = np.where(x >= 0, 1.0, -1.0)
    x = x @ np.where(kernel >= 0, 1.0, -1.0) * np.abs(kernel).mean(axis=0)
  logits = jax.jit(model.apply)(variables, IMAGES[:examples])
  np.testing.assert_allclose(logits, x, rtol=2e-5, atol=1e-6)


def test_batch_statistics():
  model, variables = made()
  train = jax.jit(
    lambda v: model.apply(v, IMAGES, train=True, mutable=['batch_stats'])
  )
  logits, updated = train(variables)
  first = np.sign(variables['params']['Dense_0']['kernel'])
  z = IMAGES.reshape(5, -1) @ first
  z = (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5)
  z = np.where(z >= 0, 1, -1) @ np.sign(
    variables['params']['Dense_1']['kernel']
  )
  z = (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5)
  z = np.where(z >= 0, 1, -1) @ np.sign(
    variables['params']['Dense_2']['kernel']
  )
  np.testing.assert_allclose(logits, z, atol=1e-4)
  assert set(updated['batch_stats']) == {'BatchNorm_0', 'BatchNorm_1'}


def test_learned_quantizers_are_parameters_of_their_layer():
  _, variables = made(input_quantizer=quantizers.pact(2))
  layers = variables['params']
  assert 'input_quantizer' not in layers['Dense_0']
  assert 'alpha' in layers['Dense_1']['input_quantizer']
  assert 'alpha' in layers['Dense_2']['input_quantizer']


def test_a_view_sees_through_it():
  model, variables = made()
  labels = np.arange(5) % 4
  view = nn.layer_view(model, variables, IMAGES, labels, 'Dense_0', train=False)
  kinds = [type(stage).__name__ for stage in view.tail]
  assert 'Opaque' not in kinds and kinds.count('Activation') == 2, kinds


@pytest.mark.parametrize(
  'fields',
  [{'hidden': 8}, {'hidden': (0,)}, {'num_classes': 0}, {'precision': 'fast'}],
)
def test_bad_input(fields):
  with pytest.raises(types.BadInput, match=next(iter(fields))):
    nn.QuantMLP(**fields)
