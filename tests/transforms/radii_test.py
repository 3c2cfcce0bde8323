"""Budgets as people have them: a radius for each layer, relative, scheduled, labelled."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import transforms
from bitjax import tree as tree_lib
from bitjax import types

DRAW = np.random.default_rng(0)
PARAMS = {
  'one': {
    'kernel': jnp.asarray(DRAW.normal(size=(3, 2)), jnp.float32),
    'bias': jnp.asarray(DRAW.normal(size=2), jnp.float32),
  },
  'two': {'kernel': jnp.asarray(DRAW.normal(size=(2, 4)), jnp.float32)},
}
FAR = jax.tree.map(lambda p: -3 * p, PARAMS)
PARTS = [['one', 'kernel'], ['one', 'bias'], ['two', 'kernel']]
NORMS = ('l2', 'linf', 'l1')


def moved(tx, params=PARAMS, updates=FAR):
  """Returns the update of one step, by leaf."""
  found, _ = tx.update(updates, tx.init(params), params)
  return found


def size(norm, *leaves):
  d = np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in leaves])
  return {'l2': np.sqrt(d @ d), 'l1': abs(d).sum(), 'linf': abs(d).max()}[norm]


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
  'norm',
  [
    pytest.param(norm, marks=() if norm == 'l2' else pytest.mark.slow)
    for norm in NORMS
  ],
)
def test_a_ball_for_each_layer_is_a_budget_on_that_layer(norm):
  radii = {'one': 0.3, 'two': 0.7}
  found = moved(transforms.project_budget(radii, norm))
  for name, radius in radii.items():
    alone = transforms.project_budget(radius, norm)
    same(found[name], moved(alone, PARAMS[name], FAR[name]))
    np.testing.assert_allclose(
      size(norm, *jax.tree.leaves(found[name])), radius, rtol=1e-5
    )


def test_a_ball_for_each_leaf():
  radii = {'one': {'kernel': 0.1, 'bias': 0.2}, 'two': {'kernel': 0.3}}
  found = moved(transforms.project_budget(radii))
  for (layer, name), radius in zip(PARTS, (0.1, 0.2, 0.3), strict=True):
    np.testing.assert_allclose(
      size('l2', found[layer][name]), radius, rtol=1e-5
    )


def test_none_leaves_a_layer_free():
  found = moved(transforms.project_budget({'one': None, 'two': 0.1}))
  same(found['one'], FAR['one'])
  np.testing.assert_allclose(size('l2', found['two']['kernel']), 0.1, rtol=1e-5)


@pytest.mark.parametrize('as_function', [False, True])
def test_labels_share_a_ball(as_function):
  def label(params):
    return tree_lib.label(
      params, lambda path: path.endswith('kernel'), 'k', 'b'
    )

  tx = transforms.project_budget(
    {'k': 0.5, 'b': 0.1},
    labels=label if as_function else label(PARAMS),
  )
  found = moved(tx)
  kernels = found['one']['kernel'], found['two']['kernel']
  np.testing.assert_allclose(size('l2', *kernels), 0.5, rtol=1e-5)
  np.testing.assert_allclose(size('l2', found['one']['bias']), 0.1, rtol=1e-5)
  free = transforms.project_budget({'k': None, 'b': 0.1}, labels=label)
  same(moved(free)['two'], FAR['two'])


@pytest.mark.parametrize('norm', NORMS)
@pytest.mark.parametrize('radii', [0.1, {'one': 0.1, 'two': 0.2}])
def test_relative_to_the_norm_of_the_centre(norm, radii):
  anchor = jax.tree.map(lambda p: 2 * p, PARAMS)
  tx = transforms.project_budget(radii, norm, anchor=anchor, relative=True)
  state = tx.init(PARAMS)
  # From the anchor, so that the update is the move in the ball.
  found, _ = tx.update(FAR, state, anchor)
  if isinstance(radii, float):
    balls = [(PARTS, radii)]
  else:
    balls = [(PARTS[:2], 0.1), (PARTS[2:], 0.2)]
  for parts, radius in balls:
    got = size(norm, *(found[a][b] for a, b in parts))
    centre = size(norm, *(anchor[a][b] for a, b in parts))
    np.testing.assert_allclose(got, radius * centre, rtol=1e-5)


def test_the_norm_of_the_centre_is_computed_once():
  radii = {'one': 0.1, 'two': 0.2}
  tx = transforms.project_budget(radii, 'linf', relative=True)
  state = tx.init(PARAMS)
  want = [size('linf', *jax.tree.leaves(PARAMS[name])) for name in PARAMS]
  np.testing.assert_allclose(state.sizes, want, rtol=1e-6)
  twice = state._replace(sizes=tuple(2 * one for one in state.sizes))
  found, after = jax.jit(tx.update)(FAR, twice, PARAMS)
  np.testing.assert_allclose(
    size('linf', found['two']['kernel']), 0.4 * want[1], rtol=1e-5
  )
  assert after.sizes == twice.sizes and after.count == 1
  assert transforms.project_budget(0.1).init(PARAMS).sizes == ()


def test_relative_flips_are_a_share_of_the_entries():
  found = moved(transforms.project_budget(0.5, 'flips', relative=True))
  after = optax.apply_updates(PARAMS, found)
  assert int(tree_lib.flips(after, PARAMS)) == 8  # Half of 16.


def test_a_centre_of_zeros_does_not_move():
  zeros = jax.tree.map(jnp.zeros_like, PARAMS)
  found = moved(transforms.project_budget(0.5, relative=True), zeros)
  same(found, zeros)


def test_a_schedule_gives_each_update_its_radius():
  schedule = optax.linear_schedule(0.1, 0.5, 4)
  tx = transforms.project_budget({'one': schedule, 'two': 0.2}, 'linf')
  params, state = PARAMS, tx.init(PARAMS)
  step = jax.jit(tx.update)
  for count in range(6):
    updates, state = step(FAR, state, params)
    params = optax.apply_updates(params, updates)
    moves = jax.tree.map(lambda a, b: a - b, params, PARAMS)
    radius = float(schedule(count))
    np.testing.assert_allclose(
      size('linf', *jax.tree.leaves(moves['one'])), radius, rtol=1e-5
    )
    np.testing.assert_allclose(
      size('linf', moves['two']['kernel']), 0.2, rtol=1e-5
    )
  assert int(state.count) == 6
  alone = transforms.project_budget(schedule, 'linf')
  np.testing.assert_allclose(
    size('linf', *jax.tree.leaves(moved(alone))), 0.1, rtol=1e-5
  )


def test_radii_may_be_traced():
  def step(radii):
    return moved(transforms.project_budget(radii))

  radii = {'one': jnp.array([0.1, 0.2]), 'two': jnp.array([0.3, 0.4])}
  found = jax.jit(jax.vmap(step))(radii)
  for lane in range(2):
    alone = step(jax.tree.map(lambda radius, lane=lane: radius[lane], radii))
    jax.tree.map(
      lambda a, b, lane=lane: np.testing.assert_allclose(a[lane], b, rtol=1e-6),
      found,
      alone,
    )


def test_in_masked_only_the_leaves_that_are_let_through_count():
  mask = tree_lib.mask_by_name(PARAMS, 'kernel')
  tx = optax.masked(transforms.project_budget({'one': 0.1, 'two': 0.2}), mask)
  found = moved(tx)
  same(found['one']['bias'], FAR['one']['bias'])
  np.testing.assert_allclose(size('l2', found['one']['kernel']), 0.1, rtol=1e-5)


@pytest.mark.parametrize(
  ('radius', 'options', 'message'),
  [
    ({'one': -1.0, 'two': 0.1}, {}, r"radius\['one'\] must be"),
    ({'one': 'a', 'two': 0.1}, {}, r"radius\['one'\] must be"),
    ({'one': 0.1}, {}, 'radius must be a prefix'),
    ({'one': 0.1, 'three': 0.1}, {}, 'radius must be a prefix'),
    (0.1, {'labels': {'one': 'a', 'two': 'b'}}, 'radius must be a dictionary'),
    (
      {'a': 0.1},
      {'labels': {'one': 'a', 'two': 'b'}},
      "radius lacks the labels 'b'; it has 'a'",
    ),
    (
      {'a': 0.1, 'c': 1.0},
      {'labels': {'one': 'a', 'two': 'a'}},
      "radius has 'c', but no leaf has that label; the labels are 'a'",
    ),
    ({'a': 0.1}, {'labels': {'one': 'a'}}, 'labels must be a prefix'),
  ],
)
def test_bad_input(radius, options, message):
  with pytest.raises(types.BadInput, match=message) as error:
    transforms.project_budget(radius, **options).init(PARAMS)
  assert '\n' not in str(error.value)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Model:
  """A model that is its own tree of parameters, and is called, as Equinox has it."""

  kernel: jax.Array
  bias: jax.Array

  def __call__(self, x):
    return x @ self.kernel + self.bias


def test_labels_and_masks_of_a_model_that_is_called():
  model = Model(jnp.ones((2, 2)), jnp.ones(2))
  updates = jax.tree.map(lambda p: -p, model)
  labels = tree_lib.label(model, lambda path: path == 'kernel')
  tx = optax.partition(
    {'binary': optax.scale(0.5), 'rest': optax.scale(2.0)}, labels
  )
  found, _ = tx.update(updates, tx.init(model), model)
  same(found, Model(-0.5 * model.kernel, -2 * model.bias))

  mask = tree_lib.mask_by_name(model, 'bias')
  tx = optax.masked(optax.scale(2.0), mask)
  found, _ = tx.update(updates, tx.init(model), model)
  same(found, Model(-model.kernel, -2 * model.bias))

  tx = transforms.project_budget({'binary': 0.1, 'rest': 0.2}, labels=labels)
  found = moved(tx, model, updates)
  np.testing.assert_allclose(size('l2', found.kernel), 0.1, rtol=1e-5)
  radii = Model(kernel=0.3, bias=0.4)  # Callable, but a tree of radii.
  found = moved(transforms.project_budget(radii), model, updates)
  np.testing.assert_allclose(size('l2', found.bias), 0.4, rtol=1e-5)
