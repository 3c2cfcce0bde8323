"""The output that chooses a rate, and how many networks are trained at a time."""

import numpy as np
import pytest

from bitjax import sweeps
from bitjax.studies import recipes


@pytest.mark.parametrize(
  ('by', 'wanted'), [('validation_loss', 3.0), ('train_loss', 0.3)]
)
def test_a_loss_chooses_the_rate(by, wanted):
  calls = []

  def train(parts, *, arm, rate, seed, folder, report, mesh):
    calls.append((parts.test, len(seed)))
    curve = np.stack([rate, 1 / rate], axis=1)
    return {
      'train_loss': np.asarray(rate, np.float32),
      'validation_loss': curve.astype(np.float32),  # The last epoch counts.
    }

  class Data:
    labels = np.zeros(7)

  found = recipes.tuned(
    sweeps.Sweep(),
    train,
    recipes.Parts('train', 'validation', Data),
    name='trainings',
    static={'arm': ['one']},
    rates=(0.3, 1.0, 3.0),
    seeds=(0, 1, 2, 3),
    tuning_seeds=(8, 9),
    dims={'train_loss': (), 'validation_loss': ('epoch',)},
    coords={'epoch': [1, 2]},
    by=by,
    chunk=4,
  )
  assert (found.chosen_rate == wanted).all()
  rates = np.array([0.3, 1.0, 3.0])
  losses = rates if by == 'train_loss' else 1 / rates
  np.testing.assert_allclose(
    found[f'tuning_{by}'].sel(arm='one', tuning_seed=8), losses, rtol=1e-6
  )
  # What tunes sees no test data; six networks come in two calls, four in one.
  assert calls[:2] == [('validation', 3)] * 2
  assert calls[2:] == [(Data, 4)]
