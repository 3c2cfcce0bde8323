"""Packed networks compute what the model's own operations compute, to the bit.

The oracle is the model itself, operation by operation (`jax.disable_jit`), on random
and on untrained networks, whose sums of ±1 products often lie exactly on a threshold.
"""

import functools
import json
import struct
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import deploy
from bitjax import nn
from bitjax import packed as packing
from bitjax import quantizers
from bitjax import types
from bitjax.deploy import _network

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(35, 7, 9, 3)).astype(np.float32)
DIGITS = RNG.integers(0, 256, (35, 5, 4), dtype=np.uint8)
SIGN = quantizers.attach(quantizers.sign(), quantizers.window(1.0))
TERNARY = quantizers.attach(quantizers.ternary(), quantizers.identity())
BINARY = {'kernel_quantizer': SIGN, 'input_quantizer': SIGN}
TINY = {'stages': (1, 1), 'widths': (16, 18), 'num_classes': 5}
resnet = functools.partial(nn.ResNet, **TINY)
vgg = functools.partial(
  nn.VGG, stages=((4, 17), (6,)), num_classes=5, quantize_last=True
)


def filled(model, images, trained=True):
  """Initial variables; if ``trained``, norms and thresholds are random, of both signs."""
  variables = model.init(KEY, images[:1])
  rng = np.random.default_rng(1)

  def fill(path, leaf):
    name = jax.tree_util.keystr(path)
    if 'kernel' in name or not trained:
      return leaf
    value = 0.3 * rng.normal(size=leaf.shape)
    if "'var'" in name:
      value = np.exp(value)
    if "'scale'" in name:
      value = np.exp(value) * rng.choice([-1, 1], leaf.shape)
    return jnp.asarray(value, jnp.float32)

  return jax.tree_util.tree_map_with_path(fill, variables)


def wanted(model, variables, images):
  with jax.disable_jit():
    return model.apply(variables, images)


def packed(model, images, trained=True, **kwargs):
  variables = filled(model, images, trained)
  return deploy.pack_network(model, variables, images, **kwargs), variables


def names(network):
  return {op.name for op in network.ops}


def check(model, images, trained=True):
  network, variables = packed(model, images, trained)
  want = wanted(model, variables, images)
  np.testing.assert_array_equal(network(images), want)
  return network


@functools.cache
def digits():
  model = nn.binary_mlp(hidden=(48, 33), batch_norm=True, num_classes=5)
  return model, *packed(model, DIGITS)


def test_mlp_of_bytes_is_integers_up_to_its_logits():
  model, network, variables = digits()
  full = network(DIGITS)
  np.testing.assert_array_equal(full, wanted(model, variables, DIGITS))
  assert {'bytes_dense', 'threshold', 'binary_dense'} <= names(network)
  assert not {'dense', 'ge', 'bits'} & names(network)
  assert 'total' in str(network) and 'popcount of ±1' in str(network)


@pytest.mark.slow
def test_any_number_of_images_under_jit_too():
  _, network, _ = digits()
  full = network(DIGITS)
  np.testing.assert_array_equal(network(DIGITS[:1]), full[:1])
  assert network(DIGITS[:0]).shape == (0, 5)
  run = jax.jit(lambda network, images: network(images))
  np.testing.assert_array_equal(run(network, DIGITS), full)
  closed = jax.jit(lambda images: network(images))
  np.testing.assert_array_equal(closed(DIGITS), full)


RESNETS = {
  'bireal': resnet(variant='bireal', scaling='mean_abs', **BINARY),
  'react': resnet(variant='react', scaling='mean_abs', **BINARY),
  'plain': resnet(shortcut='projection', scaling='fan_in', **BINARY),
  'first': resnet(variant='bireal', quantize_first=True, **BINARY),
  'weights': resnet(kernel_quantizer=SIGN, scaling='mean_abs'),
  'ternary': resnet(kernel_quantizer=TERNARY, scaling='mean_abs'),
  'lsq': resnet(
    kernel_quantizer=quantizers.lsq(2),
    input_quantizer=quantizers.lsq(2, signed=False),
  ),
  'floats': resnet(variant='bireal'),
}


@pytest.mark.slow
@pytest.mark.parametrize('trained', [True, False])
@pytest.mark.parametrize('name', RESNETS)
def test_resnets(name, trained):
  network = check(RESNETS[name], IMAGES, trained)
  binary = 'binary_conv' in names(network)
  assert binary == (name in ('bireal', 'react', 'plain', 'first'))
  assert ('threshold' in names(network)) == (name == 'plain')
  decoded = sum(op.name == 'decode' for op in network.ops)
  few = {'weights': 4, 'ternary': 4, 'lsq': 4, 'first': 1}
  assert decoded == few.get(name, 0)


