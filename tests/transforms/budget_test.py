"""The budget's guarantee on what is stored, and its company in optax."""

import contextlib
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import transforms
from bitjax import tree as tree_lib
from bitjax import types

NORMS = ('l2', 'linf', 'l1', 'flips')
DTYPES = ('float16', 'bfloat16', 'float32', 'float64')
ROOT = pathlib.Path(__file__).parents[2]


def flat(tree):
  leaves = [np.asarray(x).astype(np.longdouble) for x in jax.tree.leaves(tree)]
  return np.concatenate([np.ravel(leaf) for leaf in leaves])


def excess(params, anchor, radius, norm):
  """By how much the stored numbers exceed the budget, in extended precision.

  In units of the radius, or a number of flips; <= 0 inside.
  """
  w, a = flat(params), flat(anchor)
  if norm == 'flips':
    return np.sum((w >= 0) != (a >= 0)) - np.floor(radius)
  d = np.abs(w - a)
  size = {'l2': np.sqrt(np.sum(d**2)), 'l1': np.sum(d), 'linf': np.max(d)}
  return float(size[norm] / np.longdouble(radius) - 1)


def allowed(norm, dtype):
  return 4 * float(jnp.finfo(dtype).eps) if norm in ('l2', 'l1') else 0.0


def random_tree(rng, dtype, scale=1.0):
  def draw(*shape):
    # Magnitudes over five decades: sums round in every way.
    values = rng.normal(size=shape) * 10.0 ** -rng.uniform(0, 5, size=shape)
    return jnp.asarray(values * scale, dtype)

  return {
    'dense': {'kernel': draw(40, 7)},
    'empty': [draw(0, 3), None, ()],
    'scalar': draw(),
  }


@functools.cache
def jitted_step(norm):
  """One compile serves all radii and learning rates."""

  def step(params, state, grads, rate, radius):
    tx = optax.chain(
      optax.scale(-rate), transforms.project_budget(radius, norm)
    )
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  return jax.jit(step)


@pytest.mark.parametrize(
  ('norm', 'dtype'),
  [
    pytest.param(
      norm,
      dtype,
      marks=pytest.mark.slow
      if dtype == 'float16' or (dtype == 'float64' and norm != 'l2')
      else (),
    )
    for norm in NORMS
    for dtype in DTYPES
  ],
)
def test_guarantee_holds_for_what_is_stored(norm, dtype):
  wide = jax.enable_x64() if dtype == 'float64' else contextlib.nullcontext()
  with wide:
    rng = np.random.default_rng(0)
    step = jitted_step(norm)
    compiled = step._cache_size()
    reached = False
    for _ in range(12):
      params = random_tree(rng, dtype, 10 ** rng.uniform(-3, 1))
      radius = 10 ** rng.uniform(-3, 1) if norm != 'flips' else rng.integers(60)
      radius = jnp.asarray(radius, jnp.result_type(float))
      tx = transforms.project_budget(radius, norm)
      anchor, state = params, (optax.EmptyState(), tx.init(params))
      for _ in range(4):
        grads = random_tree(rng, dtype)
        rate = jnp.asarray(10 ** rng.uniform(-2, 1), dtype)
        params, state = step(params, state, grads, rate, radius)
        over = excess(params, anchor, radius, norm)
        assert over <= allowed(norm, dtype)
        slack = 0.5 if norm != 'flips' else 0
        reached |= bool(over >= -slack and radius > 0)
    assert reached  # Otherwise nothing was tested.
    assert step._cache_size() == compiled + 1


def test_guarantee_holds_op_by_op():
  rng = np.random.default_rng(1)
  anchor = params = jnp.asarray(rng.normal(size=300), jnp.float32)
  tx = transforms.project_budget(0.1, 'linf')
  state = tx.init(params)
  for _ in range(3):
    updates = jnp.asarray(rng.normal(size=300), jnp.float32)
    updates, state = tx.update(updates, state, params)
    params = optax.apply_updates(params, updates)
    assert excess(params, anchor, 0.1, 'linf') <= 0


def test_multiply_adds_do_not_leak_through_the_ball():
  """``params - rate * grads`` is fused where the sum is not."""
  rng = np.random.default_rng(2)
  anchor = params = jnp.asarray(rng.normal(size=4096), jnp.float32)
  tx = optax.chain(optax.scale(-0.1), transforms.project_budget(0.1, 'linf'))

  @jax.jit
  def many_steps(params, grads):
    state = tx.init(anchor)
    for i in range(4):  # Unrolled: XLA may fuse a step with the next.
      updates, state = tx.update(grads[i], state, params)
      params = optax.apply_updates(params, updates)
    return params

  grads = jnp.asarray(rng.normal(size=(4, 4096)), jnp.float32)
  assert excess(many_steps(params, grads), anchor, 0.1, 'linf') <= 0


