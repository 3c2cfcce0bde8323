"""What networks start from, and what passes the windows of a network there."""

import jax
import numpy as np
import pytest

from bitjax import nn
from bitjax import training
from bitjax.studies import initialisation
from bitjax.studies import recipes
from bitjax.studies.initialisation import arms as arms_lib
from bitjax.studies.initialisation import passing
from bitjax.studies.initialisation import starts

CONFIG = initialisation.STUDY.config(**initialisation.STUDY.presets['smoke'])
TRAIN = CONFIG.load()[0].train
QUANTIZED = recipes.NETWORKS['resnet4'].binary
MODEL = CONFIG.measured('resnet4', 'bireal', 10).clone(widths=(4,))


def begun(start, seed=0, model=MODEL, **changes):
  batch = passing.batch(TRAIN, 16, seed)
  arm = arms_lib.Arm(start, **changes)
  return starts.variables(model, arm, seed, *batch, quantized=QUANTIZED)


def kernels(variables):
  return {
    path.removesuffix('/kernel'): np.asarray(kernel)
    for path, kernel in training.kernels(variables['params']).items()
  }


def test_kernels_share_their_random_bits():
  wanted = begun('kaiming_normal')
  reference = kernels(wanted)
  quantized = {'Block_0/Conv_0', 'Block_0/Conv_1'}
  assert quantized < set(reference)
  for start, scale in (('scaled 0.1', 0.1), ('scaled 10', 10)):
    for path, kernel in kernels(begun(start)).items():
      factor = scale if path in quantized else 1
      np.testing.assert_allclose(kernel, factor * reference[path], rtol=1e-6)
  for start in ('kaiming', 'xavier', 'orthogonal', 'kaiming_fan_out'):
    found = kernels(begun(start))
    last = found.pop('Dense_0')
    np.testing.assert_array_equal(last, reference['Dense_0'])
  for path, kernel in kernels(begun('xavier')).items():
    if path != 'Dense_0':
      other = kernels(begun('kaiming'))[path]
      np.testing.assert_array_equal(kernel > 0, other > 0)
  again, other = begun('kaiming_normal'), kernels(begun('kaiming_normal', 1))
  jax.tree.map(np.testing.assert_array_equal, again, wanted)
  assert all(
    (other[path] != kernel).all() for path, kernel in reference.items()
  )


def test_classifier_has_the_spread_of_pytorch():
  """Its uniform weights within 1 / sqrt(fan_in) have the variance 1 / (3 fan_in)."""
  wide = MODEL.clone(widths=(64,), num_classes=100)
  large = kernels(begun('xavier', model=wide))['Dense_0']
  small = kernels(begun('xavier', model=wide, small=True))['Dense_0']
  np.testing.assert_allclose(small, large / np.sqrt(6), rtol=1e-6)
  np.testing.assert_allclose(large.std(), np.sqrt(2 / 64), rtol=0.05)
  np.testing.assert_allclose(small.std(), np.sqrt(1 / (3 * 64)), rtol=0.05)


@pytest.mark.slow
def test_all_else_begins_as_the_network_begins():
  """But for kernels, the variables are those of ``model.init``."""
  images, _ = passing.batch(TRAIN, 2, 0)
  init = jax.jit(lambda key: MODEL.init(key, images, train=False))
  wanted = init(jax.random.key(0, impl='rbg'))

  def equal(path, found, other):
    assert found.shape == other.shape and found.dtype == other.dtype
    if path[-1].key != 'kernel':
      np.testing.assert_array_equal(found, other)

  found = begun('orthogonal')
  jax.tree.map_with_path(equal, found, {name: wanted[name] for name in found})
  halved = begun('gain 0.5')
  for name in ('BatchNorm_0', 'Block_0'):
    for path, leaf in jax.tree.leaves_with_path(halved['params'][name]):
      if path[-1].key == 'scale':
        np.testing.assert_array_equal(leaf, 0.5)


def rows(layers, activations):
  """A measurement of two networks' worth of layers, by hand."""
  found = [nn.LayerPassing('Activation_0', 'hardtanh', input_mass=0.9)]
  for number, (norm, inner) in enumerate(layers):
    at = f'Block_{number // 2}/Conv_{number % 2}'
    found += [
      nn.LayerPassing(at, 'QuantConv', input_mass=inner, kernel_norm=norm),
      nn.LayerPassing(
        at.replace('Conv', 'Activation'),
        'hardtanh',
        input_mass=activations[number],
      ),
    ]
  return nn.GradientPassing(tuple(found), 1.0, 2.0)


