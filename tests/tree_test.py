"""Norms, flip counts and masks of trees, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import tree
from bitjax import types

pytestmark = pytest.mark.optimised  # Arithmetic, to the last bit.

KINDS = ('l2', 'linf', 'l1')

norm = jax.jit(tree.norm, static_argnums=1)  # Eager, each step compiles.


def want(kind, x):
  x = np.abs(np.asarray(x, np.float64).ravel())
  return {'l2': np.sqrt(np.sum(x**2)), 'linf': x.max(), 'l1': x.sum()}[kind]


@pytest.mark.parametrize('kind', KINDS)
def test_norm_is_that_of_the_difference_within_three_ulps(kind):
  rng = np.random.default_rng(0)
  params = {
    'a': jnp.asarray(rng.normal(size=(700, 3)), jnp.float16),
    'b': [jnp.asarray(2.5, jnp.bfloat16), jnp.zeros((0, 4))],
  }
  anchor = jax.tree.map(lambda x: jnp.ones_like(x) / 2, params)
  flat = [np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(params)]
  got = norm(params, kind, anchor)
  assert got.dtype == jnp.float32
  # In exact arithmetic, where the leaves are read as they are stored.
  exact = want(kind, np.concatenate(flat) - 0.5)
  np.testing.assert_allclose(got, exact, rtol=3 * 2.0**-23)


@pytest.mark.parametrize('scale', [1e-30, 1.0, 1e30, 2e37])
@pytest.mark.parametrize('kind', KINDS)
def test_norm_neither_overflows_nor_vanishes(kind, scale):
  x = jnp.asarray(np.array([3.0, -4.0, 1.0]) * scale, jnp.float32)
  np.testing.assert_allclose(norm(x, kind), want(kind, x), rtol=3e-7)


def test_total_is_accurate_whatever_the_spread():
  rng = np.random.default_rng(1)
  spread = 10.0 ** rng.uniform(-12, 0, size=200_704)
  alike = np.full(200_704, 0.1)
  # A small term each, after a large one: a running sum would lose them all.
  drowned = np.concatenate([[1.0], np.full(200_703, 2.0**-25)])
  for values in (spread, alike, drowned):
    x = jnp.asarray(values.reshape(784, 256), jnp.float32)
    got = jax.jit(tree.total)(x, jnp.max(x))
    np.testing.assert_allclose(
      got, np.sum(np.asarray(x, np.float64)), rtol=2.0**-23
    )


def test_norm_of_extreme_and_empty_trees():
  nan, inf = jnp.nan, jnp.inf
  for kind in KINDS:
    assert norm({}, kind) == 0
    assert norm([jnp.zeros((0, 3))], kind) == 0
    assert norm(jnp.zeros(3), kind) == 0
    assert norm(jnp.array([1.0, -inf]), kind) == inf
    assert np.isnan(norm(jnp.array([nan, inf]), kind))
  assert norm(jnp.array([1, -2]), 'l1') == 3


def test_norm_in_float64():
  with jax.enable_x64():
    x = jnp.asarray(np.random.default_rng(2).normal(size=999))
    for kind in KINDS:
      np.testing.assert_allclose(norm(x, kind), want(kind, x), rtol=4e-16)


def test_norm_gradients():
  x = jnp.array([3.0, -4.0])
  for kind, gradient in (
    ('l2', [0.6, -0.8]),
    ('l1', [1.0, -1.0]),
    ('linf', [0.0, -1.0]),
  ):
    got = jax.jit(jax.grad(lambda x, kind=kind: tree.norm(x, kind)))(x)
    np.testing.assert_allclose(got, gradient, rtol=1e-6)
  np.testing.assert_array_equal(
    jax.jit(jax.grad(lambda x: tree.norm(x, 'l2')))(jnp.zeros(2)), np.zeros(2)
  )


def test_flips_take_zero_as_positive():
  x = {'a': jnp.array([1.0, -1.0, 0.0, -0.0]), 'b': jnp.array(-2.0)}
  anchor = {'a': jnp.array([-1.0, -1.0, -0.0, -3.0]), 'b': jnp.array(0.0)}
  assert tree.flips(x, anchor) == 3
  got = tree.norm(x, 'flips', anchor)
  assert got == 3 and got.dtype == jnp.int32


def test_counts_and_shares_are_exact_beyond_the_integers_of_float32():
  many = 2**24 + 3
  mask = jnp.ones(many, bool).at[0].set(False)
  assert tree.count([mask, mask[:2]]) == many
  assert tree.share(mask) == np.float32(many - 1) / np.float32(many)
  assert tree.share([]) == 0
  huge = jax.ShapeDtypeStruct((2**16, 2**15), bool)
  with pytest.raises(
    types.BadInput, match=r'2\^31 to be counted; got 2147483648'
  ):
    jax.eval_shape(tree.count, huge)


def test_whole_numbers_beyond_the_integers_of_float32():
  many = 2**24 + 3
  for number, wanted in [
    (np.inf, many),
    (10**12, many),
    (np.int64(10**12), many),
    (-(10**12), 0),
    (many - 2, many - 2),
    (np.float32(2**24), 2**24),
    (np.float32(2**24 + 4), many),
    (2.9, 2),
    (-1.0, 0),
    (np.nan, 0),
  ]:
    found = tree.whole(number, many)
    assert found.dtype == jnp.int32
    assert found == wanted, number


@pytest.mark.parametrize('value', [0.1, -1e-30, 3e38, 0.0])
def test_centred(value):
  """Equal numbers are 0; a last bit is resolved, against exact differences."""
  x = np.full(4097, value, np.float32)
  found, scale = jax.jit(tree.centred)(x)
  assert scale > 0
  np.testing.assert_array_equal(found, 0)
  if value:
    x[::3] = np.nextafter(x[::3], np.float32(0))
    found, scale = jax.jit(tree.centred)(x)
    want = np.float64(x) - np.float64(x[0])
    got = (np.float64(found) - float(found[0])) * float(scale.item())
    np.testing.assert_array_equal(got, want)
  bad, _ = tree.centred(jnp.array([1.0, np.nan, 2.0]))
  assert np.isnan(bad).all()


@pytest.mark.parametrize('unit', [1e-37, 1.0, 1e37])
def test_in_units(unit):
  """The unit is a power of two near the largest magnitude of all leaves."""
  x = {'a': np.float32([3, -4]) * np.float32(unit), 'b': [jnp.bfloat16(0.5)]}
  scaled, scale = jax.jit(tree.in_units)(x)
  largest = max(np.abs(x['a']).max(), 0.5)
  assert largest / 4 < scale <= largest and np.frexp(scale)[0] == 0.5
  for got, entry in zip(
    jax.tree.leaves(scaled), jax.tree.leaves(x), strict=True
  ):
    assert got.dtype == np.float32
    np.testing.assert_array_equal(
      got, np.float32(np.float64(entry) / np.float64(scale))
    )


def test_deviation():
  x = np.random.default_rng(3).normal(size=(5, 7)).astype(np.float32)
  for axis in (None, 0, 1):
    got = tree.deviation(x * np.float32(1e-30), axis, ddof=1)
    want = np.std(np.float64(x), axis, ddof=1)
    np.testing.assert_allclose(got / np.float32(1e-30), want, rtol=1e-6)
  assert tree.deviation(np.full(4097, np.float32(0.1))) == 0


def test_mask_by_name():
  params = {'dense': {'kernel': 1.0, 'bias': 2.0}, 'list': [3.0]}
  assert tree.mask_by_name(params, 'kernel') == {
    'dense': {'kernel': True, 'bias': False},
    'list': [False],
  }
  assert tree.mask_by_name(params, ['bias', '0', 'scale']) == {
    'dense': {'kernel': False, 'bias': True},
    'list': [True],
  }
  # An attribute's name, as of a named tuple.
  trace = optax.TraceState(trace=jnp.zeros(2))
  assert jax.tree.leaves(tree.mask_by_name(trace, 'trace')) == [True]


def test_errors_name_the_choices():
  with pytest.raises(types.BadInput, match='l2, linf, l1, flips'):
    tree.norm(jnp.zeros(2), 'l3')
  with pytest.raises(types.BadInput, match='anchor'):
    tree.norm(jnp.zeros(2), 'flips')
  with pytest.raises(types.BadInput, match='bias, kernel'):
    tree.mask_by_name({'kernel': 1.0, 'bias': 1.0}, 'kernels')
  with pytest.raises(ValueError):
    tree.norm({'a': 1.0}, 'l2', {'b': 1.0})


def test_labels_follow_paths():
  params = {
    'Dense_0': {'kernel': 1.0, 'bias': None},
    'rest': [2.0, {'kernel': 3}],
  }
  seen = []

  def predicate(path):
    seen.append(path)
    return path.endswith('kernel') and not path.startswith('Dense')

  labels = tree.label(params, predicate, match='bop', rest='adam')
  assert labels == {
    'Dense_0': {'kernel': 'adam', 'bias': None},
    'rest': ['adam', {'kernel': 'bop'}],
  }
  assert seen == ['Dense_0/kernel', 'rest/0', 'rest/1/kernel']
  with pytest.raises(
    types.BadInput, match='the tree has Dense_0/kernel, rest/0'
  ):
    tree.label(params, lambda path: False)