@pytest.mark.parametrize('norm', ['l2', 'linf'])
def test_excess_precision_does_not_leak_through_the_ball(norm):
  """XLA keeps what is bfloat16 within a step in float32."""
  rng = np.random.default_rng(3)
  radius = {'l2': 1.0, 'linf': 0.1}[norm]
  tx = optax.chain(optax.scale(-0.1), transforms.project_budget(radius, norm))
  anchor = jnp.asarray(rng.normal(size=1000), jnp.bfloat16)
  grads = jnp.asarray(rng.normal(size=(5, 1000)), jnp.bfloat16)

  def step(params, grads):
    updates, _ = tx.update(grads, tx.init(anchor), params)
    params = optax.apply_updates(params, updates)
    return params, params

  _, path = jax.jit(lambda p, g: jax.lax.scan(step, p, g))(anchor, grads)
  for params in np.asarray(path):
    over = excess(params, anchor, radius, norm)
    assert over <= allowed(norm, 'bfloat16')


@pytest.mark.parametrize(
  ('param_dtype', 'update_dtype'),
  [('bfloat16', 'float32'), ('bfloat16', 'float16'), ('float32', 'bfloat16')],
)
def test_updates_of_another_dtype(param_dtype, update_dtype):
  rng = np.random.default_rng(4)
  anchor = params = jnp.asarray(rng.normal(size=200), param_dtype)
  tx = transforms.project_budget(1.0, 'l2')
  state = tx.init(params)
  updates = jnp.asarray(rng.normal(size=200), update_dtype)
  updates, state = jax.jit(tx.update)(updates, state, params)
  assert updates.dtype == jnp.promote_types(param_dtype, update_dtype)
  params = optax.apply_updates(params, updates)
  assert params.dtype == param_dtype
  assert excess(params, anchor, 1.0, 'l2') <= allowed('l2', param_dtype)


@pytest.mark.parametrize('norm', NORMS)
def test_inside_the_ball_updates_are_untouched(norm):
  rng = np.random.default_rng(5)
  params = np.float32(rng.normal(size=90))
  updates = np.float32(rng.normal(size=90))
  tx = transforms.project_budget(1e4, norm)
  got, _ = jax.jit(tx.update)(updates, tx.init(params), params)
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(updates), strict=True):
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_float16_next_to_zero():
  """Subnormal numbers, 1 000 of which make the smallest normal one."""
  rng = np.random.default_rng(7)
  step = jitted_step('l2')
  values = rng.normal(size=3000) * 10.0 ** -rng.uniform(0, 6, size=3000)
  anchor = jnp.asarray(values * 0.08, jnp.float16)
  tx = transforms.project_budget(0.0)
  state = (optax.EmptyState(), tx.init(anchor))
  grads = jnp.asarray(rng.normal(size=3000), jnp.float16)
  for radius in 10.0 ** np.arange(-5, 0):
    radius = jnp.float32(radius)
    params, _ = step(anchor, state, grads, jnp.float16(1), radius)
    assert excess(params, anchor, radius, 'l2') <= allowed('l2', 'float16')


def test_a_move_too_small_for_bfloat16_is_lost():
  params = jnp.ones(1, jnp.bfloat16)
  tx = transforms.project_budget(0.003, 'linf')
  updates, _ = jax.jit(tx.update)(jnp.ones(1), tx.init(params), params)
  assert optax.apply_updates(params, updates) == 1


def test_from_outside_two_updates_reach_the_ball():
  anchor, params = jnp.full(3, 0.1), jnp.array([100.0, -1e4, 0.1])
  tx = transforms.project_budget(1e-9, 'linf', anchor=anchor)
  state = tx.init(params)
  update = jax.jit(tx.update)
  for _ in range(2):
    updates, state = update(jnp.zeros(3), state, params)
    params = optax.apply_updates(params, updates)
  np.testing.assert_array_equal(params, anchor)


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
def test_a_denied_flip_of_a_negative_weight_stays_negative(dtype):
  # -0.3 + fl(0.3 - tiny) is 0, which counts as positive.
  anchor = jnp.asarray([-0.3, -1e-7, 0.3, -2.0], dtype)
  params = jnp.asarray([-0.3, -0.7, -0.1, 0.4], dtype)
  tx = transforms.project_budget(0, 'flips', anchor=anchor)
  for push in (jnp.asarray([9.0, 9, -9, 9], dtype), jnp.zeros(4, dtype)):
    updates, _ = jax.jit(tx.update)(push, tx.init(params), params)
    assert tree_lib.flips(optax.apply_updates(params, updates), anchor) == 0


