"""Sets of flips and walks from flip to flip, against losses in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import scans
from bitjax import types

SETS = np.array(
  [[0, 1, 2], [5, 5, -1], [-1, -1, -1], [3, 7, 11], [23, 0, 4], [9, -1, 13]]
)


def flipped(kernel, chosen):
  """The kernel with other signs at the chosen places; 0 becomes negative."""
  kernel = np.array(kernel, float)
  flat = kernel.reshape(-1)
  for place in {int(p) for p in chosen if p >= 0}:
    flat[place] = -1.0 if flat[place] >= 0 else 1.0
  return kernel


@pytest.mark.parametrize('activation', ['sign', 'relu'])
@pytest.mark.parametrize('path', ['incremental', 'brute_force'])
def test_gains_of_sets(make, activation, path):
  kernel = np.random.default_rng(0).integers(-8, 9, size=(6, 4)) / 32
  kernel[0] = 0.0, -0.0, 0.125, -0.125
  for examples in (1, 37):
    view, loss = make(activation=activation, kernel=kernel, examples=examples)
    found = scans.set_gains(view, SETS, path=path)
    want = [loss(kernel) - loss(flipped(kernel, s)) for s in SETS]
    np.testing.assert_allclose(found.gains, want, atol=2e-6)
    np.testing.assert_allclose(found.loss, loss(kernel), rtol=1e-6)
    assert found.path == path
  assert np.abs(want).max() > 0.01
  assert found.gains[2] == 0


def test_sets_of_one_flip_are_the_flip_gains(make):
  view, _ = make(examples=50)
  single = scans.set_gains(view, np.arange(24)[:, None], width=5).gains
  gains = scans.flip_gains(view).gains.reshape(-1)
  np.testing.assert_allclose(single, gains, atol=2e-6)


def test_other_views_take_forward_passes(make):
  view, _ = make()
  coupled = dataclasses.replace(view, scaling=quantizers.mean_abs('tensor'))
  found = scans.set_gains(coupled, SETS)
  assert found.path == 'brute_force'
  there = scans.moves(coupled).destinations[0]
  moved = coupled.kernel.reshape(-1).at[SETS[3]].set(there.reshape(-1)[SETS[3]])
  want = coupled.loss(coupled.kernel) - coupled.loss(moved.reshape(6, 4))
  np.testing.assert_allclose(found.gains[3], want, atol=1e-6)
  with pytest.raises(types.BadInput, match="'incremental' does not apply"):
    scans.set_gains(coupled, SETS, path='incremental')


@pytest.mark.parametrize('scaled', [False, True])
def test_a_walk_knows_the_loss_wherever_it_is(make, scaled):
  view, loss = make(examples=30)
  if scaled:  # By forward passes.
    view = dataclasses.replace(view, scaling=quantizers.mean_abs('tensor'))
    loss = lambda kernel: float(view.loss(jnp.asarray(kernel, jnp.float32)))
  order = np.array([3, 3, 7, 0, 7, 19, 3, 0])
  least = np.where(np.arange(8) % 3 == 2, 0.0, -np.inf).astype(np.float32)

  @jax.jit
  def walk(view):
    def step(walk, tried):
      walk, decrease, made = walk.attempt(*tried)
      return walk, (decrease, made, walk.kernel)

    return jax.lax.scan(step, scans.flip_walk(view), (order, least))

  end, (decreases, made, kernels) = walk(view)
  before, here = loss(view.kernel), np.zeros(24, bool)
  assert made[least < 0].all() and not made.all()
  for place, decrease, flip, kernel in zip(
    order, decreases, made, kernels, strict=True
  ):
    here[place] ^= bool(flip)
    signs = np.asarray(kernel).reshape(-1) >= 0
    np.testing.assert_array_equal(
      signs != (np.asarray(view.kernel).reshape(-1) >= 0), here
    )
    np.testing.assert_allclose(before - loss(kernel), decrease, atol=2e-6)
    before = loss(kernel)
  np.testing.assert_array_equal(end.flipped, here)


def test_bad_input(make):
  view, _ = make()
  real, _ = make(binary=False)
  for call, message in (
    (lambda: scans.set_gains(view, [1, 2]), r'sets must be integers of shape'),
    (lambda: scans.set_gains(view, [[0.5]]), r'sets must be integers of shape'),
    (lambda: scans.set_gains(view, SETS[:0]), 'at least one'),
    (lambda: scans.set_gains(view, [[0, -1, 24]]), 'at most 23, .*got 24'),
    (lambda: scans.set_gains(view, SETS, path='x'), 'incremental, brute_force'),
    (lambda: scans.set_gains(view, SETS, width=0), 'width must be'),
    (lambda: scans.set_gains(real, SETS), 'kernel of two levels'),
    (lambda: scans.flip_walk(real), 'kernel of two levels'),
  ):
    with pytest.raises(types.BadInput, match=message):
      call()


@pytest.mark.parametrize('path', ['incremental', 'brute_force'])
def test_traced_indices_of_no_weight_are_nan(make, path):
  view, _ = make()
  sets = jnp.asarray([[0, -1], [24, 1]])
  gains = jax.jit(lambda sets: scans.set_gains(view, sets, path=path).gains)
  np.testing.assert_array_equal(np.isfinite(gains(sets)), [True, False])
