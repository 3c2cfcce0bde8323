"""Views of other people's linen models that cannot be looked into, by intercepting."""

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

CLASSES = 3
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(5, 6, 4, 2)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, 5)
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)


def sign_ste():
  return quantizers.attach(quantizers.sign(), quantizers.identity())


def mixing(x):
  """Couples the examples, which no transparent stage does."""
  return jnp.tanh(x - 0.1 * jnp.mean(x, axis=0, keepdims=True))


class Plain(linen.Module):
  @linen.compact
  def __call__(self, x):
    x = x.reshape((x.shape[0], -1))
    x = mixing(linen.Dense(7)(x))
    x = mixing(linen.Dense(6)(x))
    return linen.Dense(CLASSES)(x)


class Residual(linen.Module):
  features: int

  @linen.compact
  def __call__(self, x):
    return x + mixing(linen.Dense(self.features)(x))


class Nested(linen.Module):
  @linen.compact
  def __call__(self, x):
    x = linen.Dense(6)(x.reshape((x.shape[0], -1)))
    x = linen.BatchNorm(use_running_average=True)(x)
    x = Residual(6, name='block')(x)
    return linen.Dense(CLASSES, name='head')(x)


class Convolutional(linen.Module):
  def setup(self):
    self.conv = linen.Conv(4, (3, 3), strides=2)
    self.head = linen.Dense(CLASSES)

  def __call__(self, x):
    x = mixing(self.conv(x)).mean(axis=(1, 2))
    return self.head(x)


class BinaryDense(linen.Module):
  """A layer that transforms its kernel itself."""

  features: int

  @linen.compact
  def __call__(self, x):
    shape = (x.shape[-1], self.features)
    kernel = self.param('kernel', linen.initializers.lecun_normal(), shape)
    alpha = self.param('alpha', linen.initializers.ones, (1, self.features))
    return x @ sign_ste()(kernel) * alpha


class Custom(linen.Module):
  @linen.compact
  def __call__(self, x):
    x = BinaryDense(6)(x.reshape((x.shape[0], -1)))
    return linen.Dense(CLASSES)(jnp.tanh(0.2 * x))


CASES = {
  'plain, first': (Plain(), 'Dense_0'),
  'plain, last': (Plain(), 'Dense_2'),
  'residual in a block': (Nested(), 'block/Dense_0'),
  'named head': (Nested(), 'head'),
  'convolution': (Convolutional(), 'conv'),
  'own kernel transformation': (Custom(), 'BinaryDense_0'),
  'the model itself': (linen.Dense(CLASSES), ''),
}


def random_variables(model, inputs=IMAGES):
  shapes = jax.eval_shape(model.init, jax.random.key(0), inputs)
  rng = np.random.default_rng(1)

  def leaf(path, x):
    value = 0.5 * rng.normal(size=x.shape).astype(np.float32)
    return np.exp(value) if path[-1].key == 'var' else value

  return jax.tree_util.tree_map_with_path(leaf, shapes)


def with_kernel(variables, layer, kernel):
  """The variables with one layer's kernel replaced."""
  flat = jax.tree_util.tree_map_with_path(
    lambda path, leaf: (
      kernel
      if [k.key for k in path]
      == ['params', *filter(None, layer.split('/')), 'kernel']
      else leaf
    ),
    variables,
  )
  return flat


