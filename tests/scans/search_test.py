"""Sequential and exhaustive searches, and central differences, against loops."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import scans
from bitjax import types

SCALED = quantizers.mean_abs('tensor')


def sign(x):
  return np.where(x >= 0, 1.0, -1.0)


def destinations(kernel):
  return -1e-3 * np.abs(kernel).max() * sign(kernel)


def accept_if_better(kernel, loss, order, radius):
  """Moves in an order of places, made if the loss falls and l2 pays for it."""
  start = np.asarray(kernel, float)
  there = destinations(start)
  here, best, tried = start.copy(), loss(start), 0
  for place in order:
    moved = here.copy()
    moved.ravel()[place] = there.ravel()[place]
    if np.linalg.norm(moved - start) > radius:
      continue
    tried += 1
    if loss(moved) < best - 1e-6:
      here, best = moved, loss(moved)
  return here, best, tried


@pytest.mark.optimised
@pytest.mark.parametrize('activation', ['sign', 'relu'])
def test_coordinate_descent_equals_the_loop(make, activation):
  view, loss = make(activation=activation, examples=300)
  holdout, holdout_loss = make(seed=1, activation=activation)
  signal = np.random.default_rng(0).permutation(24).reshape(6, 4) * 1.0
  found = scans.coordinate_discrete_gradient(
    view, types.Budget(0.5), order=jnp.asarray(signal), holdout=holdout
  )
  order = np.argsort(-signal.ravel())
  moved, best, tried = accept_if_better(view.kernel, loss, order, 0.5)
  kernel = np.asarray(view.kernel + found.displacement)
  np.testing.assert_array_equal(sign(kernel), sign(moved))
  fall = loss(view.kernel) - best
  np.testing.assert_allclose(found.decrease_search, fall, atol=2e-6)
  np.testing.assert_allclose(found.predicted, fall, atol=2e-6)
  fall = holdout_loss(view.kernel) - holdout_loss(moved)
  np.testing.assert_allclose(found.decrease_holdout, fall, atol=2e-6)
  assert 2 < found.num_moves == found.accepted.sum() < tried <= kernel.size
  assert found.loss_evaluations == tried + 2
  assert found.used <= 0.5
  np.testing.assert_allclose(
    found.used, np.linalg.norm(moved - view.kernel), rtol=1e-6
  )


def test_coordinate_descent_of_coupled_weights(make):
  view, _ = make(seed=2)
  coupled = dataclasses.replace(view, scaling=SCALED)

  def loss(kernel):
    return float(coupled.loss(jnp.asarray(kernel, jnp.float32)))

  found = scans.coordinate_discrete_gradient(
    coupled, types.Budget(0.5), order='cost'
  )
  cost = np.abs(destinations(view.kernel) - view.kernel)
  order = np.argsort(cost.ravel(), kind='stable')
  moved, best, _ = accept_if_better(view.kernel, loss, order, 0.5)
  np.testing.assert_array_equal(
    sign(view.kernel + found.displacement), sign(moved)
  )
  fall = loss(view.kernel) - best
  np.testing.assert_allclose(found.decrease_search, fall, atol=2e-6)
  assert found.num_moves > 1


@pytest.mark.optimised
def test_coordinate_descent_in_sweeps_and_of_a_few_candidates(make):
  view, _ = make(seed=3, binary=False, activation='relu')
  budget = types.Budget(100.0)

  def descend(key, **kwargs):
    return scans.coordinate_discrete_gradient(
      view, budget, key=key, step=0.25, **kwargs
    )

  # A sweep moves each weight once, and later ones go on from there.
  more = descend(jax.random.key(0), num_sweeps=3)
  moves, made = jnp.abs(more.displacement) / 0.25, more.accepted.reshape(3, -1)
  assert jnp.max(moves) > 1 and made[0].sum() <= 24
  assert made.sum(axis=1).all()
  few = descend(jax.random.key(1), num_candidates=5)
  assert few.accepted.shape == (5,)
  assert few.num_moves <= 5 and few.loss_evaluations <= 7


def best_subset(kernel, loss, radius, norm, free):
  start = np.asarray(kernel, float)
  there, best, points = destinations(start), start, 0
  for chosen in itertools.product([False, True], repeat=len(free)):
    moved = start.copy()
    for place, taken in zip(free, chosen, strict=True):
      if taken:
        moved.ravel()[place] = there.ravel()[place]
    distance = np.abs(moved - start)
    size = np.linalg.norm(distance) if norm == 'l2' else (distance > 0).sum()
    if size <= radius:
      points += 1
      best = moved if loss(moved) < loss(best) - 1e-9 else best
  return best, points


@pytest.mark.optimised
@pytest.mark.parametrize(('norm', 'radius'), [('l2', 0.3), ('flips', 3.0)])
def test_exhaustive_search_finds_the_optimum(make, norm, radius):
  view, loss = make(seed=4)
  free = [1, 2, 3, 7, 8, 11, 20]
  budget = types.Budget(radius, norm)
  optimum = scans.exhaustive(view, budget, coordinates=jnp.asarray(free))
  best, points = best_subset(view.kernel, loss, radius, norm, free)
  np.testing.assert_array_equal(
    sign(view.kernel + optimum.displacement), sign(best)
  )
  np.testing.assert_allclose(
    optimum.decrease, loss(view.kernel) - loss(best), atol=1e-6
  )
  assert optimum.num_points == points < 2 ** len(free)
  assert (np.asarray(best) != np.asarray(view.kernel)).sum() > 1


@pytest.mark.slow
@pytest.mark.optimised
def test_the_greedy_search_does_not_beat_the_optimum(make):
  kernel = np.random.default_rng(5).normal(size=(6, 2)) / 8
  view, _ = make(seed=5)
  (activation, dense) = view.tail
  view = dataclasses.replace(
    view,
    kernel=jnp.asarray(kernel, jnp.float32),
    tail=(activation, scans.Dense(dense.kernel[:2])),
  )
  budget = types.Budget(0.2)
  optimum = scans.exhaustive(view, budget)
  found = scans.discrete_gradient(view, budget, path='brute_force')
  assert 0 < found.decrease_search <= optimum.decrease + 1e-6


@pytest.mark.optimised
def test_exhaustive_search_of_two_moves_each(make):
  view, loss = make(seed=6, binary=False, activation='relu')
  free = jnp.array([0, 5, 9, 14])
  optimum = scans.exhaustive(
    view, types.Budget(0.5), coordinates=free, step=0.25
  )
  start = np.asarray(view.kernel, float)
  falls = []
  for steps in itertools.product([0, 0.25, -0.25], repeat=4):
    moved = start.copy()
    moved.ravel()[np.asarray(free)] += steps
    falls.append(loss(start) - loss(moved))
  assert optimum.num_points == 3**4  # Four steps of 1/4: exactly the radius.
  np.testing.assert_allclose(optimum.decrease, max(falls), atol=1e-5)


@pytest.mark.parametrize('path', ['auto', 'brute_force'])
@pytest.mark.parametrize('binary', [True, False])
def test_central_differences(make, binary, path):
  kernel = np.random.default_rng(7).integers(-8, 9, size=(6, 4)) / 32
  kernel[0] = 0.0, 0.125, -0.125, -0.0  # Two steps end at zero exactly.
  view, loss = make(seed=7, kernel=kernel, binary=binary)
  step = 0.125
  found = scans.central_difference(view, step, path=path)
  expected = np.zeros(kernel.shape)
  for place in np.ndindex(*kernel.shape):
    up, down = kernel.copy(), kernel.copy()
    up[place] += step
    down[place] -= step
    expected[place] = (loss(up) - loss(down)) / (2 * step)
  assert np.abs(expected).max() > 0.1
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_bad_input(make):
  view, _ = make()
  real, _ = make(binary=False)
  budget = types.Budget(0.1)
  coordinate = scans.coordinate_discrete_gradient
  coupled = dataclasses.replace(view, scaling=SCALED)

  def cheapest(**kwargs):
    return coordinate(view, budget, order='cost', **kwargs)

  for call, message in (
    (lambda: coordinate(view, types.Budget(0.0)), r'radius must be > 0'),
    (lambda: coordinate(view, budget), r"'random' needs a key"),
    (lambda: coordinate(view, budget, order='x'), r'order.*exact, linear'),
    (lambda: cheapest(rank_by='x'), r'rank_by.*gain_per_squared_cost'),
    (lambda: cheapest(num_sweeps=0), r'num_sweeps must be an integer >= 1'),
    (
      lambda: cheapest(num_candidates=0),
      r'num_candidates must be an integer >= 1',
    ),
    (lambda: cheapest(tolerance=-1.0), r'tolerance must be >= 0'),
    (
      lambda: scans.exhaustive(real, budget, step=0.25),
      r'24 free weights.*282429536481',
    ),
    (
      lambda: scans.exhaustive(view, budget, coordinates=jnp.array([1, 24])),
      r'coordinates must be in \[0, 23\]; got 24',
    ),
    (
      lambda: scans.exhaustive(view, budget, coordinates=jnp.array([3, 1, 3])),
      r'name each weight once; got 3 more',
    ),
    (lambda: scans.exhaustive(view, types.Budget(0.0)), r'radius must be > 0'),
    (lambda: scans.central_difference(view, 0.0), r'step must be > 0'),
    (lambda: scans.central_difference(view, 0.1, path='x'), r'path must be'),
    (
      lambda: scans.central_difference(coupled, 0.1, path='rank_one'),
      r"'rank_one' does not apply",
    ),
  ):
    with pytest.raises(types.BadInput, match=message):
      call()


@pytest.mark.slow
def test_nothing_to_look_at_and_losses_that_are_not_finite(make):
  view, _ = make()
  budget, key = types.Budget(0.1), jax.random.key(0)
  step = scans.discrete_gradient(view, budget, signal='cost')
  calls = {
    'single': lambda v: scans.discrete_gradient(v, budget, signal='cost'),
    'multi': lambda v: scans.multi_step_discrete_gradient(
      v, budget, 1, signal='cost'
    ),
    'coordinate': lambda v: scans.coordinate_discrete_gradient(
      v, budget, order='cost', num_candidates=1
    ),
    'exhaustive': lambda v: scans.exhaustive(
      v, budget, coordinates=jnp.array([0])
    ),
    'descent': lambda v: scans.flip_descent(v, 1),
    'pairs': lambda v: scans.pair_gains(v, key, 1),
    'central': lambda v: scans.central_difference(v, 0.1),
    'prefixes': lambda v: scans.prefix_scan(v, step, (0, 1)),
    'line': lambda v: scans.line_scan(v, v.kernel, jnp.ones(2)),
  }
  no_batch = dataclasses.replace(
    view, inputs=view.inputs[:0], labels=view.labels[:0]
  )
  no_units = dataclasses.replace(view, kernel=view.kernel[:, :0])
  for call in calls.values():
    with pytest.raises(
      types.BadInput, match='must not be empty; got 0 examples'
    ):
      call(no_batch)
    with pytest.raises(types.BadInput, match=r'a kernel of shape \(6, 0\)'):
      call(no_units)
  infinite = (*view.tail, scans.Affine(jnp.inf))
  infinite = dataclasses.replace(view, tail=infinite)
  for name in 'single', 'coordinate', 'exhaustive', 'descent', 'pairs':
    with pytest.raises(types.BadInput, match='must be finite; got'):
      calls[name](infinite)


def classifier(fan_in, examples=9):
  """A binary layer with nothing behind it, of three classes."""
  rng = np.random.default_rng(fan_in)
  return scans.LayerView(
    inputs=jnp.asarray(rng.integers(-2, 3, (examples, fan_in)), jnp.float32),
    kernel=jnp.asarray(rng.normal(size=(fan_in, 3)), jnp.float32),
    labels=jnp.arange(examples) % 3,
    tail=(),
    quantizer=quantizers.attach(quantizers.sign(), quantizers.identity()),
  )


def test_24_signs_are_the_most():
  search = lambda view: scans.exhaustive(view, types.Budget(27.0, 'flips'))
  assert jax.eval_shape(search, classifier(8)).loss.shape == ()
  with pytest.raises(types.BadInput, match='27 free weights'):
    jax.eval_shape(search, classifier(9))


@pytest.mark.slow
@pytest.mark.optimised
def test_21_signs_all_together():
  """Against all 128 columns of each class, whose losses are summed in NumPy."""
  view = classifier(7)
  found = scans.exhaustive(view, types.Budget(21.0, 'flips'))
  columns = np.array(list(itertools.product([-1.0, 1.0], repeat=7)))
  logits = np.asarray(view.inputs, float) @ columns.T  # [examples, columns]
  each = [z.reshape(np.roll([-1, 1, 1], c)) for z in logits for c in range(3)]
  losses = sum(
    np.log(sum(np.exp(z) for z in each[3 * b : 3 * b + 3]))
    - each[3 * b + int(view.labels[b])]
    for b in range(9)
  )
  assert losses.min() > 0.1
  assert losses.size == found.num_points == 2**21
  np.testing.assert_allclose(
    found.loss - found.decrease, losses.min() / 9, atol=1e-6
  )
  kernel = view.kernel + found.displacement
  np.testing.assert_allclose(view.loss(kernel), losses.min() / 9, atol=1e-6)
