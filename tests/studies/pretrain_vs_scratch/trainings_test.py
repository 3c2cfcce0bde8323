"""Which network starts from what, for how long, and that what is done is kept."""

import dataclasses

import jax
import numpy as np
import pytest

from bitjax import sweeps
from bitjax import training
from bitjax.studies import pretrain_vs_scratch
from bitjax.studies import recipes

CONFIG = pretrain_vs_scratch.STUDY.config(
  **pretrain_vs_scratch.STUDY.presets['smoke']
  | {
    'precisions': ('W1A1', 'FP'),
    'starts': ('scratch', 'pretrained', 'half', 'staged'),
    'mixups': (0.0, 1.0),
    'rates': (0.3, 1.0),
    'epochs': 2.0,
    'seeds': (0, 1),
    'tuning_seeds': (7,),
  }
)


class Fake:
  """Puts tables in the place of trainings, and records what was asked of them."""

  def __init__(self):
    self.calls, self.fitted = [], []

  def fit(self, phases, feeds, seeds, **options):
    self.fitted.append((phases, seeds))
    task = phases[-1].task
    images = np.zeros((1, 8, 8, 1), np.float32)
    state = training.create(task.model, task.tx, seeds, images)
    # So that what starts from it can be told from all else.
    params = jax.tree.map(
      lambda leaf: 0 * leaf + np.reshape(seeds, (-1,) + (1,) * (leaf.ndim - 1)),
      state.params,
    )
    rows = -(-phases[-1].until // feeds[0].steps_per_epoch)
    history = {'validation_accuracy': np.full((rows, len(seeds)), 0.3)}
    return training.Fitted(state._replace(params=params), history)

  def outcome(
    self, phases, train, validation, test, *, seeds, rates, variables, **options
  ):
    self.calls.append((phases, seeds, rates, variables))
    dims, coords = training.layout(phases, train, options['batch_size'])
    found = {}
    for name, axes in dims.items():
      sizes = [len(coords.get(axis, ())) for axis in axes]
      found[name] = np.ones((len(seeds), *sizes), np.float32)
    ones = np.ones(len(seeds), np.float32)
    found |= {'test_accuracy': ones, 'clean_train_accuracy': ones}
    found |= {'clean_train_loss': ones}
    right = np.ones((len(seeds), len(test.labels)), bool)
    return found | {'test_right': np.packbits(right, axis=1)}


@pytest.fixture
def fake(monkeypatch):
  fake = Fake()
  monkeypatch.setattr(training, 'outcome', fake.outcome)
  monkeypatch.setattr(training, 'fit', fake.fit)
  return fake


def test_starts(fake, tmp_path):
  results = pretrain_vs_scratch.STUDY.run(CONFIG, sweeps.Sweep(tmp_path))
  arms = CONFIG.every()
  assert results.arm.values.tolist() == [str(arm) for arm in arms]
  assert len(arms) == 2 * 4 + 2 * 3  # Full precision has no stages.
  # Two amounts of mixup and three seeds, once for all arms and rates.
  assert len(fake.fitted) == 6
  each = 2 * 1 + 2  # Rates times tuning seeds, and the seeds.
  assert len(fake.calls) == len(arms) * each
  steps = 2 * (1242 // CONFIG.batch_size)
  for phases, seeds, _, variables in fake.calls:
    until, aims = phases[-1].until, phases[-1].task.model
    if variables is not None:  # Pretrained: half of the time, its own seed's.
      assert until == steps // 2
      kernel = variables[0]['params']['Conv_0']['kernel']
      np.testing.assert_array_equal(kernel, seeds[0])
    elif len(phases) == 2:
      assert [phase.until for phase in phases] == [steps // 2, steps]
      assert phases[0].task.model.kernel_quantizer is None
      assert phases[0].task.model.input_quantizer is not None
      assert aims.kernel_quantizer is not None
    else:
      assert until in (steps, steps // 2)
  starts = [variables is not None for *_, variables in fake.calls]
  assert sum(starts) == 4 * each
  for phases, _ in fake.fitted:
    assert phases[-1].until == steps // 2
    assert phases[-1].task.model.kernel_quantizer is None
  # Half of the time in full precision, or at rest.
  for start, wanted in (
    ('scratch', [1, 1]),
    ('pretrained', [np.float32(0.3), 1]),
    ('half', [1, 1]),
  ):
    curve = results.curve.sel(arm=f'W1A1 {start}').values
    np.testing.assert_array_equal(curve, [wanted] * 2)
  # What is done is kept.
  fake.calls.clear()
  fake.fitted.clear()
  again = pretrain_vs_scratch.STUDY.run(CONFIG, sweeps.Sweep(tmp_path))
  assert not fake.calls and not fake.fitted and again.identical(results)


@pytest.mark.slow
def test_mixup_blends_both_parts(fake):
  short = dataclasses.replace(CONFIG, precisions=('W1A1',), seeds=(0,))
  pretrain_vs_scratch.STUDY.run(short, sweeps.Sweep())

  def blends(phases):
    images = np.zeros((4, 8, 8, 1), np.uint8)
    targets = np.eye(10, dtype=np.float32)[:4]
    task = phases[-1].task
    _, found = task.augment(jax.random.key(0), images, targets)
    return bool((np.asarray(found).max(axis=1) < 1).any())

  assert [blends(phases) for phases, _ in fake.fitted] == [False] * 2 + [
    True
  ] * 2
  assert sum(blends(phases) for phases, *_ in fake.calls) == len(fake.calls) / 2


@pytest.mark.slow
def test_a_seed_starts_from_its_own_training(tmp_path):
  """Trained for real: the second part goes on from the first one's weights."""
  config = dataclasses.replace(
    CONFIG,
    precisions=('FP',),
    starts=('scratch', 'pretrained'),
    mixups=(0.0,),
    rates=(1.0,),
    epochs=6.0,
    augmentation=(),
    optimizer='adam',
    learning_rate=0.02,
  )
  results = pretrain_vs_scratch.STUDY.run(config, sweeps.Sweep(tmp_path))
  after = results.curve.sel(arm='FP pretrained').values
  scratch = results.curve.sel(arm='FP scratch').values
  assert (after[:, 3] > scratch[:, 0]).all()
  assert (after[:, 3] > after[:, 0]).all()
  assert recipes.right(results).mean() > 0.5
