"""Views of layers in networks on images, through shortcuts and pooling."""

import dataclasses
import functools

from flax import linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import scans
from bitjax import types
from bitjax.nn import _calls
from bitjax.scans import _stages

SIGN = quantizers.attach(quantizers.sign(), quantizers.window(1.0))
TWO_BITS = quantizers.attach(
  quantizers.uniform(2, step=0.5), quantizers.window(1.0)
)
IMAGES = np.random.default_rng(0).normal(size=(5, 8, 6, 3)).astype(np.float32)
LABELS = np.arange(5) % 4
BINARY = {'kernel_quantizer': SIGN, 'input_quantizer': SIGN}
LOW_BIT = {'kernel_quantizer': TWO_BITS, 'input_quantizer': TWO_BITS}
LEARNED = {
  'kernel_quantizer': quantizers.lsq(2),
  'input_quantizer': quantizers.lsq(2),
}
resnet = functools.partial(
  nn.ResNet, stages=(1, 1), widths=(4, 6), num_classes=4
)
vgg = functools.partial(nn.VGG, stages=((4,), (4, 6)), num_classes=4)


@jax.custom_vjp
def step(x):
  """A sign of somebody's own, with a straight-through estimator."""
  return jnp.where(x >= 0, 1.0, -1.0)


step.defvjp(lambda x: (step(x), x), lambda x, g: (g * (jnp.abs(x) <= 1),))


class Foreign(linen.Module):
  """A residual network of flax's own layers, with all that is known between them."""

  @linen.compact
  def __call__(self, x):
    x = linen.Conv(4, (3, 3), padding='CIRCULAR', name='stem')(x)
    y = linen.Conv(4, (3, 3), name='grouped', feature_group_count=2)(step(x))
    y = linen.BatchNorm(True, name='norm')(y)
    x = jax.nn.softplus(linen.avg_pool(x + y, (2, 2), (1, 1)))
    y = linen.Conv(6, (3, 1), strides=2, kernel_dilation=(1, 2), name='body')(x)
    x = linen.Conv(6, (1, 1), strides=2, use_bias=False, name='shortcut')(x)
    x = linen.GroupNorm(2, name='groups')(y + x)
    x = jnp.concatenate([x, -x], axis=-1)
    x = linen.max_pool(jax.nn.gelu(x), (2, 2), padding='SAME')
    x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
    x = x + linen.Dense(x.shape[1], name='mixing')(x)
    return linen.Dense(4, name='head')(x)


NETWORKS = {
  'bireal': resnet(variant='bireal', **BINARY),
  'plain projection 2 bits': resnet(shortcut='projection', **LOW_BIT),
  'vgg': vgg(**BINARY, quantize_last=True),
  'foreign': Foreign(),
  'react projection': resnet(variant='react', shortcut='projection', **BINARY),
  'plain': resnet(**BINARY, scaling='mean_abs', quantize_first=True),
  'plain learned': resnet(**LEARNED),
  'full precision': resnet(shortcut='projection'),
  'bireal 2 bits': resnet(variant='bireal', **LOW_BIT),
  'vgg 2 bits': vgg(**LOW_BIT),
  'vgg full precision': vgg(),
  'one stage': vgg(stages=((4,),), **BINARY),
  'one block': resnet(stages=(1,), widths=(4,), variant='bireal', **BINARY),
}
FAST = ('one block', 'foreign')


