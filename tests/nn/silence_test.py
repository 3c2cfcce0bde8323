"""Layers that begin silent warn once, by name; healthy ones and dummy inputs do not."""

import warnings

from flax import linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import training

KEY = jax.random.key(0, impl='rbg')
IMAGES = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
SIGN = quantizers.attach(quantizers.sign(), quantizers.window(1.0))
COARSE = quantizers.attach(
  quantizers.uniform(2, step='unit'), quantizers.identity()
)
WEIGHTS = 'every weight is quantized to the same value'
INPUTS = 'every input is quantized to the same value'


class Net(linen.Module):
  """A convolutional network; its second convolution and last layer are quantized."""

  kernel_quantizer: object = SIGN
  input_quantizer: object = None
  activation: object = linen.relu

  @linen.compact
  def __call__(self, x, train=False, progress=1.0):
    del train
    x = self.activation(linen.Conv(4, (3, 3))(x))
    x = nn.QuantConv(
      4,
      (3, 3),
      kernel_quantizer=self.kernel_quantizer,
      input_quantizer=self.input_quantizer,
    )(x, progress=progress)
    x = x.reshape(x.shape[0], -1)
    return nn.QuantDense(2, kernel_quantizer=self.kernel_quantizer)(x)


BEHIND_RELU = Net(input_quantizer=SIGN)


def said(function, *args):
  """Returns the messages of warnings, each with the name of its layer."""
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    jax.block_until_ready(function(*args))
    jax.effects_barrier()
  assert all(w.category is nn.SilentLayerWarning for w in caught), caught
  return [str(w.message) for w in caught]


class TestWhatIsSaid:
  """One line for each silent layer: where, what, and the fix."""

  def test_a_coarse_grid(self):
    first, second = said(Net(COARSE).init, KEY, IMAGES)
    assert first.startswith(f'QuantConv_0: {WEIGHTS}')
    assert second.startswith(f'QuantDense_0: {WEIGHTS}')
    assert 'calibrated' in first and '\n' not in first

  def test_signs_behind_a_relu(self):
    (line,) = said(BEHIND_RELU.init, KEY, IMAGES)
    assert line.startswith(f'QuantConv_0: {INPUTS}') and 'ReLU' in line
    assert not said(
      BEHIND_RELU.clone(activation=linen.hard_tanh).init, KEY, IMAGES
    )

  def test_a_layer_that_is_the_model(self):
    layer = nn.QuantDense(3, kernel_quantizer=COARSE)
    (line,) = said(layer.init, KEY, np.ones((1, 64), np.float32))
    assert line.startswith('the model: every weight')

  def test_an_output_that_is_constant_for_another_reason(self):
    zero = quantizers.max_abs(factor=2e-38)  # Underflows.
    layer = nn.QuantDense(
      4, kernel_quantizer=SIGN, scaling=zero, use_bias=False
    )
    (line,) = said(layer.init, KEY, IMAGES.reshape(8, 27))
    assert line.startswith('the model: the output is the same')

  @pytest.mark.parametrize(
    ('model', 'layer'),
    [
      (nn.MLP(hidden=(8,), kernel_quantizer=COARSE), 'Dense_0'),
      (
        nn.ResNet(
          stages=(1,), widths=(4,), num_classes=2, input_quantizer=SIGN,
          activation='relu',
        ),
        'Block_0/Conv_0',
      ),
      pytest.param(
        nn.VGG(
          stages=((4, 4),), num_classes=2, input_quantizer=SIGN,
          activation='relu',
        ),
        'Conv_1',
        marks=pytest.mark.slow,
      ),
    ],
    ids=['MLP', 'ResNet', 'VGG'],
  )  # fmt: skip
  def test_networks(self, model, layer):
    x = IMAGES.reshape(2, -1) if isinstance(model, nn.MLP) else IMAGES
    lines = said(jax.jit(model.init), KEY, x)
    assert any(line.startswith(f'{layer}: ') for line in lines), lines


