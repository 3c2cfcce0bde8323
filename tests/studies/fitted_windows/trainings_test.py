"""The two stages of the study: settings are tuned, then others are tested at the best."""

import numpy as np
import pytest

from bitjax import sweeps
from bitjax import training
from bitjax.studies import fitted_windows
from bitjax.studies.fitted_windows import arms

CONFIG = fitted_windows.STUDY.config(
  **fitted_windows.STUDY.presets['smoke'] | {'rates': (0.3, 1.0)}
)
# Arm -> the rate, factor included, and the width with the lowest validation loss.
BEST = {
  'window 1': (1.47, None),
  'relative Gaussian': (0.3, 0.8),
  'fitted': (0.3 / 1.47, None),
}


@pytest.fixture
def calls(monkeypatch):
  """Puts a table in the place of trainings; returns (arm, tests, seeds, rates, refit)."""
  found = []

  def outcome(
    phases, train, validation, test, *, seeds, rates, refit, **options
  ):
    shown = repr(phases[0].task.model.input_quantizer)
    arm = 'relative Gaussian'
    if refit is not None:
      arm = 'fitted'
    elif 'gaussian' not in shown:
      arm = 'window 1'
    found.append((arm, len(test.labels), seeds, rates, refit))
    rate, width = BEST[arm]
    loss = 1 + np.abs(np.subtract(rates, rate))
    loss = loss + (width is not None and f'{width:g})' not in shown)
    dims, coords = training.layout(phases, train, options['batch_size'])
    table = {}
    for name, axes in dims.items():
      sizes = [len(coords.get(axis, ())) for axis in axes]
      table[name] = np.ones((len(seeds), *sizes), np.float32)
    table['validation_loss'] *= loss[:, None]
    for name in ('test_accuracy', 'clean_train_accuracy'):
      table[name] = np.ones(len(seeds), np.float32)
    if refit is not None:
      table['width'] = np.full_like(table['flip_ratio'], 0.25)
    right = np.ones((len(seeds), len(test.labels)), bool)
    return table | {'test_right': np.packbits(right, axis=1)}

  monkeypatch.setattr(training, 'outcome', outcome)
  return found


def test_stages(calls, tmp_path):
  results = fitted_windows.STUDY.run(CONFIG, sweeps.Sweep(tmp_path))
  validation, test = CONFIG.validation_examples, results.test_examples
  tuned = [call for call in calls if call[1] == validation]
  tested = [call for call in calls if call[1] == test]
  assert len(tuned) + len(tested) == len(calls)
  assert {s for call in tuned for s in call[2]} == {*CONFIG.tuning_seeds}
  assert {s for call in tested for s in call[2]} == {*CONFIG.seeds}
  assert results.tuning_validation_loss.shape == (3, 3, 2, 3)
  for name, (rate, width) in BEST.items():
    rates = {r for arm, *_, at, _ in tested if arm == name for r in at}
    np.testing.assert_allclose(sorted(rates), [rate], rtol=1e-6)
    at = results.sel(arm=name)
    arm, shape = arms.ARMS[name], int(at.chosen_shape[0])
    np.testing.assert_allclose(at.chosen_rate * arm.factor(shape), rate, 1e-6)
    assert width is None or arm.values[shape] == width
    assert bool((at.width == 0).all()) == (name != 'fitted')
  # One fit an epoch, of 1242 images in batches of 32.
  assert {c[-1].every for c in calls if c[0] == 'fitted'} == {38}
  assert {c[-1] for c in calls if c[0] != 'fitted'} == {None}
  calls.clear()
  again = fitted_windows.STUDY.run(CONFIG, sweeps.Sweep(tmp_path))
  assert not calls and again.identical(results)