@pytest.mark.parametrize(
  ('case', 'quantizer'),
  [
    *(
      pytest.param(
        case, None, marks=pytest.mark.slow if case == 'named head' else ()
      )
      for case in CASES
    ),
    ('plain, first', sign_ste()),
    ('convolution', sign_ste()),
  ],
)
def test_equals_model(case, quantizer):
  model, layer = CASES[case]
  inputs = IMAGES if layer else IMAGES.reshape(5, -1)
  variables = random_variables(model, inputs)
  view = nn.layer_view(
    model, variables, inputs, LABELS, layer, quantizer=quantizer
  )
  last = case in ('plain, last', 'named head', 'the model itself')
  assert [type(stage) for stage in view.tail] == [scans.Opaque] * (not last)
  assert view.couples_examples == (not last)

  def model_loss(kernel):
    kernel = kernel if quantizer is None else quantizer(kernel)
    logits = model.apply(with_kernel(variables, layer, kernel), inputs)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)
    return jnp.mean(losses), (logits, losses)

  def view_loss(kernel):
    return view.loss(kernel), (view.logits(kernel), view.losses(kernel))

  @jax.jit
  def run(kernels):
    return [
      jax.vmap(jax.value_and_grad(loss, has_aux=True))(kernels)
      for loss in (model_loss, view_loss)
    ]

  noise = RNG.normal(size=view.kernel.shape).astype(np.float32)
  want, got = run(np.stack([view.kernel, view.kernel + noise]))
  jax.tree.map(close, got, want)
  assert np.abs(want[1]).max() > 1e-3  # A gradient flows,
  assert abs(want[0][0][0] - want[0][0][1]) > 1e-3  # and the kernel matters.


def test_views_are_arguments_and_stack():
  model, layer = CASES['residual in a block']
  variables = random_variables(model)
  other = jax.tree.map(lambda leaf: leaf[::-1], variables)
  views = [
    nn.layer_view(model, v, IMAGES, LABELS, layer) for v in (variables, other)
  ]
  traces = []

  @jax.jit
  def loss(view):
    traces.append(None)
    return view.loss(view.kernel)

  alone = np.asarray([loss(view) for view in views])
  assert len(traces) == 1
  stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *views)
  together = jax.jit(jax.vmap(lambda view: view.loss(view.kernel)))(stacked)
  close(together, alone)
  assert abs(alone[0] - alone[1]) > 1e-3


@pytest.mark.parametrize(('layer', 'left'), [('Dense_0', 3), ('Dense_1', 2)])
def test_what_precedes_the_layer_is_dropped(layer, left):
  """All products are traced; those before the layer are not compiled."""
  view = nn.layer_view(
    Plain(), random_variables(Plain()), IMAGES, LABELS, layer
  )
  loss = jax.jit(lambda view: view.loss(view.kernel))
  lowered = loss.lower(view)
  assert str(jax.make_jaxpr(loss)(view)).count('dot_general[') == 3
  assert lowered.as_text().count('stablehlo.dot_general') == left
  products = (48 * 7, 7 * 6, 6 * CLASSES)
  want = 2 * 5 * sum(products[-left:])
  flops = lowered.compile().cost_analysis()['flops']
  assert want <= flops < want + 1000


def test_unknown_layer_lists_the_layers():
  variables = random_variables(Nested())
  for layer in ('block', 'block/Dense_1', 'BatchNorm_0', '', 'block//Dense_0'):
    with pytest.raises(
      types.BadInput, match=r"has no layer .*'Dense_0', 'block/Dense_0', 'head'"
    ):
      nn.layer_view(Nested(), variables, IMAGES, LABELS, layer)


class Twice(linen.Module):
  def setup(self):
    self.shared = linen.Dense(6)
    self.unused = linen.Dense(6)
    self.head = linen.Dense(CLASSES)

  def __call__(self, x):
    x = x.reshape((x.shape[0], -1))[:, :6]
    if self.is_initializing():
      self.unused(x)
    return self.head(self.shared(self.shared(x)))


@pytest.mark.parametrize(('layer', 'calls'), [('shared', 2), ('unused', 0)])
def test_layer_must_be_called_once(layer, calls):
  variables = random_variables(Twice())
  with pytest.raises(types.BadInput, match=f'it was called {calls} times'):
    nn.layer_view(Twice(), variables, IMAGES, LABELS, layer)
  nn.layer_view(Twice(), variables, IMAGES, LABELS, 'head')


class Masked(linen.Module):
  @linen.compact
  def __call__(self, x, mask):
    kernel = self.param('kernel', linen.initializers.ones, (48, CLASSES))
    return (x * mask) @ kernel


class UsesMasked(linen.Module):
  @linen.compact
  def __call__(self, x):
    return Masked(name='masked')(x.reshape((x.shape[0], -1)), 2.0)


