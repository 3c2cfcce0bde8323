"""The two stages of the study: what tunes is not tested, and what is done is kept."""

import numpy as np
import pytest

from bitjax import sweeps
from bitjax import training
from bitjax import types
from bitjax.studies import dsq

CONFIG = dsq.STUDY.config(
  **dsq.STUDY.presets['smoke'] | {'rates': (0.3, 1.0, 3.0)}
)


class Fake:
  """Puts a table in the place of trainings, and records what was asked of it.

  Attributes:
    best: name of an arm -> the rate with the lowest validation loss.
    calls: (number of test examples, seeds, rates) of each call.
  """

  def __init__(self):
    self.best = {'falling': 0.3, 'fixed 0.2': 3.0}
    self.calls = []

  def __call__(
    self, phases, train, validation, test, *, seeds, rates, **options
  ):
    self.calls.append((len(test.labels), seeds, rates))
    shown = repr(phases[0].task.model.kernel_quantizer)
    best = self.best['fixed 0.2' if '0.2' in shown else 'falling']
    dims, coords = training.layout(phases, train, options['batch_size'])
    found = {}
    for name, axes in dims.items():
      sizes = [len(coords.get(axis, ())) for axis in axes]
      found[name] = np.ones((len(seeds), *sizes), np.float32)
    found['validation_loss'] *= 1 + np.abs(np.subtract(rates, best))[:, None]
    found['test_accuracy'] = np.ones(len(seeds), np.float32)
    right = np.ones((len(seeds), len(test.labels)), bool)
    return found | {'test_right': np.packbits(right, axis=1)}


@pytest.fixture
def fake(monkeypatch):
  fake = Fake()
  monkeypatch.setattr(training, 'outcome', fake)
  return fake


def test_stages(fake, tmp_path):
  results = dsq.STUDY.run(CONFIG, sweeps.Sweep(tmp_path, chunk=2))
  validation, test = 200, results.test_examples
  tuned = [call for call in fake.calls if call[0] == validation]
  tested = [call for call in fake.calls if call[0] == test]
  assert len(tuned) + len(tested) == len(fake.calls)
  # Two arms; three rates times two seeds, then three seeds, in chunks of two.
  assert len(tuned) == 2 * 3 and len(tested) == 2 * 2
  assert {s for _, seeds, _ in tuned for s in seeds} == {*CONFIG.tuning_seeds}
  assert {s for _, seeds, _ in tested for s in seeds} == {*CONFIG.seeds}
  assert results.tuning_validation_loss.shape == (1, 2, 3, 2)
  for arm, rate in fake.best.items():
    assert (results.chosen_rate.sel(arm=arm) == rate).all()
  assert sorted(rates for *_, rates in tested) == [
    [0.3], [0.3, 0.3], [3.0], [3.0, 3.0],
  ]  # fmt: skip
  assert len(dsq.STUDY.verdicts(results)) == 1
  # What is done is kept.
  fake.calls.clear()
  again = dsq.STUDY.run(CONFIG, sweeps.Sweep(tmp_path))
  assert not fake.calls and again.identical(results)


@pytest.mark.slow
def test_a_choice_that_comes_out_differently_is_noticed(fake, tmp_path):
  dsq.STUDY.run(CONFIG, sweeps.Sweep(tmp_path))
  fake.best['falling'] = 1.0
  for path in (tmp_path / 'chunks' / 'tuning').rglob('*.npz'):
    path.unlink()
  with pytest.raises(types.BadInput, match='rates were tuned again'):
    dsq.STUDY.run(CONFIG, sweeps.Sweep(tmp_path))
