"""Bop's arms: one threshold for all layers and signals, and nine settings for each."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import training
from bitjax.studies import fitted_windows
from bitjax.studies.fitted_windows import arms
from bitjax.studies.fitted_windows import flips
from bitjax.studies.fitted_windows import networks

STEPS = 4


def phases(name, gamma=0.5):
  model = networks.build(networks.SIGNS, None, 3, (4,), {})
  task = training.Task(model, optax.sgd(0.1), 3, lambda x: x)
  return flips.led([training.Phase(task, STEPS)], name, gamma, 0.1, 6)


def test_the_rule_is_bops_in_units_of_each_layer():
  (phase,) = phases(flips.STE)
  draw = np.random.default_rng(0)
  shapes = {'a': (3, 4), 'b': (5,)}
  params = {n: np.sign(draw.normal(size=s)) for n, s in shapes.items()}
  given = {n: jnp.asarray(w, jnp.float32) for n, w in params.items()}
  tx, rate = phase.task.tx, 1.5
  state = jax.tree.map(
    lambda leaf: leaf * rate if leaf.dtype == jnp.float32 else leaf,
    tx.init(given),
  )  # The multiplier is 1 and the averages are 0.
  average, flipped = {n: 0 * w for n, w in params.items()}, 0
  for step in range(STEPS):
    signal = {n: draw.normal(size=s) * 10.0**step for n, s in shapes.items()}
    updates, state = tx.update(jax.tree.map(jnp.asarray, signal), state, given)
    given = optax.apply_updates(given, updates)
    rest = 0.5 * (1 - step / STEPS)
    for n, g in signal.items():
      unit = g / np.sqrt(np.mean(g**2))
      average[n] = (1 - rest) * average[n] + rest * rate * unit
      turned = params[n] * average[n] > np.sqrt(0.5 / 2)
      params[n] = np.where(turned, -params[n], params[n])
      flipped += turned.sum()
    for n, w in params.items():
      np.testing.assert_array_equal(given[n], w)
  assert flipped > 3


def test_a_layer_without_a_signal_stays():
  (phase,) = phases(flips.STE)
  params = {'kernel': jnp.ones(3)}
  zeros, state = jnp.zeros(3), phase.task.tx.init(params)
  updates, _ = phase.task.tx.update({'kernel': zeros}, state, params)
  np.testing.assert_array_equal(updates['kernel'], zeros)


@pytest.mark.parametrize(
  ('name', 'signal'),
  [
    (flips.STE, None),
    (flips.EXACT, training.CoFlips(0.0, 1)),
    (flips.SMOOTHED, training.CoFlips(0.1, 6)),
  ],
)
def test_arms_differ_in_their_signal_alone(name, signal):
  (phase,) = phases(name)
  assert phase.task.signal == signal
  arm = arms.arm_of(name)
  assert len(arm.values) == len(arms.SHAPES) == 3
  assert {arm.factor(shape) for shape in arms.SHAPES} == {1.0}
  config = fitted_windows.STUDY.config(**fitted_windows.STUDY.presets['bop'])
  assert len(config.rates) == 3 and name in config.arms
  model = config.model(3)
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros((1, 2, 2)))
  )
  paths = [path for path, _ in jax.tree.leaves_with_path(shapes)]
  assert all(path[-1].key == 'kernel' for path in paths) and len(paths) == 3
