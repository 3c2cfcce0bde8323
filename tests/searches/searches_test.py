"""Annealing, genetic search, perturbations and mixed-integer programs: oracles."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import memory
from bitjax import quantizers
from bitjax import scans
from bitjax import searches
from bitjax import types

BINARY = quantizers.attach(quantizers.sign(), quantizers.identity())


def make(seed=0, fan_in=4, units=3, examples=30, activation='sign'):
  rng = np.random.default_rng(seed)
  x = rng.integers(-2, 3, size=(examples, fan_in))
  return scans.LayerView(
    inputs=jnp.asarray(x, jnp.float32),
    kernel=jnp.asarray(rng.normal(size=(fan_in, units)), jnp.float32),
    labels=jnp.asarray(rng.integers(0, 3, examples)),
    tail=(
      scans.Activation(activation, BINARY if activation == 'sign' else None),
      scans.Dense(jnp.asarray(rng.normal(size=(units, 3)), jnp.float32)),
    ),
    quantizer=BINARY,
  )


def optimum(view):
  """The lowest loss of all signs, by trying them."""
  found = scans.exhaustive(view, types.Budget(float(view.kernel.size), 'flips'))
  return float(found.loss - found.decrease)


def same(a, b):
  for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      x, y = jax.random.key_data(x), jax.random.key_data(y)
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
  'activation', ['sign', pytest.param('relu', marks=pytest.mark.slow)]
)
def test_annealing_and_genetic_search_find_the_optimum_of_12_signs(activation):
  view = make(activation=activation)
  best, before = optimum(view), float(view.loss(view.kernel))
  assert best < before - 0.05
  state = searches.annealing_start(view, jax.random.key(1))
  cooling = lambda k: 0.997**k
  state, losses = searches.anneal(view, state, 1500, cooling)
  np.testing.assert_allclose(state.best_loss, best, rtol=1e-5)
  np.testing.assert_allclose(view.loss(state.best_kernel), best, rtol=1e-5)
  np.testing.assert_allclose(view.loss(state.kernel), losses[-1], rtol=1e-5)
  assert losses.min() >= best - 1e-5 and (np.diff(losses) > 1e-4).any()

  population = searches.genetic_start(view, jax.random.key(2), 4)
  population, lowest = searches.evolve(
    view, population, 40, num_children=12, mutations=2
  )
  np.testing.assert_allclose(lowest[-1], best, rtol=1e-5)
  np.testing.assert_allclose(
    view.loss(population.kernel(view)), best, rtol=1e-5
  )
  assert (np.diff(lowest) <= 1e-6).all() and lowest[0] > best + 1e-4


@pytest.mark.slow
def test_cold_annealing_only_descends_and_hot_annealing_takes_every_flip():
  view = make(3)
  start = searches.annealing_start(view, jax.random.key(0))
  cold, losses = searches.anneal(view, start, 100, 0.0)
  assert (np.diff(losses) <= 0).all()
  gains = scans.flip_gains(dataclasses.replace(view, kernel=cold.kernel)).gains
  assert gains.max() <= 1e-6  # A hundred draws of 12 weights met all.
  np.testing.assert_array_equal(cold.kernel, cold.best_kernel)
  _, hot = searches.anneal(view, start, 50, np.inf)
  assert (np.diff(hot) > 0).any()


@pytest.mark.slow
def test_frequencies_are_those_of_boltzmann():
  """At a constant temperature, kernels come as often as exp(-loss / T) says."""
  view = make(5, fan_in=2, units=2)
  temperature, kernels = 0.1, list(itertools.product([-1.0, 1.0], repeat=4))
  losses = [float(view.loss(jnp.asarray(k).reshape(2, 2))) for k in kernels]
  want = np.exp(-np.array(losses) / temperature)
  want /= want.sum()
  _, path = searches.anneal(
    view, searches.annealing_start(view, jax.random.key(3)), 4000, temperature
  )
  mean = np.mean(path[100:])
  # About a quarter of the steps are independent; five standard errors.
  spread = np.sqrt(want @ np.square(losses) - (want @ losses) ** 2)
  assert abs(mean - want @ losses) < 5 * spread / np.sqrt(1000)
  assert spread > 0.02


@pytest.mark.parametrize(
  'path',
  ['incremental', pytest.param('brute_force', marks=pytest.mark.slow)],
)
def test_searches_resume_bitwise_and_paths_agree(path):
  view = make(1, fan_in=6)
  start = searches.genetic_start(view, jax.random.key(0), 3, num_flips=4)
  evolve = lambda state, number: searches.evolve(
    view, state, number, num_children=6, crossovers=3, path=path
  )
  whole, losses = evolve(start, 4)
  half, first = evolve(start, 2)
  resumed, second = evolve(half, 2)
  same(whole, resumed)
  np.testing.assert_array_equal(losses, np.concatenate([first, second]))
  for mask, loss in zip(whole.masks, whole.losses, strict=True):
    kernel = np.where(mask.reshape(6, 3), -view.kernel, view.kernel)
    np.testing.assert_allclose(view.loss(jnp.asarray(kernel)), loss, rtol=1e-5)
  other, _ = searches.evolve(
    view, start, 4, num_children=6, crossovers=3, path='brute_force', width=2
  )
  np.testing.assert_array_equal(whole.masks, other.masks)

  chain = searches.annealing_start(view, jax.random.key(4))
  once, losses = searches.anneal(view, chain, 16, 0.01)
  twice, first = searches.anneal(view, chain, 8, 0.01)
  twice, second = searches.anneal(view, twice, 8, 0.01)
  np.testing.assert_array_equal(once.kernel, twice.kernel)
  np.testing.assert_array_equal(once.best_kernel, twice.best_kernel)
  np.testing.assert_allclose(losses, np.concatenate([first, second]), rtol=1e-5)


@pytest.mark.slow
def test_children_have_signs_of_both_parents_and_mutations():
  view = make(2, fan_in=8)
  start = searches.genetic_start(view, jax.random.key(0), 2, num_flips=20)
  # All children survive where both parents are replaced by worse losses.
  start = start._replace(losses=start.losses + np.inf)
  distance = int(np.sum(start.masks[0] ^ start.masks[1]))
  assert distance >= 8
  end, _ = searches.evolve(
    view, start, 1, num_children=40, mutations=1, crossovers=3
  )
  for mask in end.masks:
    near = min(int(np.sum(mask ^ parent)) for parent in start.masks)
    assert near <= 4
  alone = searches.genetic_start(view, jax.random.key(0), 1)
  assert not alone.masks.any()
  alone, _ = searches.evolve(view, alone, 3, num_children=5)
  assert np.sum(alone.masks) <= 3


def test_flips_of_signs():
  kernel = jnp.array([[0.5, -0.25, 0.0], [1.0, -0.0, -2.0]])
  for number in (0, 1, 4, 6):
    found = searches.flip_signs(kernel, jax.random.key(number), number)
    flipped = (np.asarray(found) < 0) != (np.asarray(kernel) < 0)
    assert flipped.sum() == number
    np.testing.assert_allclose(np.abs(found), np.abs(kernel), atol=1e-30)
  gains = jnp.array([[0.0, 3.0, 0.0], [1.0, 0.0, 2.0]])
  key = jax.random.key(7)
  found = searches.flip_signs(kernel, key, 2, gains=gains, temperature=1e-3)
  np.testing.assert_array_equal(
    np.asarray(found) != np.asarray(kernel), [[0, 1, 0], [0, 0, 1]]
  )
  # At the temperature 1 the best weight is drawn as often as softmax says.
  draw = lambda key: searches.flip_signs(kernel, key, 1, gains=gains)[0, 1] > 0
  share = np.mean(jax.vmap(draw)(jax.random.split(jax.random.key(8), 2000)))
  want = float(jax.nn.softmax(gains.reshape(-1))[1])
  assert abs(share - want) < 4 * np.sqrt(want * (1 - want) / 2000)


def layer_losses(x, y, kernel, loss, margin):
  z = x @ kernel
  right = z[np.arange(len(y)), y]
  others = np.where(np.eye(kernel.shape[1], dtype=bool)[y], -np.inf, z)
  worst = margin + others.max(axis=1) - right
  return np.mean(worst > 0 if loss == 'errors' else np.maximum(worst, 0))


@pytest.mark.parametrize('loss', ['hinge', 'errors'])
@pytest.mark.parametrize(('features', 'classes'), [(6, 2), (4, 3)])
def test_the_mixed_integer_program_finds_the_optimum(loss, features, classes):
  pytest.importorskip('scipy')
  rng = np.random.default_rng(features)
  x = rng.integers(-2, 3, size=(20, features)).astype(float)
  y = rng.integers(0, classes, 20)
  found = searches.layer_optimum(
    x, y, classes, loss=loss, scale=0.5, margin=0.5
  )
  losses = [
    layer_losses(
      0.5 * x, y, np.reshape(k, (features, classes)), loss, 0.5 - 1e-9
    )
    for k in itertools.product([-1.0, 1.0], repeat=features * classes)
  ]
  np.testing.assert_allclose(found.loss, min(losses), atol=1e-6)
  np.testing.assert_allclose(
    layer_losses(0.5 * x, y, found.kernel, loss, 0.5 - 1e-9),
    found.loss,
    atol=1e-6,
  )
  assert found.proved and found.gap <= 1e-6 and found.loss > 0


@pytest.mark.slow
def test_a_program_of_40_signs_reports_its_gap():
  pytest.importorskip('scipy')
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(60, 20)), rng.integers(0, 2, 60)
  found = searches.layer_optimum(x, y, 2, most_seconds=3.0)
  assert found.kernel.shape == (20, 2)
  assert 0 <= found.bound <= found.loss
  assert found.proved == (found.gap < 1e-6)


def test_bad_input():
  view, key = make(), jax.random.key(0)
  real = dataclasses.replace(view, quantizer=None)
  start = searches.genetic_start(view, key, 2)
  chain = searches.annealing_start(view, key)
  other = make(fan_in=5)
  optimum = searches.layer_optimum

  def crowded():
    with memory.limited(1000):
      searches.genetic_start(view, key, 1000)

  for call, message in (
    (lambda: searches.genetic_start(real, key, 2), 'kernel of two levels'),
    (lambda: searches.annealing_start(real, key), 'kernel of two levels'),
    (lambda: searches.genetic_start(view, key, 0), 'num_parents must be'),
    (crowded, r'num_parents must be at most 37 for 12 weights'),
    (lambda: searches.evolve(view, start, 1, num_children=3), 'multiple of 2'),
    (
      lambda: searches.evolve(view, start, 1, num_children=2, mutations=0),
      'mutations must be an integer >= 1',
    ),
    (lambda: searches.evolve(other, start, 1, num_children=2), '15 weights'),
    (
      lambda: searches.evolve(
        view, start, 1, num_children=2, mesh=jax.make_mesh((1,), ('batch',))
      ),
      "an axis 'lanes'",
    ),
    (lambda: searches.anneal(other, chain, 1, 0.1), r'shape \(5, 3\)'),
    (lambda: searches.anneal(view, start, 1, 0.1), 'from annealing_start'),
    (lambda: searches.evolve(view, chain, 1, num_children=2), 'genetic_start'),
    (lambda: searches.anneal(view, chain, 0, 0.1), 'num_steps must be'),
    (lambda: searches.anneal(view, chain, 1, -0.1), 'temperature must be >= 0'),
    (lambda: searches.flip_signs(view.kernel, key, 13), 'at most 12'),
    (
      lambda: searches.flip_signs(view.kernel, key, 1, gains=jnp.ones(3)),
      "the kernel's shape",
    ),
    (lambda: searches.flip_signs(jnp.arange(3), key, 1), 'must be floating'),
    (lambda: optimum(np.ones((3, 21)), [0, 1, 0], 2), '42'),
    (lambda: optimum(np.ones((3, 2)), [0, 2, 0], 2), r'labels must be in'),
    (lambda: optimum(np.ones((3, 2)), [0, 1], 2), 'labels must be integers'),
    (lambda: optimum(np.ones(3), [0, 1, 0], 2), 'inputs must be finite'),
    (lambda: optimum(np.ones((3, 2)), [0, 1, 0], 2, loss='x'), 'hinge, errors'),
    (lambda: optimum(np.ones((1, 2)), [0], 2, margin=0.0), 'margin must be'),
  ):
    with pytest.raises(types.BadInput, match=message):
      call()