class TestModes:
  """Compiled, vectorised and traced initialisations; never an apply."""

  def test_compiled_once_for_each_program(self):
    init = jax.jit(BEHIND_RELU.init)
    assert len(said(init, KEY, IMAGES)) == 1
    assert said(init, KEY, IMAGES) == []

  def test_vectorised_over_seeds_says_it_once(self):
    keys = jax.random.split(KEY, 3)
    init = jax.jit(jax.vmap(BEHIND_RELU.init, (0, None)))
    (line,) = said(init, keys, IMAGES)
    assert line.startswith('QuantConv_0')

  def test_shapes_and_applications_say_nothing(self):
    shapes = []
    trace = lambda: shapes.append(jax.eval_shape(BEHIND_RELU.init, KEY, IMAGES))
    assert said(trace) == []
    variables = jax.tree.map(lambda a: jnp.ones(a.shape), shapes[0])
    assert said(BEHIND_RELU.apply, variables, IMAGES) == []
    assert said(jax.jit(BEHIND_RELU.apply), variables, IMAGES) == []

  def test_quiet_initialisation_returns_what_is_silent(self):
    init = jax.jit(lambda key, x: nn.init_quietly(BEHIND_RELU, key, x))
    variables, found = init(KEY, IMAGES)
    assert said(init, KEY, IMAGES) == []
    assert set(variables) == {'params'}
    got = {name: flags.tolist() for name, flags in found.items()}
    assert got == {
      'QuantConv_0': [False, True, False],
      'QuantDense_0': [False, False, False],
    }
    (line,) = said(lambda: nn.warn_silent(found))
    assert line.startswith(f'QuantConv_0: {INPUTS}')
    assert 'callback' not in init.lower(KEY, IMAGES).as_text()

  def test_a_completed_checkpoint_is_looked_at(self):
    model = BEHIND_RELU.clone(kernel_quantizer=quantizers.lsq(2))
    plain = {'params': model.init(KEY, np.zeros_like(IMAGES))['params']}
    (line,) = said(nn.complete, model, plain, KEY, IMAGES)
    assert line.startswith(f'QuantConv_0: {INPUTS}')

  def test_trainings_warn_without_a_callback_in_their_program(
    self, monkeypatch
  ):
    monkeypatch.delattr(jax.debug, 'callback')
    create = lambda: training.create(
      BEHIND_RELU, optax.sgd(0.1), [0, 1], jnp.asarray(IMAGES)
    )
    (line,) = said(create)
    assert line.startswith('QuantConv_0')

  @pytest.mark.slow
  def test_scanned_and_rematerialised_layers(self):
    class Scanned(linen.Module):
      @linen.compact
      def __call__(self, x):
        layer = linen.scan(
          lambda layer, x, _: (layer(x), None),
          variable_axes={'params': 0},
          split_rngs={'params': True},
          length=2,
        )
        own = nn.QuantDense(18, kernel_quantizer=COARSE, name='own')
        x, _ = layer(own, x, None)
        return linen.remat(nn.QuantDense)(2, kernel_quantizer=COARSE)(x)

    x = IMAGES.reshape(-1, 18)
    lines = said(Scanned().init, KEY, x)
    assert {line.split(':')[0] for line in lines} == {
      'own', 'CheckpointQuantDense_0',
    }  # fmt: skip
    nn.init_quietly(Scanned(), KEY, x)  # A scan hides it; nothing leaks.

  @pytest.mark.slow
  def test_scans_in_scans(self):
    def scan(body):
      return linen.scan(
        lambda layer, x, _: (body(layer, x), None),
        variable_axes={'params': 0},
        split_rngs={'params': True},
        length=2,
      )

    inner = scan(lambda layer, x: layer(x))
    outer = scan(lambda layer, x: inner(layer, x, None)[0])

    class Nested(linen.Module):
      @linen.compact
      def __call__(self, x):
        own = nn.QuantDense(18, kernel_quantizer=COARSE, name='own')
        return outer(own, x, None)[0]

    (line,) = said(Nested().init, KEY, IMAGES.reshape(-1, 18))
    assert line.startswith('own: ')


class TestNoFalseAlarms:
  """What happens by chance, or because inputs are made up, is no fault."""

  @pytest.mark.parametrize('value', [0.0, 1.0])
  def test_inputs_for_shapes(self, value):
    x = np.full_like(IMAGES, value)
    model = BEHIND_RELU.clone(activation=linen.hard_tanh)
    assert said(model.init, KEY, x) == []

  @pytest.mark.parametrize(
    ('layer', 'shape'),
    [
      (nn.QuantDense(1, kernel_quantizer=SIGN), (1, 2)),
      (nn.QuantDense(1, kernel_quantizer=SIGN, input_quantizer=SIGN), (32, 1)),
      (nn.QuantDense(2, kernel_quantizer=SIGN, input_quantizer=SIGN), (1, 1)),
      (nn.QuantDense(5), (1, 3)),
    ],
  )
  def test_few_values(self, layer, shape):
    x = 0.5 + np.abs(np.random.default_rng(1).normal(size=shape))
    for seed in range(3):
      key = jax.random.key(seed, impl='rbg')
      assert said(layer.init, key, np.float32(x)) == []

  def test_integers_and_kernels_that_are_meant_to_be_constant(self):
    model = nn.binary_mlp(hidden=(3,), num_classes=2)
    assert said(model.init, KEY, np.zeros((1, 5), np.uint8)) == []
    ones = nn.QuantDense(
      4, kernel_quantizer=SIGN, kernel_init=linen.initializers.ones
    )
    assert said(ones.init, KEY, IMAGES.reshape(2, -1)) == []

  def test_random_quantizers_draw_once(self):
    drawing = quantizers.attach(
      quantizers.stochastic_sign(), quantizers.identity()
    )
    layer = nn.QuantDense(4, kernel_quantizer=drawing)
    assert said(layer.init, KEY, IMAGES.reshape(2, -1)) == []
