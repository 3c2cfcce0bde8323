"""Discrete gradients against a greedy search in NumPy, move by move."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import descent
from bitjax import quantizers
from bitjax import scans
from bitjax import types
from bitjax.scans import _discrete_costs

BINARY = quantizers.attach(quantizers.sign(), quantizers.identity())
POWERS = {'gain': 0, 'gain_per_cost': 1, 'gain_per_squared_cost': 2}
FAN_IN, UNITS = 6, 4


def sign(x):
  return np.where(x >= 0, 1.0, -1.0)


def destinations(kernel):
  return -1e-3 * np.abs(kernel).max() * sign(kernel)


def size(displacement, norm):
  d = np.abs(np.asarray(displacement, np.float64)).ravel()
  return {
    'l2': lambda: np.sqrt((d**2).sum()),
    'l1': d.sum,
    'linf': d.max,
    'flips': lambda: (d > 0).sum(),
  }[norm]()


def greedy(kernel, loss, radius, norm, power, gains=None, overflow='stop'):
  """The moved kernel and the sum of the gains, by a loop over sorted moves."""
  kernel = np.asarray(kernel, float)
  there = destinations(kernel)
  cost = np.abs(there - kernel)
  if gains is None:
    gains = np.zeros(kernel.shape)
    for place in np.ndindex(*kernel.shape):
      moved = kernel.copy()
      moved[place] = there[place]
      gains[place] = loss(kernel) - loss(moved)
  score = gains / cost**power
  moved, predicted = kernel.copy(), 0.0
  for place in sorted(np.ndindex(*kernel.shape), key=lambda p: -score[p]):
    trial = moved.copy()
    trial[place] = there[place]
    alone = np.where(np.arange(kernel.size) == 0, cost[place], 0.0)
    if gains[place] <= 1e-9 or size(alone, norm) > radius:
      continue
    if size(trial - kernel, norm) > radius:
      if overflow == 'stop':
        break
      continue
    moved, predicted = trial, predicted + gains[place]
  return moved, predicted


@pytest.mark.optimised
@pytest.mark.parametrize(
  ('norm', 'radius', 'rank_by', 'path'),
  [
    ('l2', 0.3, 'gain_per_squared_cost', 'auto'),
    ('l1', 0.7, 'gain_per_cost', 'brute_force'),
    ('flips', 3.0, 'gain_per_cost', 'brute_force'),
  ],
)
def test_single_step_equals_the_loop(make, norm, radius, rank_by, path):
  view, loss = make()
  holdout, holdout_loss = make(seed=1)
  budget = types.Budget(radius, norm)
  step = scans.discrete_gradient(
    view, budget, rank_by=rank_by, holdout=holdout, path=path
  )
  moved, predicted = greedy(view.kernel, loss, radius, norm, POWERS[rank_by])
  found = view.kernel + step.displacement
  np.testing.assert_array_equal(sign(found), sign(moved))
  assert step.num_moves == (moved != np.asarray(view.kernel, float)).sum() > 1
  np.testing.assert_allclose(step.predicted, predicted, rtol=1e-4)
  assert size(step.displacement, norm) <= radius * (1 + 5e-7)
  np.testing.assert_allclose(
    step.used, size(step.displacement, norm), rtol=1e-6
  )
  before = loss(view.kernel)
  np.testing.assert_allclose(
    step.decrease_search, before - loss(moved), atol=1e-6
  )
  before = holdout_loss(view.kernel)
  np.testing.assert_allclose(
    step.decrease_holdout, before - holdout_loss(moved), atol=1e-6
  )
  assert step.loss_evaluations == view.kernel.size + 2


@pytest.mark.optimised
def test_what_does_not_fit_may_be_passed_over(make):
  view, loss = make(seed=2)
  step = scans.discrete_gradient(
    view, types.Budget(0.5, 'l1'), overflow='skip', path='brute_force'
  )
  stopped, _ = greedy(view.kernel, loss, 0.5, 'l1', 0)
  moved, _ = greedy(view.kernel, loss, 0.5, 'l1', 0, overflow='skip')
  assert (moved != stopped).any()  # By default: see above.
  found = view.kernel + step.displacement
  np.testing.assert_array_equal(sign(found), sign(moved))
  ranks = np.asarray(step.rank)[np.asarray(step.rank) >= 0]
  assert sorted(ranks) == list(range(step.num_moves))


@pytest.mark.optimised
@pytest.mark.parametrize('signal', ['linear', 'cost', 'random'])
def test_other_signals(make, signal):
  view, loss = make(seed=3)
  cost = np.abs(destinations(view.kernel) - view.kernel)
  key = jax.random.key(0)
  if signal == 'linear':
    gradient = jax.grad(view.loss)(view.kernel)
    values = np.asarray(gradient * 2 * sign(view.kernel), float)
    assert (values > 0).any()
  elif signal == 'cost':
    values = 1 / cost
  else:
    values = None
  radius = 0.4
  step = scans.discrete_gradient(
    view, types.Budget(radius), signal=signal, rank_by='gain_per_cost', key=key
  )
  if values is not None:
    moved, predicted = greedy(view.kernel, loss, radius, 'l2', 1, values)
    np.testing.assert_array_equal(
      sign(view.kernel + step.displacement), sign(moved)
    )
  if signal == 'linear':
    np.testing.assert_allclose(step.predicted, predicted, rtol=1e-4)
  assert size(step.displacement, 'l2') <= radius
  assert step.num_moves > 1
  assert step.gradient_evaluations == (signal == 'linear')
  assert step.loss_evaluations == 2


@pytest.mark.optimised
def test_zeros_and_tiny_weights_flip_both_ways(make):
  # sign(0) = sign(-0) = +1: a zero must become negative, whatever it costs.
  kernel = np.array([0.0, -0.0, 1e-30, -1e-30, 1e-8, -1e-8, 0.5, -0.5])
  kernel = np.tile(kernel, 3).reshape(FAN_IN, UNITS).astype(np.float32)
  view, _ = make(kernel=kernel)
  step = scans.discrete_gradient(
    view, types.Budget(100.0), signal=jnp.ones(kernel.shape)
  )
  moved = np.asarray(view.kernel + step.displacement)
  np.testing.assert_array_equal(sign(moved), -sign(kernel))
  assert step.num_moves == kernel.size


def test_no_promising_move_moves_nothing(make):
  view, _ = make()
  step = scans.discrete_gradient(
    view, types.Budget(1.0), signal=-jnp.ones(view.kernel.shape)
  )
  assert step.num_moves == 0 and not step.displacement.any()
  assert step.decrease_search == 0 and step.predicted == 0


@pytest.mark.optimised
def test_an_exact_fit_is_taken(make):
  # Four moves of 1/4 fill the l2 ball of radius 1/2.
  kernel = np.zeros((FAN_IN, UNITS))
  view, _ = make(kernel=kernel, activation='relu', binary=False)
  signal = jnp.stack([jnp.ones(kernel.shape), 2 * jnp.ones(kernel.shape)])
  step = scans.discrete_gradient(
    view, types.Budget(0.5), signal=signal, step=0.25
  )
  assert step.num_moves == 4 and step.used == 0.5
  assert (step.displacement[step.rank >= 0] == -0.25).all()  # The better one.


def walk(kernel, loss, radius, norm, power, num_steps, split):
  """Several rounds in NumPy; the last kernel and the losses on the way."""
  start = np.asarray(kernel, float)
  here, losses, paid = start, [loss(start)], []
  for number in range(1, num_steps + 1):
    there = destinations(here)
    cost = np.maximum(np.abs(there - start), np.abs(here - start))
    gains = np.zeros(start.shape)
    for place in np.ndindex(*start.shape):
      trial = here.copy()
      trial[place] = there[place]
      gains[place] = loss(here) - loss(trial)
    limit = radius * number / num_steps
    if split == 'even':
      paid, limit = [], radius / num_steps
    candidates = [
      place
      for place in np.ndindex(*start.shape)
      if gains[place] > 1e-9 and size([*paid, cost[place]], norm) <= limit
    ]
    score = gains / cost**power
    moved = here.copy()
    for place in sorted(candidates, key=lambda p: -score[p]):
      if size([*paid, cost[place]], norm) > limit:
        break
      paid = [*paid, cost[place]]
      moved[place] = there[place]
    here = moved
    losses.append(loss(here))
  return here, losses


@pytest.mark.optimised
@pytest.mark.parametrize(
  ('norm', 'radius', 'split'),
  [('l2', 0.6, 'even'), ('l1', 1.5, 'cumulative')],
)
def test_rounds_equal_the_loop(make, norm, radius, split):
  view, loss = make(seed=4)
  holdout, holdout_loss = make(seed=5)
  budget = types.Budget(radius, norm)
  path = scans.multi_step_discrete_gradient(
    view,
    budget,
    3,
    split,
    rank_by='gain_per_cost',
    holdout=holdout,
    path='brute_force',
  )
  moved, losses = walk(view.kernel, loss, radius, norm, 1, 3, split)
  found = np.asarray(view.kernel + path.displacement)
  np.testing.assert_array_equal(sign(found), sign(moved))
  np.testing.assert_allclose(path.search, losses, atol=1e-6)
  np.testing.assert_allclose(path.holdout[-1], holdout_loss(moved), atol=1e-6)
  assert size(path.displacement, norm) <= radius * (1 + 5e-7)
  assert path.flips[-1] == (sign(found) != sign(view.kernel)).sum() > 1
  assert path.num_moves.sum() == path.flips[-1] + 2 * path.num_reversals.sum()
  assert path.loss_evaluations == 3 * view.kernel.size + 4


@pytest.mark.optimised
def test_turning_round_is_not_for_free(make):
  # What the first round did together was too much: in linf flips go back.
  view, _ = make(seed=0, activation='relu')
  path = scans.multi_step_discrete_gradient(
    view, types.Budget(1e3, 'linf'), 6, 'cumulative', path='brute_force'
  )
  assert path.num_reversals[1:].sum() > 5
  assert path.num_moves.sum() > path.flips[-1]
  # In flips all ways are paid for, to and fro.
  path = scans.multi_step_discrete_gradient(
    view, types.Budget(48, 'flips'), 6, 'cumulative', path='brute_force'
  )
  assert path.flips[-1] < path.num_moves.sum() <= 48
  assert path.num_reversals.sum() > 0
  np.testing.assert_array_equal(path.used[1:], np.cumsum(path.num_moves))


def test_full_precision_rounds_go_on_in_their_direction(make):
  # The rest of the way is paid, not the way from the start again.
  view, _ = make(seed=7, binary=False, activation='relu')
  radius, step = 0.5, 1 / 16
  path = scans.multi_step_discrete_gradient(
    view, types.Budget(radius, 'linf'), 8, signal='linear', step=step
  )
  assert jnp.max(jnp.abs(path.displacement)) == radius
  assert path.search[-1] < path.search[0]


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize('binary', [True, False])
def test_prefixes_are_the_first_moves(make, binary):
  view, loss = make(seed=8, binary=binary, activation='relu')
  holdout, holdout_loss = make(seed=9, binary=binary, activation='relu')
  step = scans.discrete_gradient(
    view,
    types.Budget(10.0),
    step=None if binary else 0.125,
    path='brute_force',
  )
  # Many, so that they are points on a line; more than all are all of them.
  prefixes = (*range(70), 99)
  scan = scans.prefix_scan(view, step, prefixes, holdout=holdout)
  assert scan.path == ('steps' if binary else 'incremental')
  moves = int(step.num_moves)
  assert 4 < moves < 99
  np.testing.assert_array_equal(scan.num_moves, np.minimum(prefixes, moves))
  start, rank = np.asarray(view.kernel), np.asarray(step.rank)
  for count, search, held in zip(
    scan.num_moves, scan.search, scan.holdout, strict=True
  ):
    made = (rank >= 0) & (rank < count)
    moved = start + np.where(made, step.displacement, 0)
    np.testing.assert_allclose(search, loss(moved), atol=1e-5)
    np.testing.assert_allclose(held, holdout_loss(moved), atol=1e-5)
  assert scan.best == np.argmin(scan.search)
  falls = scan.decreases()
  np.testing.assert_allclose(falls[0], scan.search[0] - scan.search.min())
  # Few, in any order: one after another, and all the others at once.
  few = (99, 3, 0, 3, 2)
  path = 'incremental' if binary else 'brute_force'
  found = scans.prefix_scan(view, step, few, holdout=holdout, path=path)
  np.testing.assert_array_equal(found.num_moves, [moves, 3, 0, 3, 2])
  np.testing.assert_allclose(
    [found.search, found.holdout],
    [losses[jnp.array(few)] for losses in (scan.search, scan.holdout)],
    atol=1e-5,
  )
  if binary:
    return
  default = scans.prefix_scan(view, step)
  assert default.holdout is None and default.num_moves[-1] == moves
  np.testing.assert_array_equal(default.num_moves[:4], [0, 1, 2, 4])


@pytest.mark.slow
def test_steps_and_central_differences_descend(make):
  view, loss = make(seed=10)

  def discrete(kernel):
    moved = dataclasses.replace(view, kernel=kernel)
    step = scans.discrete_gradient(moved, types.Budget(0.2), rank_by=2)
    return step.loss, -step.displacement

  def central(kernel):
    moved = dataclasses.replace(view, kernel=kernel)
    return moved.loss(kernel), scans.central_difference(moved, 0.25)

  for value_and_grad in (discrete, central):
    tx = optax.sgd(1.0)
    path = descent.descend(value_and_grad, tx, view.kernel, 2)
    kernel = view.kernel
    for step in range(3):
      np.testing.assert_allclose(path.losses[step], loss(kernel), atol=1e-5)
      kernel -= value_and_grad(kernel)[1]
    assert path.losses[0] > path.losses[1]
    assert path.flips[1] > 0


@pytest.mark.slow
def test_jit_vmap_and_a_traced_radius(make):
  view, loss = make()

  def fall(kernel, radius):
    step = scans.discrete_gradient(
      dataclasses.replace(view, kernel=kernel),
      types.Budget(radius),
      path='brute_force',
    )
    return step.decrease_search, step.num_moves

  kernels = jnp.stack([view.kernel, -view.kernel])
  radii = jnp.array([0.1, 0.4])
  falls, counts = jax.jit(jax.vmap(fall))(kernels, radii)
  for kernel, radius, found, count in zip(
    kernels, radii, falls, counts, strict=True
  ):
    moved, _ = greedy(kernel, loss, radius, 'l2', 0)
    np.testing.assert_allclose(found, loss(kernel) - loss(moved), atol=1e-6)
    assert count == (moved != np.asarray(kernel, float)).sum()
  assert counts[0] != counts[1]


def test_coupled_and_opaque_views_take_the_generic_path(make):
  view, loss = make(seed=10)
  budget = types.Budget(0.3)
  opaque = dataclasses.replace(
    view, tail=(scans.Opaque(jax.tree_util.Partial(_rest, view.tail)),)
  )
  step = scans.discrete_gradient(opaque, budget)
  moved, _ = greedy(view.kernel, loss, 0.3, 'l2', 0)
  np.testing.assert_array_equal(
    sign(view.kernel + step.displacement), sign(moved)
  )
  coupled = dataclasses.replace(view, scaling=quantizers.mean_abs('tensor'))
  step = scans.discrete_gradient(coupled, budget, rank_by='gain_per_cost')
  moved = coupled.loss(view.kernel + step.displacement)
  np.testing.assert_allclose(
    step.decrease_search, coupled.loss(view.kernel) - moved, atol=1e-6
  )
  assert step.num_moves > 0
  with pytest.raises(types.BadInput, match='couples the weights'):
    scans.discrete_gradient(coupled, budget, path='sign')


def _rest(tail, z):
  for stage in tail:
    z = stage(z)
  return z


def test_bad_input(make):
  view, _ = make()
  good = types.Budget(0.1)
  single = scans.discrete_gradient
  multi = scans.multi_step_discrete_gradient
  for call, message in (
    (lambda: single(view, types.Budget(0.0)), r'radius must be > 0'),
    (
      lambda: multi(view, good, 0),
      r'num_rounds must be an integer >= 1; got 0',
    ),
    (
      lambda: multi(view, good, 2, 'odd'),
      r"split.*even, cumulative; got 'odd'",
    ),
    (
      lambda: single(view, good, rank_by='x'),
      r'rank_by.*gain_per_squared_cost',
    ),
    (lambda: single(view, good, signal='x'), r'signal.*exact, linear, random'),
    (lambda: multi(view, good, 2, signal='given'), r'signal must be one of'),
    (lambda: single(view, good, overflow='x'), r'overflow.*stop, skip'),
    (lambda: single(view, good, signal='random'), r"'random' needs a key"),
    (lambda: single(view, good, signal=jnp.ones(3)), r'an entry for each move'),
    (lambda: single(view, good, step=0.1), r'step is for full-precision'),
    (lambda: single(view, good, path='x'), r'path must be one of'),
  ):
    with pytest.raises(types.BadInput, match=message):
      call()
  step = single(view, good, signal='linear')
  for prefixes in (), (-1, 2):
    with pytest.raises(
      types.BadInput, match=r'prefixes must be .*integers? >= 0'
    ):
      scans.prefix_scan(view, step, prefixes)
  with pytest.raises(types.BadInput, match='path must be one of'):
    scans.prefix_scan(view, step, path='x')
  real, _ = make(binary=False)
  with pytest.raises(
    types.BadInput, match="'steps' does not apply: its kernel is"
  ):
    scans.prefix_scan(real, step, path='steps')
  opaque = (scans.Opaque(jax.nn.relu), *view.tail)
  opaque = dataclasses.replace(view, tail=opaque)
  assert scans.prefix_scan(opaque, step, (0, 1)).path == 'brute_force'
  with pytest.raises(
    types.BadInput, match="'incremental' does not apply: its ta"
  ):
    scans.prefix_scan(opaque, step, path='incremental')


@pytest.mark.optimised
def test_what_fits_is_found_without_sorting():
  rng = np.random.default_rng(11)
  unit = _discrete_costs.UNITS
  ties = jnp.asarray(rng.integers(1, 4, 300), jnp.float32)
  clear = jnp.asarray(rng.permutation(300) + 1.0, jnp.float32)
  some = jnp.where(jnp.asarray(rng.uniform(size=300)) < 0.2, -jnp.inf, 1.0)
  large = jnp.asarray(rng.integers(0, unit // 20, 300), jnp.int32)
  fitting = jax.jit(_discrete_costs.fitting)
  sizes = []
  for score in ties, clear, ties * some, clear * some:
    for charge in large, large // 2**12, jnp.ones_like(large):
      for room in 0, 7, unit // 3, unit:
        order = np.argsort(-score, kind='stable')
        order = order[np.asarray(score)[order] > 0]
        spent = np.cumsum(np.asarray(charge, np.int64)[order])
        expected = np.zeros(300, bool)
        expected[order[spent <= room]] = True
        found = fitting(score, charge, jnp.int32(room))
        np.testing.assert_array_equal(found, expected)
        sizes.append(expected.sum())
  assert min(sizes) == 0 and max(sizes) == 300 and len(set(sizes)) > 5
  with jax.enable_x64(True), jax.numpy_dtype_promotion('strict'):
    jax.eval_shape(_discrete_costs.fitting, score, charge, jnp.int32(room))


@pytest.mark.optimised
def test_ternary_weights_go_to_the_better_neighbour(make):
  kernel = np.random.default_rng(12).normal(size=(FAN_IN, UNITS)) / 8
  kernel[0] = 0.125, -0.125, 0.0, 1e-30  # At and around the thresholds.
  view, _ = make(kernel=kernel)
  ternary = quantizers.attach(quantizers.ternary(0.125), quantizers.identity())
  view = dataclasses.replace(view, quantizer=ternary)
  before = np.asarray(ternary(view.kernel))
  # Upwards is better, but where there is no way up.
  signal = jnp.stack([2 * jnp.ones(kernel.shape), jnp.ones(kernel.shape)])
  step = scans.discrete_gradient(view, types.Budget(100.0), signal=signal)
  after = np.asarray(ternary(view.kernel + step.displacement))
  np.testing.assert_array_equal(after, np.where(before < 1, before + 1, 0))
  assert step.num_moves == kernel.size and len(np.unique(before)) == 3
