"""What methods may spend, where they are read, and what they end at."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import quantizers
from bitjax import scans
from bitjax import training
from bitjax.studies.discrete_optimisers import arms
from bitjax.studies.discrete_optimisers import flips
from bitjax.studies.discrete_optimisers import gradients
from bitjax.studies.discrete_optimisers import methods
from bitjax.studies.discrete_optimisers import study

BINARY = quantizers.attach(quantizers.sign(), quantizers.identity())
SPENT = methods.Spent(16, 10, 20)


def view(seed=0):
  rng = np.random.default_rng(seed)
  return scans.LayerView(
    inputs=jnp.asarray(rng.normal(size=(20, 5)), jnp.float32),
    kernel=jnp.asarray(rng.normal(size=(5, 3)), jnp.float32),
    labels=jnp.asarray(rng.integers(0, 3, 20)),
    tail=(
      scans.Activation(
        'sign', quantizers.attach(quantizers.sign(), quantizers.window(1.0))
      ),
      scans.Dense(jnp.asarray(rng.normal(size=(3, 3)), jnp.float32)),
    ),
    quantizer=BINARY,
  )


def signs(kernels):
  return np.where(np.asarray(kernels) < 0, -1.0, 1.0)


def test_a_loss_is_a_third_of_a_gradient():
  assert SPENT.gradients == 8 and SPENT.evaluations == 24
  # Parents are evaluated first, and again in each generation of 4 + 12.
  counts = flips._counts(SPENT, 4, 16)
  assert counts == [0, 0, 0, 1, 2, 5]
  assert flips._counts(SPENT, 1, 1) == [2, 5, 11, 23, 47, 95]


def test_methods_have_equally_many_settings():
  for name, method in arms.METHODS.items():
    assert len(method.settings) == arms.SETTINGS, name
    assert len({tuple(s.items()) for s in method.settings}) == arms.SETTINGS


def test_continued_ste_is_the_loop():
  """With signs of latent weights whose mean magnitude is 1, by SGD in its own unit."""
  given = view()
  kernels = jax.jit(
    lambda v: gradients.METHODS['STE, SGD'].run(
      v, jax.random.key(4), {'rate': 0.1}, SPENT
    )
  )(given)
  latent = given.kernel / jnp.abs(given.kernel).mean()
  measuring, key = jax.random.split(jax.random.key(4))
  keys = jax.random.split(key, (8, 2)).reshape(-1)

  @jax.jit
  def gradient(latent, key):
    rows = jax.random.randint(key, (10,), 0, 20, jnp.int32)
    batch = dataclasses.replace(
      given, inputs=given.inputs[rows], labels=given.labels[rows]
    )
    return jax.grad(batch.loss)(latent)

  size = jnp.sqrt(jnp.mean(gradient(latent, measuring) ** 2))
  path = []
  for key in keys:
    latent = latent - 0.1 / size * gradient(latent, key)
    path.append(latent)
  # After an eighth, a quarter, a half and all of 16 updates, and nothing beyond.
  for row, number in enumerate((2, 4, 8, 16, 16, 16)):
    np.testing.assert_allclose(
      kernels[row], path[number - 1], rtol=1e-4, atol=1e-5
    )
  assert (signs(kernels[-1]) != signs(given.kernel)).any()


def test_weighted_flips_prefer_gains_and_are_as_many():
  """Of 2000 draws of a flip, frequencies are those of the weights of Boltzmann."""
  given = view(4)
  gains = np.asarray(scans.flip_gains(given, path='brute_force').gains, float)
  weights = np.exp(gains / gradients._TEMPERATURE / np.sqrt((gains**2).mean()))

  @jax.jit
  @jax.vmap
  def moved(key):
    setting = {'share': jnp.float32(1.01 / 15)}
    kernel = gradients._weighted(setting, key, given.kernel, given)
    return (kernel < 0) != (given.kernel < 0)

  found = np.asarray(moved(jax.random.split(jax.random.key(8), 2000)))
  assert (found.sum((1, 2)) == 1).all()
  wanted = weights / weights.sum()
  spread = np.sqrt(wanted * (1 - wanted) / 2000)
  assert (np.abs(found.mean(0) - wanted) < 5 * spread).all()
  assert wanted.max() > 3 / 15


@pytest.mark.parametrize('name', ['flips at intervals', 'noise at intervals'])
def test_perturbations_come_at_the_beginning_of_each_segment(name):
  """With a rate of 0 nothing else moves."""
  given = view(5)
  setting = {'share': 3.01 / 15, 'radius': 0.5, 'rate': 0.0}
  run = jax.jit(lambda v, s: gradients.METHODS[name].run(
    v, jax.random.key(4), s, SPENT
  ))  # fmt: skip
  kernels = np.asarray(run(given, setting))
  start = given.kernel / jnp.abs(given.kernel).mean()
  draw, _ = jax.random.split(jax.random.key(4))
  move = jax.jit({'f': gradients._flip, 'n': gradients._shake}[name[0]])
  w, path = start, []
  for number in range(0, 16, 2):
    key = jax.random.fold_in(jax.random.clone(draw), number)
    w = move(setting, key, w)
    path.append(w)
  for row, segment in enumerate((0, 1, 3, 7, 7, 7)):
    np.testing.assert_allclose(
      kernels[row], path[segment], rtol=1e-4, atol=1e-5
    )


def test_one_fall_of_the_rate_is_adam_by_a_cosine():
  given = view(6)
  _, key = jax.random.split(jax.random.key(0))
  kernels = jax.jit(lambda v: gradients.METHODS['one fall of the rate'].run(
    v, jax.random.key(0), {'rate': 0.1}, SPENT
  ))(given)  # fmt: skip
  _, key = jax.random.split(key)
  keys = jax.random.split(key, (8, 2)).reshape(-1)
  tx = optax.adam(training.learning_rate('cosine', 0.1, 16))

  @jax.jit
  def step(latent, state, key):
    rows = jax.random.randint(key, (10,), 0, 20, jnp.int32)
    batch = dataclasses.replace(
      given, inputs=given.inputs[rows], labels=given.labels[rows]
    )
    updates, state = tx.update(jax.grad(batch.loss)(latent), state)
    return optax.apply_updates(latent, updates), state

  latent = given.kernel / jnp.abs(given.kernel).mean()
  state = tx.init(latent)
  for key in keys:
    latent, state = step(latent, state, key)
  np.testing.assert_allclose(kernels[-1], latent, rtol=1e-3, atol=1e-4)


def every_setting(method, given, key):
  """Yields the kernels of all settings, by one program."""
  run = jax.jit(lambda v, s: method.run(v, jax.random.clone(key), s, SPENT))
  for setting in method.settings:
    yield run(given, {k: jnp.float32(v) for k, v in setting.items()})


@pytest.mark.slow
@pytest.mark.parametrize('name', gradients.METHODS)
def test_methods_that_follow_gradients_end_at_finite_kernels(name):
  given, method = view(1), gradients.METHODS[name]
  for kernels in every_setting(method, given, jax.random.key(0)):
    assert kernels.shape == (len(methods.EFFORTS) - 1, 5, 3)
    assert np.isfinite(kernels).all()
    if name in ('ADMM', 'ProxQuant', 'PARQ'):  # They end at levels.
      np.testing.assert_allclose(np.abs(kernels[-1]), 1.0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('name', flips.METHODS)
def test_searches_never_end_above_where_they_began(name):
  given, lowest = view(2), []
  start = float(given.loss(given.kernel))
  for kernels in every_setting(flips.METHODS[name], given, jax.random.key(1)):
    losses = np.array([given.loss(k) for k in kernels])
    assert losses[0] <= start + 1e-6
    assert (np.diff(losses) <= 1e-6).all()
    lowest.append(losses[-1])
  assert min(lowest) < start - 1e-3


@pytest.mark.slow
def test_random_search_is_the_best_of_as_many_sets():
  given, key = view(3), jax.random.key(5)
  setting = {'flips': jnp.float32(4)}
  kernels = flips.METHODS['random search'].run(
    given, jax.random.key(5), setting, SPENT
  )
  number = flips._counts(SPENT, 1, 1)[-1]
  sets = jax.random.randint(key, (number, 64), 0, 15, jnp.int32)[:, :4]
  first = signs(given.kernel)
  tried = []
  for places in np.asarray(sets):
    moved = first.ravel().copy()
    moved[list({*places.tolist()})] *= -1
    tried.append(float(given.loss(jnp.asarray(moved.reshape(5, 3)))))
  start = float(given.loss(given.kernel))
  for kernel, count in zip(kernels, flips._counts(SPENT, 1, 1), strict=True):
    np.testing.assert_allclose(
      given.loss(kernel), min([start, *tried[:count]]), rtol=1e-5
    )


@pytest.mark.parametrize(
  ('flag', 'words'),
  [
    ('--updates=20', 'updates must be a multiple of 8'),
    ('--hidden=2', 'hidden must be at least two numbers, growing'),
    ('--hidden=4,2', 'hidden must be at least two numbers, growing'),
    ('--batch_size=32,64', 'batch_size takes at most 1 value'),
    ('--batch_size=4', 'batch_size must be >= 16'),
    ('--augment=shift', 'unknown flag --augment'),
  ],
)
def test_bad_input(refused, flag, words):
  refused(study.STUDY, ['--preset=smoke', flag], words)