def test_summary_by_hand():
  passed = rows(
    [(1.0, 1.0), (2.0, 0.75), (4.0, 1.0), (64.0, 1.0)], [0.5, 0.6, 0.7, 0.8]
  )
  shapes = {
    'Conv_0/kernel': np.zeros((3, 3, 1, 2)),
    'Block_0/Conv_0/kernel': np.zeros((3, 3, 2, 2)),
    'Block_0/Conv_1/kernel': np.zeros((3, 3, 2, 2)),
    'Block_1/Conv_0/kernel': np.zeros((3, 3, 2, 4)),
    'Block_1/Conv_1/kernel': np.zeros((3, 3, 4, 4)),
  }
  found = passing.summary(passed, shapes)
  np.testing.assert_allclose(found['mass'], 0.65, rtol=1e-6)
  np.testing.assert_allclose(found['inner'], 0.75)
  np.testing.assert_allclose(found['log_norm'], (0 + 1 + 2 + 6) / 4)
  # Only the first two can be compared; the norm halves towards the first.
  np.testing.assert_allclose(found['halvings'], 1)
  np.testing.assert_allclose(
    [*found['log_norm_at'], found['span']], [0, 1, 2, 6, 6]
  )
  np.testing.assert_allclose(found['mass_at'], [0.5, 0.6, 0.7, 0.8], rtol=1e-6)


@pytest.mark.parametrize('seed', range(3))
def test_halvings_are_the_least_squares_of_a_line_for_each_shape(seed):
  draw = np.random.default_rng(seed)
  shapes = [(2, 2)] * 4 + [(2, 4)] + [(4, 4)] * 3 + [(4, 8)] + [(8, 8)] * 2
  norms = draw.normal(size=len(shapes))
  each = sorted(set(shapes))
  design = [[float(s == own) for s in each] for own in shapes]
  left = np.arange(len(shapes))[::-1, None]  # Layers to the end.
  *_, slope = np.linalg.lstsq(np.hstack([design, left]), norms, rcond=None)[0]
  np.testing.assert_allclose(passing.halvings(norms, shapes), -slope, rtol=1e-9)
  alone = passing.halvings(norms[:1], shapes[:1])
  assert np.isnan(alone)


@pytest.mark.slow
def test_what_is_inert_and_what_is_not():
  """The scale of latent weights does nothing; that of normalisations does."""
  images, labels = passing.batch(TRAIN, 16, 0)
  model = CONFIG.measured('resnet8', 'bireal', 10)
  model = model.clone(epsilon=1e-30)  # It is added to variances.

  def weights(start, **changes):
    arm = arms_lib.Arm(start, **changes)
    return starts.variables(model, arm, 0, images, labels, quantized=QUANTIZED)

  def measured(given):
    passed = nn.gradient_passing(model, given, images, labels, train=True)
    return passed, passing.summary(passed, training.kernels(given['params']))

  def scaled(path, leaf):
    latent = path[0].key.startswith('Block') and path[-1].key == 'kernel'
    return leaf / 8 if latent else leaf  # Powers of two do not round.

  given = weights('kaiming_normal')
  _, reference = measured(given)
  params = jax.tree.map_with_path(scaled, given['params'])
  _, other = measured(given | {'params': params})
  for name, value in reference.items():
    np.testing.assert_array_equal(other[name], value, err_msg=name)
  assert reference['inner'] == 1
  assert measured(weights('gain 0.5'))[1]['mass'] > reference['mass'] + 0.1
  fitted, found = measured(weights('fitted'))
  assert found['inner'] == 1
  after = starts.deviations(fitted)
  np.testing.assert_allclose(list(after.values()), 1, atol=0.01)
  before = starts.deviations(measured(given)[0])
  assert max(before.values()) > 1.1
  small = measured(weights('kaiming_normal', small=True))[1]
  drop = reference['log_norm'] - small['log_norm']
  assert 0.8 < drop < 1.8  # log2 of the spreads' ratio is 1.29.
