"""What flip gains promise besides exactness: interface, errors, other kernels."""

import dataclasses

from flax import linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import scans
from bitjax import types
from bitjax.scans import _flips

pytestmark = pytest.mark.optimised  # Arithmetic, to the last bit.

BINARY = quantizers.attach(quantizers.sign(), quantizers.identity())
IMAGES = np.random.default_rng(0).integers(0, 256, size=(33, 4, 3), dtype='u1')
IMAGES[IMAGES < 128] = 0
LABELS = np.arange(33) % 3


def mlp_view(make, layer='Dense_0', **kwargs):
  model = make(hidden=(6, 5), num_classes=3, **kwargs)
  variables = model.init(jax.random.key(1), IMAGES)
  return nn.layer_view(
    model, variables, jnp.asarray(IMAGES), jnp.asarray(LABELS), layer
  )


def one_layer_view(activation, kernel):
  """A view that is cheap to compile."""
  return scans.LayerView(
    inputs=jnp.asarray(IMAGES[:9, 0], jnp.float32),
    kernel=kernel,
    labels=jnp.asarray(LABELS[:9]),
    tail=(activation,),
    quantizer=BINARY,
  )


@pytest.mark.parametrize(
  ('make', 'step', 'path'),
  [
    (nn.binary_mlp, None, 'sign'),
    (nn.binary_weights_mlp, None, 'rank_one'),
    pytest.param(
      nn.full_precision_mlp, 0.01, 'rank_one', marks=pytest.mark.slow
    ),
  ],
)
def test_toy_networks_on_bytes(make, step, path):
  view = mlp_view(make)
  fast = scans.flip_gains(view, step=step)
  assert fast.path == path
  slow = scans.flip_gains(view, step=step, path='brute_force', chunk=7)
  assert slow.path == 'brute_force'
  atol = 1e-6 * float(slow.loss)
  np.testing.assert_allclose(fast.gains, slow.gains, rtol=0, atol=atol)
  np.testing.assert_allclose(
    fast.standard_errors(), slow.standard_errors(), rtol=1e-3, atol=1e-6
  )
  assert np.abs(slow.gains).max() > 50 * atol


def test_a_hidden_layer_with_running_statistics():
  view = mlp_view(nn.binary_mlp, 'Dense_1', batch_norm=True, use_bias=True)
  fast = scans.flip_gains(view)
  assert fast.path == 'sign'
  slow = scans.flip_gains(view, path='brute_force')
  np.testing.assert_allclose(fast.gains, slow.gains, rtol=0, atol=2e-6)
  assert np.abs(slow.gains).max() > 1e-3


@pytest.mark.parametrize(
  ('activation', 'many'),
  [
    (scans.Activation('sign', BINARY), jax.vmap),
    (scans.Activation('relu'), lambda f: lambda x: jax.lax.map(f, x)),
  ],
)
def test_jit_vmap_and_map(activation, many):
  def gains(kernel, path='auto'):
    view = one_layer_view(activation, kernel)
    return scans.flip_gains(view, path=path).gains

  kernels = jax.random.normal(jax.random.key(2), (2, 3, 4))
  together = jax.jit(many(gains))(kernels)
  alone = [gains(kernel, 'brute_force') for kernel in kernels]
  np.testing.assert_allclose(together, alone, rtol=1e-5, atol=2e-5)
  assert np.abs(together).max() > 0.1


def test_second_call_does_not_compile():
  view = one_layer_view(scans.Activation('sign', BINARY), jnp.ones((3, 4)))
  scans.flip_gains(view)
  before = _flips._flip_gains._cache_size()
  other = dataclasses.replace(view, kernel=-view.kernel, inputs=view.inputs + 1)
  scans.flip_gains(other)
  assert _flips._flip_gains._cache_size() == before


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Levels:
  """Rounds to the nearest of a list of levels."""

  levels: jax.Array
  uniform: bool = dataclasses.field(metadata={'static': True})

  def _place(self, x):
    levels = self.levels.reshape((1,) * x.ndim + (-1,))
    return jnp.argmin(jnp.abs(x[..., None] - levels), axis=-1)

  def __call__(self, x):
    return self.levels[self._place(x)]

  def neighbours(self, x):
    place, last = self._place(x), self.levels.size - 1
    up = jnp.where(place < last, self.levels[jnp.minimum(place + 1, last)], x)
    down = jnp.where(place > 0, self.levels[jnp.maximum(place - 1, 0)], x)
    return up, down


