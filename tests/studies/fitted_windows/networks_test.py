"""The networks and arms of the study, by what they compute and how thoroughly they are tuned."""

import jax
import jax.numpy as jnp
import pytest

from bitjax import quantizers
from bitjax.studies.fitted_windows import arms
from bitjax.studies.fitted_windows import networks


@pytest.mark.parametrize('network', ['mlp', 'resnet4'])
def test_a_fitted_sign_is_a_parameter_of_each_layer(network):
  sign = arms.ARMS[arms.FITTED].quantizer(0)
  model = networks.build(network, sign, 4, (7,), {})
  images = jnp.zeros((2, 8, 8, 3))
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
  widths = [
    jax.tree_util.keystr(path)
    for path, _ in jax.tree.leaves_with_path(shapes['params'])
    if path[-1].key == 'width'
  ]
  assert len(widths) == (1 if network == 'mlp' else 2)


@pytest.mark.parametrize('name', [n for n in arms.ARMS if n != arms.FITTED])
def test_every_arm_has_nine_settings(name):
  arm = arms.ARMS[name]
  rates = (0.3, 1.0, 3.0)
  settings = {
    (round(rate * arm.factor(shape), 6), arm.values and arm.values[shape])
    for rate in rates
    for shape in arms.SHAPES
  }
  assert len(settings) == 9
  # Its derivative at 0.3, half through a training, by the quantizer that this gets.
  slopes = set()
  for shape in arms.SHAPES:
    sign = arm.quantizer(shape)
    slope = jax.grad(lambda x, sign=sign: sign(x, progress=0.5))
    slopes.add(float(slope(0.3)))
  assert (len(slopes) == 1) == (not arm.values)


def test_an_estimator_of_ones_own_has_nine_rates():
  own = arms.arm_of('bitjax.quantizers:window(0.5)')
  assert not own.values
  assert repr(own.quantizer(1)) == repr(
    quantizers.attach(quantizers.sign(), quantizers.window(0.5))
  )
