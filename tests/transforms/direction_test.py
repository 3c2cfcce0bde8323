"""Normalised gradients and directions of steepest descent."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import transforms
from bitjax import tree as tree_lib
from bitjax import types

pytestmark = pytest.mark.optimised  # Arithmetic, to the last bit.

NORMS = ('l2', 'linf', 'l1')

tree_norm = jax.jit(tree_lib.norm, static_argnums=1)


@functools.cache
def jitted(factory, norm):
  tx = factory(norm)
  return jax.jit(lambda updates: tx.update(updates, tx.init(updates))[0])


def apply(factory, norm, updates):
  return jitted(factory, norm)(updates)


@pytest.mark.parametrize('factory', [transforms.normalize, transforms.steepest])
@pytest.mark.parametrize('norm', NORMS)
def test_has_size_one_over_the_whole_tree(norm, factory):
  rng = np.random.default_rng(0)
  grads = {
    'a': jnp.asarray(rng.normal(size=(9, 4)), jnp.bfloat16),
    'b': [jnp.asarray(-0.3), jnp.zeros((0, 2)), None],
  }
  got = apply(factory, norm, grads)
  assert jax.tree.structure(got) == jax.tree.structure(grads)
  assert got['a'].dtype == jnp.bfloat16 and got['b'][0].dtype == jnp.float32
  size = tree_norm(got, norm)
  np.testing.assert_allclose(size, 1, rtol=2.0**-8)
  if factory is transforms.normalize:
    sizes = tree_norm(grads, norm)
    want = np.asarray(grads['a'], np.float32) / sizes
    np.testing.assert_allclose(
      np.asarray(got['a'], np.float32), want, rtol=2.0**-8, atol=1e-7
    )


@pytest.mark.parametrize('norm', NORMS)
def test_no_unit_step_falls_faster(norm):
  rng = np.random.default_rng(1)
  grads = np.float32(rng.normal(size=20))
  best = np.vdot(apply(transforms.steepest, norm, grads), grads)
  for _ in range(50):
    other = rng.normal(size=20) * rng.uniform(size=20) ** 4
    other /= np.linalg.norm(other, {'l2': 2, 'linf': np.inf, 'l1': 1}[norm])
    assert np.vdot(other, grads) <= best + 1e-6
  dual = {'l2': 'l2', 'linf': 'l1', 'l1': 'linf'}[norm]
  np.testing.assert_allclose(best, tree_norm(grads, dual), rtol=1e-6)


def test_steepest_at_ties_and_zeros():
  grads = {'a': jnp.array([0.0, -0.0, 1.0]), 'b': jnp.array([-2.0, 2.0])}
  got = apply(transforms.steepest, 'linf', grads)
  np.testing.assert_array_equal(got['a'], [0.0, 0.0, 1.0])
  np.testing.assert_array_equal(got['b'], [-1.0, 1.0])
  got = apply(transforms.steepest, 'l1', grads)
  np.testing.assert_array_equal(got['a'], [0.0, 0.0, 0.0])
  np.testing.assert_array_equal(got['b'], [-1.0, 0.0])


@pytest.mark.parametrize('factory', [transforms.normalize, transforms.steepest])
@pytest.mark.parametrize('norm', NORMS)
def test_zero_stays_zero_and_nan_stays_nan(norm, factory):
  got = apply(factory, norm, jnp.zeros(3))
  np.testing.assert_array_equal(got, np.zeros(3))
  got = np.isnan(apply(factory, norm, jnp.array([1.0, jnp.nan, 0.0])))
  alone = factory is transforms.steepest and norm == 'linf'
  np.testing.assert_array_equal(got, [not alone, True, not alone])


@pytest.mark.parametrize('scale', [1e-37, 1e37])
@pytest.mark.parametrize('norm', NORMS)
def test_normalize_at_the_ends_of_the_range(norm, scale):
  grads = jnp.asarray(np.array([3.0, -4.0, 0.0]) * scale, jnp.float32)
  want = {'l2': [0.6, -0.8, 0], 'linf': [0.75, -1, 0], 'l1': [3 / 7, -4 / 7, 0]}
  got = apply(transforms.normalize, norm, grads)
  np.testing.assert_allclose(got, want[norm], rtol=1e-6)


def test_under_vmap_and_in_chain_with_a_budget():
  grads = jnp.array([[1.0, -3.0], [0.5, 0.0]])
  tx = optax.chain(
    transforms.steepest('linf'),
    optax.sgd(1.0),
    transforms.project_budget(0.25, 'linf'),
  )
  params = jnp.zeros(2)

  def one(grads):
    updates, _ = tx.update(grads, tx.init(params), params)
    return optax.apply_updates(params, updates)

  got = jax.jit(jax.vmap(one))(grads)
  np.testing.assert_array_equal(got, [[-0.25, 0.25], [-0.25, 0.0]])


@pytest.mark.parametrize('factory', [transforms.normalize, transforms.steepest])
def test_flips_are_no_norm_of_a_gradient(factory):
  with pytest.raises(types.BadInput, match='l2, linf, l1'):
    factory('flips')