def drawn(model, images=IMAGES):
  """Variables whose statistics and biases are those of no initialisation."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)
  rng = np.random.default_rng(1)

  def draw(path, leaf):
    values = 0.5 * rng.normal(size=leaf.shape).astype(np.float32)
    positive = path[-1].key in ('var', 'step')
    return np.exp(values) if positive else values

  return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def variables_of(name):
  return drawn(NETWORKS[name])


def layers_of(variables):
  """The names of all layers with a kernel."""
  flat = jax.tree_util.tree_flatten_with_path(variables['params'])[0]
  keys = [[key.key for key in path] for path, _ in flat]
  return ['/'.join(key[:-1]) for key in keys if key[-1] == 'kernel']


def view_of(model, variables, layer, **kwargs):
  return nn.layer_view(model, variables, IMAGES, LABELS, layer, **kwargs)


def model_losses(model, variables, **kwargs):
  """The logits, and the gradients of the loss by all parameters."""

  @jax.jit
  def run(variables):
    def loss(params):
      logits, _ = model.apply(
        variables | {'params': params},
        IMAGES,
        mutable=['batch_stats'],
        **kwargs,
      )
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)
      return jnp.mean(losses), logits

    return jax.grad(loss, has_aux=True)(variables['params'])

  gradients, logits = run(variables)
  return logits, gradients


@jax.jit
def view_losses(views):
  return [
    (view.logits(view.kernel), jax.grad(view.loss)(view.kernel))
    for view in views
  ]


@functools.cache
def losses_of(name, **kwargs):
  return model_losses(NETWORKS[name], variables_of(name), **kwargs)


@functools.cache
def views_of(name, **kwargs):
  """The views of all layers of a network, by name."""
  variables = variables_of(name)
  return {
    layer: view_of(NETWORKS[name], variables, layer, **kwargs)
    for layer in layers_of(variables)
  }


def check(name, **kwargs):
  """Checks the views of all layers against the model; returns them."""
  logits, gradients = losses_of(name, **kwargs)
  views = views_of(name, **kwargs)
  results = view_losses([*views.values()])
  for layer, found in zip(views, results, strict=True):
    path = (*layer.split('/'), 'kernel')
    wanted = (logits, _calls.descend(gradients, path))
    assert np.abs(wanted[1]).max() > 1e-5, layer
    for a, b in zip(found, wanted, strict=True):
      np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6, err_msg=layer)
    np.testing.assert_array_equal(np.sign(found[0]), np.sign(logits))
  return views


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
    for name in NETWORKS
  ],
)
def test_views_of_all_layers_are_the_model(name):
  for view in check(name).values():
    kinds = {type(stage) for stage in _stages.flat(view.tail)}
    assert scans.Opaque not in kinds
    assert not view.couples_examples


@pytest.mark.parametrize(
  'name', ['one stage', pytest.param('bireal', marks=pytest.mark.slow)]
)
def test_statistics_of_the_batch(name):
  """A normalisation in training is a stage that couples the examples."""
  for layer, view in check(name, train=True).items():
    found = any(isinstance(s, scans.BatchNorm) for s in _stages.flat(view.tail))
    assert found == view.couples_examples == (layer != 'Dense_0')


def shown(stages):
  """The kinds of stages, those of a sum's branches in brackets."""
  return [
    [shown(stage.body), shown(stage.shortcut)]
    if isinstance(stage, scans.Residual)
    else type(stage).__name__
    for stage in stages
  ]


def test_stages_of_a_residual_network():
  view = views_of('bireal')['Block_0/Conv_0']
  quantized = ['Activation', 'Conv', 'Affine']
  assert shown(view.tail) == [
    'Affine',
    'Add',
    'Pointwise',
    [quantized, []],
    'Pointwise',
    [quantized, ['Examplewise']],
    'Pointwise',
    [quantized, []],
    'Pointwise',
    'Mean',
    'Dense',
  ]
  assert quantizers.is_sign(view.input_quantizer)
  np.testing.assert_array_equal(np.abs(view.inputs), 1)
  conv = view.tail[3].body[1]
  assert quantizers.is_sign(conv.layer.quantizer)  # So that it can be packed.
  assert views_of('bireal')['Conv_0'].input_quantizer is None


@pytest.mark.slow
@pytest.mark.parametrize('rows', [slice(1, 2), slice(0, 0), [4, 0, 2, 2, 1, 3]])
def test_any_examples_can_be_taken(rows):
  """Functions that are replayed take other numbers of examples than were traced."""
  view = views_of('foreign')['grouped']
  take = lambda x: jnp.asarray(x)[np.arange(5)[rows]]
  some = dataclasses.replace(
    view,
    inputs=take(view.inputs),
    labels=take(view.labels),
    tail=_stages.map_examples(view.tail, take),
  )
  np.testing.assert_allclose(
    some.logits(view.kernel), take(view.logits(view.kernel)), atol=1e-5
  )


