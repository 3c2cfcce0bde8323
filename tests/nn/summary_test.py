"""What models cost, against numbers worked out by hand."""

import dataclasses
from typing import Any

from flax import linen
import jax
import jax.numpy as jnp
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import types
from bitjax.nn import _bits

IMAGES = jax.ShapeDtypeStruct((3, 28, 28, 1), 'uint8')
SIGN = quantizers.attach(quantizers.sign(), quantizers.identity())

GOLDEN = """\
layer    kind        output    1-bit     memory      moved     MACs   bits
--------------------------------------------------------------------------
Dense_0  QuantDense  256     200,704   24.5 KiB  1.531 KiB  200,704  8 x 1
Dense_1  QuantDense  256      65,536      8 KiB       64 B   65,536  1 x 1
Dense_2  QuantDense  10        2,560      320 B       64 B    2,560  1 x 1
--------------------------------------------------------------------------
total    MLP         10      268,800  32.81 KiB  1.656 KiB  268,800

parameters: 268,800 trained, 0 statistics
memory:     32.81 KiB; floats at 8 bits 32.81 KiB; all at 32 bits 1.025 MiB
MACs:       1 x 1: 68,096, 8 x 1: 200,704 (bits of input x weight)
moved:      1.656 KiB (read: 1-bit: 512, 8-bit: 784; shortcuts: none)
operations: 26,152 OPs = 0 FLOPs + 1,673,728 BOPs / 64"""


class TestMLP:
  """784-256-256-10: kernels of 200704, 65536 and 2560 weights."""

  def test_binary(self):
    got = nn.summary(nn.binary_mlp(), IMAGES)
    assert got.total.parameters == {1: 268_800}
    assert got.total.macs == {(8, 1): 200_704, (1, 1): 68_096}
    assert got.total.memory == got.total.int8_memory == 268_800 / 8
    assert got.total.float32_memory == 4 * 268_800
    # A binary layer on 8-bit pixels is 8 binary ones.
    assert got.total.bit_operations == 8 * 200_704 + 68_096
    assert got.total.flops == 0
    assert got.total.operations == (8 * 200_704 + 68_096) / 64
    assert [row.path for row in got.layers] == ['Dense_0', 'Dense_1', 'Dense_2']
    assert [row.output_shape for row in got.layers] == [(256,), (256,), (10,)]

  def test_binary_weights_and_relu(self):
    model = nn.binary_weights_mlp(batch_norm=True, use_bias=True)
    got = nn.summary(model, IMAGES, train=True)
    # Biases of 256 + 256 + 10, two normalisations of 2 x 256 each way.
    assert got.total.parameters == {1: 268_800, 32: 522 + 1024}
    assert got.total.statistics == {32: 1024}
    assert got.total.macs == {(8, 1): 200_704, (32, 1): 68_096}
    assert got.total.memory == 268_800 / 8 + 4 * 2570
    assert got.total.int8_memory == 268_800 / 8 + 2570
    assert got.total.flops == 68_096
    assert got.total.bit_operations == 8 * 200_704
    assert got.layers[1].kind == 'BatchNorm' and not got.layers[1].macs

  def test_full_precision(self):
    got = nn.summary(nn.full_precision_mlp(), IMAGES)
    assert got.total.parameters == {32: 268_800}
    assert got.total.macs == {(8, 32): 200_704, (32, 32): 68_096}
    assert got.total.memory == got.total.float32_memory == 4 * 268_800
    assert got.total.int8_memory == 268_800
    assert got.total.operations == got.total.flops == 268_800

  def test_no_tracer_outlives_the_trace(self):
    with jax.checking_leaks():
      nn.summary(nn.binary_mlp(hidden=(3,)), IMAGES)

  def test_floating_inputs_have_their_bits(self):
    images = jax.ShapeDtypeStruct((1, 784), 'float32')
    got = nn.summary(nn.binary_mlp(), images)
    assert got.total.macs == {(32, 1): 200_704, (1, 1): 68_096}

  def test_text(self):
    assert str(nn.summary(nn.binary_mlp(), IMAGES)) == GOLDEN


