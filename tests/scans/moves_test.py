"""Moves that a grid does not have: no path sees them, no search makes them.

Steps are no powers of two, so that levels are rounded, and many weights lie at the ends
of their grid. The oracle is a network in NumPy, in float64.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import scans
from bitjax import types
from bitjax.scans import _discrete_costs
from bitjax.scans import _flips_moves

pytestmark = pytest.mark.optimised  # A compiler may fuse what decides.

FAN_IN, UNITS, CLASSES, EXAMPLES = 37, 29, 10, 60
BINARY = quantizers.attach(quantizers.sign(), quantizers.identity())
STEPS = np.linspace(0.05, 0.13, UNITS).astype(np.float32)
# Name -> staircase, its step and the ends of its codes.
GRIDS = {
  '3 bits': (quantizers.uniform(3, step=0.07), np.float32(0.07), -4, 3),
  '2 bits': (quantizers.uniform(2, step=0.3), np.float32(0.3), -2, 1),
  'unsigned': (
    quantizers.uniform(2, signed=False, step=0.11), np.float32(0.11), 0, 3,
  ),
  'channels': (
    quantizers.uniform(3, step=STEPS, channel_axis=1), STEPS, -4, 3,
  ),
}  # fmt: skip


def make(name, activation, seed=0):
  """Returns a view, its loss in NumPy, and which moves [up, down] there are."""
  staircase, step, low, high = GRIDS[name]
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(EXAMPLES, FAN_IN)).astype(np.float32)
  labels = rng.integers(0, CLASSES, EXAMPLES)
  matrix = rng.normal(size=(UNITS, CLASSES)).astype(np.float32)
  kernel = (0.4 * rng.normal(size=(FAN_IN, UNITS))).astype(np.float32)
  view = scans.LayerView(
    inputs=jnp.asarray(x),
    kernel=jnp.asarray(kernel),
    labels=jnp.asarray(labels),
    tail=(
      scans.Activation(activation, BINARY if activation == 'sign' else None),
      scans.Dense(jnp.asarray(matrix)),
    ),
    quantizer=quantizers.attach(staircase, quantizers.identity()),
    affine=scans.Affine(0.5, 0.25),
  )
  code = np.clip(np.round(kernel / step), low, high).astype(int)
  step = np.broadcast_to(np.asarray(step, float), kernel.shape)

  def loss(code):
    z = x.astype(float) @ (code * step) * 0.5 + 0.25
    h = (
      np.where(z >= 0, 1.0, -1.0) if activation == 'sign' else np.maximum(z, 0)
    )
    logits = h @ matrix.astype(float)
    top = logits.max(axis=1)
    total = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
    return (total - logits[np.arange(EXAMPLES), labels]).mean()

  return view, loss, code, np.stack([code < high, code > low])


@pytest.mark.parametrize('name', GRIDS)
def test_directions_say_which_moves_there_are(name):
  view, _, _, exist = make(name, 'relu')
  moves = jax.jit(_flips_moves.moves)(view)
  assert 100 < (~exist).sum() < exist.sum()
  wanted = exist * np.array([1, -1]).reshape(2, 1, 1)
  np.testing.assert_array_equal(moves.directions, wanted)
  np.testing.assert_array_equal(np.sign(moves.changes), wanted)
  differ = jax.jit(
    lambda view, a: _flips_moves.levels_differ(view, a, view.kernel)
  )
  for there, exists in zip(moves.destinations, exist, strict=True):
    np.testing.assert_array_equal(differ(view, there), exists)


@pytest.mark.parametrize(
  'name',
  [
    *('3 bits', '2 bits'),
    *(
      pytest.param(n, marks=pytest.mark.slow) for n in ('unsigned', 'channels')
    ),
  ],
)
@pytest.mark.parametrize(
  ('activation', 'path'),
  [
    ('sign', 'sign'),
    pytest.param('sign', 'rank_one', marks=pytest.mark.slow),
    ('relu', 'rank_one'),
    pytest.param('relu', 'brute_force', marks=pytest.mark.slow),
  ],
)
def test_gains(name, activation, path):
  view, loss, code, exist = make(name, activation)
  found = jax.jit(lambda view: scans.flip_gains(view, path=path))(view)
  gains = np.asarray(found.gains)
  assert (gains[~exist] == 0).all()
  assert (np.asarray(found.second_moments)[~exist] == 0).all()
  before, rng = loss(code), np.random.default_rng(1)
  for index in rng.permutation(np.argwhere(exist))[:40]:
    move, i, j = index
    there = code.copy()
    there[i, j] += 1 - 2 * move
    np.testing.assert_allclose(
      gains[tuple(index)], before - loss(there), atol=2e-6
    )


def grid(*axes, fast):
  """All combinations of some labels; those that are not in ``fast`` are slow."""
  assert set(fast) <= {*itertools.product(*axes)}
  return [
    pytest.param(*cell, marks=() if cell in fast else pytest.mark.slow)
    for cell in itertools.product(*axes)
  ]


@pytest.mark.parametrize(
  ('name', 'norm'),
  grid(
    ('3 bits', 'channels'),
    ('l2', 'l1', 'linf', 'flips'),
    fast=[
      ('3 bits', 'l2'),
      ('3 bits', 'flips'),
      ('channels', 'l1'),
      ('channels', 'linf'),
    ],
  ),
)
def test_searches_move_what_they_count(name, norm):
  view, *_ = make(name, 'relu')
  radius = {'l2': 0.8, 'l1': 4, 'linf': 0.2, 'flips': 50}[norm]
  found = scans.discrete_gradient(
    view, types.Budget(radius, norm), overflow='skip'
  )
  after = view.kernel + found.displacement
  moved = np.asarray(view.quantizer(after)) != view.quantizer(view.kernel)
  assert found.num_moves > 3
  assert found.num_moves == moved.sum() == (found.rank >= 0).sum()


def test_exhaustive_visits_the_points_that_there_are():
  view, loss, code, exist = make('3 bits', 'sign')
  free = np.arange(5)
  found = scans.exhaustive(
    view, types.Budget(0.25, 'l2'), coordinates=jnp.asarray(free)
  )
  moves = _flips_moves.moves(view)
  there = np.asarray(moves.destinations, float).reshape(2, -1)
  here = np.asarray(view.kernel, float).ravel()
  points, best = 0, np.inf
  for chosen in itertools.product([None, 0, 1], repeat=free.size):
    moved = [(m, k) for m, k in zip(chosen, free, strict=True) if m is not None]
    if all(exist.reshape(2, -1)[m, k] for m, k in moved):
      cost = np.array([there[m, k] - here[k] for m, k in moved])
      if np.sqrt((cost**2).sum()) <= 0.25:
        points += 1
        codes = code.ravel().copy()
        for m, k in moved:
          codes[k] += 1 - 2 * m
        best = min(best, loss(codes.reshape(code.shape)))
  assert found.num_points == points > 10
  np.testing.assert_allclose(found.decrease, loss(code) - best, atol=2e-6)


def test_coordinate_descent_tries_only_what_there_is():
  view, loss, code, _ = make('2 bits', 'relu')
  found = scans.coordinate_discrete_gradient(
    view, types.Budget(1.5, 'l2'), order='cost', num_sweeps=2
  )
  after = view.kernel + found.displacement
  step = float(GRIDS['2 bits'][1])
  codes = np.rint(np.asarray(view.quantizer(after)) / step).astype(int)
  assert found.num_moves >= (codes != code).sum() > 3
  np.testing.assert_allclose(
    found.decrease_search, loss(code) - loss(codes), atol=5e-6
  )


def test_a_view_that_is_swept_has_the_same_moves():
  view, *_, exist = make('3 bits', 'relu')
  kernels = jnp.stack([view.kernel, view.kernel[::-1]])

  @jax.jit
  @jax.vmap
  def gains(kernel):
    view_ = dataclasses.replace(view, kernel=kernel)
    return scans.flip_gains(view_, path='rank_one').gains

  found = np.asarray(gains(kernels))
  assert (found[0][~exist] == 0).all()
  assert (found[1][~exist[:, ::-1]] == 0).all()


class TestRooms:
  """Rounds together are given the whole budget and no more."""

  @pytest.mark.parametrize('split', ['even', 'cumulative'])
  @pytest.mark.parametrize('norm', ['l2', 'l1', 'linf', 'flips'])
  def test_shares(self, norm, split):
    radius = np.float32(53.7 if norm == 'flips' else 0.3)

    @jax.jit
    def rooms(radius, rounds):
      budget = types.Budget(radius, norm)
      return jax.vmap(
        lambda k: _discrete_costs.allowance(
          budget, jnp.float32, split, len(rounds), k
        )
      )(rounds)

    for number in (1, 7, 49, 1000):
      radii, units = rooms(radius, jnp.arange(1, number + 1))
      if norm == 'flips':
        total = units.sum() if split == 'even' else units[-1]
        assert total == 53 and (units >= 0).all()
        assert split == 'even' or (np.diff(units) >= 0).all()
        continue
      assert (units <= _discrete_costs.UNITS).all()
      if split == 'cumulative':
        assert units[-1] == _discrete_costs.UNITS
        assert radii[-1] == radius and (radii <= radius).all()
        power = {'l2': 2, 'l1': 1, 'linf': 0}[norm]
        exact = [
          _discrete_costs.UNITS * k**power // number**power
          for k in range(1, number + 1)
        ]
        np.testing.assert_array_equal(units, exact)

  def test_the_most_rounds_share_flips_without_overflow(self):
    most = 46_340
    for flips in (53, most - 1):
      budget = types.Budget(flips, 'flips')
      _, room = _discrete_costs.allowance(
        budget, jnp.float32, 'cumulative', most, most - 1
      )
      assert room == flips * (most - 1) // most
    with pytest.raises(
      types.BadInput, match='num_rounds must be at most 46340'
    ):
      _discrete_costs.allowance(budget, jnp.float32, 'even', most + 1, most)

  @pytest.mark.parametrize(
    ('norm', 'split'),
    grid(
      ('l2', 'l1', 'linf'),
      ('even', 'cumulative'),
      fast=[('l2', 'cumulative'), ('l1', 'even')],
    ),
  )
  def test_rounds_stay_in_the_ball(self, norm, split):
    """Also where most moves cost more than the whole budget."""
    view, *_ = make('2 bits', 'sign')
    radius = {'l2': 0.1, 'l1': 0.2, 'linf': 0.04}[norm]
    for number in (3, 7):
      found = scans.multi_step_discrete_gradient(
        view, types.Budget(radius, norm), number, split
      )
      assert found.used.max() <= radius * (1 + 4e-7), number
      moved = np.asarray(found.displacement) != 0
      assert found.num_moves.sum() >= moved.sum()