@pytest.mark.parametrize(
  ('levels', 'uniform'),
  [
    pytest.param((-1, 0, 1), True, marks=pytest.mark.slow),
    ((-2, -0.5, 0, 1), False),
  ],
)
def test_a_staircase_plugs_in_by_offering_its_neighbours(levels, uniform):
  staircase = Levels(jnp.asarray(levels, jnp.float32), uniform)
  view = dataclasses.replace(
    one_layer_view(scans.Activation('relu'), None),
    quantizer=quantizers.attach(staircase, quantizers.identity()),
    kernel=jax.random.uniform(jax.random.key(3), (3, 4), minval=-2, maxval=1),
    affine=scans.Affine(1 / 255),
  )
  result = scans.flip_gains(view)
  slow = scans.flip_gains(view, path='brute_force')
  quantized = view.quantizer(view.kernel)
  assert result.path == 'rank_one' and result.gains.shape == (2, 3, 4)
  np.testing.assert_allclose(result.gains, slow.gains, rtol=0, atol=2e-6)
  np.testing.assert_array_equal(result.gains[0][quantized == max(levels)], 0)
  np.testing.assert_array_equal(result.gains[1][quantized == min(levels)], 0)
  assert np.abs(slow.gains).max() > 1e-3


def test_moves_say_where_the_weights_go():
  kernel = jnp.array([[0.5, -2.0, 0.0]])
  binary = scans.moves(
    dataclasses.replace(
      one_layer_view(scans.Activation('relu'), kernel),
      inputs=jnp.ones((9, 1)),
    )
  )
  np.testing.assert_allclose(
    binary.destinations, [[[-0.002, 0.002, -0.002]]], rtol=1e-6
  )
  np.testing.assert_array_equal(binary.changes, [[[-2, 2, -2]]])


class Convolution(linen.Module):
  @linen.compact
  def __call__(self, x):
    x = linen.Conv(2, (2, 2))(x[..., None].astype(jnp.float32) / 255)
    return linen.Dense(3)(linen.tanh(x).reshape(x.shape[0], -1))


@pytest.mark.slow
def test_any_layer_at_some_coordinates():
  model, images = Convolution(), jnp.asarray(IMAGES)
  variables = model.init(jax.random.key(4), images)
  view = nn.layer_view(model, variables, images, jnp.asarray(LABELS), 'Conv_0')
  some = jnp.array([5, 0, 7])
  result = scans.flip_gains(view, step=0.5, coordinates=some, chunk=4)
  assert result.path == 'tail' and result.gains.shape == (2, 3)
  # The same of the whole model, by the name of the leaf.
  kernel = variables['params']['Conv_0']['kernel'].reshape(-1)
  moved = kernel[some][None] + jnp.array([[0.5], [-0.5]])
  losses = lambda variables: (
    -jnp.take_along_axis(
      jax.nn.log_softmax(model.apply(variables, images)), LABELS[:, None], 1
    )
  )
  generic = scans.brute_force_gains(
    losses, variables, 'params/Conv_0/kernel', moved, coordinates=some
  )
  np.testing.assert_allclose(result.gains, generic.gains, atol=1e-6)
  np.testing.assert_allclose(
    result.standard_errors(), generic.standard_errors(), atol=1e-6
  )
  assert np.abs(generic.gains).min() > 1e-4
  with pytest.raises(types.BadInput, match='params/Dense_0/bias'):
    scans.brute_force_gains(losses, variables, 'Conv_0', moved)
  with pytest.raises(types.BadInput, match='destinations must have shape'):
    scans.brute_force_gains(losses, variables, 'params/Conv_0/bias', moved)


def test_bad_input_is_refused():
  view = mlp_view(nn.full_precision_mlp)
  binary = mlp_view(nn.binary_mlp)
  opaque = dataclasses.replace(view, tail=(scans.Opaque(jax.nn.gelu),))
  rounding = quantizers.attach(
    jax.tree_util.Partial(jnp.round), quantizers.identity()
  )
  relaxed = quantizers.attach(
    quantizers.proximal(quantizers.sign()), quantizers.identity()
  )
  empty = dataclasses.replace(
    view, inputs=view.inputs[:0], labels=view.labels[:0]
  )
  nothing = dataclasses.replace(view, kernel=jnp.zeros((12, 0)))
  infinite = dataclasses.replace(view, inputs=view.inputs * jnp.inf)
  refused = [
    (view, {}, 'needs a step'),
    (view, {'step': 0.0}, 'step must be > 0'),
    (view, {'step': np.nan}, 'step must be > 0'),
    (binary, {'step': 0.1}, 'step is for full-precision'),
    (
      view,
      {'step': 0.1, 'path': 'fast'},
      'sign.*pooled.*masks.*tail.*brute_force',
    ),
    (view, {'step': 0.1, 'path': 'sign'}, 'does not feed a sign'),
    (opaque, {'step': 0.1, 'path': 'rank_one'}, 'opaque'),
    (binary, {'path': 'sign', 'coordinates': jnp.arange(2)}, 'coordinates'),
    (binary, {'chunk': 0}, 'chunk must be an integer >= 1'),
    (empty, {'step': 0.1}, 'must not be empty; got 0 examples'),
    (nothing, {'step': 0.1}, r'kernel of shape \(12, 0\)'),
    (dataclasses.replace(view, quantizer=rounding), {}, 'neighbours'),
    (dataclasses.replace(view, quantizer=relaxed), {}, 'neighbours'),
    (infinite, {'step': 0.01}, 'loss must be finite'),
  ]
  for bad, kwargs, match in refused:
    with pytest.raises(types.BadInput, match=match):
      scans.flip_gains(bad, **kwargs)
