"""Schedules against their closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import training
from bitjax import types

STEPS, WARMUP, PEAK = 50, 10, 0.4


def step_wise(t):
  return PEAK * 0.1 ** sum(t >= round(m * STEPS) for m in (0.5, 0.75))


FORMS = {
  'cosine': lambda t, n: PEAK / 2 * (1 + math.cos(math.pi * min(t / n, 1))),
  'linear': lambda t, n: PEAK * (1 - min(t / n, 1)),
  'constant': lambda t, n: PEAK,
}


@pytest.mark.parametrize('warmup', [0, 1, WARMUP])
@pytest.mark.parametrize('kind', training.SCHEDULES)
def test_learning_rates(kind, warmup):
  schedule = training.learning_rate(kind, PEAK, STEPS, warmup=warmup)
  found = jax.vmap(schedule)(jnp.arange(STEPS + 3))
  for t in range(STEPS + 3):
    if t < warmup:  # From eta / (warmup + 1), linearly, to the peak.
      first = PEAK / (warmup + 1)
      wanted = first + (PEAK - first) * t / warmup
    elif kind == 'step':
      wanted = step_wise(t)
    else:
      wanted = FORMS[kind](t - warmup, STEPS - warmup)
    np.testing.assert_allclose(
      found[t], wanted, rtol=1e-5, atol=1e-7, err_msg=f'{t}'
    )
  assert found[0] > 0 and found[warmup] == np.float32(PEAK)


def test_milestones():
  schedule = training.learning_rate(
    'step', 1.0, 100, milestones=(0.2, 0.3, 0.9), factor=0.5
  )
  found = [float(schedule(t)) for t in (0, 19, 20, 29, 30, 89, 90, 100)]
  assert found == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]


def test_milestones_of_short_trainings_that_coincide_count_each():
  schedule = training.learning_rate('step', 1.0, 3)  # Both are at step 2.
  np.testing.assert_allclose(schedule(2), 0.01, rtol=1e-6)


@pytest.mark.parametrize('kind', training.SCHEDULES)
def test_one_step_is_a_training(kind):
  schedule = training.learning_rate(kind, PEAK, 1)
  assert 0 < float(schedule(0)) <= np.float32(PEAK)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'kind': 'poly'}, 'kind must be one of cosine, step, linear, constant'),
    ({'peak': 0.0}, 'peak must be > 0'),
    ({'peak': -1.0}, 'peak must be > 0'),
    ({'peak': float('nan')}, 'peak must be > 0'),
    ({'num_steps': 0}, 'num_steps must be an integer >= 1'),
    ({'warmup': -1}, r'warmup must be in \[0, num_steps\), here 50; got -1'),
    ({'warmup': STEPS}, r'warmup must be in \[0, num_steps\), here 50; got 50'),
    ({'milestones': (0.0, 0.5)}, r'milestones must grow within \(0, 1\)'),
    ({'milestones': (0.5, 1.0)}, r'milestones must grow within \(0, 1\)'),
    ({'milestones': (0.7, 0.5)}, r'milestones must grow within \(0, 1\)'),
    ({'milestones': (0.5, 0.5)}, r'milestones must grow within \(0, 1\)'),
    ({'factor': 0.0}, 'factor must be in'),
    ({'factor': 1.5}, 'factor must be in'),
  ],
)
def test_bad_learning_rates(options, message):
  options = {'kind': 'step', 'peak': PEAK, 'num_steps': STEPS} | options
  with pytest.raises(types.BadInput, match=message):
    training.learning_rate(**options)


@pytest.mark.parametrize('num_steps', [1, 2, 9])
@pytest.mark.parametrize('kind', training.PROGRESS)
def test_progress(kind, num_steps):
  at = training.progress(kind, num_steps)
  steps = np.arange(num_steps + 2)
  p = np.minimum(steps / max(num_steps - 1, 1), 1.0)
  wanted = {
    'linear': p,
    'cosine': (1 - np.cos(np.pi * p)) / 2,
    'hard': np.ones_like(p),
  }[kind]
  found = jax.jit(jax.vmap(at))(jnp.asarray(steps))
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, wanted, atol=1e-6)
  assert found[-1] == 1 and (kind == 'hard' or found[0] == 0)
  np.testing.assert_allclose(at(1), wanted[1], atol=1e-6)  # A Python int.


def test_bad_progress():
  with pytest.raises(
    types.BadInput, match='kind must be one of linear, cosine'
  ):
    training.progress('exponential', 5)
  with pytest.raises(types.BadInput, match='num_steps must be an integer >= 1'):
    training.progress('linear', 0)


@pytest.mark.parametrize('spread', [0.0, 0.5, 0.99])
def test_restarts_at_random_times(spread):
  key = jax.random.key(3)
  schedule = training.restarts(PEAK, STEPS, 4, key, spread=spread)
  found = np.asarray(jax.vmap(schedule)(jnp.arange(STEPS)))
  tops = np.flatnonzero(found == np.float32(PEAK))
  assert tops[0] == 0 and len(tops) == 4
  for begin, end in zip(tops, [*tops[1:], STEPS], strict=True):
    times = np.arange(end - begin) / (end - begin)
    wanted = PEAK / 2 * (1 + np.cos(np.pi * times))
    np.testing.assert_allclose(found[begin:end], wanted, rtol=1e-5, atol=1e-7)
  lengths = np.diff([*tops, STEPS])
  assert (lengths >= np.floor((1 - spread) / (1 + spread) * STEPS / 4)).all()
  assert (np.ptp(lengths) <= 1) == (spread == 0)
  assert schedule(STEPS) < 1e-7 and schedule(STEPS + 9) < 1e-7
  # Keys are lanes, and each restarts at its own times.
  keys = jax.random.split(jax.random.key(0), 5)
  lanes = jax.jit(jax.vmap(lambda k: jax.vmap(
    training.restarts(PEAK, STEPS, 4, k, spread=spread)
  )(jnp.arange(STEPS))))(keys)  # fmt: skip
  assert len({row.tobytes() for row in np.asarray(lanes)}) == (
    5 if spread else 1
  )


def test_one_period_is_the_cosine():
  one = training.restarts(PEAK, STEPS, 1, jax.random.key(0))
  other = training.learning_rate('cosine', PEAK, STEPS)
  for step in (0, 1, 17, STEPS - 1, STEPS):
    np.testing.assert_allclose(one(step), other(step), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    ({'peak': 0.0}, 'peak must be'),
    ({'periods': 0}, 'periods must be'),
    ({'periods': 9}, 'periods must be at most num_steps, here 8'),
    ({'spread': 1.0}, 'spread must be'),
  ],
)
def test_bad_restarts(options, words):
  given = {'peak': 0.1, 'num_steps': 8, 'periods': 2} | options
  with pytest.raises(types.BadInput, match=words):
    training.restarts(**given, key=jax.random.key(0))