def test_layer_must_take_its_inputs_only():
  variables = random_variables(UsesMasked())
  with pytest.raises(types.BadInput, match='must take its inputs only'):
    nn.layer_view(UsesMasked(), variables, IMAGES, LABELS, 'masked')


def test_shapes_must_agree():
  variables = random_variables(Plain())
  with pytest.raises(types.BadInput, match='same number of examples'):
    nn.layer_view(Plain(), variables, IMAGES, LABELS[:3], 'Dense_0')


class Switched(linen.Module):
  @linen.compact
  def __call__(self, x, train=False):
    x = linen.Dense(6)(x.reshape((x.shape[0], -1)))
    x = 2 * x if train else x  # A Python branch: `train` must stay static.
    return linen.Dense(CLASSES)(x)


def test_call_keywords_stay_static():
  variables = random_variables(Switched())
  view = nn.layer_view(
    Switched(), variables, IMAGES, LABELS, 'Dense_0', train=True
  )
  got = jax.jit(lambda view: view.logits(view.kernel))(view)
  close(got, Switched().apply(variables, IMAGES, train=True))


class Remat(linen.Module):
  """Layers that are computed again in the backward pass."""

  lift: object = linen.remat

  @linen.compact
  def __call__(self, x):
    x = self.lift(linen.Dense)(6, name='lifted')(x.reshape((x.shape[0], -1)))
    return linen.Dense(CLASSES, name='head')(linen.relu(x))


@pytest.mark.parametrize(
  ('lift', 'layer'),
  [
    (linen.jit, 'head'),
    pytest.param(linen.remat, 'lifted', marks=pytest.mark.slow),
    pytest.param(linen.remat, 'head', marks=pytest.mark.slow),
    pytest.param(linen.jit, 'lifted', marks=pytest.mark.slow),
  ],
)
def test_lifted_layers_are_viewed_like_others(lift, layer):
  model = Remat(lift)
  variables = random_variables(model)
  view = nn.layer_view(model, variables, IMAGES, LABELS, layer)
  for kernel in (view.kernel, -0.5 * view.kernel):
    moved = with_kernel(variables, layer, kernel)
    logits = model.apply(moved, IMAGES)
    close(view.logits(kernel), logits)
  gradient = jax.grad(view.loss)(view.kernel)
  assert np.abs(gradient).max() > 1e-3


class Scanned(linen.Module):
  @linen.compact
  def __call__(self, x):
    def body(layer, x, _):
      return layer(x), None

    scan = linen.scan(
      body, variable_axes={'params': 0}, split_rngs={'params': True}, length=2
    )
    x, _ = scan(linen.Dense(48, name='many'), x.reshape((x.shape[0], -1)), None)
    return linen.Dense(CLASSES, name='head')(x)


def test_layers_inside_a_scan_are_refused():
  variables = random_variables(Scanned())
  with pytest.raises(types.BadInput, match=r"'many' is called inside nn\.scan"):
    nn.layer_view(Scanned(), variables, IMAGES, LABELS, 'many')
  view = nn.layer_view(Scanned(), variables, IMAGES, LABELS, 'head')
  close(view.logits(view.kernel), Scanned().apply(variables, IMAGES))


class Training(linen.Module):
  """A model as it is trained: with batch statistics, and with dropout."""

  rate: float = 0.0

  @linen.compact
  def __call__(self, x, train=False):
    x = linen.Dense(6)(x.reshape((x.shape[0], -1)))
    x = linen.BatchNorm(use_running_average=not train)(x)
    x = linen.Dropout(self.rate, deterministic=not train)(linen.relu(x))
    return linen.Dense(CLASSES)(x)


@pytest.mark.parametrize('layer', ['Dense_0', 'Dense_1'])
def test_statistics_of_the_batch_are_used_and_their_updates_forgotten(layer):
  model = Training()
  variables = random_variables(model)
  before = jax.tree.map(np.array, variables)
  view = nn.layer_view(model, variables, IMAGES, LABELS, layer, train=True)
  kernel = 0.5 * view.kernel
  moved = with_kernel(variables, layer, kernel)
  want, _ = model.apply(moved, IMAGES, train=True, mutable=['batch_stats'])
  close(view.logits(kernel), want)
  jax.tree.map(np.testing.assert_array_equal, variables, before)


