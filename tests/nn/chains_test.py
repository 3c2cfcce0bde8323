"""Models of one's own that end with a chain of known layers, viewed stage by stage."""

import dataclasses
import functools

from flax import linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import scans
from bitjax import types
from bitjax.scans import _stages

WINDOW = quantizers.window(0.5)
SIGN = quantizers.attach(quantizers.sign(), WINDOW)
IMAGES = np.random.default_rng(0).normal(size=(9, 2, 3)).astype(np.float32)
LABELS = np.arange(9) % 4


class Head(linen.Module):
  """Between two dense layers, ``middle``; before them, ``front``."""

  middle: tuple = ()
  front: tuple = ()
  dense: type = linen.Dense

  @linen.compact
  def __call__(self, x):
    for layer in self.front:
      x = layer(x)
    x = x.reshape(len(x), -1)
    x = self.dense(5, name='a')(x)
    for layer in self.middle:
      x = layer(x)
    return linen.Dense(4, name='b')(x)


class Everything(linen.Module):
  """All layers that are known, with what changes nothing between them."""

  @linen.compact
  def __call__(self, x, train=False):
    x = linen.Dense(7, name='a')(x.reshape(len(x), -1) / 2)
    x = linen.BatchNorm(use_running_average=not train)(x)
    x = linen.Dropout(0.5, deterministic=True)(linen.relu(x))
    x = linen.remat(linen.Dense)(6, name='b')(x)
    x = jax.jit(SIGN)(x)
    x = nn.QuantDense(5, SIGN, name='c')(x)
    x = nn.BatchNorm()(x, train=train)
    return nn.QuantDense(4, SIGN, SIGN, scaling='fan_in', name='d')(x)