@pytest.mark.slow
@pytest.mark.parametrize('trained', [True, False])
@pytest.mark.parametrize(
  ('model', 'images', 'steps'),
  [
    (vgg(**BINARY), IMAGES, {'max_bits', 'flip', 'threshold', 'binary_dense'}),
    (nn.binary_weights_mlp(hidden=(9, 8)), DIGITS, {'bytes_dense', 'decode'}),
    (nn.binary_mlp(hidden=(9, 8)), IMAGES, {'decode', 'binary_dense'}),
    (nn.full_precision_mlp(hidden=(9,)), DIGITS, {'dense'}),
  ],
)
def test_other_networks(model, images, steps, trained):
  assert steps <= names(check(model, images, trained))


@pytest.mark.slow
def test_fusing_products_and_sums_would_turn_signs():
  # The compiled model, in which a compiler does fuse them, is not the oracle.
  model = RESNETS['react']
  network, variables = packed(model, IMAGES)
  want = wanted(model, variables, IMAGES)
  other = jax.jit(model.apply)(variables, IMAGES)
  np.testing.assert_array_equal(network(IMAGES), want)
  assert np.abs(other - want).max() > 0


def test_files(tmp_path):
  _, network, _ = digits()
  path = deploy.save(network, tmp_path / 'digits.bitjax')
  again = deploy.load(path)
  assert again.ops == network.ops and again.shape == (5, 4)
  jax.tree.map(np.testing.assert_array_equal, again, network)
  content = path.read_bytes()
  spoilt = [
    (content[:-1] + bytes([content[-1] ^ 1]), r'tensor .*Dense_2.* checksum'),
    (content[:-1], r'tensor .* is cut off'),
    (content + b' ', 'behind its last tensor'),
    (content.replace(b'packed 2', b'packed 1'), 'has version 1'),
    # A newline and a vertical tab differ in one bit.
    (content[:15] + b'\x0b' + content[16:], r"has version '2\\x0b'"),
    (content[:30] + bytes([content[30] ^ 4]) + content[31:], 'header'),
    (b'PK' + content, 'is no file of a packed network'),
  ]
  for changed, message in spoilt:
    path.write_bytes(changed)
    with pytest.raises(types.BadInput, match=message):
      deploy.load(path)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda header: [], 'describes no packed network'),
    (lambda header: header | {'ops': []}, 'describes no packed network'),
    (lambda header: header | {'chunk': 0}, 'describes no packed network'),
    (lambda header: header | {'dtype': 'int9'}, 'describes no packed network'),
    (lambda header: header | {'ops': [['to', [1]]]}, 'operation 0 takes 1, '),
    (lambda header: header | {'ops': [['to', ['a']]]}, "takes 'a', which"),
    (lambda header: header | {'ops': [['exec', []]]}, "operation 'exec'"),
  ],
)
def test_headers_that_fit_their_checksum(tmp_path, change, message):
  path = deploy.save(digits()[1], tmp_path / 'digits.bitjax')
  content, sizes = path.read_bytes(), struct.Struct('<II')
  length, _ = sizes.unpack(content[16:24])
  header = json.loads(zlib.decompress(content[24 : 24 + length]))
  text = zlib.compress(json.dumps(change(header)).encode())
  head = content[:16] + sizes.pack(len(text), zlib.crc32(text))
  path.write_bytes(head + text + content[24 + length :])
  with pytest.raises(types.BadInput, match=message) as raised:
    deploy.load(path)
  assert str(raised.value).startswith(f'{path} is damaged: ')


@pytest.mark.parametrize(
  ('kernel', 'strides', 'padding', 'value'),
  [
    ((3, 3, 17, 4), (1, 1), ((1, 1), (1, 1)), 0),
    ((2, 4, 16, 3), (2, 1), ((0, 1), (2, 1)), 1),
    ((3, 1, 33, 1), (2, 3), ((1, 1), (0, 2)), 0),
  ],
)
def test_what_padding_adds(kernel, strides, padding, value):
  weights = RNG.choice(np.float32([-1, 1]), kernel)
  params = {
    'channels': kernel[2],
    'strides': strides,
    'padding': padding,
    'pad_value': value,
    'shape': (6, 5),
  }
  got = np.asarray(_network._border(packing.pack(weights, 2), params))
  edges = ((0, 0), *padding, (0, 0))
  around = 1 - np.pad(np.ones((1, 6, 5, 1)), edges)
  rows, columns = got.shape[:2]
  assert got.shape[2:] == (kernel[3], 1) and got.any()
  for row, column in np.ndindex(rows, columns):
    top, left = row * strides[0], column * strides[1]
    seen = around[0, top : top + kernel[0], left : left + kernel[1]]
    want = (value + 1) * (seen[..., None] * weights).sum((0, 1, 2))
    np.testing.assert_array_equal(got[row, column, :, 0], want)


