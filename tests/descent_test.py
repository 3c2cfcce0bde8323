"""`descend` against a Python loop, and the geometry of noise and reach."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import descent
from bitjax import transforms
from bitjax import types

RADII = {'l2': 0.3, 'linf': 0.05, 'l1': 1.0, 'flips': 3.0}
OPTIMIZERS = {
  'sgd': lambda: optax.sgd(0.1),
  'momentum': lambda: optax.sgd(0.1, momentum=0.9),
  'adam': lambda: optax.adam(0.03),
}


def quadratic(params, target):
  return sum(jnp.sum((params[name] - target[name]) ** 2) for name in params)


@pytest.fixture
def problem():
  rng = np.random.default_rng(0)
  params = {'a': rng.normal(size=(4, 3)), 'b': rng.normal(size=5)}
  target = {'a': rng.normal(size=(4, 3)), 'b': rng.normal(size=5)}
  cast = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)
  return cast(params), cast(target)


def size(norm, params, anchor):
  a, b = (
    np.concatenate(
      [np.ravel(tree[name]).astype(float) for name in sorted(tree)]
    )
    for tree in (params, anchor)
  )
  if norm == 'flips':
    return np.sum((a >= 0) != (b >= 0))
  return np.linalg.norm(a - b, {'l2': 2, 'l1': 1, 'linf': np.inf}[norm])


@pytest.mark.parametrize(
  ('optimizer', 'norm', 'anchor'),
  [
    ('sgd', 'l2', 'start'),
    ('adam', 'l2', 'noised'),
    pytest.param('adam', 'linf', 'start', marks=pytest.mark.slow),
    pytest.param('momentum', 'l1', 'noised', marks=pytest.mark.slow),
    pytest.param('momentum', 'flips', 'start', marks=pytest.mark.slow),
  ],
)
def test_equals_a_python_loop(problem, optimizer, norm, anchor):
  params, target = problem
  tx, budget = OPTIMIZERS[optimizer](), types.Budget(RADII[norm], norm, anchor)
  value_and_grad = jax.value_and_grad(quadratic)
  perturbation = jax.tree.map(lambda x: 0.01 * jnp.cos(x), params)
  found = jax.jit(
    lambda params, target: descent.descend(
      value_and_grad,
      tx,
      params,
      4,
      target,
      budget=budget,
      perturbation=perturbation,
      monitor=lambda p: p['b'],
    )
  )(params, target)

  start = optax.tree.add(params, perturbation)
  project = jax.jit(transforms.project)
  start = project(start, params, budget)
  centre = start if anchor == 'noised' else params
  current, state = start, tx.init(centre)
  for step in range(5):
    loss, grads = value_and_grad(current, target)
    np.testing.assert_allclose(found.losses[step], loss, rtol=1e-5)
    np.testing.assert_allclose(found.monitored[step], current['b'], atol=1e-5)
    np.testing.assert_allclose(
      found.displacements[step], size(norm, current, centre), atol=1e-5
    )
    assert found.flips[step] == size('flips', current, centre)
    if step < 4:
      updates, state = tx.update(grads, state, current)
      moved = optax.apply_updates(current, updates)
      current = project(moved, centre, budget)
  for name in params:
    np.testing.assert_allclose(found.params[name], current[name], atol=1e-5)
  assert found.losses.shape == (5,)
  assert size(norm, found.params, centre) <= RADII[norm] * (1 + 1e-6)


def test_zero_steps_and_no_budget(problem):
  params, target = problem
  loss = jax.value_and_grad(quadratic)
  found = descent.descend(loss, optax.sgd(1.0), params, 0, target)
  assert found.losses.shape == (1,) and found.displacements[0] == 0
  assert found.monitored is None
  found = descent.descend(loss, optax.sgd(0.5), params, 1, target)
  np.testing.assert_allclose(found.losses[-1], 0, atol=1e-6)  # One exact step.


def test_user_transform_remembers_the_original_start(problem):
  params, target = problem
  tx = optax.chain(optax.sgd(1.0), transforms.project_budget(1e-3, 'linf'))
  far = jax.tree.map(lambda x: 0.1 * jnp.ones_like(x), params)
  found = descent.descend(
    jax.value_and_grad(quadratic), tx, params, 1, target, perturbation=far
  )
  assert size('linf', found.params, params) <= 1e-3


@pytest.mark.slow
def test_a_diverging_lane_leaves_others_alone(problem):
  params, target = problem
  loss = jax.value_and_grad(quadratic)
  run = lambda rate: descent.descend(loss, optax.sgd(rate), params, 3, target)
  together = jax.vmap(run)(jnp.array([0.1, jnp.nan]))
  alone = jax.vmap(run)(jnp.array([0.1, 0.1]))
  assert jnp.isnan(together.losses[1, 1:]).all()
  np.testing.assert_array_equal(together.losses[0], alone.losses[0])


def test_negative_number_of_steps(problem):
  with pytest.raises(types.BadInput, match='num_steps'):
    descent.descend(None, optax.sgd(1.0), problem[0], -1)


@pytest.mark.parametrize('norm', types.NORMS)
@pytest.mark.parametrize('fraction', [0.0, 0.4, 1.0])
def test_noise_spends_its_fraction(norm, fraction):
  params = {'w': jnp.linspace(-1, 1, 101), 'v': jnp.zeros((3, 2))}
  budget = types.Budget(10.0 if norm == 'flips' else 0.5, norm)
  draws = [
    descent.noise(jax.random.key(seed), params, budget, fraction)
    for seed in range(3)
  ]
  moved = [optax.tree.add(params, draw) for draw in draws]
  for point in moved:
    spent, limit = size(norm, point, params), fraction * budget.radius
    if norm == 'linf':
      assert 0.9 * limit <= spent <= limit
    else:
      np.testing.assert_allclose(spent, limit, rtol=1e-5, atol=1e-6)
  if fraction:
    assert (draws[0]['w'] != draws[1]['w']).any()


def test_noise_has_no_preferred_direction():
  params, budget = jnp.ones(4), types.Budget(1.0)
  draws = jax.vmap(lambda key: descent.noise(key, params, budget, 1.0))(
    jax.random.split(jax.random.key(0), 4000)
  )
  # A uniform point of the sphere in 4 dimensions: mean 0, variance 1/4.
  np.testing.assert_allclose(draws.mean(0), 0, atol=0.03)
  np.testing.assert_allclose(draws.T @ draws / 4000, np.eye(4) / 4, atol=0.03)


def test_noise_flips_are_uniform_over_weights():
  params, budget = jnp.array([0.0, -1.0, 2.0, -3.0]), types.Budget(2, 'flips')
  draws = jax.vmap(lambda key: descent.noise(key, params, budget, 1.0))(
    jax.random.split(jax.random.key(0), 2000)
  )
  params, draws = np.asarray(params), np.asarray(draws)
  flipped = (draws + params >= 0) != (params >= 0)
  assert (flipped.sum(1) == 2).all()
  np.testing.assert_allclose(flipped.mean(0), 0.5, atol=0.05)


@pytest.mark.parametrize('norm', types.NORMS)
def test_reach_comes_to_the_edge(norm):
  rng = np.random.default_rng(1)
  params = {'w': jnp.asarray(rng.normal(size=(9, 7)), jnp.float32)}
  direction = {'w': jnp.asarray(rng.normal(size=(9, 7)), jnp.float32)}
  budget = types.Budget(6.0 if norm == 'flips' else 0.7, norm)
  rate = descent.reach(params, direction, budget)
  spent = lambda eta: size(
    norm, optax.tree.add_scale(params, -eta, direction), params
  )
  if norm == 'flips':
    assert spent(rate * (1 + 1e-5)) == 6 and spent(rate * (1 - 1e-5)) == 5
  else:
    np.testing.assert_allclose(spent(rate), budget.radius, rtol=1e-5)


@pytest.mark.parametrize('norm', types.NORMS)
def test_reach_of_a_zero_direction_is_zero(norm):
  params = jnp.ones(5)
  assert descent.reach(params, jnp.zeros(5), types.Budget(1.0, norm)) == 0


@pytest.mark.parametrize('norm', types.NORMS)
def test_reachable_flips_by_exhaustion(norm):
  params = np.array([0.3, -0.1, 0.05, 0.4, -0.25, 0.0])
  budget = types.Budget(2.0 if norm == 'flips' else 0.31, norm)
  best = 0
  for subset in range(2**6):
    chosen = np.abs(params[[subset >> i & 1 == 1 for i in range(6)]])
    cost = {
      'l2': np.linalg.norm(chosen),
      'l1': chosen.sum(),
      'linf': chosen.max(initial=0),
      'flips': chosen.size,
    }[norm]
    best = max(best, chosen.size if cost <= budget.radius else 0)
  found = descent.reachable_flips(jnp.asarray(params, jnp.float32), budget)
  assert found == best


@pytest.mark.parametrize('unit', [1e-22, 1.0, 1e22])
@pytest.mark.parametrize('norm', ['l2', 'l1', 'linf'])
def test_reachable_flips_know_no_unit(norm, unit):
  """Squares of such weights leave float32."""
  params = jnp.float32(np.array([3.0, -4.0, 6.0]) * unit)
  for radius, wanted in (
    (0.0, 0),
    (2.0, 0),
    (5.5, {'l2': 2, 'l1': 1, 'linf': 2}[norm]),
    (1e9, 3),
    (np.inf, 3),
  ):
    budget = types.Budget(jnp.float32(radius * unit), norm)
    assert descent.reachable_flips(params, budget) == wanted


def test_breakpoints_of_tiny_weights():
  """The product of a weight and its direction underflows."""
  params, direction = np.float32([[3e-23, -1e-23, 2], [1e-23, -1e-23, -1]])
  rates = [
    descent.reach(params, direction, types.Budget(radius, 'flips'))
    for radius in (1, 2)
  ]
  np.testing.assert_allclose(rates, [1, 3], rtol=1e-6)


@pytest.mark.parametrize('radius', [None, object(), jax.random.key(0)])
def test_a_radius_that_is_no_number(radius):
  budget = types.Budget(1.0)
  object.__setattr__(budget, 'radius', radius)  # As JAX rebuilds budgets.
  for call in (
    lambda: descent.reachable_flips(jnp.ones(3), budget),
    lambda: descent.reach(jnp.ones(3), jnp.ones(3), budget),
    lambda: descent.noise(jax.random.key(0), jnp.ones(3), budget, 0.5),
    lambda: transforms.project(jnp.ones(3), jnp.zeros(3), budget),
  ):
    with pytest.raises(types.BadInput, match=r'radius must be a number; got'):
      call()


def test_reach_of_tiny_and_huge_directions():
  """Squares of such entries leave float32; a power of two rounds nothing."""
  direction = {'a': jnp.array([3.0, -4.0]), 'b': jnp.array(12.0)}
  params = jax.tree.map(jnp.ones_like, direction)
  for norm in ('l2', 'l1', 'linf'):
    budget = types.Budget(0.5, norm)
    want = descent.reach(params, direction, budget)
    for unit in (2.0**-90, 2.0**90):
      scaled = jax.tree.map(lambda d, unit=unit: d * unit, direction)
      assert descent.reach(params, scaled, budget) * unit == want
