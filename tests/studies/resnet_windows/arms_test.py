"""Names of estimators, arms, and the networks that they are put in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import types
from bitjax.studies.resnet_windows import arms as arms_lib
from bitjax.studies.resnet_windows import estimators
from bitjax.studies.resnet_windows import networks
from bitjax.studies.resnet_windows import study

X = np.asarray([-3.0, -1.5, -0.6, -0.3, 0.0, 0.2, 0.4, 0.9, 2.5], np.float32)
RMS = float(np.sqrt(np.mean(X.astype(float) ** 2)))


def slopes(name, progress=1.0):
  sign = quantizers.attach(quantizers.sign(), estimators.of(name).make())
  return jax.grad(lambda x: sign(x, progress=progress).sum())(X)


@pytest.mark.parametrize(
  ('name', 'wanted'),
  [
    ('window 0.5', np.abs(X) <= 0.5),
    ('window 1', np.abs(X) <= 1),
    ('window 0.25, mass kept', 4.0 * (np.abs(X) <= 0.25)),
    ('relative window 0.5', np.abs(X) <= 0.5 * RMS),
    ('no window', np.ones_like(X)),
  ],
)
def test_what_passes(name, wanted):
  np.testing.assert_allclose(slopes(name), wanted, rtol=1e-6)
  assert estimators.of(name).name == name


def test_what_shrinks():
  for progress, half_width in ((0.0, 2.0), (2 / 3, 0.5), (1.0, 0.25)):
    np.testing.assert_array_equal(
      slopes(estimators.SHRINKING, progress), np.abs(X) <= half_width
    )


def test_names_and_families():
  assert estimators.HALF == 'window 0.5' == estimators.absolute(0.5)
  assert estimators.kept(0.5) == estimators.MASS
  families = {
    name: estimators.of(name).family
    for name in (
      'window 2',
      'relative window 2',
      'window 2, mass kept',
      'Bi-Real',
    )
  }
  assert len({*families.values()}) == 4
  assert estimators.of('Bi-Real 0.5').family == families['Bi-Real']
  assert all(estimators.of(name).name == name for name in estimators.SHAPES)


def test_arms():
  arms = arms_lib.every((0.5, 1.0), estimators.UNITS, ('no window',), ('DSQ',))
  labels = [str(arm) for arm in arms]
  assert len(set(labels)) == len(labels) == 2 * (4 + 1) + 1
  assert labels[0] == 'window 0.5, initialised'
  assert labels[-1] == 'DSQ, pretrained'
  with pytest.raises(types.BadInput, match='primary contrast'):
    arms_lib.every((0.5, 1.0), ('relative',), (), ())


@pytest.mark.parametrize('preset', study.PRESETS)
def test_every_estimator_that_is_trained_is_looked_at(preset):
  config = study.Config(**study.PRESETS[preset])
  names = config.estimators()
  assert len(set(names)) == len(names)
  trained = {arm.estimator for arm in config.every()}
  assert trained - {*names} <= {estimators.SHRINKING}
  assert {estimators.HALF, estimators.ONE} <= {*names}


def options(**own):
  return {
    'activation': 'identity',
    'precision': 'highest',
    'dtype': 'float32',
  } | own


@pytest.mark.slow
def test_full_precision_has_a_hardtanh_in_the_place_of_the_sign():
  """By hand: the first block's first convolution of the clipped input."""
  model = networks.build('resnet4', None, 10, **options())
  images = 2 * jax.random.normal(jax.random.key(0), (3, 4, 4, 1))
  variables = jax.jit(model.init)(jax.random.key(1), images)

  def between(module, method):
    del method
    return module.name in ('Conv_0', 'Conv_1', 'Activation_0', 'Activation_1')

  _, seen = model.apply(
    variables, images, capture_intermediates=between, mutable=['intermediates']
  )
  first = seen['intermediates']['Activation_0']['__call__'][0]
  assert np.abs(first).max() > 1  # Shortcuts are not clipped.
  got = seen['intermediates']['Block_0']['Conv_0']['__call__'][0]
  wanted = jax.lax.conv_general_dilated(
    jnp.clip(first, -1, 1),
    variables['params']['Block_0']['Conv_0']['kernel'],
    (1, 1),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.slow
def test_thresholds_are_subtracted_before_the_sign():
  window = quantizers.window(1.0)
  plain = networks.build('resnet4', window, 10, **options())
  shifted = networks.build('resnet4', window, 10, shifted=True, **options())
  images = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
  variables = jax.jit(plain.init)(jax.random.key(1), images)
  layers = networks.layers('resnet4', variables['params'])
  assert layers == ['Block_0/Conv_0', 'Block_0/Conv_1']

  def logits(values):
    thresholds = dict(zip(layers, values, strict=True))
    params = networks.with_thresholds(variables['params'], thresholds)
    return shifted.apply({**variables, 'params': params}, images)

  np.testing.assert_array_equal(
    logits((0.0, 0.0)), plain.apply(variables, images)
  )
  assert np.abs(logits((0.0, 0.7)) - logits((0.0, 0.0))).max() > 1e-3
  # A view sees them too, so that gains are those of the shifted network.
  params = networks.with_thresholds(
    variables['params'], dict(zip(layers, (0.3, 0.7), strict=True))
  )
  view = nn.layer_view(
    shifted, {**variables, 'params': params}, images, jnp.asarray([1, 2]),
    layer=layers[0], train=False,
  )  # fmt: skip
  wanted = -jax.nn.log_softmax(logits((0.3, 0.7)))[[0, 1], [1, 2]].mean()
  np.testing.assert_allclose(view.loss(view.kernel), wanted, rtol=1e-5)
