"""Precision and dtype are options of every network, which change what they should."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import types
from tests.scans import arithmetic_test

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
PIXELS = RNG.integers(0, 256, (12, 40), dtype=np.uint8)
LABELS = RNG.integers(0, 4, 12)
IMAGES = RNG.normal(size=(2, 8, 8, 3)).astype(np.float32)
SIGN = quantizers.attach(quantizers.sign(), quantizers.identity())
BINARY = {'kernel_quantizer': SIGN, 'input_quantizer': SIGN}

MLPS = {
  'full precision': nn.full_precision_mlp,
  'binary': nn.binary_mlp,
  'binary weights': functools.partial(nn.binary_weights_mlp, batch_norm=True),
}
NETWORKS = {
  'MLP': (functools.partial(nn.MLP, (6,), use_bias=True), PIXELS),
  'ResNet': (
    functools.partial(
      nn.resnet20,
      stages=(1, 1),
      widths=(4, 8),
      shortcut='projection',
      scaling='mean_abs',
      **BINARY,
    ),
    IMAGES,
  ),
  'VGG': (functools.partial(nn.vgg_small, stages=((4, 4), (8,))), IMAGES),
}
every_network = pytest.mark.parametrize('name', NETWORKS)


@functools.cache
def mlp(kind, **options):
  """A network, its variables, and its logits, computed by one program."""
  model = MLPS[kind](hidden=(32, 16), num_classes=4, **options)
  variables = MLPS[kind](hidden=(32, 16), num_classes=4).init(KEY, PIXELS)
  return model, variables, jax.jit(model.apply)(variables, PIXELS)


def gradients(model):
  """The gradients of a training step, as a function of variables and inputs."""

  def loss(params, rest, inputs):
    logits, updates = model.apply(
      {'params': params, **rest}, inputs, train=True, mutable=list(rest)
    )
    assert logits.dtype == jnp.float32
    return jnp.sum(logits**2), updates

  def run(variables, inputs):
    rest = {k: v for k, v in variables.items() if k != 'params'}
    return jax.grad(loss, has_aux=True)(variables['params'], rest, inputs)

  return run


def variables_of(model, inputs):
  shapes = jax.eval_shape(model.init, KEY, inputs)
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda leaf: np.float32(rng.uniform(0.1, 1, leaf.shape)), shapes
  )


def traced_products(name, **options):
  make, inputs = NETWORKS[name]
  model = make(**options)
  variables = variables_of(model, inputs)
  traced = jax.make_jaxpr(gradients(model))(variables, inputs)
  return list(arithmetic_test.products(traced.jaxpr))


@pytest.mark.optimised
@pytest.mark.parametrize('precision', ['default', 'highest'])
def test_binary_networks_are_the_same_in_bfloat16_to_the_bit(precision):
  _, _, wanted = mlp('binary')
  _, _, logits = mlp('binary', precision=precision, dtype='bfloat16')
  np.testing.assert_array_equal(logits, wanted)


@pytest.mark.optimised
@pytest.mark.parametrize('kind', ['full precision', 'binary weights'])
def test_other_networks_are_rounded_a_little(kind):
  _, _, wanted = mlp(kind)
  _, _, logits = mlp(kind, dtype='bfloat16')
  difference = np.abs(logits - wanted).max() / np.abs(wanted).max()
  assert logits.dtype == jnp.float32
  # Three products of numbers of 8 digits each.
  assert 2**-14 < difference < 3 * 2**-8


@pytest.mark.optimised
@pytest.mark.parametrize('kind', MLPS)
def test_views_compute_what_their_network_computes(kind):
  """From latent weights in float32, of which none is rounded."""
  model, variables, wanted = mlp(kind, dtype='bfloat16')

  @jax.jit
  def logits(variables, pixels):
    views = [
      nn.layer_view(model, variables, pixels, LABELS, f'Dense_{number}')
      for number in range(3)
    ]
    views.append(nn.network_view(model, variables, pixels, LABELS))
    return [(view.logits(view.kernel), view.kernel) for view in views]

  for got, kernel in logits(variables, PIXELS):
    assert kernel.dtype == jnp.float32
    # Compilers may round twice or once where a scale and a shift follow each other.
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-3)
    if kind == 'binary':
      np.testing.assert_array_equal(got, wanted)


@every_network
def test_products_have_the_precision_and_the_dtype_that_were_asked_for(name):
  """That of the classifier too, forward and backward; forward sums are float32."""
  (both,) = {e.params['precision'] for e in traced_products(name)}
  assert both == 2 * (jax.lax.Precision.HIGHEST,)
  found = traced_products(name, precision='high', dtype='bfloat16')
  (both,) = {e.params['precision'] for e in found}
  assert both == 2 * (jax.lax.Precision.HIGH,)
  assert {str(v.aval.dtype) for e in found for v in e.invars} == {'bfloat16'}
  assert 'float32' in {str(v.aval.dtype) for e in found for v in e.outvars}


@every_network
def test_latent_weights_statistics_and_gradients_stay_float32(name):
  make, inputs = NETWORKS[name]
  model = make(dtype='bfloat16')
  variables = variables_of(model, inputs)
  found = jax.eval_shape(gradients(model), variables, inputs)
  trees = jax.eval_shape(model.init, KEY, inputs), found[0]
  for tree in (*trees, *filter(None, found[1:])):
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(tree)} == {'float32'}


@pytest.mark.parametrize(
  'name', ['MLP', 'VGG', pytest.param('ResNet', marks=pytest.mark.slow)]
)
def test_float32_and_highest_are_what_no_option_is(name):
  make, inputs = NETWORKS[name]
  variables = variables_of(make(), inputs)
  programs = {
    str(jax.jit(gradients(model)).lower(variables, inputs).as_text())
    for model in (make(), make(precision='highest', dtype='float32'))
  }
  assert len(programs) == 1


@pytest.mark.optimised
def test_sums_of_a_convolution_are_scaled_before_they_are_rounded():
  """They exceed the 256 to which bfloat16 counts, and are rounded once."""
  x = RNG.choice(np.float32([-1, 1]), (2, 5, 5, 64))
  kernel = np.ones((3, 3, 64, 2), np.float32)
  kernel[..., 1] = RNG.choice([-1, 1], kernel.shape[:-1])
  x[0] = 1
  layer = nn.QuantConv(
    2,
    (3, 3),
    padding='VALID',
    use_bias=False,
    scaling='fan_in',
    dtype='bfloat16',
    **BINARY,
  )
  z = jax.jit(layer.apply)({'params': {'kernel': kernel}}, x)
  wanted = sum(
    x[:, i : i + 3, j : j + 3] @ kernel[i, j] for i, j in np.ndindex(3, 3)
  )
  assert np.abs(wanted).max() == 576
  wanted = jnp.asarray(wanted * np.float32(576**-0.5), jnp.bfloat16)
  np.testing.assert_array_equal(np.float32(z), np.float32(wanted))


@pytest.mark.parametrize('make', [nn.MLP, nn.resnet20, nn.vgg_small])
@pytest.mark.parametrize(
  'options', [{'precision': 'fast'}, {'dtype': 'int8'}, {'dtype': 'half!'}]
)
def test_bad_options_are_refused_when_a_network_is_made(make, options):
  (name,) = options
  with pytest.raises(types.BadInput, match=f'^{name} must be'):
    make(**options)
