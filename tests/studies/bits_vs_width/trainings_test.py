"""Which network learns what, from where, and that what is done is kept."""

import dataclasses

import jax
import numpy as np
import pytest

from bitjax import sweeps
from bitjax import training
from bitjax.studies import bits_vs_width
from bitjax.studies.bits_vs_width import trainings
from bitjax.studies.recipes import families

STUDY = bits_vs_width.STUDY
CONFIG = STUDY.config(
  **STUDY.presets['smoke'] | {'seeds': (0, 1), 'tuning_seeds': (7, 8)}
)


def test_shuffled_labels_are_those_of_other_images():
  parts = CONFIG.open(sweeps.Sweep())
  found = trainings.shuffled(parts.train)
  np.testing.assert_array_equal(
    np.bincount(found.labels), np.bincount(parts.train.labels)
  )
  assert (found.labels == parts.train.labels).mean() < 0.2
  assert found.images is parts.train.images


class Fake:
  """Records what is asked of `training.fit`, and trains nothing."""

  def __init__(self):
    self.calls = []

  def fit(self, phases, feeds, seeds, *, rates, variables=None, **options):
    task = phases[-1].task
    self.calls.append(
      (
        task.model,
        seeds,
        rates,
        variables,
        np.asarray(feeds[0].arrays.labels),
      )
    )
    images = np.zeros((1, 8, 8, 1), np.float32)
    state = training.create(task.model, task.tx, seeds, images)
    # So that what starts from it can be told from all else.
    params = jax.tree.map(
      lambda leaf: 0 * leaf + np.reshape(seeds, (-1,) + (1,) * (leaf.ndim - 1)),
      state.params,
    )
    rows = max(1, -(-phases[-1].until // feeds[0].steps_per_epoch))
    history = {'train_loss': np.full((rows, len(seeds)), 0.3, np.float32)}
    return training.Fitted(state._replace(params=params), history)


def evaluator(task, number, mesh, together):
  """Scores that say how many images were guessed of how many."""

  def evaluate(variables, batches):
    loss = np.full(number, batches[2].sum())
    return training.Scores(loss, loss / 1000, None)

  return evaluate


@pytest.mark.slow
def test_what_is_trained(monkeypatch, tmp_path):
  fake = Fake()
  monkeypatch.setattr(training, 'fit', fake.fit)
  monkeypatch.setattr(training, 'evaluator', evaluator)
  results = STUDY.run(CONFIG, sweeps.Sweep(tmp_path))
  labels = CONFIG.open(sweeps.Sweep()).train.labels
  arms = results.arm.values.tolist()
  wide = int(results.width[results.equal_bits & (results.bits == '1')][0])
  cells = ('1 bit, width 4', '4 bits, width 4', f'1 bit, width {wide}')
  kinds = ('', ', random', ', projected')
  assert sorted(arms) == sorted(c + k for c in cells for k in kinds)
  # Two widths in full precision; all arms, to tune and to test.
  before, rest = fake.calls[:2], fake.calls[2:]
  assert len(rest) == 2 * len(arms)
  for model, seeds, rates, variables, learned in before:
    assert model.kernel_quantizer is None and variables is None
    assert seeds == [0, 1, 7, 8] and rates == [1.0] * 4
    np.testing.assert_array_equal(learned, labels)
  for (model, seeds, _, variables, learned), arm in zip(
    rest, 2 * arms, strict=True
  ):
    assert f'width {model.hidden[0]}' in arm and model.hidden[0] in (4, wide)
    assert (learned == labels).all() != arm.endswith('random')
    assert (variables is not None) == arm.endswith('projected')
    for one, seed in zip(variables or (), seeds, strict=False):
      # The seed's own network of the same width, without the padding.
      kernel = one['params']['Dense_1']['kernel']
      np.testing.assert_array_equal(kernel, np.full(kernel.shape, seed))
  assert [call[1] for call in rest] == [[7, 8]] * 9 + [[0, 1]] * 9
  # Batches of a data set are weighted by the number of their images.
  np.testing.assert_allclose(
    results.train_loss, (500 * 500 + 500 * 500 + 242 * 242) / 1242, rtol=1e-6
  )
  np.testing.assert_allclose(results.test_loss, 355)
  assert results.curve.sizes['epoch'] == 1
  fake.calls.clear()
  again = STUDY.run(CONFIG, sweeps.Sweep(tmp_path))
  assert not fake.calls and again.identical(results)


@pytest.mark.slow
def test_a_start_from_full_precision_is_a_head_start():
  """Trained for real: the labels are learned, random ones hardly, and flips hurt."""
  config = dataclasses.replace(CONFIG, epochs=4.0, base_width=16, widths=(16,))
  results = STUDY.run(config, sweeps.Sweep())
  at = results.sel(arm='4 bits, width 16')
  head = results.sel(arm='4 bits, width 16, projected')
  random = results.sel(arm='4 bits, width 16, random')
  assert (at.train_loss < 0.5).all() and (random.train_loss > 2).all()
  assert (head.train_loss < at.train_loss).all()
  assert (head.curve[:, 0] < at.curve[:, 0]).all()
  assert (at.test_accuracy > 0.8).all()
  disturbed = at.flipped_accuracy.isel(flips=-1)
  assert (disturbed < at.test_accuracy - 0.05).all()
  assert (at.noisy_accuracy.isel(noise=-1) < at.test_accuracy - 0.05).all()


def test_a_resnet_of_the_grid():
  family = families.Family('resnet8', (8, 8, 3), 10, CONFIG.arithmetic())
  for bits in families.BITS:
    model = family.model(families.Cell(bits, 3))
    assert model.widths == (3, 6, 12)
    assert (model.kernel_quantizer is None) == (bits == '32')
