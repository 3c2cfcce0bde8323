"""Flip gains in front of convolutions of floats, by the sums of one channel."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import scans
from bitjax.scans import _conv_costs
from bitjax.scans import _flips
from bitjax.scans import _float_stages
from bitjax.scans import _packed_steps
from tests.scans import conv_tail_test
from tests.scans import residual_networks as networks

pytestmark = pytest.mark.optimised  # Arithmetic, to the last bit.

RELU = scans.Activation('relu')
FLOATS = {'kernel_quantizer': None}
MAX_POOL = scans.Examplewise(networks.Fn('max_pool'), 'chosen')
AVG_POOL = scans.Examplewise(networks.Fn('avg_pool'), 'apart')
TERNARY = quantizers.attach(quantizers.ternary(0.1), quantizers.identity())


def view_of(rng, behind, channels=8, count=5, size=7, **options):
  """A layer of 8 channels, and stages behind a normalisation."""
  x, labels = networks.images(1, count, size, 3)
  own = networks.conv(rng, 3, 8, **{**FLOATS, **options})
  value = scans.Add(networks.images(2, count, size, 8)[0])
  tail = (networks.norm(rng, 8, 1.0), value, *behind)
  end = (scans.Mean(), networks.dense(rng, channels, 10))
  return networks.view_of((own,), x, labels, (*tail, *end))


def conv(rng, fan_in, features, **options):
  return networks.conv(rng, fan_in, features, **{**FLOATS, **options})


def strided(rng, **options):
  """The next convolution has strides, an even size and a value that pads."""
  own = conv(
    rng, 8, 6, size=(4, 2), strides=(2, 3), padding=((1, 2), (0, 1)),
    pad_values=1.0, **options,
  )  # fmt: skip
  return view_of(rng, (RELU, own, RELU, conv(rng, 6, 4), RELU), 4)


def branch(rng):
  """A branch begins with a convolution, and the shortcut is the identity."""
  body = (conv(rng, 8, 8), networks.norm(rng, 8, 1.0), RELU, conv(rng, 8, 8))
  return view_of(rng, (RELU, scans.Residual(body), RELU))


def projection(rng):
  """Both branches begin with convolutions, one behind an activation of its own."""
  body = (RELU, conv(rng, 8, 6, strides=2), networks.norm(rng, 6, 1.0))
  own = conv(rng, 8, 6, size=(1, 1), strides=2, padding=0)
  rest = (scans.Residual(body, (own, networks.norm(rng, 6, 1.0))), RELU)
  return view_of(rng, (networks.HARDTANH, *rest), 6)


def pooling(rng):
  """Pooling, of two kinds, before the next convolution."""
  rest = (RELU, MAX_POOL, AVG_POOL, conv(rng, 8, 4, padding=1), RELU)
  return view_of(rng, rest, 4, size=9)


CASES = {
  'strides, padding': strided,
  'a scale of channels': lambda rng: strided(
    rng, scaling=quantizers.mean_abs('column')
  ),
  'branch': branch,
  'projection': projection,
  'pooling': pooling,
  'groups': lambda rng: view_of(
    rng, (RELU, conv(rng, 8, 4, feature_group_count=2), RELU), 4
  ),
  'one image, ternary': lambda rng: view_of(
    rng, (RELU, conv(rng, 8, 4)), 4, count=1, kernel_quantizer=TERNARY
  ),
  'signs': lambda rng: view_of(
    rng, (networks.SIGN, conv(rng, 8, 4)), 4, kernel_quantizer=networks.BINARY
  ),
}
QUICK = ('projection',)


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in CASES
  ],
)
def test_they_are_those_of_brute_force_and_of_numpy(name):
  view = CASES[name](np.random.default_rng(4))
  some = np.random.default_rng(0).permutation(view.kernel.size)[:24]
  step = 0.3 if view.quantizer is None else None
  options = {'step': step, 'coordinates': jnp.asarray(some)}
  fast = scans.flip_gains(view, path='tail', **options)
  slow = scans.flip_gains(view, path='brute_force', **options)
  atol = 2e-6 * float(slow.loss)
  np.testing.assert_allclose(fast.gains, slow.gains, rtol=0, atol=atol)
  np.testing.assert_allclose(
    fast.second_moments, slow.second_moments, rtol=1e-4, atol=atol
  )
  assert np.abs(slow.gains).max() > 100 * atol
  moves = scans.moves(view, step=step)
  before = conv_tail_test.oracle(view, view.kernel)
  for place, index in enumerate(some[:4]):
    for way, there in enumerate(moves.destinations):
      kernel = np.array(view.kernel)
      kernel.flat[index] = there.reshape(-1)[index]
      wanted = before - conv_tail_test.oracle(view, kernel)
      found = fast.gains[way, place] if moves.paired else fast.gains[place]
      np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


@pytest.mark.slow
def test_rounded_inputs_are_those_of_the_network():
  view = strided(np.random.default_rng(0), dtype='bfloat16')
  options = {'step': 0.3, 'coordinates': jnp.arange(0, 216, 5)}
  fast = scans.flip_gains(view, path='tail', **options)
  slow = scans.flip_gains(view, path='brute_force', **options)
  np.testing.assert_allclose(fast.gains, slow.gains, rtol=0, atol=3e-6)
  assert np.abs(slow.gains).max() > 1e-3


def test_no_move_computes_the_next_convolution_again():
  view = strided(np.random.default_rng(0))
  text = _flips._flip_gains.lower(
    view, 0.1, jnp.arange(3), 'tail', None, False, None
  ).as_text()
  kernels = re.findall(r'convolution.*, tensor<([0-9x]+)xf32>\) ->', text)
  own, following = ['3x3x3x8'], ['4x2x8x6', '3x3x6x4']
  # Of all channels: once for the logits, and once for the sums of the next one.
  once = [*own, *following, following[0]]
  assert sorted(kernels) == sorted([*once, '4x2x1x6', following[1]])


@pytest.mark.slow
def test_sums_of_16_bits_are_computed_anew():
  stages = (RELU, conv(np.random.default_rng(0), 8, 6), RELU)
  z = networks.images(1, 3, 5, 8)[0]
  stages, z = jax.tree.map(
    lambda x: jnp.asarray(x, jnp.bfloat16), (stages, _packed_steps.innermost(z))
  )
  rest = _float_stages.Rest(stages)
  there = z.at[:, :, 2].add(1)
  found = rest.moved(rest.base(z, rest(z, True)), 2, lambda: there, True)
  np.testing.assert_array_equal(
    found.astype(jnp.float32), rest(there, True).astype(jnp.float32)
  )


@pytest.mark.slow
def test_what_follows_is_skipped_where_a_channel_does_not_change():
  view = strided(np.random.default_rng(0))
  norm, *rest = view.tail
  norm = dataclasses.replace(norm, shift=norm.shift.at[2].set(-1e3))
  view = dataclasses.replace(view, tail=(norm, *rest))
  gains = scans.flip_gains(view, step=0.1).gains
  slow = scans.flip_gains(view, step=0.1, path='brute_force').gains
  assert not gains[..., 2].any() and np.abs(gains[..., 3]).max() > 1e-3
  np.testing.assert_allclose(gains, slow, rtol=0, atol=5e-6)

  @jax.jit
  def moved(z, unit, change):
    behind = _float_stages.Rest(view.tail)
    z = _packed_steps.innermost(z)
    base = behind.base(z, jnp.full((5, 10), 77.0))
    return behind.moved(base, unit, lambda: z + change, True)

  z = view.product(view.inputs, view.kernel)
  for unit, change, skipped in ((2, 2.0, True), (3, 0.0, True), (3, 1, False)):
    logits = moved(z, unit, jnp.float32(change))
    assert bool((logits == 77.0).all()) == skipped


def test_costs_say_which_convolutions_change_by_one_channel():
  rng = np.random.default_rng(0)
  rests = {
    'whole': (RELU, conv(rng, 8, 64, feature_group_count=2)),
    'two': (RELU, conv(rng, 8, 64), conv(rng, 64, 64)),
    'one': (RELU, conv(rng, 8, 64)),
  }
  passes = {
    name: _conv_costs.passes(view_of(rng, rest, 64))
    for name, rest in rests.items()
  }
  assert passes['one'] < 0.9 * min(passes['two'], passes['whole'])
