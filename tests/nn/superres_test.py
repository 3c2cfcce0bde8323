"""Networks for super-resolution against the same sums in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import data
from bitjax import nn
from bitjax import quantizers
from bitjax import types

KEY = jax.random.key(4)
SIGN = quantizers.attach(quantizers.sign(), quantizers.window())
RNG = np.random.default_rng(6)
IMAGES = RNG.uniform(0, 1, (2, 5, 6, 3)).astype(np.float32)
BINARY = {
  'kernel_quantizer': SIGN,
  'input_quantizer': SIGN,
  'scaling': 'mean_abs',
}
TINY = {'blocks': 1, 'width': 4}


def randomised(variables):
  """Moves all parameters, so that none is at the value that it begins with."""
  return jax.tree.map(
    lambda leaf: leaf + RNG.uniform(0.05, 0.2, leaf.shape).astype(leaf.dtype),
    variables,
  )


def shuffled(x, scale):
  n, height, width, channels = x.shape
  found = np.zeros((n, scale * height, scale * width, channels // scale**2))
  for c in range(channels // scale**2):
    for i in range(scale):
      for j in range(scale):
        found[:, i::scale, j::scale, c] = x[..., c * scale**2 + scale * i + j]
  return found


class Oracle:
  """The network of given fields and variables, in float64."""

  def __init__(self, variables, **fields):
    self.variables = jax.tree.map(np.float64, variables)
    self.fields = {
      'scale': 2, 'norm': False, 'shortcut': 'block', 'multiplier': 1.0,
      'upsampler': 'shuffle', 'base': 'none', 'thresholds': False,
      'quantize_head': False, 'quantize_upsampler': False,
      'quantize_tail': False, 'kernel_quantizer': None, **TINY,
    } | fields  # fmt: skip
    self.binary = self.fields['kernel_quantizer'] is not None

  def get(self, *names, collection='params'):
    found = self.variables[collection]
    for name in names:
      found = found[name]
    return found

  def conv(self, x, home, name, quantized):
    layer = self.get(*home, f'Conv_{name}')
    kernel, binary = layer['kernel'], self.binary
    if binary and quantized in ('both', 'kernel'):
      scale = np.mean(np.abs(kernel), axis=(0, 1, 2))
      kernel = np.where(kernel < 0, -1, 1) * scale
    if quantized == 'both':
      if self.fields['thresholds']:
        x = x - self.get(*home, f'Threshold_{name}', 'threshold')
      if binary:
        x = np.where(x < 0, -1.0, 1.0)
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1] - 2, x.shape[2] - 2
    found = sum(
      x[:, i : i + height, j : j + width] @ kernel[i, j]
      for i in range(3)
      for j in range(3)
    )
    return found + layer.get('bias', 0)

  def norm(self, x, home, name):
    if not self.fields['norm']:
      return x
    layer = self.get(*home, f'BatchNorm_{name}')
    known = self.get(*home, f'BatchNorm_{name}', collection='batch_stats')
    x = (x - known['mean']) / np.sqrt(known['var'] + 1e-5)
    return x * layer['scale'] + layer['bias']

  def activate(self, x):
    return np.clip(x, -1, 1) if self.binary else np.maximum(x, 0)

  def __call__(self, images):
    fields, m = self.fields, self.fields['multiplier']
    each = fields['shortcut'] == 'each'
    images = images.astype(np.float64)
    kind = 'kernel' if fields['quantize_head'] else ''
    x = first = self.conv(images - 0.5, (), 'head', kind)
    for index in range(fields['blocks']):
      home = (f'Block_{index}',)
      y = x
      for number in range(2):
        z = self.norm(self.conv(y, home, number, 'both'), home, number)
        if each:
          y = y + m * self.activate(z)
        else:
          y = z if number else self.activate(z)
      x = y if each else x + m * y
    y = self.norm(self.conv(x, (), 'body', 'both'), (), 'body')
    x = first + (x + m * y if each else y)
    scale, index = fields['scale'], 0
    kind = 'both' if fields['quantize_upsampler'] else ''
    left = scale
    while fields['upsampler'] == 'shuffle' and left > 1:
      factor = 2 if left % 2 == 0 else 3
      y = shuffled(self.conv(x, (), f'up_{index}', kind), factor)
      if kind and each:
        y = np.kron(x, np.ones((1, factor, factor, 1))) + m * y
      x, index, left = y, index + 1, left // factor
    kind = 'both' if fields['quantize_tail'] else ''
    x = shuffled(self.conv(x, (), 'tail', kind), left)
    if fields['base'] == 'nearest':
      return x + np.kron(images, np.ones((1, scale, scale, 1)))
    if fields['base'] == 'bicubic':
      return x + data.bicubic_on_host(images, scale)
    return x + 0.5


CASES = {
  'edsr': {},
  'scale 6': {'scale': 6},
  'normalised': {'norm': True, 'base': 'nearest'},
  'direct': {'upsampler': 'direct', 'base': 'bicubic', 'scale': 5},
  'multiplied': {'multiplier': 0.25, 'shortcut': 'each'},
  'one bit': BINARY | {'norm': True},
  'one bit, each': BINARY
  | {'shortcut': 'each', 'thresholds': True, 'multiplier': 0.5},
  'one bit, all': BINARY
  | dict.fromkeys(
    ('quantize_head', 'quantize_upsampler', 'quantize_tail'), True
  )
  | {'shortcut': 'each', 'scale': 3, 'multiplier': 0.5},
}


FAST = ('direct', 'one bit, all')


@pytest.mark.parametrize(
  'case',
  [c if c in FAST else pytest.param(c, marks=pytest.mark.slow) for c in CASES],
)
def test_the_same_sums(case):
  fields = CASES[case]
  model = nn.SuperResolution(**TINY | fields)
  variables = randomised(jax.jit(model.init)(KEY, IMAGES))
  found = jax.jit(model.apply)(variables, IMAGES)
  expected = Oracle(variables, **fields)(IMAGES)
  assert found.dtype == np.float32
  assert found.shape == expected.shape
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_pixel_shuffle_by_index():
  x = RNG.normal(size=(2, 3, 4, 18)).astype(np.float32)
  np.testing.assert_array_equal(nn.pixel_shuffle(x, 3), shuffled(x, 3))
  np.testing.assert_array_equal(nn.pixel_shuffle(x, 1), x)
  assert nn.pixel_shuffle(x[0], 3).shape == (9, 12, 2)
  with pytest.raises(types.BadInput, match='a multiple of 4 channels'):
    nn.pixel_shuffle(x, 2)
  with pytest.raises(types.BadInput, match='scale must be'):
    nn.pixel_shuffle(x, 0)


def cost(model, *sides):
  return nn.summary(
    model, jax.ShapeDtypeStruct((1, *sides, 3), 'float32')
  ).total


def test_costs_are_the_published_ones_at_any_size():
  total = cost(nn.edsr_baseline(), 360, 640)
  assert sum(total.parameters.values()) == 1_369_859  # 1.37 million.
  assert total.macs == {(32, 32): 316_248_883_200}  # 316.3 G for 1280 x 720.
  small = cost(nn.edsr_baseline(), 36, 64)
  assert small.macs == {(32, 32): 316_248_883_200 // 100}


@pytest.mark.slow
@pytest.mark.parametrize(('scale', 'known'), [(3, 1_554_499), (4, 1_517_571)])
def test_parameters_at_other_scales(scale, known):
  total = cost(nn.edsr_baseline(scale=scale), 8, 8)
  assert sum(total.parameters.values()) == known


def test_bits_are_those_of_the_parts_that_are_quantized():
  # For a pixel at the low resolution: two blocks, and Conv_body.
  body = 5 * 9 * 64 * 64
  head, up, tail = 9 * 3 * 64, 9 * 64 * 256, 4 * 9 * 64 * 3
  model = nn.edsr_baseline(blocks=2, **BINARY)
  total = cost(model, 3, 5)
  assert total.macs == {(32, 32): 15 * (head + up + tail), (1, 1): 15 * body}
  total = cost(model.clone(quantize_upsampler=True, quantize_tail=True), 3, 5)
  assert total.macs == {
    (32, 32): 15 * head,
    (1, 1): 15 * (body + up + tail),
  }
  total = cost(model.clone(quantize_head=True), 3, 5)
  assert total.macs[32, 1] == 15 * head


@pytest.mark.slow
def test_the_light_one_is_light_and_ends_where_it_begins():
  model = nn.light_sr()
  total = cost(model, 24, 24)
  assert sum(total.parameters.values()) == 23_068
  assert sum(total.macs.values()) < 24**2 * 24_000
  variables = jax.jit(model.init)(KEY, IMAGES)
  tail = jax.tree.map(jnp.zeros_like, variables['params']['Conv_tail'])
  variables = {'params': variables['params'] | {'Conv_tail': tail}}
  np.testing.assert_allclose(
    jax.jit(model.apply)(variables, IMAGES),
    data.bicubic_on_host(IMAGES, 2),
    atol=1e-5,
  )


@pytest.mark.slow
def test_one_network_takes_images_of_any_size():
  model = nn.SuperResolution(**TINY, base='bicubic')
  variables = jax.jit(model.init)(KEY, IMAGES)
  large = RNG.uniform(0, 1, (1, 9, 40, 3)).astype(np.float32)
  whole = jax.jit(model.apply)(variables, large)
  assert whole.shape == (1, 18, 80, 3)
  # Far from the cut, a part gives what the whole gives: 3 x 3 six times, and bicubic.
  part = jax.jit(model.apply)(variables, large[:, :, :28])
  np.testing.assert_allclose(part[:, :, :36], whole[:, :, :36], atol=1e-5)


@pytest.mark.slow
def test_statistics_move_in_training_alone():
  model = nn.srresnet(**TINY)
  variables = jax.jit(model.init)(KEY, IMAGES)
  assert len(variables['batch_stats']) == 2
  _, moved = jax.jit(
    lambda v, x: model.apply(v, x, train=True, mutable=['batch_stats'])
  )(variables, IMAGES)
  before = jax.tree.leaves(variables['batch_stats'])
  after = jax.tree.leaves(moved['batch_stats'])
  assert all(map(lambda a, b: np.any(a != b), before, after))


RANGES = {
  'fixed': quantizers.attach(
    quantizers.uniform(3, narrow=True, step=0.3), quantizers.identity()
  ),
  'learned': quantizers.lsq(3, narrow=True, batch_axes=1),
  'learned ends': quantizers.lsq(3, offset=True, batch_axes=1),
  'from the batch': quantizers.calibrated(
    quantizers.attach(
      quantizers.uniform(3, narrow=True, step='unit'), quantizers.identity()
    ),
    quantizers.max_abs('tensor'),
  ),
}


@pytest.mark.slow
@pytest.mark.parametrize('kind', RANGES)
def test_ranges_of_activations(kind):
  quantize = RANGES[kind]
  model = nn.SuperResolution(
    blocks=1, width=4, input_quantizer=quantize, upsampler='direct'
  )
  variables = jax.jit(model.init)(KEY, IMAGES)
  names = {'learned': {'step'}, 'learned ends': {'step', 'offset'}}
  layer = variables['params']['Block_0']['Conv_0']
  learned = layer.keys() - {'kernel', 'bias'}
  assert bool(learned) == (kind in names)

  def loss(variables, images):
    return jnp.mean(jnp.abs(model.apply(variables, images) - 0.3))

  gradient = jax.jit(jax.grad(loss))(variables, IMAGES)
  for path, leaf in jax.tree.leaves_with_path(gradient):
    assert np.any(leaf != 0), path
  # A range from the batch moves with the image; the others stay where they are.
  if kind == 'from the batch':
    assert cost(model, 4, 4).macs[3, 32] == 3 * 16 * 9 * 16


@pytest.mark.slow
def test_narrow_dtypes_and_lanes():
  model = nn.SuperResolution(blocks=1, width=4, dtype='bfloat16')
  variables = jax.jit(model.init)(KEY, IMAGES)
  found = jax.jit(model.apply)(variables, IMAGES)
  assert found.dtype == np.float32
  wide = jax.jit(model.clone(dtype=None).apply)(variables, IMAGES)
  np.testing.assert_allclose(found, wide, atol=0.02)
  many = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), variables)
  lanes = jax.jit(jax.vmap(model.clone(dtype=None).apply, (0, None)))(
    many, IMAGES
  )
  np.testing.assert_allclose(lanes[0], wide, atol=1e-5)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'scale': 0}, 'scale must be'),
    ({'scale': 5}, "product of 2s and 3s for the upsampler 'shuffle'; got 5"),
    ({'blocks': 0}, 'blocks must be'),
    ({'width': 2.5}, 'width must be'),
    ({'multiplier': 0}, 'multiplier must be'),
    ({'shortcut': 'none'}, 'shortcut must be one of block, each'),
    ({'upsampler': 'x'}, 'upsampler must be one of shuffle, direct'),
    ({'base': 'x'}, 'base must be one of none, nearest, bicubic'),
    (
      {'quantize_upsampler': True, 'upsampler': 'direct'},
      'upsampler=direct has none at the scale 2',
    ),
    (
      {'quantize_upsampler': True, 'scale': 1},
      'upsampler=shuffle has none at the scale 1',
    ),
    ({'kernel_quantizer': 'sign'}, 'kernel_quantizer must be'),
  ],
)
def test_bad_fields(fields, message):
  with pytest.raises(types.BadInput, match=message):
    nn.SuperResolution(**fields)


@pytest.mark.parametrize(
  ('images', 'message'),
  [
    (IMAGES[..., :1], 'images must have 3 channels'),
    ((255 * IMAGES).astype(np.uint8), 'images must be floating'),
    (IMAGES[0], 'images must be floating'),
  ],
)
def test_bad_images(images, message):
  with pytest.raises(types.BadInput, match=message):
    nn.SuperResolution(**TINY).init(KEY, images)