@pytest.mark.parametrize(
  'name', ['react projection', pytest.param('vgg', marks=pytest.mark.slow)]
)
def test_views_of_other_variables_share_programs(name):
  """All that is static is equal and hashable, whatever the variables are."""
  model, variables = NETWORKS[name], variables_of(name)
  trees = [
    jax.tree.structure(view_of(model, tree, 'Conv_0'))
    for tree in (variables, jax.tree.map(lambda x: 2 * x, variables))
  ]
  assert trees[0] == trees[1]
  assert hash(trees[0]) == hash(trees[1])


def test_variables_and_images_may_be_traced():
  model, variables = NETWORKS['one block'], variables_of('one block')
  lanes = jax.tree.map(lambda x: jnp.stack([x, -x]), variables['params'])

  @jax.jit
  def losses(lanes, images):
    def loss(params):
      tree = variables | {'params': params}
      view = nn.layer_view(model, tree, images, LABELS, 'Block_0/Conv_1')
      assert 'Opaque' not in str(shown(view.tail))
      return view.loss(view.kernel)

    return jax.vmap(jax.value_and_grad(loss))(lanes)

  found, gradients = losses(lanes, IMAGES)
  logits, wanted = losses_of('one block')
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)
  np.testing.assert_allclose(found[0], jnp.mean(losses), rtol=1e-5)
  # Those of layers before the view, too.
  np.testing.assert_allclose(
    gradients['Conv_0']['kernel'][0],
    wanted['Conv_0']['kernel'],
    rtol=1e-4,
    atol=1e-6,
  )


class Gated(linen.Module):
  """Multiplies what two layers compute, as squeeze and excitation does."""

  @linen.compact
  def __call__(self, x):
    x = linen.Conv(4, (3, 3), name='a')(x)
    gates = linen.sigmoid(linen.Dense(4, name='gates')(x.mean((1, 2))))
    x = (x * gates[:, None, None]).mean((1, 2))
    return linen.Dense(4, name='b')(x)


class Flattened(linen.Module):
  """Turns positions into examples."""

  @linen.compact
  def __call__(self, x):
    x = linen.Conv(4, (3, 3), name='a')(x)
    return linen.Dense(4, name='b')(x.reshape(-1, 4)).reshape(5, -1, 4)[:, 0]


@pytest.mark.parametrize(
  ('model', 'layer', 'reason'),
  [
    (Gated(), 'a', 'the operation mul is of no known kind'),
    (Flattened(), 'a', 'the operation reshape is of no known kind'),
    (
      resnet(stages=(1,), widths=(4,), dtype=jnp.bfloat16, **BINARY),
      'Block_0/Conv_0',
      'Block_0/Conv_0 computes in bfloat16',
    ),
  ],
)
def test_what_is_not_known_is_opaque_and_plans_say_why(model, layer, reason):
  view = view_of(model, drawn(model), layer)
  assert {type(stage) for stage in view.tail} == {scans.Opaque}
  assert reason in view.tail[-1].reason
  plan = str(scans.plan(view, timed=False))
  assert f'its tail holds an opaque stage ({view.tail[-1].reason})' in plan
  wanted = model.apply(drawn(model), IMAGES)
  np.testing.assert_allclose(view.logits(view.kernel), wanted, rtol=1e-5)


def test_a_layer_may_be_seen_from_behind_what_is_not_known():
  model = Gated()
  view = view_of(model, drawn(model), 'gates')
  assert shown(view.tail) == ['Opaque']  # Its inputs' channels are gated by it.
  assert shown(view_of(model, drawn(model), 'b').tail) == []


NAMES = ['Block_0/Conv_0', 'Block_0/Conv_1', 'Block_1/Conv_0', 'Block_1/Conv_1']


