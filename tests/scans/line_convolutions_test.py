"""Lines of convolutions: equal to the network at every rate, whatever changes between two."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import scans
from bitjax import types
from bitjax.scans import _line_convolutions
from tests.scans import conv_tail_test as cases

pytestmark = pytest.mark.optimised  # Arithmetic, to the last bit.

RATES = np.random.default_rng(5).uniform(-0.2, 0.4, 20).astype(np.float32)


def direction_of(view, seed=7):
  """A direction with zeros and equal entries, so that weights change together."""
  rng = np.random.default_rng(seed)
  d = rng.choice([-1.0, 0.0, 0.5, 1.0], view.kernel.shape) + 0.0
  d[..., -1] = rng.normal(size=view.kernel.shape[:-1])
  return jnp.asarray(d, 'f4')


def check(view, direction, rates=RATES, atol=2e-6, **options):
  found = scans.line_scan(view, direction, rates, path='steps', **options)
  slow = scans.line_scan(view, direction, rates, path='brute_force')
  assert found.path == 'steps' and not found.uncertain.any()
  assert np.ptp(slow.losses) > 1e-3
  np.testing.assert_allclose(found.losses, slow.losses, rtol=0, atol=atol)
  return found


NAMES = [
  *('shortcut', 'transition', 'last', 'projection', 'sign'),
  *('relu, full precision', 'four bits', 'ternary, groups, strides'),
]
CASES = [
  pytest.param(name, marks=() if name == 'sign' else pytest.mark.slow)
  for name in NAMES
]


@pytest.mark.parametrize('name', CASES)
def test_losses_are_those_of_forward_passes(name):
  view = cases.case(name)
  if name == 'relu, full precision':  # All but the layer itself.
    view = dataclasses.replace(view, quantizer=cases.BINARY)
  width = 3 if name in ('sign', NAMES[-1]) else None
  check(view, direction_of(view), width=width)


@pytest.mark.slow
@pytest.mark.parametrize('few', [1, 10**9])
def test_sums_are_moved_or_computed_anew(monkeypatch, few):
  """Both, whatever the number of weights that change together."""
  monkeypatch.setattr(_line_convolutions, '_FEW', few)
  jax.clear_caches()
  view = cases.case('shortcut')
  check(view, direction_of(view))
  jax.clear_caches()


@pytest.mark.slow
@pytest.mark.parametrize('name', ['real', 'single', 'zeros'])
def test_other_inputs(name):
  """Real inputs, whose sums are computed anew; one example; zeros, which are positive."""
  view = cases.case('sign')
  if name == 'real':
    x, _ = cases.networks.images(3, 7, 6, 4)
    view = dataclasses.replace(view, inputs=x, input_quantizer=None)
  elif name == 'single':
    view = dataclasses.replace(
      view, inputs=view.inputs[:1], labels=view.labels[:1]
    )
  else:
    kernel = jnp.where(view.kernel > 0.1, 0.0, view.kernel)
    view = dataclasses.replace(view, kernel=kernel)
  check(view, direction_of(view))


@pytest.mark.slow
def test_all_learning_rates_several_views_and_a_shared_start():
  view = cases.case('shortcut')
  x, y = cases.networks.images(9, 7, 6, 8)
  other = dataclasses.replace(view, inputs=cases.SIGN(x), labels=y)
  direction, rates = direction_of(view), np.sort(np.abs(RATES))
  slow = scans.line_scan(
    [view, other], direction, rates, path='brute_force'
  ).losses
  found = scans.line_scan(
    [view, other], direction, rates, start=scans.line_start([view, other])
  )
  assert found.path == 'steps'
  np.testing.assert_allclose(found.losses, slow, rtol=0, atol=2e-6)
  profile = scans.line_profile([view, other], direction, 0.0, 0.4)
  at = np.asarray(profile.at(rates))
  np.testing.assert_allclose(at, slow, rtol=0, atol=2e-6)
  kernel = np.asarray(view.kernel), np.asarray(direction)
  assert profile.num_breakpoints == np.sum(
    (kernel[0] >= 0) != (kernel[0] - np.float32(0.4) * kernel[1] >= 0)
  )


@pytest.mark.slow
def test_a_change_of_one_weight_is_reported_and_works_under_jit():
  view, shares = cases.case('ternary, groups, strides'), []
  direction = jnp.zeros_like(view.kernel).at[0, 1, 1, 2].set(1.0)
  scan = jax.jit(
    lambda view, d: scans.line_scan(view, d, RATES, path='steps').losses
  )
  slow = scans.line_scan(view, direction, RATES, path='brute_force').losses
  np.testing.assert_allclose(scan(view, direction), slow, rtol=0, atol=2e-6)
  still = scan(view, jnp.zeros_like(direction))
  np.testing.assert_array_equal(still, still[0])
  scans.line_scan(view, direction, RATES, path='steps', report=shares.append)
  assert shares == sorted(shares) and shares[-1] == 1


def test_paths_are_those_that_are_faster():
  view = cases.case('sign')
  choice = scans.plan(view, timed=False).scans[0]
  assert (choice.path, choice.reason) == ('steps', '')
  floats = dataclasses.replace(
    cases.case('relu, full precision'), quantizer=cases.BINARY
  )
  choice = scans.plan(floats, timed=False).scans[0]
  assert choice.path == 'distinct' and 'is not binary' in choice.reason
  scaled = cases.case('a scale for each channel')
  with pytest.raises(types.BadInput, match='depends on its kernel'):
    scans.line_scan(scaled, scaled.kernel, RATES, path='steps')
