"""The output that chooses a rate, and how many networks are trained at a time."""

import types

import numpy as np
import pytest

from bitjax import sweeps
from bitjax.studies import recipes


def config(*seeds, rates):
  return types.SimpleNamespace(seeds=seeds, tuning_seeds=(8, 9), rates=rates)


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

  test = range(7)  # Examples, whose number is kept.

  found = recipes.tuned(
    config(0, 1, 2, 3, rates=(0.3, 1.0, 3.0)),
    sweeps.Sweep(),
    train,
    recipes.Parts('train', 'validation', test),
    static={'arm': ['one']},
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
  assert calls[2:] == [(test, 4)]


def test_further_settings_are_chosen_with_the_rate():
  calls = []

  def train(parts, *, arm, width, rate, seed, folder, report, mesh):
    calls.append((parts.test, arm, width, sorted({*rate.tolist()})))
    best = {'one': (2, 0.3), 'other': (1, 3.0)}[arm]
    loss = np.abs(width - best[0]) + np.abs(rate - best[1])
    return {'validation_loss': loss.astype(np.float32)}

  found = recipes.tuned(
    config(0, 1, rates=(0.3, 3.0)),
    sweeps.Sweep(),
    train,
    recipes.Parts('train', 'validation', range(7)),
    static={'arm': ['one', 'other']},
    dims={'validation_loss': ()},
    coords={},
    chunk=4,
    choices={'width': (1, 2)},
  )
  assert found.tuning_validation_loss.dims == (
    'arm', 'width', 'rate', 'tuning_seed',
  )  # fmt: skip
  for arm, width, rate in (('one', 2, 0.3), ('other', 1, 3.0)):
    at = found.sel(arm=arm)
    assert (at.chosen_width == width).all() and (at.chosen_rate == rate).all()
    tested = [call for call in calls if call[:2] == (range(7), arm)]
    assert tested == [(range(7), arm, width, [rate])]
  chosen = recipes.settings(found.tuning_validation_loss, ['width', 'rate'])
  assert chosen['width'].values.tolist() == [2, 1]
