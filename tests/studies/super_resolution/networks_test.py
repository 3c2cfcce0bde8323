"""The networks that are compared, their costs, and the images."""

import jax
import numpy as np
import pytest

from bitjax import data
from bitjax import nn
from bitjax import training
from bitjax.data import pictures
from bitjax.studies.recipes import image_costs
from bitjax.studies.recipes import pairs as pairs_lib
from bitjax.studies.super_resolution import arms as arms_lib
from bitjax.studies.super_resolution import networks
from bitjax.studies.super_resolution import probes
from bitjax.studies.super_resolution import trainings


def build(arm, **options):
  sizes = {'scale': 2, 'blocks': 1, 'width': 8} | options
  return networks.build(arms_lib.ARMS[arm].design, **sizes)


@pytest.mark.parametrize('name', arms_lib.ARMS)
def test_an_arm_departs_from_its_base_in_one_part(name):
  arm = arms_lib.ARMS[name]
  if not arm.base:
    assert name == arms_lib.FULL and arm.design.bits == 32
    return
  base = arms_lib.ARMS[arm.base].design
  changed = {
    field
    for field in arm.design._fields
    if getattr(arm.design, field) != getattr(base, field)
  }
  if name == arms_lib.NAIVE:
    assert changed == {'shortcut', 'multiplier', 'norm', 'ends', 'upsampler'}
  elif arm.design.share > 1:
    assert changed == {'bits', 'share'}
  elif arm.base == arms_lib.FULL:  # Which is EDSR's plan.
    assert changed == {'bits', 'shortcut', 'multiplier'}
  else:
    assert len(changed) == 1
  assert arm.part


def test_what_is_quantized():
  macs = {}
  low_bit = (arms_lib.ONE, '1 bit with head and tail', '1 bit with upsampler')
  for name in (arms_lib.FULL, arms_lib.TWO, *low_bit):
    model = build(name)
    counted = nn.summary(model, jax.ShapeDtypeStruct((1, 6, 5, 3), 'float32'))
    macs[name] = {
      layer.path: set(layer.macs)
      for layer in counted.layers
      if layer.macs and layer.path  # Without the bicubic image.
    }
    assert {'Conv_head', 'Conv_tail', *networks.layers(model)} == set(
      macs[name]
    )
  for name in macs:
    design = arms_lib.ARMS[name].design
    low = {(design.bits, design.bits)}
    for path in ('Block_0/Conv_0', 'Block_0/Conv_1', 'Conv_body'):
      assert macs[name][path] == low
    ends = low if design.ends else {(32, 32)}
    assert macs[name]['Conv_tail'] == ends
    assert macs[name]['Conv_up_0'] == (low if design.upsampler else {(32, 32)})
    # Images are never quantized.
    assert macs[name]['Conv_head'] == {(32, 1 if design.ends else 32)}


@pytest.mark.parametrize(
  'scale', [2, *(pytest.param(s, marks=pytest.mark.slow) for s in (3, 4))]
)
def test_equal_bit_operations_and_costs(scale):
  one, *others = (
    image_costs.costs(build(name, scale=scale, width=8))
    for name in (arms_lib.ONE, arms_lib.TWO_EQUAL, arms_lib.FOUR_EQUAL)
  )
  # Three convolutions of 8 channels, of one block and the body, of 9 places each.
  pixels = (image_costs.HEIGHT // scale) * (image_costs.WIDTH // scale)
  assert one['bit_operations'] == pixels * 3 * 9 * 8**2
  for other in others:
    assert other['bit_operations'] == one['bit_operations']
    # Head, upsampler and tail are narrower too, and are of full precision.
    assert 0 < other['flops'] < one['flops']
  full = image_costs.costs(build(arms_lib.FULL, scale=scale, width=8))
  assert full['bit_operations'] == 0 and full['memory'] > one['memory']
  assert one['energy_low'] < one['energy_high']


def pairs(sizes, seed=0):
  draw = np.random.default_rng(seed)
  return data.make_pairs(
    {
      str(i): draw.integers(0, 256, (*size, 3), np.uint8)
      for i, size in enumerate(sizes)
    },
    2,
  )


def test_crops_are_the_middles_of_test_images_first():
  parts = pairs_lib.Parts(
    pairs([(24, 24)]), pairs([(32, 28)], 1), pairs([(20, 36)], 2)
  )
  low, high = probes.crops(parts, 2, 64)
  assert low.shape == (2, 10, 10, 3) and high.shape == (2, 20, 20, 3)
  np.testing.assert_array_equal(low[0], parts.test[0].low[:, 4:14])
  np.testing.assert_array_equal(high[0], parts.test[0].high[:, 8:28])
  np.testing.assert_array_equal(low[1], parts.validation[0].low[3:13, 2:12])
  assert len(probes.crops(parts, 9, 4)[0]) == 3


def test_no_image_is_in_two_parts(tmp_path):
  pytest.importorskip('PIL')
  draw = np.random.default_rng(0)
  for part, names in (('train', 'abcde'), ('Set5', 'fg')):
    (tmp_path / part).mkdir()
    for name in names:
      image = draw.integers(0, 256, (12, 12, 3), np.uint8)
      pictures.write(tmp_path / part / f'{name}.png', image)
  parts = pairs_lib.load('folder', str(tmp_path), 'Set5', 2, 2)
  assert [len(part) for part in parts] == [3, 2, 2]
  names = [set(part.names) for part in parts]
  assert not names[0] & names[1] and len(names[0] | names[1]) == 5
  sums = {pairs_lib.checksum(part) for part in parts}
  assert len(sums) == 3
  again = pairs_lib.load('folder', str(tmp_path), 'Set5', 2, 2)
  assert pairs_lib.checksum(again.train) == pairs_lib.checksum(parts.train)


@pytest.mark.slow
@pytest.mark.parametrize('name', [arms_lib.FULL, arms_lib.BLOCK])
def test_what_is_measured_of_a_network(name):
  model = build(name)
  test = pairs([(40, 44), (36, 36)])
  parts = pairs_lib.Parts(pairs([(24, 24)], 1), pairs([(24, 24)], 2), test)
  low, high = probes.crops(parts, 4, 8)
  variables = jax.jit(model.init)(
    jax.random.key(0, impl='rbg'), low / np.float32(255)
  )
  layers = networks.layers(model)
  found = trainings._measured(model, variables, test, (low, high), layers)
  scores = training.image_scores(
    lambda image: training.enlarge(model, variables, image), test
  )
  np.testing.assert_allclose(found['psnr'], scores.psnr)
  np.testing.assert_allclose(found['ssim'], scores.ssim)
  # The inputs of the first block's first convolution are what the head returns.
  head = nn.QuantConv(8, (3, 3), padding=1)
  inner = {'params': variables['params']['Conv_head']}
  first = np.asarray(head.apply(inner, low / np.float32(255) - 0.5))
  for image in range(4):
    np.testing.assert_allclose(
      found['range'][0, image], np.ptp(first[image]), rtol=1e-4
    )
    np.testing.assert_allclose(
      found['deviation'][0, image], first[image].std(), rtol=1e-4
    )
  passing = dict(zip(layers, found['passing'], strict=True))
  assert passing['Conv_up_0'] == 1  # Neither quantizer nor activation.
  # A ReLU stops about half of the gradient; hardtanh and window little.
  inside = passing['Block_0/Conv_0']
  assert 0.2 < inside < 0.8 if name == arms_lib.FULL else inside > 0.9
