"""How the classifier is treated apart, and which network starts from what."""

import dataclasses

import jax
import numpy as np
import pytest

from bitjax import data
from bitjax import sweeps
from bitjax import training
from bitjax.studies import initialisation
from bitjax.studies.initialisation import arms as arms_lib
from bitjax.studies.initialisation import passing
from bitjax.studies.initialisation import starts
from bitjax.studies.initialisation import trainings

STUDY = initialisation.STUDY
CONFIG = STUDY.config(
  **STUDY.presets['smoke']
  | {'seeds': (0, 1), 'tuning_seeds': (7, 8), 'rates': (0.41, 1.0)}
  | {'classifier_decay': 0.3, 'classifier_rate': 3.0, 'weight_decay': 0.1}
)


def test_arms():
  arms = arms_lib.every(('xavier', 'kaiming_normal', 'scaled 10'))
  labels = [str(arm) for arm in arms]
  assert len(set(labels)) == len(labels) == 8 + 2
  assert labels[:4] == [
    'kaiming_normal', 'kaiming_normal, small', 'xavier', 'scaled 10'
  ]  # fmt: skip
  assert labels[-1] == 'kaiming_normal, small, fast, decayed'
  for label in arms_lib.PASSING:
    assert str(arms_lib.measured(label)) == label


@pytest.mark.parametrize('fast', [False, True])
@pytest.mark.parametrize('decayed', [False, True])
def test_updates_by_hand(fast, decayed):
  """Momentum SGD, with a rate and a decay of the classifier's own."""
  config = dataclasses.replace(CONFIG, epochs=1.0)
  train = config.load()[0].train
  (phase,) = trainings.phases(config, train, fast, decayed)
  tx, steps = phase.task.tx, phase.until
  draw = np.random.default_rng(0)
  shapes = {
    'Dense_0': {'kernel': (3, 2), 'bias': (2,)},
    'Block_0': {'Conv_0': {'kernel': (2, 3)}, 'BatchNorm_0': {'scale': (3,)}},
  }

  def drawn():
    return jax.tree.map(
      lambda shape: draw.normal(size=shape).astype(np.float32),
      shapes,
      is_leaf=lambda leaf: isinstance(leaf, tuple),
    )

  params = drawn()
  state = tx.init(params)
  moments = jax.tree.map(lambda leaf: 0 * leaf, params)
  for step in range(3):
    grads = drawn()
    updates, state = tx.update(grads, state, params)
    rate = config.learning_rate * (1 + np.cos(np.pi * step / steps)) / 2

    def moment(path, old, g, p):
      keys = [key.key for key in path]
      g = g + 0.1 * p * (keys[-1] == 'kernel')
      own = keys == ['Dense_0', 'kernel'] and decayed
      return 0.9 * old + g + 0.3 * p * own

    moments = jax.tree.map_with_path(moment, moments, grads, params)

    def check(path, update, m, rate=rate):
      factor = 3.0 if fast and path[0].key == 'Dense_0' else 1.0
      np.testing.assert_allclose(update, -rate * factor * m, rtol=1e-5)

    jax.tree.map_with_path(check, updates, moments)
    params = jax.tree.map(np.add, params, updates)