def test_random_models_are_refused():
  model = Training(0.5)
  variables = random_variables(model)
  with pytest.raises(types.BadInput, match='draws no random numbers'):
    nn.layer_view(model, variables, IMAGES, LABELS, 'Dense_0', train=True)


@pytest.mark.parametrize(
  ('labels', 'message'),
  [
    (np.eye(CLASSES)[LABELS], r'one-hot labels, pass labels\.argmax\(axis=1\)'),
    (LABELS.astype(np.float32), 'must be integers.* got the dtype float32'),
    (LABELS[:, None, None], 'same number of examples'),
  ],
)
@pytest.mark.parametrize('model', [Plain(), nn.MLP(hidden=(3,), num_classes=3)])
def test_labels_are_classes(labels, message, model):
  variables = random_variables(model)
  with pytest.raises(types.BadInput, match=message):
    nn.layer_view(model, variables, IMAGES, labels, 'Dense_0')


class Staged(linen.Module):
  """Another library's network that offers its stages."""

  def setup(self):
    self.first = nn.QuantDense(6, kernel_quantizer=sign_ste())
    self.last = nn.QuantDense(CLASSES)

  def stages(self, inputs):
    del inputs
    return {
      'first': self.first.stage(48),
      'relu': scans.Activation('relu'),
      'last': self.last.stage(6),
    }

  def __call__(self, x):
    x = x.reshape((x.shape[0], -1))
    for stage in self.stages(x).values():
      x = stage(x)
    return x


def test_models_with_stages_are_transparent():
  variables = random_variables(Staged())
  view = nn.layer_view(Staged(), variables, IMAGES, LABELS, 'first')
  assert [type(stage) for stage in view.tail] == [scans.Activation, scans.Dense]
  close(view.logits(view.kernel), Staged().apply(variables, IMAGES))
  fast = scans.flip_gains(view)
  assert fast.path == 'rank_one'
  slow = scans.flip_gains(view, path='brute_force')
  np.testing.assert_allclose(fast.gains, slow.gains, rtol=0, atol=1e-6)
  with pytest.raises(types.BadInput, match=r"it has 'first', 'last'"):
    nn.layer_view(Staged(), variables, IMAGES, LABELS, 'relu')
  with pytest.raises(types.BadInput, match='Staged bring'):
    nn.layer_view(
      Staged(), variables, IMAGES, LABELS, 'first', quantizer=sign_ste()
    )


def test_a_field_that_is_called_stages_is_none():
  class Holds(linen.Module):
    stages: object

    @linen.compact
    def __call__(self, x):
      return self.stages(x.reshape((x.shape[0], -1)))

  model = Holds(linen.Dense(CLASSES))
  variables = random_variables(model)
  view = nn.layer_view(model, variables, IMAGES, LABELS, 'stages')
  close(view.logits(view.kernel), model.apply(variables, IMAGES))
  whole = nn.network_view(model, variables, IMAGES, LABELS)
  close(whole.loss(whole.kernel), view.loss(view.kernel))


def test_stages_go_without_keywords_that_they_do_not_take():
  class Calls(Staged):
    def setup(self):
      self.first, self.last = nn.QuantDense(6), nn.QuantDense(CLASSES)

    def __call__(self, x, train=False, progress=1.0):
      return super().__call__(x)

  variables = random_variables(Calls())
  options = {'train': False, 'progress': 0.5}
  layer = nn.layer_view(Calls(), variables, IMAGES, LABELS, 'first', **options)
  network = nn.network_view(Calls(), variables, IMAGES, LABELS, **options)
  want = Calls().apply(variables, IMAGES)
  for view in (layer, network):
    close(view.logits(view.kernel), want)


def test_a_whole_network_of_stages_is_viewed():
  class Plain(Staged):
    def setup(self):
      self.first, self.last = nn.QuantDense(6), nn.QuantDense(CLASSES)

  variables = random_variables(Plain())
  view = nn.network_view(Plain(), variables, IMAGES, LABELS)
  close(view.logits(view.kernel), Plain().apply(variables, IMAGES))
