"""input_ranges, against NumPy."""

from flax import linen
import jax
import numpy as np
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import types

KEY = jax.random.key(0, impl='rbg')
DRAW = np.random.default_rng(0)
IMAGES = DRAW.normal(size=(3, 4, 5, 2)).astype(np.float32)
IMAGES[2] = 1000.1  # Constant: its deviation is exactly 0.
SIGN = quantizers.attach(quantizers.sign(), quantizers.window())


class Twice(linen.Module):
  """A convolution that quantizes and is called two times; a dense layer that does not."""

  @linen.compact
  def __call__(self, x, progress=1.0):
    conv = nn.QuantConv(2, (3, 3), padding=1, input_quantizer=SIGN)
    x = conv(x, progress=progress)
    x = conv(3 * x, progress=progress)
    return nn.QuantDense(3)(x.reshape(len(x), -1), progress=progress)


def check(found, inputs):
  rows = np.asarray(inputs, np.float64).reshape(len(inputs), -1)
  np.testing.assert_allclose(found.low, rows.min(axis=1), rtol=1e-6)
  np.testing.assert_allclose(found.high, rows.max(axis=1), rtol=1e-6)
  np.testing.assert_allclose(found.std, rows.std(axis=1), rtol=1e-5, atol=1e-7)


def test_the_inputs_of_every_call():
  model = Twice()
  variables = jax.jit(model.init)(KEY, IMAGES)
  found = jax.jit(lambda v, x: nn.input_ranges(model, v, x, progress=0.5))(
    variables, IMAGES
  )
  assert set(found) == {'QuantConv_0', 'QuantConv_0 (2)', 'QuantDense_0'}
  check(found['QuantConv_0'], IMAGES)
  assert found['QuantConv_0'].std[2] == 0
  conv = nn.QuantConv(2, (3, 3), padding=1, input_quantizer=SIGN)
  inner = {'params': variables['params']['QuantConv_0']}
  first = 3 * conv.apply(inner, IMAGES)
  check(found['QuantConv_0 (2)'], first)
  check(found['QuantDense_0'], conv.apply(inner, first))


class Plain(linen.Module):
  """No layer of ours."""

  @linen.compact
  def __call__(self, x):
    return linen.Dense(3)(x)


class Scanned(linen.Module):
  """One layer that stands for three."""

  @linen.compact
  def __call__(self, x):
    class Layer(linen.Module):
      @linen.compact
      def __call__(self, x, _):
        return nn.QuantDense(2)(x), None

    layers = linen.scan(
      Layer, variable_axes={'params': 0}, split_rngs={'params': True}, length=3
    )
    return layers()(x, None)[0]


@pytest.mark.parametrize(
  ('model', 'words'),
  [
    (Plain(), 'must call a QuantConv or a QuantDense'),
    pytest.param(Scanned(), 'inside nn.scan', marks=pytest.mark.slow),
  ],
)
def test_what_it_cannot_look_at(model, words):
  variables = jax.jit(model.init)(KEY, IMAGES)
  with pytest.raises(types.BadInput, match=words):
    nn.input_ranges(model, variables, IMAGES)
