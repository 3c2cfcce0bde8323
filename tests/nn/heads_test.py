"""How models end: in logits, whose classes labels are, behind a mean written in any way."""

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

SIGN = quantizers.attach(quantizers.sign(), quantizers.window())
IMAGES = np.random.default_rng(0).normal(size=(3, 4, 2, 2)).astype(np.float32)
LABELS = np.array([0, 2, 1])


class Net(linen.Module):
  """A convolution that ends as ``head`` says, of a given precision."""

  head: object
  dtype: object = None
  tied: bool = False

  @linen.compact
  def __call__(self, x):
    conv = linen.Conv(2, (3, 3), name='conv', dtype=self.dtype)
    x = conv(x)
    if self.tied:
      kernel = self.variables['params']['conv']['kernel']
      x = x + jnp.sum(kernel)
    return self.head(linen.relu(x))


def dense(x):
  return linen.Dense(3, name='dense')(x)


def view_of(model, labels=LABELS, layer='conv'):
  variables = model.init(jax.random.key(0), IMAGES)
  return nn.layer_view(model, variables, IMAGES, labels, layer)


MEAN = lambda x: dense(x.mean((1, 2)))


@pytest.mark.parametrize('dtype', [None, jnp.bfloat16])
@pytest.mark.parametrize(
  'head',
  [
    lambda x: (MEAN(x), x),  # Features as well.
    lambda x: MEAN(x)[:, 0],  # One number.
    lambda x: dense(x.mean((1, 2), keepdims=True)),
    lambda x: MEAN(x)[:2],
    lambda x: {},
  ],
)
def test_a_view_needs_logits(head, dtype):
  """Whether the model can be looked into or not, and before any scan."""
  with pytest.raises(
    types.BadInput, match=r'needs a model that returns logits'
  ):
    view_of(Net(head, dtype))


@pytest.mark.parametrize('dtype', [None, jnp.bfloat16])
@pytest.mark.parametrize('label', [-1, 3])
def test_labels_are_classes_of_the_logits(label, dtype):
  """-1 would be taken for the last class, in silence."""
  labels = np.array([0, label, 1])
  with pytest.raises(types.BadInput, match=rf'0 to 2; got {label} among 3'):
    view_of(Net(MEAN, dtype), labels)


def test_labels_of_a_model_with_stages():
  model = nn.binary_mlp(hidden=(4,), num_classes=3)
  variables = model.init(jax.random.key(0), IMAGES)
  for view in (nn.layer_view, nn.network_view):
    name = ('Dense_0',) if view is nn.layer_view else ()
    with pytest.raises(types.BadInput, match='0 to 2; got -1 among 3'):
      view(model, variables, IMAGES, np.array([0, -1, 1]), *name)


def test_traced_labels_are_not_looked_at():
  model = Net(MEAN)
  variables = model.init(jax.random.key(0), IMAGES)

  @jax.jit
  def loss(labels):
    view = nn.layer_view(model, variables, IMAGES, labels, 'conv')
    return view.loss(view.kernel)

  assert np.isfinite(loss(LABELS))
  assert np.isnan(loss(LABELS + 2))


@pytest.mark.parametrize('dtype', [None, jnp.bfloat16])
def test_a_kernel_of_which_more_than_a_layer_is_made_is_refused(dtype):
  """Moved in one place only, its gains would be those of another model."""
  with pytest.raises(types.BadInput, match=r"'conv' elsewhere too"):
    view_of(Net(MEAN, dtype, tied=True))
  assert view_of(Net(MEAN, tied=True), layer='dense').kernel.shape == (2, 3)


def test_a_network_with_such_a_kernel_is_refused():
  model = Net(MEAN, tied=True)
  variables = model.init(jax.random.key(0), IMAGES)
  with pytest.raises(types.BadInput, match=r"'conv' elsewhere too"):
    nn.network_view(model, variables, IMAGES, LABELS)


def test_inputs_are_one_array():
  model = Net(lambda x: MEAN(x))
  variables = model.init(jax.random.key(0), IMAGES)
  with pytest.raises(types.BadInput, match=r'one array.*got a tuple.*keywords'):
    nn.layer_view(model, variables, (IMAGES, IMAGES), LABELS, 'conv')