@pytest.mark.slow
@pytest.mark.parametrize('variant', ['plain', 'bireal', 'react'])
def test_files_are_as_small_as_promised(tmp_path, variant):
  images = jax.ShapeDtypeStruct((1, 32, 32, 3), 'float32')
  model = nn.resnet20(variant=variant, scaling='fan_in', **BINARY)
  variables = filled(model, np.zeros((1, 32, 32, 3), np.float32))
  network = deploy.pack_network(model, variables, images)
  size = deploy.save(network, tmp_path / 'file').stat().st_size
  promised = nn.summary(model, images).total.memory
  assert size < 1.02 * promised
  again = deploy.load(tmp_path / 'file')
  jax.tree.map(np.testing.assert_array_equal, again, network)


@pytest.mark.slow
class TestBadInput:
  """What cannot be packed, by the name of its layer, and images that do not fit."""

  def test_images(self):
    network, variables = packed(nn.binary_mlp(hidden=(4,)), DIGITS)
    for images in (DIGITS[:, :4], DIGITS.astype(np.float32)):
      with pytest.raises(types.BadInput, match='images must be uint8 of shape'):
        network(images)
    with pytest.raises(types.BadInput, match='must be float32 or uint8'):
      deploy.pack_network(
        nn.binary_mlp(hidden=(4,)), variables, DIGITS.astype(np.int32)
      )

  def test_batch_statistics(self):
    model = nn.MLP(hidden=(4,), batch_norm=True)
    variables = model.init(KEY, DIGITS)

    class Training(nn.MLP):
      def __call__(self, inputs):
        for stage in self.stages(inputs, train=True).values():
          inputs = stage(inputs.reshape(len(inputs), -1).astype(jnp.float32))
        return inputs

    with pytest.raises(types.BadInput, match='several images at a time'):
      deploy.pack_network(
        Training(hidden=(4,), batch_norm=True), variables, DIGITS
      )

  def test_weights_of_too_many_levels(self):
    # A smooth quantizer takes as many values as there are weights.
    model = nn.QuantDense(40, kernel_quantizer=jnp.tanh)
    x = RNG.normal(size=(3, 300)).astype(np.float32)
    variables = {
      'params': {'kernel': RNG.normal(size=(300, 40)), 'bias': np.zeros(40)}
    }
    variables = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), variables)
    with pytest.raises(types.BadInput, match=r"more than 256 .*keep='float'"):
      deploy.pack_network(model, variables, x)
    network = deploy.pack_network(model, variables, x, keep='float')
    np.testing.assert_array_equal(network(x), wanted(model, variables, x))

  def test_what_is_not_monotone(self):
    class Folded(nn.MLP):
      def stages(self, inputs, **kwargs):
        found = nn.MLP.stages(self, inputs, **kwargs)
        first = found['Dense_0']
        return {
          'Dense_0': first,
          'fold': lambda x: jnp.abs(x) - 1.0,
          'sign': found['activation_0'],
          'Dense_1': found['Dense_1'],
        }

    model = Folded(
      hidden=(8,), kernel_quantizer=SIGN, activation_quantizer=SIGN
    )
    variables = nn.MLP(hidden=(8,)).init(KEY, DIGITS)
    with pytest.raises(types.BadInput, match=r'^Dense_0 cannot.*keep='):
      deploy.pack_network(model, variables, DIGITS)
    network = deploy.pack_network(model, variables, DIGITS, keep='float')
    np.testing.assert_array_equal(
      network(DIGITS), wanted(model, variables, DIGITS)
    )

  def test_operations_that_are_unknown(self):
    class Other(nn.MLP):
      def __call__(self, inputs):
        return jnp.fft.fft(nn.MLP.__call__(self, inputs)).real

    model = Other(hidden=(4,))
    with pytest.raises(types.BadInput, match=r'cannot|computes in'):
      deploy.pack_network(model, model.init(KEY, DIGITS), DIGITS)
    with pytest.raises(types.BadInput, match='keep must be one of'):
      packed(nn.MLP(hidden=(4,)), DIGITS, keep='all')


def test_a_network_is_data():
  _, network, _ = digits()
  leaves, structure = jax.tree.flatten(network)
  assert all(isinstance(leaf, jax.Array) for leaf in leaves)
  again = jax.tree.unflatten(structure, leaves)
  assert hash(structure) == hash(jax.tree.structure(again))
