"""Projections: against sorting oracles, and what defines a projection."""

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import transforms
from bitjax import tree as tree_lib
from bitjax import types

pytestmark = pytest.mark.optimised  # Arithmetic, to the last bit.

BALLS = ('l2', 'linf', 'l1')
NORMS = (*BALLS, 'flips')
SIZE = 6

_jitted = jax.jit(transforms.project)


def project_l2(w, a, radius):
  size = np.linalg.norm(w - a)
  return w if size <= radius else a + (w - a) * radius / size


def project_linf(w, a, radius):
  return np.clip(w, a - radius, a + radius)


def project_l1(w, a, radius):
  """Duchi et al., 2008, figure 1: the threshold from the sorted magnitudes."""
  d = w - a
  if np.abs(d).sum() <= radius:
    return w
  ordered = np.sort(np.abs(d))[::-1]
  excess = (np.cumsum(ordered) - radius) / np.arange(1, d.size + 1)
  # At equality the threshold is the same; at radius 0 nothing exceeds it.
  threshold = excess[np.nonzero(ordered >= excess)[0][-1]]
  return a + np.sign(d) * np.maximum(np.abs(d) - threshold, 0)


def project_flips(w, a, radius, tiny):
  flipped = np.nonzero((w < 0) != (a < 0))[0]
  order = flipped[np.argsort(-np.abs(w[flipped]), kind='stable')]
  back = order[int(radius) :]
  projected = w.copy()
  projected[back] = np.where(a[back] < 0, -tiny, 0)
  return projected


ORACLES = {'l2': project_l2, 'linf': project_linf, 'l1': project_l1}


def project(w, a, radius, norm):
  """The jitted projection: one compile for each norm, dtype and shape."""
  budget = types.Budget(jnp.float32(radius), norm)
  return np.asarray(_jitted(jnp.asarray(w), jnp.asarray(a), budget))


def oracle(w, a, radius, norm):
  args = np.float64(w), np.float64(a), float(np.float32(radius))
  if norm == 'flips':
    return project_flips(*args, float(jnp.finfo(w.dtype).tiny))
  return ORACLES[norm](*args)


@pytest.mark.parametrize('spread', [0.0, 6.0])
@pytest.mark.parametrize('norm', NORMS)
def test_equals_the_oracle(norm, spread):
  rng = np.random.default_rng(0)
  for radius in (1e-3, 0.1, 3.0, 40.0, 1e3):
    a = np.float32(rng.normal(size=2000) * 0.1)
    scale = 10.0 ** -rng.uniform(0, spread, size=2000)
    w = np.float32(a + rng.normal(size=2000) * scale)
    got = project(w, a, radius, norm)
    want = oracle(w, a, radius, norm)
    largest = np.max(np.abs(w - a))
    np.testing.assert_allclose(got, want, rtol=2e-7, atol=4e-7 * largest)


def test_l1_of_equal_entries():
  # All share the radius, a part of 2 000 each, far below an ulp of 1.
  w = np.ones(2000, np.float32)
  got = project(w, 0 * w, 1e-3, 'l1')
  np.testing.assert_allclose(got, 5e-7, rtol=1e-6)


def test_l1_of_any_spread_takes_few_passes():
  # Each magnitude twice the next: the hardest input for Newton's method.
  w = np.float32(2.0 ** -np.arange(60))
  for radius in (1e-10, 0.5, 1.9):
    got = project(w, 0 * w, radius, 'l1')
    want = oracle(w, 0 * w, radius, 'l1')
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


def test_over_a_whole_tree_as_over_one_vector():
  rng = np.random.default_rng(1)
  w = np.float32(rng.normal(size=26))
  a = np.float32(rng.normal(size=26))
  split = lambda x: {
    'b': [jnp.asarray(x[0]), jnp.zeros((0, 3))],
    'k': {'x': jnp.asarray(x[1:13].reshape(4, 3)), 'y': jnp.asarray(x[13:])},
    'none': None,
  }
  for norm, radius in zip(NORMS, (0.7, 0.2, 2.0, 5), strict=True):
    budget = types.Budget(radius, norm)
    got = _jitted(split(w), split(a), budget)
    assert jax.tree.structure(got) == jax.tree.structure(split(w))
    flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(got)])
    want = oracle(w, a, radius, norm)
    np.testing.assert_allclose(flat, want, rtol=1e-5, atol=1e-6)