def pooled(x):
  return linen.avg_pool(x, x.shape[1:3])


MEANS = {
  'axes kept': lambda x: x.mean((1, 2), keepdims=True).reshape(len(x), -1),
  'entries': lambda x: x.mean((1, 2), keepdims=True)[:, 0, 0],
  'pooling': lambda x: pooled(x).reshape(len(x), -1),
  'pooling, squeezed': lambda x: pooled(x).squeeze((1, 2)),
  'flattened': lambda x: x.reshape(len(x), -1, x.shape[-1]).mean(1),
  'a sum': lambda x: x.sum((1, 2)) / (x.shape[1] * x.shape[2]),
}


@pytest.mark.parametrize('name', MEANS)
def test_means_are_known_however_they_are_written(name):
  view = view_of(Net(lambda x: dense(MEANS[name](x))))
  assert [type(stage).__name__ for stage in view.tail] == [
    *('Activation', 'Mean', 'Dense'),
  ]
  wanted = view_of(Net(MEAN))
  np.testing.assert_allclose(
    view.logits(view.kernel), wanted.logits(view.kernel), rtol=1e-5
  )


@pytest.mark.parametrize(
  'head',
  [
    lambda x: dense(x.sum((1, 2)) / 7),
    lambda x: dense(linen.avg_pool(x, (2, 2), (2, 2))[:, 0, 0]),
    lambda x: dense(x.mean(1)[:, 0]),
    lambda x: dense(x.reshape(len(x), 2, -1).mean(1)),
    lambda x: dense(x.mean((1, 2)).T.T[:, ::-1]),
    lambda x: dense(x.mean((1, 2)).reshape(-1).reshape(-1, 2) / 3),
  ],
)
def test_what_is_no_mean_over_positions_is_not_taken_for_one(head):
  model = Net(head)
  view = view_of(model)
  kinds = [type(stage) for stage in view.tail]
  assert scans.Mean not in kinds or scans.Examplewise in kinds
  variables = model.init(jax.random.key(0), IMAGES)
  np.testing.assert_allclose(
    view.logits(view.kernel), model.apply(variables, IMAGES), rtol=1e-5
  )


class Residual(linen.Module):
  """A shortcut that begins within what could be taken for a mean."""

  @linen.compact
  def __call__(self, x):
    x = linen.Conv(3, (3, 3), name='conv')(x)
    x = x.sum((1, 2), keepdims=True) / 8
    return (linen.Dense(3)(x) + x)[:, 0, 0]


def test_a_branch_may_begin_within_a_mean():
  model = Residual()
  variables = model.init(jax.random.key(0), IMAGES)
  view = view_of(model)
  assert 'Opaque' not in str([type(stage) for stage in view.tail])
  np.testing.assert_allclose(
    view.logits(view.kernel), model.apply(variables, IMAGES), rtol=1e-5
  )


class NiN(linen.Module):
  """Ends with a convolution to the classes, and their mean over positions."""

  @linen.compact
  def __call__(self, x):
    x = nn.QuantConv(3, (3, 3), 1, 'SAME', 1, 1, 1, SIGN, SIGN, name='conv')(x)
    return pooled(linen.relu(0.3 * x)).reshape(len(x), -1)


def test_flips_before_a_mean_without_a_classifier_are_those_of_the_model():
  model = NiN()
  variables = model.init(jax.random.key(0), IMAGES)
  found = scans.flip_gains(view_of(model))
  assert found.path == 'pooled'
  kernel = variables['params']['conv']['kernel']
  bias = variables['params']['conv']['bias']

  @functools.partial(jax.lax.map, xs=jnp.arange(kernel.size))
  def wanted(place):
    flat = jnp.where(kernel >= 0, 1.0, -1.0).reshape(-1)
    moved = flat.at[place].multiply(-1).reshape(kernel.shape)
    params = {'conv': {'kernel': moved, 'bias': bias}}
    logits = model.apply({'params': params}, IMAGES)
    return optax.softmax_cross_entropy_with_integer_labels(
      logits, LABELS
    ).mean()

  np.testing.assert_allclose(
    found.loss - found.gains.reshape(-1), wanted, rtol=1e-5
  )
