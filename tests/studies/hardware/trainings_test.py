"""Which networks are trained at which rates, and the costs beside them."""

import numpy as np
import pytest

from bitjax import sweeps
from bitjax import training
from bitjax.studies import hardware
from bitjax.studies.hardware import accounts
from bitjax.studies.recipes import families

CONFIG = hardware.STUDY.config(
  **hardware.STUDY.presets['smoke'] | {'rates': (0.3, 1.0)}
)
FEW = ('ResNet-20, W1A1', 'ResNet-20, W1A1, Bi-Real', 'ResNet-20, W32A32')


@pytest.fixture
def calls(monkeypatch):
  """Puts a table in the place of trainings; returns (width, tests, seeds, rates)."""
  found = []

  def outcome(phases, train, validation, test, *, seeds, rates, **options):
    width = phases[0].task.model.hidden[0]
    found.append((width, len(test.labels), seeds, rates))
    dims, coords = training.layout(phases, train, options['batch_size'])
    table = {}
    for name, axes in dims.items():
      sizes = [len(coords.get(axis, ())) for axis in axes]
      table[name] = np.ones((len(seeds), *sizes), np.float32)
    # Narrow networks like the first rate.
    best = 0.3 if width == 4 else 1.0
    table['validation_loss'] *= 1 + np.abs(np.subtract(rates, best))[:, None]
    table['test_accuracy'] = np.full(len(seeds), 0.5, np.float32)
    right = np.ones((len(seeds), len(test.labels)), bool)
    return table | {'test_right': np.packbits(right, axis=1)}

  monkeypatch.setattr(training, 'outcome', outcome)
  few = {name: accounts.COUNTED[name] for name in FEW}
  monkeypatch.setattr(accounts, 'COUNTED', few)
  return found


def test_stages_and_costs(calls, tmp_path):
  results = hardware.STUDY.run(CONFIG, sweeps.Sweep(tmp_path))
  tuned = [c for c in calls if c[1] == CONFIG.validation_examples]
  tested = [c for c in calls if c[1] == results.test_examples]
  assert len(tuned) + len(tested) == len(calls)
  assert {s for call in tuned for s in call[2]} == {*CONFIG.tuning_seeds}
  assert {s for call in tested for s in call[2]} == {*CONFIG.seeds}
  for width, _, _, rates in tested:
    assert set(rates) == {0.3 if width == 4 else 1.0}
  family = families.Family('mlp', (8, 8, 1), 10, CONFIG.arithmetic())
  for arm in results.arm.values:
    at = results.sel(arm=arm)
    cell = families.Cell(at.bits.item(), at.width.item())
    assert str(cell) == arm
    total = family.costs(cell).total
    assert at.memory == total.memory and at.operations == total.operations
    np.testing.assert_allclose(
      [at.energy_low, at.energy_high], np.array(family.energy(cell)) / 1e6
    )
    assert at.latency > 0
  for name in ('energy', 'memory'):
    assert int(results[f'equal_{name}'].sum()) == 2  # One bit, and four.
  assert [v.finding for v in hardware.STUDY.verdicts(results)] == [
    'N17 equal energy',
    'N17 equal memory',
    'N17 operations',
    'N17 shortcuts',
    'N17 BoolNet',
    'N17 saved',
  ]