def test_anchors_are_found_by_path():
  params = {'kernel': jnp.ones((2, 2)), 'bias': jnp.zeros(2)}
  start = jax.tree.map(lambda x: x - 0.5, params)
  tx = optax.masked(
    transforms.project_budget(0.1, 'linf', anchor=start),
    tree_lib.mask_by_name(params, 'kernel'),
  )
  state = tx.init(params)
  updates = jax.tree.map(jnp.ones_like, params)
  updates, _ = jax.jit(tx.update)(updates, state, params)
  got = optax.apply_updates(params, updates)
  np.testing.assert_allclose(got['kernel'], np.full((2, 2), 0.6), rtol=1e-6)
  np.testing.assert_array_equal(got['bias'], np.ones(2))
  with pytest.raises(types.BadInput, match='kernel'):
    transforms.project_budget(1.0, anchor={'bias': 0.0}).init(params)
  with pytest.raises(types.BadInput, match='shape'):
    transforms.project_budget(1.0, anchor=jnp.zeros(3)).init(jnp.zeros(2))


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_l1_of_low_precision_stays_inside(dtype):
  """An update of few digits misses the centre of many entries, on either side."""
  rng = np.random.default_rng(0)
  anchors = jnp.asarray(rng.normal(size=(400, 200)), dtype)
  radii = jnp.asarray(10 ** rng.uniform(-1, 2, 400), jnp.float32)

  @jax.jit
  @jax.vmap
  def step(params, anchor, radius, update):
    tx = transforms.project_budget(radius, 'l1')
    update, _ = tx.update(update, tx.init(anchor), params)
    return optax.apply_updates(params, update)

  params, size = anchors, rng.choice([0.01, 0.1, 1, 10], (6, 400, 1))
  for update in jnp.asarray(rng.normal(size=(6, 400, 200)) * size, dtype):
    params = step(params, anchors, radii, update)
    moved = np.asarray(params, float) - np.asarray(anchors, float)
    used = np.abs(moved).sum(axis=1) / np.asarray(radii, float)
    assert used.max() <= 1 + 4 * jnp.finfo(jnp.float32).eps
    assert np.mean(used > 0.9) > 0.3  # Most updates lead to the surface.
  again = step(params, anchors, radii, jnp.zeros_like(params))
  np.testing.assert_array_equal(again, params)


def test_errors():
  with pytest.raises(types.BadInput, match='l2, linf, l1, flips'):
    transforms.project_budget(1.0, 'l3')
  for radius in (-1.0, np.nan, jnp.float32(-1), None, '0.1'):
    with pytest.raises(types.BadInput, match='radius'):
      transforms.project_budget(radius)
  with pytest.raises(types.BadInput, match='floating'):
    transforms.project_budget(1.0).init(jnp.arange(3))
  tx = transforms.project_budget(1.0)
  with pytest.raises(types.BadInput, match='`params`'):
    tx.update(jnp.zeros(2), tx.init(jnp.zeros(2)))


def descend(tx, params, num_steps=6, gradient=None):
  """Follows ``sum(w)`` down; returns the parameters and the last state."""

  def step(carry, _):
    params, state = carry
    grads = jax.tree.map(jnp.ones_like, params)
    if gradient is not None:
      grads = gradient(grads)
    updates, state = tx.update(grads, state, params)
    return (optax.apply_updates(params, updates), state), None

  start = params, tx.init(params)
  run = jax.jit(lambda start: jax.lax.scan(step, start, None, num_steps)[0])
  return run(start)


PARAMS = {'kernel': np.ones((3, 2), np.float32), 'bias': np.ones(2, np.float32)}


def check_at(params, norm, radius):
  """Over all entries, or the radius shared by those of a tree of one leaf."""
  moved = tree_lib.norm(jax.tree.map(lambda x: x - 1, params), norm)
  np.testing.assert_allclose(moved, radius, rtol=1e-5)


def test_in_chain_with_adam_and_extra_args():
  tx = optax.chain(optax.adam(0.1), transforms.project_budget(0.3, 'l2'))
  check_at(descend(tx, PARAMS)[0], 'l2', 0.3)
  state = tx.init(PARAMS)
  # As line searches pass.
  jax.eval_shape(lambda p: tx.update(p, state, p, value=1.0), PARAMS)


def test_in_masked():
  mask = tree_lib.mask_by_name(PARAMS, 'kernel')
  budget = optax.masked(transforms.project_budget(0.3, 'l1'), mask)
  got, _ = descend(optax.chain(optax.sgd(0.1), budget), PARAMS)
  check_at(got['kernel'], 'l1', 0.3)
  np.testing.assert_allclose(got['bias'], 0.4, rtol=1e-5)


