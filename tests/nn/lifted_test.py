"""Layers under `flax.linen.jit`, whose programs flax uses again, are looked into anew."""

from flax import linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import types

IMAGES = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
LABELS = np.arange(5) % 3
SIGN = quantizers.attach(quantizers.sign(), quantizers.window())

# As users write them: made once, when their module is imported.
JitDense = linen.jit(linen.Dense)
JitQuantDense = linen.jit(nn.QuantDense)


class Twins(linen.Module):
  """Two layers that have one program, since they differ by name only."""

  layer: type[linen.Module]
  options: tuple[tuple[str, object], ...] = ()

  @linen.compact
  def __call__(self, x):
    x = jnp.tanh(self.layer(6, name='a', **dict(self.options))(x))
    x = jnp.tanh(self.layer(6, name='b', **dict(self.options))(x))
    return linen.Dense(3, name='head')(x)


class JitMethod(linen.Module):
  @linen.jit
  @linen.compact
  def __call__(self, x):
    x = jnp.tanh(linen.Dense(6, name='a')(x))
    return linen.Dense(3, name='head')(x)


class Annealed(linen.Module):
  """A network that does not hand its progress to its layer."""

  @linen.jit
  @linen.compact
  def __call__(self, x):
    decay = quantizers.attach(quantizers.sign(), quantizers.error_decay())
    return nn.QuantDense(4, input_quantizer=decay)(x)


BINARY = (('kernel_quantizer', SIGN), ('input_quantizer', SIGN))


@pytest.mark.parametrize(
  ('model', 'layer'),
  [
    pytest.param(Twins(JitDense), 'a', marks=pytest.mark.slow),
    pytest.param(Twins(JitDense), 'b', marks=pytest.mark.slow),
    (JitMethod(), 'a'),
  ],
)
def test_a_layer_can_be_viewed_again(model, layer):
  variables = model.init(jax.random.key(0), IMAGES)
  params = variables['params']
  for _ in range(2):
    view = nn.layer_view(model, variables, IMAGES, LABELS, layer)
    kernel = 2 * view.kernel
    moved = {**params, layer: {**params[layer], 'kernel': kernel}}
    want = model.apply({'params': moved}, IMAGES)
    np.testing.assert_allclose(view.logits(kernel), want, atol=1e-5)
    assert np.abs(jax.grad(view.loss)(view.kernel)).max() > 1e-3


def test_a_layer_that_is_not_called_any_more_is_an_error():
  calls = []

  class Fickle(linen.Module):
    @linen.compact
    def __call__(self, x):
      calls.append(None)
      head = linen.Dense(3)
      called = len(calls) < 4  # When it is initialised, traced and viewed.
      z = head(x) if called else x @ head.variables['params']['kernel']
      return z - z.mean(axis=0, keepdims=True)  # It couples the examples.

  variables = Fickle().init(jax.random.key(0), IMAGES)
  view = nn.layer_view(Fickle(), variables, IMAGES, LABELS, 'Dense_0')
  with pytest.raises(types.BadInput, match='called by the model each time'):
    view.logits(view.kernel)


def test_each_layer_has_its_row_each_time():
  plain, jitted = (
    Twins(layer, BINARY) for layer in (nn.QuantDense, JitQuantDense)
  )
  for _ in range(2):
    rows = nn.summary(jitted, IMAGES).layers
    assert rows == nn.summary(plain, IMAGES).layers


@pytest.mark.parametrize('lift', [JitQuantDense, linen.remat(nn.QuantDense)])
def test_gradients_are_measured_inside_lifted_layers(lift):
  plain, lifted = Twins(nn.QuantDense, BINARY), Twins(lift, BINARY)
  variables = plain.init(jax.random.key(0), IMAGES)
  got, want = (
    nn.gradient_passing(model, variables, IMAGES, LABELS)
    for model in (lifted, plain)
  )
  assert str(got) == str(want)


def test_gradients_inside_a_scan_are_refused():
  class Scanned(linen.Module):
    @linen.compact
    def __call__(self, x):
      scan = linen.scan(
        lambda layer, x, _: (layer(x), None),
        variable_axes={'params': 0},
        split_rngs={'params': True},
        length=2,
      )
      return scan(nn.QuantDense(6, **dict(BINARY)), x, None)[0]

  variables = Scanned().init(jax.random.key(0), IMAGES)
  with pytest.raises(types.BadInput, match=r'called inside nn\.scan'):
    nn.gradient_passing(Scanned(), variables, IMAGES, LABELS)


def test_a_later_progress_reaches_the_layer():
  variables = Annealed().init(jax.random.key(0), IMAGES)

  def gradient(progress):
    def total(x):
      with nn.training_progress(progress):
        return Annealed().apply(variables, x).sum()

    return jax.grad(total)(IMAGES)

  early, late = gradient(0.0), gradient(1.0)
  assert np.abs(early - late).max() > 0.1
  np.testing.assert_allclose(jax.jit(gradient)(0.0), early, atol=1e-6)
  np.testing.assert_allclose(jax.jit(gradient)(1.0), late, atol=1e-6)


def test_a_quiet_initialisation_after_a_loud_one():
  grid = quantizers.attach(
    quantizers.uniform(2, step=100.0), quantizers.identity()
  )
  model = Twins(JitQuantDense, (('kernel_quantizer', grid),))
  with pytest.warns(nn.SilentLayerWarning):
    model.init(jax.random.key(0), IMAGES)
    jax.effects_barrier()
  _, found = nn.init_quietly(model, jax.random.key(0), IMAGES)
  assert {name: bool(flags[0]) for name, flags in found.items()} == {
    'a': True,
    'b': True,
  }