class TestMoved:
  """Values that products read, and shortcuts, for one example."""

  def test_a_residual_network(self):
    # 6 x 6 x 3 pixels, 4 channels; a block keeps 6 x 6 x 4 floats twice.
    model = nn.ResNet(
      stages=(1, 1),
      widths=(4, 8),
      variant='bireal',
      kernel_quantizer=SIGN,
      input_quantizer=SIGN,
    )
    got = nn.summary(model, jnp.zeros((2, 6, 6, 3)))
    first, second = 6 * 6 * 4, 3 * 3 * 8
    rows = {row.path: row for row in got.layers}
    assert rows['Conv_0'].features == {32: 6 * 6 * 3}
    assert rows['Block_0/Conv_0'].features == {1: first}
    assert rows['Block_0/Conv_0'].shortcuts == {}
    assert rows['Block_0'].shortcuts == {32: 2 * first}
    assert rows['Block_1/Conv_0'].features == {1: first}
    assert rows['Block_1'].shortcuts == {32: 2 * second}
    assert got.total.features == {32: 108 + 8, 1: 3 * first + second}
    assert got.total.shortcuts == {32: 2 * first + 2 * second}
    bits = 32 * (116 + 2 * first + 2 * second) + 3 * first + second
    assert got.total.moved == 2 * bits / 8

  def test_sums_within_a_function_are_no_shortcuts(self):
    class Net(linen.Module):
      @linen.compact
      def __call__(self, x):
        y = linen.gelu(linen.Dense(5)(x))
        z = y + (y - jnp.mean(y)) ** 2
        return (
          z
          + linen.Dense(5)(z)
          + self.param('b', linen.initializers.zeros, (1, 5))
        )

    got = nn.summary(Net(), jnp.zeros((2, 3)))
    assert got.total.shortcuts == {32: 5}
    assert got.total.features == {32: 3 + 5}

  def test_loops_and_branches(self):
    class Net(linen.Module):
      @linen.compact
      def __call__(self, x):
        kernel = self.param('kernel', linen.initializers.zeros, (4, 4))

        def step(h, _):
          return h + h @ kernel, None

        h, _ = jax.lax.scan(step, x @ kernel, None, length=3)
        narrow = x.astype('bfloat16')
        return jax.lax.cond(
          jnp.sum(x) > 0, lambda: h, lambda: (x + h @ kernel) + narrow
        )

    got = nn.summary(Net(), jnp.zeros((2, 4), 'bfloat16'))
    assert got.total.macs == {(16, 32): 5 * 16}
    assert got.total.features == {16: 5 * 4}
    # Three of the loop, and one of the branch: `narrow` and `x` are the same values.
    assert sum(got.total.shortcuts.values()) == 3 * 4 + 2 * 4


class ConvNet(linen.Module):
  """Only flax's own layers."""

  @linen.compact
  def __call__(self, x, train=False):
    x = linen.Conv(4, (3, 3))(x)
    x = linen.BatchNorm(use_running_average=not train)(x)
    x = linen.Dropout(0.5, deterministic=not train)(linen.relu(x))
    x = linen.Conv(6, (3, 3), strides=2, padding='VALID', use_bias=False)(x)
    x = linen.Conv(6, (3, 3), feature_group_count=6)(x)
    x = linen.ConvTranspose(2, (2, 2), strides=(2, 2), use_bias=False)(x)
    x = x.reshape((x.shape[0], -1))
    return linen.Dense(10)(x)


CONV_NET = [
  # 8 x 8 places, 3 x 3 x 3 inputs, 4 units; and so on.
  ('Conv_0', (8, 8, 4), 27 * 4 + 4, 8 * 8 * 27 * 4),
  ('BatchNorm_0', (8, 8, 4), 8, 0),
  ('Conv_1', (3, 3, 6), 36 * 6, 3 * 3 * 36 * 6),
  ('Conv_2', (3, 3, 6), 9 * 6 + 6, 3 * 3 * 9 * 6),
  ('ConvTranspose_0', (6, 6, 2), 4 * 6 * 2, 3 * 3 * 4 * 6 * 2),
  ('Dense_0', (10,), 72 * 10 + 10, 72 * 10),
]