class Fake:
  """Records what is asked of `training.fit`, and trains nothing."""

  def __init__(self):
    self.calls = []

  def fit(self, phases, feeds, seeds, *, rates, variables, **options):
    (phase,) = phases
    self.calls.append((phase.task, list(seeds), rates, variables))
    params = jax.tree.map(
      lambda *leaves: np.stack(leaves), *[one['params'] for one in variables]
    )
    state = training.TrainState(
      None, None, params, {}, None, None, None
    )  # Evaluated by the double below.
    number = max(1, -(-phase.until // feeds[0].steps_per_epoch))
    row = np.full((number, len(seeds)), 0.25)
    history = {'train_loss': 2 * row, 'flip_ratio/Block_0/Conv_0': row}
    history |= {'flip_ratio/Block_0/Conv_1': 3 * row, 'flip_ratio/Conv_0': row}
    return training.Fitted(state, history)


def evaluator(task, number, mesh):
  """Scores that say how many images were guessed of how many."""

  def evaluate(variables, batches):
    loss = np.full(number, batches[2].sum())
    right = np.broadcast_to(batches[1] == 3, (number, *batches[1].shape))
    return training.Scores(loss, loss / 1000, right)

  return evaluate


@pytest.fixture
def fake(monkeypatch):
  fake = Fake()
  monkeypatch.setattr(training, 'fit', fake.fit)
  monkeypatch.setattr(training, 'evaluator', evaluator)
  return fake


@pytest.mark.slow
def test_what_is_trained(fake, tmp_path):
  parts = CONFIG.open(sweeps.Sweep())
  results = trainings.compare(CONFIG, parts, sweeps.Sweep(tmp_path))
  arms = CONFIG.every()
  assert results.arm.values.tolist() == [str(arm) for arm in arms]
  for name in arms_lib.CHANGES:
    assert results[name].values.tolist() == [getattr(a, name) for a in arms]
  # Both rates of the tuning seeds in pairs, then the seeds at the chosen one.
  assert [call[1] for call in fake.calls] == [[7, 8]] * 18 + [[0, 1]] * 9
  tasks = {}
  for (task, seeds, _, variables), arm in zip(
    fake.calls, [*(a for a in arms for _ in range(2)), *arms], strict=True
  ):
    tasks.setdefault((arm.fast, arm.decayed), set()).add(id(task))
    for seed, given in zip(seeds, variables, strict=True):
      kernel = given['params']['Dense_0']['kernel']
      row = results.sel(arm=str(arm))
      if seed in (0, 1):
        spread = row.spread.sel(seed=seed)
        np.testing.assert_allclose(spread, kernel.std(), rtol=1e-5)
  assert len(tasks) == 4 and all(len(ids) == 1 for ids in tasks.values())
  spreads = results.spread
  np.testing.assert_allclose(
    spreads.where(results.small, drop=True).values,
    arms_lib.SMALL * spreads.sel(arm=['kaiming_normal'] * 4).values,
    rtol=1e-5,
  )
  np.testing.assert_allclose(results.flips, 0.5)  # Of quantized layers alone.
  np.testing.assert_allclose(results.curve, 0.5)
  np.testing.assert_allclose(
    results.train_loss, (500**2 + 500**2 + 242**2) / 1242, rtol=1e-6
  )
  guessed = np.unpackbits(
    results.test_right.values.astype(np.uint8), axis=-1, count=355
  )
  np.testing.assert_array_equal(
    guessed, np.broadcast_to(parts.test.labels == 3, guessed.shape)
  )
  fake.calls.clear()
  again = trainings.compare(CONFIG, parts, sweeps.Sweep(tmp_path))
  assert not fake.calls and again.identical(results)


@pytest.mark.slow
def test_large_latent_weights_flip_less():
  """Trained for real, without decay: a scale sets how fast signs flip."""
  config = dataclasses.replace(CONFIG, epochs=1.0, weight_decay=0.0)
  train = config.load()[0].train
  (phase,) = trainings.phases(config, train, False, False)
  feeds = data.device_feeds(train, config.batch_size, [0])
  batch = passing.batch(train, config.images, 0)

  def flips(start):
    given = starts.variables(
      phase.task.model, arms_lib.Arm(start), 0, *batch, quantized='Block_'
    )
    fitted = training.fit(phase, feeds, [0], variables=[given])
    ratios = [
      float(row[0, 0])
      for name, row in fitted.history.items()
      if name.startswith('flip_ratio/Block_')
    ]
    assert len(ratios) == 2
    return sum(ratios)

  assert flips('scaled 0.1') > 3 * flips('kaiming_normal')
  assert flips('kaiming_normal') > 3 * flips('scaled 10')
