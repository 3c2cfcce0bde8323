"""Sums of integers are exact: ties are ties, in any order."""

import functools
import itertools

import jax
import numpy as np
import pytest

from bitjax import nn
from bitjax import quantizers

pytestmark = pytest.mark.optimised  # Arithmetic, to the last bit.

RNG = np.random.default_rng(0)


def pixels(examples, size=784):
  """Pixel-like data: mostly black, the rest anything."""
  ink = RNG.random((examples, size)) < 0.19
  return np.where(ink, RNG.integers(1, 256, ink.shape), 0).astype(np.uint8)


def exact_sums(inputs, kernel):
  return inputs.astype(np.int64) @ np.where(kernel >= 0, 1, -1)


CASES = {
  'signs': (RNG.choice([-1.0, 1.0], (96, 64)).astype(np.float32), 1.0),
  'pixels': (pixels(96), 1 / 255),
}


def uniform(*sizes):
  """A network's parameters, Xavier uniform."""
  shapes = itertools.pairwise(sizes)
  return {
    'params': {
      f'Dense_{layer}': {
        'kernel': RNG.uniform(-1, 1, shape).astype(np.float32)
        * np.float32(np.sqrt(6 / sum(shape)))
      }
      for layer, shape in enumerate(shapes)
    }
  }


@functools.cache
def compiled(use_bias):
  quantizer = quantizers.attach(quantizers.sign(), quantizers.identity())
  layer = nn.QuantDense(
    32, kernel_quantizer=quantizer, scaling='fan_in', use_bias=use_bias
  )
  return jax.jit(layer.apply)


def test_sums_of_signs_are_exact_and_hold_many_ties():
  inputs, _ = CASES['signs']
  kernel = RNG.normal(size=(64, 32)).astype(np.float32)
  z = np.asarray(compiled(False)({'params': {'kernel': kernel}}, inputs))
  sums = exact_sums(inputs, kernel)
  np.testing.assert_array_equal(z, np.float32(sums) * np.float32(1 / 8))
  assert 0.05 < np.mean(sums == 0) < 0.2  # sqrt(2 / (pi 64)) = 0.0997.
  np.testing.assert_array_equal(z == 0, sums == 0)


@pytest.mark.parametrize('case', CASES)
def test_first_layer_is_exact_in_any_order(case):
  inputs, unit = CASES[case]
  fan_in = inputs.shape[1]
  model = nn.binary_mlp(hidden=(32,))
  kernels = {
    'Dense_0': {'kernel': RNG.normal(size=(fan_in, 32)).astype(np.float32)},
    'Dense_1': {'kernel': RNG.normal(size=(32, 10)).astype(np.float32)},
  }
  labels = np.zeros(len(inputs), np.int32)

  @jax.jit
  def pre_activations(kernel, inputs):
    params = {**kernels, 'Dense_0': {'kernel': kernel}}
    view = nn.layer_view(model, {'params': params}, inputs, labels, 'Dense_0')
    return view.pre_activations(view.kernel)

  kernel = kernels['Dense_0']['kernel']
  z = np.asarray(pre_activations(kernel, inputs))
  sums = exact_sums(inputs, kernel)
  scale = np.float32(fan_in**-0.5 * unit)
  np.testing.assert_array_equal(z, np.float32(sums) * scale)
  for seed in range(3):
    order = np.random.default_rng(seed).permutation(fan_in)
    again = pre_activations(kernel[order], inputs[:, order])
    np.testing.assert_array_equal(again, z)


def test_integers_equal_their_floats_up_to_rounding():
  inputs = pixels(16, 80)
  model = nn.full_precision_mlp(hidden=(12,))
  params = uniform(80, 12, 10)
  apply = jax.jit(model.apply)
  np.testing.assert_allclose(
    apply(params, inputs),
    apply(params, np.float32(inputs) / np.float32(255)),
    rtol=1e-4,
    atol=1e-5,
  )


@pytest.mark.parametrize('dtype', [np.uint8, np.int32, np.int16])
def test_any_integer_counts_in_units_of_the_input_scale(dtype):
  inputs = RNG.integers(0, 9, (6, 10)).astype(dtype)
  model = nn.full_precision_mlp(hidden=(), input_scale=0.5)
  params = uniform(10, 10)
  kernel = np.float64(params['params']['Dense_0']['kernel'])
  np.testing.assert_allclose(
    jax.jit(model.apply)(params, inputs),
    0.5 * inputs @ kernel,
    rtol=1e-5,
    atol=1e-5,
  )


def test_scaling_by_fan_in_lets_gradients_pass_the_window():
  """The note: 9 % and 5 % pass unscaled, 99.7 % and 71 % scaled."""
  inputs = pixels(128)
  labels = np.zeros(len(inputs), np.int32)
  params = uniform(784, 256, 256, 10)
  shares = {}
  for scaling in ('fan_in', 'none'):
    model = nn.binary_mlp(scaling=scaling)

    @jax.jit
    def inside(params, model=model):
      views = [
        nn.layer_view(model, params, inputs, labels, f'Dense_{layer}')
        for layer in (0, 1)
      ]
      return [abs(v.pre_activations(v.kernel)) <= 1 for v in views]

    shares[scaling] = [float(np.mean(layer)) for layer in inside(params)]
  np.testing.assert_allclose(shares['fan_in'], [0.98, 0.69], atol=0.06)
  np.testing.assert_allclose(shares['none'], [0.09, 0.05], atol=0.05)