@pytest.mark.parametrize(
  'name', ['bireal', pytest.param('react projection', marks=pytest.mark.slow)]
)
def test_networks_of_the_quantized_layers(name):
  """Each layer's view in the network is that of the layer alone."""
  model, variables = NETWORKS[name], variables_of(name)
  network = nn.network_view(
    model, variables, IMAGES, LABELS, layers='quantized'
  )
  alone = [views_of(name)[layer] for layer in NAMES]
  found = [*network.product.views(network)]
  for a, b in zip(found, alone, strict=True):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), a, b
    )
  logits, gradients = losses_of(name)
  got, gradient = view_losses([network])[0]
  np.testing.assert_allclose(got, logits, rtol=1e-5, atol=1e-5)
  for layer, part in zip(NAMES, network.product.split(gradient), strict=True):
    wanted = _calls.descend(gradients, (*layer.split('/'), 'kernel'))
    np.testing.assert_allclose(part, wanted, rtol=1e-4, atol=2e-6)
  by_name = nn.network_view(
    model, variables, IMAGES, LABELS, layers=NAMES[::-1]
  )
  jax.tree.map(np.testing.assert_array_equal, by_name, network)


def test_gains_of_a_network_are_those_of_its_layers():
  """Kernels of different rank are joined."""
  model = vgg(stages=((2,),), kernel_quantizer=SIGN, quantize_last=True)
  images = IMAGES[:, :2, :2]
  variables = drawn(model, images)
  args = (model, variables, images, LABELS)
  network = nn.network_view(*args, layers='quantized')
  assert network.product.moving == (0,)  # Only the classifier is quantized.
  both = vgg(
    stages=((2,),),
    kernel_quantizer=SIGN,
    quantize_first=True,
    quantize_last=True,
  )
  network = nn.network_view(both, *args[1:])
  assert [k.ndim for k in network.product.split(network.kernel)] == [4, 2]
  gains = scans.flip_gains(network)
  assert gains.path.startswith('layers: ')
  slow = scans.flip_gains(network, path='brute_force')
  np.testing.assert_allclose(gains.gains, slow.gains, atol=2e-6)
  assert gains.gains.shape == slow.gains.shape == network.kernel.shape


@pytest.mark.parametrize(
  ('layers', 'message'),
  [
    ('all', "same quantizer; layer 1 has .*layers='quantized'"),
    (['Conv_0', 'Block_0/Conv_0'], 'same quantizer; layer 1 has'),
    (['Conv_9'], "no layer 'Conv_9' with a kernel"),
    ([], r'layers must be .* there are 6; got \[\]'),
    ('binary', "layers must be one of .*'?all"),
  ],
)
def test_layers_of_a_network(layers, message):
  model, variables = NETWORKS['bireal'], variables_of('bireal')
  with pytest.raises(types.BadInput, match=message):
    nn.network_view(model, variables, IMAGES, LABELS, layers=layers)


def test_networks_without_quantized_layers():
  model, variables = (
    NETWORKS['full precision'],
    variables_of('full precision'),
  )
  with pytest.raises(types.BadInput, match='some of the Dense and Conv'):
    nn.network_view(model, variables, IMAGES, LABELS, layers='quantized')
  with pytest.raises(types.BadInput, match=r'cannot look into Gated: .*mul'):
    nn.network_view(Gated(), drawn(Gated()), IMAGES, LABELS)


def test_max_pooling_of_a_vgg_chooses_entries_of_a_channel():
  model = nn.VGG(stages=((2, 2), (3,)), num_classes=3)
  images = jnp.ones((2, 8, 8, 3))
  variables = jax.eval_shape(model.init, jax.random.key(0), images)
  variables = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), variables)
  labels = jnp.zeros(2, int)
  view = nn.layer_view(model, variables, images, labels, 'Conv_1', train=False)
  channels = [
    stage.channels
    for stage in view.tail
    if isinstance(stage, scans.Examplewise)
  ]
  assert channels == ['chosen', 'chosen', 'mixed']
