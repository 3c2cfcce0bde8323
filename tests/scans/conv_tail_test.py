"""Flip gains by running the rest of a network: equal to brute force and to NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import memory
from bitjax import quantizers
from bitjax import scans
from bitjax import types
from bitjax.scans import _flips
from bitjax.scans import _innermost
from bitjax.scans import _packed_stages
from bitjax.scans import _packed_steps
from tests.scans import residual_networks as networks

pytestmark = pytest.mark.optimised  # Arithmetic, to the last bit.

BINARY, SIGN = networks.BINARY, networks.SIGN
RELU = scans.Activation('relu')
FOUR_BITS = quantizers.attach(
  quantizers.uniform(4, signed=True, step=0.25), quantizers.identity()
)


def plain(rng, activation=SIGN, count=7, **options):
  """A convolution that feeds an activation, and another convolution."""
  x, y = networks.images(1, count, 6, 4)
  body = (SIGN, networks.conv(rng, 4, 8, **options))
  behind = (
    networks.norm(rng, 8, 6.0),
    activation,
    networks.conv(rng, 8, 6),
    networks.norm(rng, 6, 8.0),
    scans.Mean(),
    networks.dense(rng, 6, 10),
  )
  return networks.view_of(body, x, y, behind)


def residual(rng, index, count=7):
  """A convolution among shortcuts, pooling and padding."""
  del rng
  stages = networks.bireal(blocks=(1, 1), widths=(8, 16))
  x, y = networks.images(1, count, 6, 8)
  return networks.view_in_residual(stages, x, y, index)


def projection(rng):
  """A shortcut with a convolution of its own, in full precision, and padding of +1."""
  x, y = networks.images(1, 5, 6, 4)
  body = (SIGN, networks.conv(rng, 4, 8), networks.norm(rng, 8, 6.0))
  own = networks.conv(
    rng, 8, 16, size=(1, 1), strides=2, padding=0, kernel_quantizer=None
  )
  branch = (
    SIGN,
    networks.conv(rng, 8, 16, strides=2, pad_values=1.0),
    networks.norm(rng, 16, 8.0),
  )
  rest = (
    networks.HARDTANH,
    scans.Residual(branch, (own,)),
    scans.Examplewise(networks.Fn('max_pool')),
    scans.Examplewise(networks.Fn('flatten')),
    networks.dense(rng, 16, 10),
  )
  return networks.view_of(body, x, y, rest)


def low_bit(rng):
  """Kernels and activations of four bits."""
  view = plain(
    rng, scans.Activation('identity', FOUR_BITS), kernel_quantizer=FOUR_BITS
  )
  return dataclasses.replace(view, inputs=FOUR_BITS(view.inputs))


def middle(rng):
  """A dense layer whose tail holds a shortcut."""
  x = jnp.asarray(rng.normal(size=(7, 5)), 'f4')
  own = networks.dense(rng, 5, 4)
  tail = (
    scans.Residual((RELU, networks.dense(rng, 4, 4))),
    networks.dense(rng, 4, 10),
  )
  return scans.LayerView(x, own.kernel, jnp.arange(7), tail, BINARY)


CASES = {
  'sign': plain,
  'shortcut': lambda rng: residual(rng, 0),
  'before a transition': lambda rng: residual(rng, 2),
  'transition': lambda rng: residual(rng, 4),
  'last': lambda rng: residual(rng, 6),
  'projection': projection,
  'relu, full precision': lambda rng: plain(rng, RELU, kernel_quantizer=None),
  'four bits': low_bit,
  'ternary, groups, strides': lambda rng: plain(
    rng,
    kernel_quantizer=quantizers.attach(
      quantizers.ternary(0.1), quantizers.identity()
    ),
    feature_group_count=2,
    strides=2,
    padding='VALID',
  ),
  'a scale for each channel': lambda rng: plain(
    rng, scaling=quantizers.mean_abs('column')
  ),
  'a scale for all channels': lambda rng: plain(
    rng, scaling=quantizers.mean_abs('tensor')
  ),
  'dense': middle,
}
QUICK = (
  'sign',
  'shortcut',
  'projection',
  'four bits',
  'ternary, groups, strides',
)


def case(name):
  return CASES[name](np.random.default_rng(3))


def step_of(view):
  return 0.05 if view.quantizer is None else None


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in CASES
  ],
)
def test_they_are_those_of_brute_force_and_of_numpy(name):
  view = case(name)
  coordinates = np.random.default_rng(0).permutation(view.kernel.size)[:40]
  options = {'step': step_of(view), 'coordinates': jnp.asarray(coordinates)}
  fast = scans.flip_gains(view, path='tail', **options)
  slow = scans.flip_gains(view, path='brute_force', **options)
  assert (fast.path, fast.near_ties) == ('tail', None)
  atol = 2e-6 * float(slow.loss)
  np.testing.assert_allclose(fast.loss, slow.loss, rtol=1e-6)
  np.testing.assert_allclose(fast.gains, slow.gains, rtol=0, atol=atol)
  np.testing.assert_allclose(
    fast.second_moments, slow.second_moments, rtol=1e-4, atol=atol
  )
  assert np.abs(slow.gains).max() > 100 * atol
  moves = scans.moves(view, step=step_of(view))
  for place, index in enumerate(coordinates[:5]):
    for way in range(2 if moves.paired else 1):
      kernel = np.array(view.kernel)
      kernel.flat[index] = moves.destinations[way].reshape(-1)[index]
      wanted = oracle(view, view.kernel) - oracle(view, kernel)
      found = fast.gains[way, place] if moves.paired else fast.gains[place]
      np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


def oracle(view, kernel):
  """The mean loss in NumPy, float64."""
  layer = scans.Dense(
    jnp.asarray(kernel), view.quantizer, view.scaling, view.affine
  )
  own = layer if view.product is None else scans.Conv(layer, view.product)
  logits = computed((own, *view.tail), np.asarray(view.inputs, float))
  top = logits.max(1, keepdims=True)
  total = np.log(np.exp(logits - top).sum(1)) + top[:, 0]
  return (total - logits[np.arange(len(logits)), view.labels]).mean()


FUNCTIONS = {
  'hardtanh': lambda x: np.clip(x, -1, 1),
  'flatten': lambda x: x.reshape(len(x), -1),
  'max_pool': lambda x: blocks(x).max((2, 4)),
  'avg_pool': lambda x: blocks(x).mean((2, 4)),
  'widen': lambda x: np.pad(x, [(0, 0)] * 3 + [(x.shape[-1] // 2,) * 2]),
}


def blocks(x):
  n, height, width, channels = x.shape
  x = x[:, : height // 2 * 2, : width // 2 * 2]
  return x.reshape(n, height // 2, 2, width // 2, 2, channels)


def computed(stages, x):
  """Applies stages in NumPy, float64; only quantizers compute in float32."""
  for stage in stages:
    match stage:
      case scans.Affine():
        x = x * np.asarray(stage.scale, float) + np.asarray(stage.shift, float)
      case scans.Activation(kind='relu'):
        x = np.maximum(x, 0)
      case scans.Activation():
        x = np.asarray(stage.quantizer(jnp.asarray(x, jnp.float32)), float)
      case scans.Pointwise() | scans.Examplewise():
        x = FUNCTIONS[stage.fn.name](x)
      case scans.Mean():
        x = x.mean((1, 2))
      case scans.Add():
        x = x + np.asarray(stage.value, float)
      case scans.Residual():
        x = computed(stage.body, x) + computed(stage.shortcut, x)
      case scans.Dense():
        x = rescaled(stage, x @ np.asarray(stage.quantized, float))
      case scans.Conv():
        w = np.asarray(stage.layer.quantized, float)
        x = rescaled(stage.layer, convolved(x, w, stage.product))
  return x


def rescaled(layer, z):
  if layer.scaling is not None:
    z = z * np.asarray(layer.scaling(layer.kernel), float)
  return computed((layer.affine,), z)


def convolved(x, w, product):
  (top, bottom), (left, right) = (
    [(0, 0), (0, 0)] if product.padding == 'VALID' else product.padding
  )
  edges = [(0, 0), (top, bottom), (left, right), (0, 0)]
  x = np.pad(x, edges, constant_values=product.pad_value)
  found = []
  inputs = np.split(x, product.groups, axis=3)
  kernels = np.split(w, product.groups, axis=3)
  for x, w in zip(inputs, kernels, strict=True):
    rows, columns = (
      range(0, x.shape[axis] - w.shape[axis - 1] + 1, product.strides[axis - 1])
      for axis in (1, 2)
    )
    found.append(
      np.array(
        [
          [
            np.tensordot(x[:, i : i + w.shape[0], j : j + w.shape[1]], w, 3)
            for j in columns
          ]
          for i in rows
        ]
      ).transpose(2, 0, 1, 3)
    )
  return np.concatenate(found, axis=3)


@pytest.mark.parametrize(
  ('count', 'chunk'),
  [
    (1, None),
    pytest.param(7, 3, marks=pytest.mark.slow),
    pytest.param(37, None, marks=pytest.mark.slow),
  ],
)
def test_any_number_of_images_at_a_time(count, chunk):
  view = plain(np.random.default_rng(0), count=count)
  coordinates = jnp.array([5, 0, 287])
  fast = scans.flip_gains(view, coordinates=coordinates, chunk=chunk)
  slow = scans.flip_gains(view, path='brute_force', coordinates=coordinates)
  assert fast.path == 'tail'
  np.testing.assert_allclose(fast.gains, slow.gains, rtol=0, atol=5e-6)
  np.testing.assert_allclose(
    fast.standard_errors(), slow.standard_errors(), rtol=1e-3, atol=1e-6
  )


def test_what_is_reported():
  view = plain(np.random.default_rng(0))
  told = []
  scans.flip_gains(
    dataclasses.replace(view, tail=(scans.Mean(),), labels=view.labels % 8),
    path='tail',
    coordinates=jnp.array([5, 0, 287]),
    chunk=3,
    report=told.append,
  )
  assert told == sorted(told) and told[-1] == 1 and len(told) > 5


@pytest.mark.parametrize('frozen', [False, True])
def test_signs_are_counted_in_frozen_layers_too(frozen):
  def held(stage):
    if isinstance(stage, scans.Residual):
      return scans.Residual(tuple(map(held, stage.body)), stage.shortcut)
    return stage.freeze() if isinstance(stage, scans.Conv) else stage

  view = residual(None, 2)
  if frozen:
    view = dataclasses.replace(view, tail=tuple(map(held, view.tail)))
  text = _flips._flip_gains.lower(
    view, None, jnp.arange(3), 'tail', None, False, None
  ).as_text()
  assert 'popcnt' in text
  # The convolution that is left is that of the unmoved layer.
  assert text.count('stablehlo.convolution') <= 1


@pytest.mark.slow
def test_what_is_kept_does_not_grow_with_images_or_moves():
  def taken(count, moves):
    view = plain(np.random.default_rng(0), count=count)
    view = jax.eval_shape(lambda: view)
    lowered = _flips._flip_gains.lower(
      view, None, jnp.zeros(moves, int), 'tail', 16, False, None
    )
    return memory.of(lowered.compile()).temporaries

  # Beside what holds a number for each image or move.
  assert taken(320, 100) < taken(32, 10) + 20_000


@pytest.mark.slow
def test_what_follows_is_skipped_where_no_sign_turns():
  view = plain(np.random.default_rng(0))
  norm, *rest = view.tail
  shift = norm.shift.at[2].set(1e3)
  view = dataclasses.replace(
    view, tail=(dataclasses.replace(norm, shift=shift), *rest)
  )
  gains = scans.flip_gains(view, path='tail').gains
  slow = scans.flip_gains(view, path='brute_force').gains
  assert not gains[..., 2].any() and np.abs(gains[..., 3]).max() > 0.01
  np.testing.assert_allclose(gains, slow, rtol=0, atol=1e-6)

  @jax.jit
  def moved(z, number, change, always):
    behind = _packed_stages.Rest(view.tail, z)
    z = _packed_steps.innermost(z)
    base = behind.base(z, jnp.full((7, 10), 77.0))
    return behind.moved(base, number, lambda: z + change, always)

  z = view.product(view.inputs, BINARY(view.kernel))
  for number, change, skipped in (
    (2, 2.0, True),
    (3, 0.0, True),
    (3, 9, False),
  ):
    logits = moved(z, number, jnp.float32(change), True)
    assert bool((logits == 77.0).all()) == skipped


def test_the_path_is_chosen_where_it_applies():
  view = plain(np.random.default_rng(0))
  some = jnp.arange(5)
  assert _flips.choose(view, coordinates=some).path == 'tail'
  statistics = scans.BatchNorm(jnp.ones(8), jnp.zeros(8))
  coupled = dataclasses.replace(view, tail=(statistics, *view.tail))
  opaque = dataclasses.replace(view, tail=(scans.Opaque(networks.Fn('widen')),))
  other = dataclasses.replace(view, product=lambda x, w: x)
  for unfit, why in (
    (coupled, 'couples its examples'),
    (opaque, 'opaque'),
    (other, 'neither the matrix product nor a known convolution'),
  ):
    assert _flips.choose(unfit).path == 'brute_force'
    with pytest.raises(types.BadInput, match=why):
      scans.flip_gains(unfit, path='tail')


@pytest.mark.parametrize(
  'fn',
  [
    *(networks.Fn(name) for name in ('max_pool', 'avg_pool', 'widen')),
    networks.Fn('flatten'),
    lambda x: jax.nn.relu(x)[:, ::2, 1:],
    lambda x: (
      jnp.concatenate([x, jnp.ones_like(x)], -1) + jnp.ones((1, 4, 6, 6))
    ),
    lambda x: jnp.mean(x, (1, 2)) @ jnp.ones((3, 2)),
    lambda x: jnp.cumsum(jnp.transpose(x, (0, 2, 1, 3)), 1) + jnp.sum(x * x),
    lambda x: jnp.zeros((x.shape[0], 2)),
  ],
)
def test_functions_of_an_example_with_examples_innermost(fn):
  x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6, 3, 5)), 'f4')
  one = [fn(x[None, ..., i])[0] for i in range(5)]
  np.testing.assert_allclose(
    _innermost.mapped(fn, x), jnp.stack(one, -1), rtol=1e-6, atol=1e-6
  )
