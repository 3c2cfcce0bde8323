"""Perturbations at intervals, against a plain loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import descent
from bitjax import searches
from bitjax import transforms
from bitjax import types

TARGET = np.random.default_rng(0).normal(size=7).astype(np.float32)


def gradient(w):
  return 2 * (w - TARGET)


def flip(key, params, number=2):
  return searches.flip_signs(params, key, number)


def shake(key, params):
  ball = types.Budget(0.5, 'l2')
  return params + descent.noise(key, params, ball, 1.0)


def path(tx, start, steps, state=None, **given):
  """Returns the parameters after each update, and the last state."""

  @jax.jit
  def run(w, state, given):
    def step(carry, _):
      w, state = carry
      updates, state = tx.update(gradient(w), state, w, **given)
      w = optax.apply_updates(w, updates)
      return (w, state), w

    return jax.lax.scan(step, (w, state), length=steps)

  (_, state), ws = run(start, tx.init(start) if state is None else state, given)
  return np.asarray(ws), state


@pytest.mark.parametrize('move', [flip, shake])
def test_it_is_the_loop(move):
  tx = optax.chain(
    optax.sgd(0.1), transforms.perturb(move, 3, jax.random.key(5), until=6)
  )
  w = jnp.asarray(TARGET[::-1])
  found, _ = path(tx, w, 10)
  for number in range(10):
    w = w - 0.1 * gradient(w)
    if number in (0, 3):
      key = jax.random.fold_in(jax.random.key(5), number)
      w = move(key, w)
    np.testing.assert_allclose(found[number], w, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[number] < 0, w < 0)


def test_signs_of_the_smallest_weights_flip_too():
  tx = optax.chain(
    optax.sgd(1.0),
    transforms.perturb(functools.partial(flip, number=4), 1, jax.random.key(0)),
  )
  start = jnp.array([1.0, -1.0, 3.0, -2e-30], jnp.float32)
  reached = jnp.array([1e-7, -1e-7, 0.0, -1e-30], jnp.float32)
  updates, _ = tx.update(start - reached, tx.init(start), start)
  found = optax.apply_updates(start, updates)
  np.testing.assert_array_equal(found < 0, [True, False, True, False])
  assert (jnp.abs(found) < 1e-6).all()


def test_seeds_draw_their_own_and_lanes_equal_loops():
  """Also nested, with keys as lanes, and with another phase in each lane."""
  keys = jax.random.split(jax.random.key(1), (2, 3))
  starts = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 7)))
  starts = starts.astype(jnp.float32)

  def end(key, start, move=flip):
    tx = optax.chain(optax.sgd(0.1), transforms.perturb(move, 4, key))

    def step(carry, _):
      w, state = carry
      updates, state = tx.update(gradient(w), state, w)
      return (optax.apply_updates(w, updates), state), None

    return jax.lax.scan(step, (start, tx.init(start)), length=9)[0][0]

  found = jax.jit(jax.vmap(jax.vmap(end)))(keys, starts)
  alone = jax.jit(end)
  for lane in np.ndindex(2, 3):
    np.testing.assert_allclose(
      found[lane], alone(keys[lane], starts[lane]), rtol=1e-5, atol=1e-6
    )
  assert len({np.asarray(row).tobytes() for row in found.reshape(6, 7)}) == 6


def test_lanes_without_a_perturbation_do_not_draw():
  """The branch is taken where some lane is due, not computed for all updates."""
  drawn = []

  def move(key, params):
    del key
    jax.debug.callback(drawn.append, params[0])
    return -params

  tx = transforms.perturb(move, 4, jax.random.key(0))
  step = jax.jit(jax.vmap(lambda w, state: tx.update(0 * w, state, w)))
  w = jnp.arange(6.0).reshape(3, 2)
  state = jax.vmap(tx.init)(w)
  for _ in range(9):
    _, state = step(w, state)
  jax.effects_barrier()
  assert len(drawn) == 9  # Three lanes in updates 0, 4 and 8.


def test_lanes_that_are_due_at_different_times():
  tx = transforms.perturb(lambda key, params: -params, 2, jax.random.key(0))
  state = transforms.PerturbState(
    jnp.array([0, 1, 2], jnp.int32), jnp.zeros((3, 2), jnp.uint32)
  )
  params = jnp.array([[1.0], [2.0], [3.0]])
  updates, state = jax.vmap(tx.update)(jnp.zeros((3, 1)), state, params)
  np.testing.assert_allclose(params + updates, [[-1], [2], [-3]])
  np.testing.assert_array_equal(state.count, [1, 2, 3])
  # Parameters that lanes share.
  moved, _ = jax.vmap(
    lambda s: tx.update(jnp.zeros(1), s, jnp.ones(1))
  )(state)  # fmt: skip
  np.testing.assert_allclose(1 + moved, [[1], [-1], [1]])


def test_what_is_needed_is_passed_on_and_resuming_changes_nothing():
  gains = jnp.where(jnp.arange(7) == 3, 1e4, 0.0)

  def weighted(key, params, gains):
    return searches.flip_signs(params, key, 1, gains=gains)

  tx = optax.chain(
    optax.adam(0.01),
    transforms.perturb(weighted, 4, jax.random.key(2), needs=('gains',)),
  )
  start = jnp.asarray(TARGET)
  whole, last = path(tx, start, 8, gains=gains)
  assert ((whole[0] < 0) != (start < 0)).tolist() == [False] * 3 + [True] + [
    False
  ] * 3
  first, state = path(tx, start, 3, gains=gains)
  rest, again = path(tx, jnp.asarray(first[-1]), 5, state, gains=gains)
  np.testing.assert_array_equal(np.concatenate([first, rest]), whole)
  np.testing.assert_array_equal(
    jax.tree.leaves(again)[-1], jax.tree.leaves(last)[-1]
  )
  with pytest.raises(types.BadInput, match='perturb needs gains'):
    tx.update(start, tx.init(start), start)


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    ({'every': 0}, 'every must be'),
    ({'until': -1}, 'until must be'),
    ({'move': 'flip'}, "move must be a function; got 'flip'"),
    ({'needs': 'view'}, 'needs must be names'),
    ({'move': lambda key, params: params[:2]}, 'move must return parameters'),
  ],
)
def test_bad_input(options, words):
  given = {'move': flip, 'every': 2, 'key': jax.random.key(0)} | options
  with pytest.raises(types.BadInput, match=words):
    tx = transforms.perturb(**given)
    tx.update(jnp.ones(3), tx.init(jnp.ones(3)), jnp.ones(3))
  with pytest.raises(types.BadInput, match='floating'):
    transforms.perturb(flip, 2, jax.random.key(0)).init(jnp.arange(3))