numbers = st.floats(-4, 4, width=32, allow_subnormal=False)
vectors = st.lists(numbers, min_size=SIZE, max_size=SIZE).map(np.float32)
radii = st.floats(0, 8, width=32, allow_subnormal=False)
few = hypothesis.settings(max_examples=60, deadline=None, derandomize=True)


@few
@hypothesis.given(vectors, vectors, radii, st.sampled_from(NORMS))
def test_idempotent(w, a, radius, norm):
  once = project(w, a, radius, norm)
  twice = project(once, a, radius, norm)
  assert once.tobytes() == twice.tobytes()


@few
@hypothesis.given(vectors, vectors, radii, st.sampled_from(NORMS))
def test_inside_is_returned_bit_for_bit(w, a, radius, norm):
  if norm == 'flips':
    inside = np.sum((w < 0) != (a < 0)) <= radius
  else:
    orders = {'l2': 2, 'linf': np.inf, 'l1': 1}
    inside = np.linalg.norm(np.float64(w) - a, orders[norm]) <= radius
  if inside:
    assert project(w, a, radius, norm).tobytes() == w.tobytes()


@few
@hypothesis.given(vectors, vectors, vectors, radii, st.sampled_from(BALLS))
def test_non_expansive(w, v, a, radius, norm):
  p, q = project(w, a, radius, norm), project(v, a, radius, norm)
  before = np.linalg.norm(np.float64(w) - v)
  assert np.linalg.norm(np.float64(p) - q) <= before + 1e-5


@few
@hypothesis.given(vectors, vectors, radii, st.sampled_from(NORMS), vectors)
def test_no_feasible_point_is_nearer(w, a, radius, norm, other):
  p = np.float64(project(w, a, radius, norm))
  feasible = np.float64(oracle(other, a, radius, norm))
  distance = np.linalg.norm(p - w)
  assert distance <= np.linalg.norm(feasible - w) + 1e-5


@few
@hypothesis.given(vectors, vectors, radii)
def test_linf_is_never_outside_in_exact_arithmetic(w, a, radius):
  got = project(w, a, radius, 'linf')
  # Sums of two float32 of these sizes are exact in extended precision.
  excess = np.max(np.abs(np.longdouble(got) - a)) - np.longdouble(radius)
  assert excess <= 0


@pytest.mark.parametrize('norm', NORMS)
def test_radius_zero_is_the_anchor(norm):
  rng = np.random.default_rng(2)
  w, a = np.float32(rng.normal(size=(2, 50)))
  got = project(w, a, 0.0, norm)
  if norm == 'flips':
    assert tree_lib.flips(got, a) == 0
    same = (w < 0) == (a < 0)
    np.testing.assert_array_equal(got[same], w[same])
  else:
    np.testing.assert_array_equal(got, a)


def test_flips_at_ties_and_zeros():
  tiny = np.finfo(np.float32).tiny
  a = np.float32([-1, -1, 1, 1, -1, 0.0, -0.0, -1, 1])
  w = np.float32([0.0, -0.0, -2, -2, 2, -2, -2, 0.5, 3])
  # Six overshoot: five by 2 (positions 2 to 6) and one by 0.5; two by zero.
  for radius, kept in ((0, []), (2, [2, 3]), (4.9, [2, 3, 4, 5]), (6, None)):
    got = project(w, a, radius, 'flips')
    want = w.copy()
    positions = [2, 3, 4, 5, 6, 7] if kept is None else kept
    back = [i for i in [0, 1, 2, 3, 4, 5, 6, 7] if i not in positions]
    want[back] = np.where(a[back] < 0, -tiny, 0)
    np.testing.assert_array_equal(got, want)
    assert tree_lib.flips(got, a) == len(positions)
  # Zero overshoots are the least, and among them the first is kept.
  got = project(w, a, 7, 'flips')
  assert got[0] == 0 and got[1] == -tiny and tree_lib.flips(got, a) == 7
  assert project(w, a, 8, 'flips').tobytes() == w.tobytes()