def drawn(model):
  """Variables whose statistics and biases are those of no initialisation."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
  rng = np.random.default_rng(1)
  draw = lambda leaf: np.float32(rng.uniform(-1, 1, leaf.shape))
  variables = jax.tree.map(draw, shapes)
  statistics = jax.tree.map(np.abs, variables.pop('batch_stats', {}))
  return variables | ({'batch_stats': statistics} if statistics else {})


def view_of(model, layer, variables=None, **kwargs):
  variables = drawn(model) if variables is None else variables
  return nn.layer_view(model, variables, IMAGES, LABELS, layer, **kwargs)


def kinds(view):
  return [type(stage).__name__ for stage in view.tail]


def with_kernel(variables, layer, kernel):
  params = variables['params']
  return variables | {
    'params': params | {layer: params[layer] | {'kernel': kernel}}
  }


def model_loss(model, variables, layer, kernel, quantizer, **kwargs):
  """The mean cross-entropy of the model itself."""
  weights = kernel if quantizer is None else quantizer(kernel)
  output = model.apply(
    with_kernel(variables, layer, weights),
    IMAGES,
    mutable=['batch_stats'],
    **kwargs,
  )
  logits = jax.nn.log_softmax(output[0])
  return -jnp.mean(logits[jnp.arange(9), LABELS])


SEEN = [
  ('a', None, 'rank_one'),
  ('b', SIGN, 'sign'),
  ('c', None, 'sign'),
  ('d', None, 'rank_one'),
]


@pytest.mark.parametrize(
  ('layer', 'quantizer', 'path', 'train'),
  [
    (*SEEN[0], False),
    (*SEEN[2], True),
    *(
      pytest.param(*SEEN[n], train, marks=pytest.mark.slow)
      for n in range(4)
      for train in (False, True)
      if (n, train) not in ((0, False), (2, True))
    ),
  ],
)
def test_views_are_the_model(layer, quantizer, path, train):
  """Loss, gradients of estimators included, and the gains of all moves."""
  model = Everything()
  variables = drawn(model)
  view = view_of(model, layer, variables, quantizer=quantizer, train=train)
  assert view.product is None
  assert 'Opaque' not in kinds(view)
  loss = functools.partial(
    model_loss, model, variables, layer, quantizer=quantizer, train=train
  )
  kernel = variables['params'][layer]['kernel']
  found = jax.value_and_grad(view.loss)(kernel)
  wanted = jax.value_and_grad(loss)(kernel)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6),
    found,
    wanted,
  )
  if train:
    return
  gains = scans.flip_gains(view, step=0.5 if view.quantizer is None else None)
  assert gains.path == path
  table = np.reshape(gains.gains, (-1, *kernel.shape))[0]
  for i, j in [(0, 0), (1, 3), (4, 2)]:
    there = kernel[i, j] + 0.5 if view.quantizer is None else -kernel[i, j]
    moved = loss(jnp.asarray(kernel).at[i, j].set(there))
    np.testing.assert_allclose(table[i, j], wanted[0] - moved, atol=2e-6)


class Reads(linen.Module):
  """Looks at the values of its inputs, so that it cannot be traced."""

  @linen.compact
  def __call__(self, x):
    x = linen.Dense(5, name='a')(x.reshape(len(x), -1))
    negative = not self.is_initializing() and x.sum() < 0
    return linen.Dense(4, name='b')(-x if negative else x)


class Branches(linen.Module):
  """Adds what its first layer computes to what its second one does."""

  @linen.compact
  def __call__(self, x):
    x = linen.Dense(4, name='a')(x.reshape(len(x), -1))
    return x + linen.Dense(4, name='b')(x)


class Twice(linen.Module):
  """Applies one layer twice, after another one."""

  @linen.compact
  def __call__(self, x):
    x = linen.Dense(4, name='a')(x.reshape(len(x), -1))
    shared = linen.Dense(4, name='b')
    return shared(linen.relu(shared(x)))


class Scanned(linen.Module):
  """Applies layers whose kernels are slices of one variable."""

  @linen.compact
  def __call__(self, x):
    x = linen.Dense(5, name='a')(x.reshape(len(x), -1))
    scan = linen.scan(
      lambda layer, x, _: (layer(x), None),
      variable_axes={'params': 0},
      split_rngs={'params': True},
      length=3,
    )
    x, _ = scan(linen.Dense(5, name='s'), x, None)
    return linen.Dense(4, name='b')(x)


class Normalised(linen.Module):
  """Has a layer whose kernel is computed from its variable."""

  @linen.compact
  def __call__(self, x):
    x = linen.Dense(5, name='a')(x.reshape(len(x), -1))
    return linen.WeightNorm(linen.Dense(4, name='b'))(x)


@jax.custom_jvp
def leaking(x):
  """ReLU, whose derivative is said to be 1 everywhere."""
  return jnp.maximum(x, 0)


leaking.defjvps(lambda t, _, x: t)


class MyDense(linen.Dense):
  """A subclass, which could compute anything."""


UNKNOWN = [
  (
    Head((lambda x: x.reshape(5, -1).T,)),
    'a',
    'operation transpose is of no known kind',
  ),
  (Head((lambda x: jnp.sort(x, axis=0),)), 'a', 'sort is of no known kind'),
  (Head((linen.Dense(5, dtype=jnp.bfloat16),)), 'a', 'computes in bfloat16'),
  (Head((linen.BatchNorm(True, axis=0),)), 'a', 'has its own axis'),
  (Head((lambda x: x * x[::-1],)), 'a', 'operation mul is of no known kind'),
  (Head(dense=MyDense), 'a', 'of no known kind'),
  (Reads(), 'a', 'looks at the values'),
]


@pytest.mark.parametrize(('model', 'layer', 'reason'), UNKNOWN)
def test_what_is_not_known_stays_opaque(model, layer, reason):
  """The view's loss is that of the model all the same, and plans say why."""
  variables = drawn(model)
  view = view_of(model, layer, variables)
  assert kinds(view) == ['Opaque']
  assert reason in view.tail[0].reason
  check_loss(model, variables, view, layer)
  assert f'holds an opaque stage ({view.tail[0].reason})' in str(
    scans.plan(view, timed=False)
  )