class TestPlainFlax:
  """Models that know nothing of bits."""

  @pytest.mark.parametrize('train', [False, True])
  def test_convolutions(self, train):
    images = jnp.zeros((2, 8, 8, 3))
    got = nn.summary(ConvNet(), images, train=train)
    rows = [
      (r.path, r.output_shape, r.parameters[32], r.macs.get((32, 32), 0))
      for r in got.layers
    ]
    assert rows == CONV_NET
    assert got.total.statistics == {32: 8}
    parameters = sum(row[2] for row in CONV_NET)
    assert got.total.parameters == {32: parameters}
    assert got.total.memory == 4 * (parameters + 8)
    assert got.total.operations == sum(row[3] for row in CONV_NET)

  def test_attention_recurrence_and_shared_layers(self):
    class Net(linen.Module):
      @linen.compact
      def __call__(self, tokens):
        x = linen.Embed(50, 8)(tokens)
        x = linen.MultiHeadDotProductAttention(num_heads=2)(x)
        x = linen.RNN(linen.SimpleCell(4))(x)
        shared = linen.Dense(4, use_bias=False)
        return shared(linen.relu(shared(x)))

    got = nn.summary(Net(), jnp.zeros((5, 6), jnp.int32))
    macs = {row.path: sum(row.macs.values()) for row in got.layers}
    attention = 'MultiHeadDotProductAttention_0'
    assert macs.pop(attention) == 2 * 6 * 6 * 8  # Scores, and their use.
    for name in ('query', 'key', 'value', 'out'):
      assert macs.pop(f'{attention}/{name}') == 6 * 8 * 8
    # Six steps of the scan; two calls of the shared layer on six tokens.
    assert macs == {
      'Embed_0': 0,
      'SimpleCell_0': 0,  # It adds the two products below: a shortcut.
      'SimpleCell_0/i': 6 * 8 * 4,
      'SimpleCell_0/h': 6 * 4 * 4,
      'Dense_0': 2 * 6 * 4 * 4,
    }
    assert got.layers[-1].parameters == {32: 16}

  def test_half_precision_has_16_bits(self):
    dense = linen.Dense(3, dtype='bfloat16', param_dtype='bfloat16')
    got = nn.summary(dense, jnp.zeros((1, 4), 'bfloat16'))
    assert got.total.macs == {(16, 16): 12}
    assert got.total.memory == 2 * 15 and got.layers[0].path == ''
    assert '(model)' in str(got)

  def test_a_table_fits_the_page(self):
    class Deep(linen.Module):
      @linen.compact
      def __call__(self, x):
        for _ in range(2):
          x = linen.MultiHeadDotProductAttention(num_heads=1, name=None)(x)
        return x

    text = str(nn.summary(Deep(), jnp.zeros((1, 700, 256))))
    assert max(map(len, text.splitlines())) <= 100


@dataclasses.dataclass
class Levels:
  """A quantizer that says what it is, and nothing more."""

  bits: int

  def __call__(self, x, *, progress=1.0):
    return x


def conv(features, kernel_quantizer=None, input_quantizer=None):
  return nn.QuantConv(
    features,
    (3, 3),
    use_bias=False,
    kernel_quantizer=kernel_quantizer,
    input_quantizer=input_quantizer,
  )


class Activation(linen.Module):
  """A quantizer as a module."""

  quantizer: Any

  def __call__(self, x):
    return self.quantizer(x)