def test_flips_at_ties_over_leaves_of_other_dtypes():
  a = {'a': jnp.ones(3, jnp.bfloat16), 'b': jnp.ones(3), 'c': jnp.ones(())}
  w = jax.tree.map(jnp.negative, a)
  got = _jitted(w, a, types.Budget(4, 'flips'))
  np.testing.assert_array_equal(got['a'], -np.ones(3))
  np.testing.assert_array_equal(got['b'], [-1.0, 0, 0])
  assert got['c'] == 0 and got['a'].dtype == jnp.bfloat16


def test_nan_and_infinity():
  nan, inf = np.nan, np.inf
  a = np.zeros(3, np.float32)
  w = np.float32([nan, -inf, 0.1])
  np.testing.assert_array_equal(
    project(w, a, 0.5, 'linf'), np.float32([nan, -0.5, 0.1])
  )
  np.testing.assert_array_equal(project(w, a + 1, 1, 'flips'), w)
  for norm in ('l2', 'l1'):
    assert np.all(np.isnan(project(w, a, 0.5, norm)))
    # Infinity alone, too: a projection to zero would hide it.
    w_inf = np.float32([1.0, -inf, 0.1])
    assert np.all(np.isnan(project(w_inf, a, 0.5, norm)))
    assert project(w_inf, a, inf, norm)[1] == -inf


def test_a_traced_radius_that_is_no_radius():
  w, a = np.float32([2.0, -2.0]), np.float32([1.0, 1.0])
  call = jax.jit(
    lambda radius, norm: transforms.project(w, a, types.Budget(radius, norm)),
    static_argnums=1,
  )
  for norm in BALLS:
    np.testing.assert_array_equal(call(-1.0, norm), a)
    assert np.all(np.isnan(call(jnp.nan, norm)))
  np.testing.assert_array_equal(call(jnp.nan, 'flips'), [2.0, 0.0])


def test_a_radius_between_two_floats_is_rounded_down():
  w, a = jnp.ones(1), jnp.zeros(1)
  assert np.float64(np.float32(0.1)) > 0.1
  for norm in BALLS:
    got = jax.jit(
      lambda w, a, norm=norm: transforms.project(w, a, types.Budget(0.1, norm))
    )(w, a)
    assert np.float64(got[0]) <= 0.1


@pytest.mark.parametrize('norm', BALLS)
def test_gradients_are_those_of_the_projection(norm):
  rng = np.random.default_rng(3)
  a = np.float32(rng.normal(size=SIZE))
  w = np.float32(a + rng.normal(size=SIZE))
  weights = rng.normal(size=SIZE)

  def loss(w, a, radius):
    p = transforms.project(w, a, types.Budget(radius, norm))
    return jnp.sum(jnp.asarray(weights, jnp.float32) * p)

  got = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(w, a, jnp.float32(0.7))
  point = np.concatenate([w, a, [0.7]]).astype(np.float64)
  value = lambda x: weights @ ORACLES[norm](x[:SIZE], x[SIZE : 2 * SIZE], x[-1])
  steps = 1e-6 * np.eye(point.size)
  want = [(value(point + s) - value(point - s)) / 2e-6 for s in steps]
  np.testing.assert_allclose(
    np.concatenate([got[0], got[1], [got[2]]]), want, rtol=1e-3, atol=1e-4
  )


def test_a_subnormal_number_inside_the_ball_stays():
  """XLA flushes it in any product."""
  w = np.float32([1e-40, -1e-42, 0.5, 2.0, 1.0, -0.0])
  got = project(w, 0 * w, 1.0, 'linf')
  want = np.float32([1e-40, -1e-42, 0.5, 1.0, 1.0, -0.0])
  assert got.tobytes() == want.tobytes()


def test_errors():
  budget = types.Budget(1.0)
  with pytest.raises(types.BadInput, match='floating'):
    transforms.project(jnp.arange(3), jnp.arange(3), budget)
  with pytest.raises(types.BadInput, match='shape'):
    transforms.project(jnp.zeros(3), jnp.zeros(2), budget)
  with pytest.raises(types.BadInput, match='radius must be one number'):
    radius = jnp.ones(3)
    transforms.project(jnp.ones(3), jnp.zeros(3), types.Budget(radius))