def check_loss(model, variables, view, layer):
  kernel = variables['params'][layer]['kernel']
  loss = functools.partial(model_loss, model, variables, layer, quantizer=None)
  for found, wanted in zip(
    jax.value_and_grad(view.loss)(kernel),
    jax.value_and_grad(loss)(kernel),
    strict=True,
  ):
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


P, E, D = 'Pointwise', 'Examplewise', 'Dense'


@pytest.mark.parametrize(
  ('model', 'layer', 'wanted'),
  [
    (Head((jnp.tanh,)), 'a', [P, D]),
    (Head((jax.nn.relu6,)), 'a', [P, D]),
    (
      Head((lambda x: jnp.maximum(x, 0),)),
      'a',
      [P, D],
    ),  # Its slope at 0 is 1/2.
    (Head((leaking,)), 'a', [P, D]),
    (Head((jax.nn.softplus, jax.nn.relu)), 'a', [P, 'Activation', D]),
    (Head((lambda x: x * jax.nn.sigmoid(x) + x,)), 'a', [P, D]),
    (Head((lambda x: jnp.maximum(x, -x),)), 'a', [P, D]),
    (Head((lambda x: 2 * x,)), 'a', [P, D]),
    (Head((lambda x: x[:, ::-1],)), 'a', [E, D]),
    (Head((linen.LayerNorm(),)), 'a', [E, P, D]),
    (Head((jax.nn.softmax,)), 'a', [E, P, E, D]),
    (
      Head((linen.Dense(5, promote_dtype=lambda *x, dtype: x),)),
      'a',
      [E, P, D],
    ),
    (Head((quantizers.attach(quantizers.ternary(0.1), WINDOW),)), 'a', [P, D]),
    (
      Head((nn.QuantDense(5, None, quantizers.rsign(WINDOW)),)),
      'a',
      [P, 'Activation', D, D],
    ),
    (Head((nn.QuantDense(5, None, quantizers.lsq(2)),)), 'a', [P, D, D]),
    (Scanned(), 'a', [E, P, E, P, E, P, D]),
    (Normalised(), 'a', [E, P]),
    (Branches(), 'a', ['Residual']),
    (Branches(), 'b', ['Add']),
  ],
)
def test_what_other_steps_are(model, layer, wanted):
  """Of functions that no stage is named after, it is known what they keep apart."""
  variables = drawn(model)
  view = view_of(model, layer, variables)
  assert kinds(view) == wanted
  check_loss(model, variables, view, layer)
  # The same for one example as for all, of which it is one.
  some = dataclasses.replace(
    view,
    inputs=view.inputs[4:5],
    labels=view.labels[4:5],
    tail=_stages.map_examples(view.tail, lambda x: x[4:5]),
  )
  np.testing.assert_allclose(
    some.logits(view.kernel),
    view.logits(view.kernel)[4:5],
    rtol=1e-5,
    atol=1e-6,
  )


@pytest.mark.parametrize(
  ('model', 'wanted'),
  [
    (Head(), ['Dense']),
    (Head((linen.relu,)), ['Activation', 'Dense']),
    (Head((jax.jit(linen.relu), SIGN)), ['Activation', 'Activation', 'Dense']),
    (Head((linen.Dense(3),)), ['Dense', 'Dense']),
    (Head((linen.Dense(3, dtype=jnp.float32),)), ['Dense', 'Dense']),
    (Head((linen.BatchNorm(True, use_bias=False),)), ['Affine', 'Dense']),
    (Head((linen.BatchNorm(False),)), ['BatchNorm', 'Dense']),
    (
      Head((linen.Sequential([linen.Dense(3), SIGN]),)),
      ['Dense', 'Activation', 'Dense'],
    ),
    (Head((), (linen.Conv(2, (2, 2)), linen.relu)), ['Dense']),
    (Twice(), ['Dense', 'Activation', 'Dense']),
  ],
)
def test_chains(model, wanted):
  """What is before the viewed layer may be anything; a frozen layer may come twice."""
  variables = drawn(model)
  view = view_of(model, 'a', variables)
  assert kinds(view) == wanted
  kernel = variables['params']['a']['kernel']
  loss = model_loss(model, variables, 'a', kernel, None)
  np.testing.assert_allclose(view.loss(kernel), loss, rtol=1e-6)


