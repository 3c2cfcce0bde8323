"""Moves of a convolution that follow others: equal to forward passes, in several blocks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import scans
from bitjax import types
from bitjax.scans import _coordinate_convolutions
from bitjax.scans import _line_convolutions
from tests.scans import conv_tail_test as cases

pytestmark = pytest.mark.optimised  # Arithmetic, to the last bit.

GROUPS = 'ternary, groups, strides'
NAMES = ['shortcut', 'projection', 'last', GROUPS, 'real']


def case(name):
  view = cases.case('sign' if name == 'real' else name)
  if name == 'real':
    view = dataclasses.replace(view, quantizer=None)
  return view, 0.5 if name == 'real' else None


@pytest.fixture
def blocks_of_three(monkeypatch):
  """Seven images take three blocks, the last of which repeats two."""
  monkeypatch.setattr(
    _line_convolutions, 'num_images', lambda parts, width=None: 3
  )
  jax.clear_caches()
  yield
  jax.clear_caches()


def kernels(view, indices, destinations, size):
  kernel = np.array(view.kernel).reshape(-1)
  kernel[indices % size] = np.asarray(destinations).reshape(-1)[indices]
  return jnp.asarray(kernel.reshape(view.kernel.shape))


@pytest.mark.slow
@pytest.mark.usefixtures('blocks_of_three')
@pytest.mark.parametrize('name', NAMES)
def test_a_descent_is_that_of_a_loop(name):
  view, step = case(name)
  moves = scans.moves(view, step=step)
  order = jax.random.normal(jax.random.key(2), moves.changes.shape)
  found = scans.coordinate_discrete_gradient(
    *(view, types.Budget(1e6)), order=order, num_candidates=60, step=step
  )
  loss = jax.jit(lambda kernel: view.loss(kernel))
  score = np.where(moves.directions != 0, order, -np.inf).reshape(-1)
  there = np.asarray(moves.destinations).reshape(-1)
  kernel = np.array(view.kernel).reshape(-1)
  before = now = float(loss(view.kernel))
  accepted, moved = [], set()
  for candidate in np.argsort(-score, kind='stable')[:60]:
    weight = candidate % kernel.size
    other = kernel.copy()
    other[weight] = there[candidate]
    new = float(loss(jnp.asarray(other.reshape(view.kernel.shape))))
    accepted.append(weight not in moved and now - new > 1e-6 * before)
    if accepted[-1]:
      kernel, now = other, new
      moved.add(weight)
  assert 3 < sum(accepted) < 55
  np.testing.assert_array_equal(found.accepted, accepted)
  assert found.decrease_search == pytest.approx(before - now, abs=1e-6)
  assert found.predicted == pytest.approx(before - now, abs=3e-6)


@pytest.mark.slow
@pytest.mark.usefixtures('blocks_of_three')
@pytest.mark.parametrize('name', NAMES)
def test_pairs_are_those_of_forward_passes(name):
  view, step = case(name)
  moves = scans.moves(view, step=step)
  among = np.random.default_rng(0).choice(moves.changes.size, 4, False)
  found = scans.pair_gains(
    *(view, jax.random.key(0), 12), among=jnp.asarray(among), step=step
  )
  loss = jax.jit(lambda kernel: view.loss(kernel))
  base, size = loss(view.kernel), view.kernel.size

  def gain(*indices):
    indices = np.array(indices)
    return base - loss(kernels(view, indices, moves.destinations, size))

  for a, b, both, alone in zip(*found, strict=True):
    assert both == pytest.approx(float(gain(a, b)), abs=2e-6)
    assert alone == pytest.approx(float(gain(a) + gain(b)), abs=4e-6)


@pytest.mark.slow
@pytest.mark.usefixtures('blocks_of_three')
@pytest.mark.parametrize('name', NAMES)
def test_prefixes_are_those_of_forward_passes(name):
  view, size = case(name)
  step = scans.discrete_gradient(
    view, types.Budget(1e6), signal='random', key=jax.random.key(1), step=size
  )
  prefixes = (3, 0, 1, 40, 41, 10**6, 3)
  found = scans.prefix_scan(view, step, prefixes, holdout=view)
  assert found.path == 'incremental'
  rank = np.asarray(step.rank)
  wanted = [
    view.loss(
      view.kernel + np.where((rank >= 0) & (rank < m), step.displacement, 0)
    )
    for m in prefixes
  ]
  assert np.ptp(wanted) > 1e-3
  np.testing.assert_allclose(found.search, wanted, rtol=0, atol=2e-6)
  np.testing.assert_array_equal(found.search, found.holdout)


def test_a_rest_of_real_kernels_takes_forward_passes():
  view = dataclasses.replace(
    cases.case('relu, full precision'), quantizer=cases.BINARY
  )
  plan = {p.question: p for p in scans.plan(view, timed=False).scans}
  for name, path in (
    ('coordinate_discrete_gradient', 'forward_passes'),
    ('pair_gains', 'brute_force'),
  ):
    assert plan[name].path == path and 'is not binary' in plan[name].reason
  scaled = dataclasses.replace(view, scaling=quantizers.mean_abs('column'))
  assert 'couples' in _coordinate_convolutions.obstacle(scaled)