def test_in_partition():
  tx = optax.partition(
    {
      name: optax.chain(optax.sgd(0.1), transforms.project_budget(r, 'linf'))
      for name, r in (('kernel', 0.2), ('bias', 0.3))
    },
    {'kernel': 'kernel', 'bias': 'bias'},
  )
  got, _ = descend(tx, PARAMS)
  check_at(got['kernel'], 'linf', 0.2)
  check_at(got['bias'], 'linf', 0.3)


def test_in_multi_steps():
  chain = optax.chain(optax.sgd(1.0), transforms.project_budget(0.3, 'l2'))
  tx = optax.MultiSteps(chain, every_k_schedule=2)
  got, _ = descend(tx, PARAMS, num_steps=1)
  check_at(got, 'l2', 0)
  got, _ = descend(tx, PARAMS, num_steps=2)
  check_at(got, 'l2', 0.3)


@pytest.mark.parametrize('norm', ['l2', 'linf'])
def test_in_apply_if_finite(norm):
  nan = lambda grads: {**grads, 'bias': grads['bias'].at[0].set(jnp.nan)}
  chain = optax.chain(optax.sgd(0.1), transforms.project_budget(0.3, norm))
  got, _ = descend(chain, PARAMS, 1, nan)
  assert np.isnan(got['bias'][0])  # Not hidden.
  wrapped = optax.apply_if_finite(chain, max_consecutive_errors=10)
  got, state = descend(wrapped, PARAMS, 3, nan)
  check_at(got, 'l2', 0)
  assert state.total_notfinite == 3


def test_in_inject_hyperparams():
  injected = optax.inject_hyperparams(transforms.project_budget)
  got, state = descend(
    optax.chain(optax.sgd(1.0), injected(radius=0.25, norm='linf')), PARAMS
  )
  check_at(got, 'linf', 0.25)
  assert list(state[1].hyperparams) == ['radius']
  # A schedule: the ball of the step at hand.
  schedule = optax.linear_schedule(0.1, 0.4, 3)
  tx = optax.chain(optax.sgd(1.0), injected(radius=schedule, norm='l2'))
  for num_steps, radius in ((1, 0.1), (2, 0.2), (6, 0.4)):
    check_at(descend(tx, PARAMS, num_steps)[0], 'l2', radius)


@pytest.mark.parametrize('norm', ['l1', 'flips'])
def test_vmap_over_radius_and_lanes_is_the_loop(norm):
  rng = np.random.default_rng(6)
  params = np.float32(rng.normal(size=(3, 50)))
  grads = np.float32(rng.normal(size=(3, 50)))
  radii = np.float32([1.0, 0.1, 4.0] if norm != 'flips' else [3, 0, 7])

  def one(params, grads, radius):
    tx = transforms.project_budget(radius, norm)
    return tx.update(grads, tx.init(params), params)[0]

  got = jax.jit(jax.vmap(one))(params, grads, radii)
  single = jax.jit(one)
  for i, args in enumerate(zip(params, grads, radii, strict=True)):
    np.testing.assert_allclose(got[i], single(*args), rtol=1e-5, atol=1e-6)
  assert single._cache_size() == 1


def test_gradient_through_a_step_with_respect_to_radius_and_rate():
  params, target = jnp.zeros(3), jnp.array([1.0, 2.0, 2.0])

  def loss(radius, rate):
    tx = optax.chain(optax.sgd(rate), transforms.project_budget(radius))
    updates, _ = tx.update(-target, tx.init(params), params)
    return jnp.sum(target * optax.apply_updates(params, updates))

  # Along target / 3 as far as the radius, whatever the rate.
  by_radius, by_rate = jax.jit(jax.grad(loss, argnums=(0, 1)))(0.5, 1.0)
  np.testing.assert_allclose(by_radius, 3.0, rtol=1e-5)
  np.testing.assert_allclose(by_rate, 0.0, atol=1e-5)
  # Inside, the other way round.
  by_radius, by_rate = jax.jit(jax.grad(loss, argnums=(0, 1)))(50.0, 1.0)
  np.testing.assert_allclose(by_radius, 0.0, atol=1e-5)
  np.testing.assert_allclose(by_rate, 9.0, rtol=1e-5)


def test_parameters_and_state_may_both_be_donated():
  params = jnp.ones(3)
  tx = transforms.project_budget(0.1)
  state = tx.init(params)
  assert state.anchor.unsafe_buffer_pointer() != params.unsafe_buffer_pointer()