class TestQuantizers:
  """Bits come from the quantizers that the layers hold."""

  def test_fields_of_layers_and_activations(self):
    net = linen.Sequential(
      [
        conv(2, SIGN),
        conv(2, SIGN, SIGN),
        Activation(SIGN),
        conv(2, Levels(3)),
        conv(2, Levels(2), Levels(4)),
        linen.relu,
        conv(2),
      ]
    )
    got = nn.summary(net, jnp.zeros((1, 5, 5, 2)))
    macs = 25 * 9 * 2 * 2
    precisions = [(32, 1), (1, 1), (1, 3), (4, 2), (32, 32)]
    assert [row.macs for row in got.layers] == [{p: macs} for p in precisions]
    assert got.total.parameters == {1: 72, 3: 36, 2: 36, 32: 36}
    assert got.total.memory == 36 * (1 + 1 + 3 + 2 + 32) / 8
    assert got.total.bit_operations == macs * (1 + 3 + 8)
    assert got.total.flops == 2 * macs

  @pytest.mark.parametrize(
    ('levels', 'bits'), [(2, 1), (3, 2), (4, 2), (5, 3), (255, 8)]
  )
  def test_bits_of_so_many_levels(self, levels, bits):
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Grid:
      num_levels: int = dataclasses.field(metadata={'static': True})

      def __call__(self, x):
        return x

    quantizer = quantizers.attach(Grid(levels), quantizers.window(0.5))
    got = nn.summary(conv(1, quantizer), jnp.zeros((1, 3, 3, 1)))
    assert got.total.parameters == {bits: 9}

  @pytest.mark.parametrize(
    ('staircase', 'bits'),
    [
      (quantizers.heaviside(), 1),
      (quantizers.shifted_sign(0.1), 1),
      (quantizers.hysteretic_sign(0.1), 1),
      (quantizers.stochastic_sign(), 1),
      (quantizers.progressive_hardtanh(), 1),
      (quantizers.proximal(quantizers.sign()), 1),
      (quantizers.parq(levels=4), 2),
      (quantizers.ternary(0.1), 2),
      (quantizers.ternary('mean_abs', scaled=True), 2),
      (quantizers.hysteretic_uniform(2, step=0.5), 2),
      (quantizers.uniform(5, step='unit'), 5),
      (quantizers.residual_sign(3), 3),
    ],
    ids=lambda value: type(value).__name__,
  )
  def test_our_staircases_say(self, staircase, bits):
    attached = quantizers.attach(staircase, quantizers.identity())
    assert _bits.quantizer_bits(attached) == bits
    if not quantizers.is_stateful(attached):
      attached = quantizers.scaled(attached, quantizers.mean_abs())
    assert _bits.quantizer_bits(quantizers.standardized(attached)) == bits

  @pytest.mark.parametrize(
    ('quantizer', 'bits'),
    [
      (quantizers.lsq(3), 3),
      (quantizers.pact(4), 4),
      (quantizers.ttq(), 2),
      (quantizers.learned_dsq(2), 2),
      (quantizers.rsign(quantizers.identity()), 1),
      (quantizers.dorefa_weights(1), 1),
      (quantizers.dorefa_weights(2), 2),
      (quantizers.dorefa_activations(2), 2),
    ],
    ids=lambda value: type(value).__name__,
  )
  def test_our_other_quantizers_say(self, quantizer, bits):
    assert _bits.quantizer_bits(quantizer) == bits

  def test_a_quantizer_that_does_not_say_is_an_error(self):
    net = linen.Sequential(
      [
        conv(
          2,
          quantizers.attach(
            jax.tree_util.Partial(jnp.round), quantizers.identity()
          ),
        )
      ]
    )
    with pytest.raises(
      types.BadInput, match=r'kernel_quantizer of layers_0.*`bits`'
    ):
      nn.summary(net, jnp.zeros((1, 3, 3, 1)))


@pytest.mark.parametrize('inputs', [(), (jnp.zeros(()),), (jnp.zeros((0, 4)),)])
def test_inputs_without_examples_are_an_error(inputs):
  with pytest.raises(types.BadInput, match=r'inputs must be arrays \[examples'):
    nn.summary(nn.binary_mlp(), *inputs)