def test_every_call_is_looked_into():
  """Functions under jit, and layers under nn.jit, are known the second time as well."""
  model = Head((jax.jit(SIGN), linen.jit(linen.Dense)(3)))
  for _ in range(2):
    assert kinds(view_of(model, 'a')) == ['Activation', 'Dense', 'Dense']


def test_under_jit_and_vmap():
  """Variables and the progress of training may be traced."""
  model = Head((linen.relu,))
  variables = drawn(model)
  lanes = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), variables)

  @jax.jit
  @jax.vmap
  def loss(variables):
    view = view_of(model, 'a', variables)
    assert kinds(view) == ['Activation', 'Dense']
    return view.loss(view.kernel)

  kernel = variables['params']['a']['kernel']
  wanted = model_loss(model, variables, 'a', kernel, None)
  np.testing.assert_allclose(loss(lanes)[0], wanted, rtol=1e-6)


def test_networks():
  """Moves of all kernels at once are those of the layers."""
  model = Binary()
  variables = drawn(model)
  network = nn.network_view(model, variables, IMAGES, LABELS)
  gains = scans.flip_gains(network)
  assert gains.path.startswith('layers')
  parts = [
    np.ravel(scans.flip_gains(view_of(model, name, variables)).gains)
    for name in 'abc'
  ]
  np.testing.assert_array_equal(np.ravel(gains.gains), np.concatenate(parts))


class Binary(linen.Module):
  """Three binary layers, in a model of one's own, on images in [0, 255]."""

  @linen.compact
  def __call__(self, x):
    x = SIGN(x.reshape(len(x), -1) / 255)
    x = nn.BatchNorm()(nn.QuantDense(7, SIGN, scaling='fan_in', name='a')(x))
    x = nn.QuantDense(5, SIGN, SIGN, name='b')(x)
    return nn.QuantDense(4, SIGN, SIGN, name='c')(x)


@pytest.mark.parametrize(
  ('model', 'why'),
  [
    (Head((lambda x: jnp.sort(x, axis=0),)), 'sort is of no known kind'),
    (Twice(), "calls 'b' 2 times behind 'a'"),
    (Normalised(), "calls 'b' 0 times behind 'a'"),
  ],
)
def test_no_network(model, why):
  with pytest.raises(types.BadInput, match=why):
    nn.network_view(model, drawn(model), IMAGES, LABELS)


@pytest.mark.parametrize(
  'other',
  [
    {'hidden': (5, 4)},
    pytest.param({'hidden': (4,)}, marks=pytest.mark.slow),
  ],
)
def test_variables_of_another_architecture(other):
  """A checkpoint of another network is one line, and nothing is computed."""
  images, labels = jnp.ones((2, 6)), jnp.arange(2)
  model = nn.binary_mlp(hidden=(4, 4))
  wrong = nn.binary_mlp(**other).init(jax.random.key(0), images)
  for view in (
    lambda: nn.layer_view(model, wrong, images, labels, 'Dense_0'),
    lambda: nn.network_view(model, wrong, images, labels),
  ):
    with pytest.raises(types.BadInput, match='another architecture') as found:
      view()
    assert '\n' not in str(found.value) and 'Dense_' in str(found.value)


def test_variables_of_another_network_that_is_looked_into():
  good, wrong = (
    linen.Sequential([linen.Dense(n), linen.Dense(3)]) for n in (4, 5)
  )
  inputs, labels = jnp.ones((2, 6)), jnp.arange(2)
  variables = wrong.init(jax.random.key(0), inputs)
  with pytest.raises(types.BadInput, match=r'architecture.*\(4, 3\)|\(6, 4\)'):
    nn.layer_view(good, variables, inputs, labels, 'layers_0')
