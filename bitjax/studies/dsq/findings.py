"""Judges the note's N13 from the results of the study of DSQ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bitjax import types
from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import protocols
from bitjax.evidence import verdicts

if TYPE_CHECKING:
  import xarray

__all__ = ['ARMS', 'PRIMARY', 'check_arms', 'judge', 'tuned']

_FALLING = {'alpha': 0.9, 'alpha_end': 0.05}

# Arm -> the arguments of `quantizers.learned_dsq` that determine its gradient.
ARMS: dict[str, dict[str, Any]] = {
  'clipped identity': {'alpha': 0.99, 'alpha_end': 0.99},
  'fixed 0.4': {'alpha': 0.4, 'alpha_end': 0.4},
  'fixed 0.2': {'alpha': 0.2, 'alpha_end': 0.2},
  'fixed 0.05': {'alpha': 0.05, 'alpha_end': 0.05},
  'falling': _FALLING,
  'falling window': _FALLING | {'step': 'hardtanh'},
  'learned': {'alpha': 0.2},
}

PRIMARY = ('falling', 'fixed 0.2')

# (finding, arm, the arm that it is compared with, claim), the primary contrast first.
_CLAIMS = (
  ('N13', *PRIMARY, 'an alpha that falls ends better than alpha = 0.2 fixed'),
  (
    'N13 learned',
    'learned',
    'fixed 0.2',
    "a learned alpha, the paper's, ends better than alpha = 0.2 fixed",
  ),
  (
    'N13 hardtanh',
    'falling window',
    'falling',
    'a shrinking window ends better than tanh steps on the same schedule',
  ),
)
_CAVEAT = (
  'Short trainings of a small network on small images, unless told longer.'
)


def check_arms(arms: Sequence[str]) -> None:
  """Raises `BadInput` unless both arms of the primary contrast are listed."""
  if not set(PRIMARY) <= set(arms):
    raise types.BadInput(
      f'arms must list {" and ".join(PRIMARY)}, the primary contrast; got '
      f'{", ".join(arms)}.'
    )


def tuned(results: xarray.Dataset) -> xarray.Dataset:
  """Returns the last epoch of every arm, at the rate that is best for other seeds."""
  last = results.isel(epoch=-1, drop=True)
  last = divergence.without(last, ['validation_loss', 'test_accuracy'])
  outcomes = last.assign(
    search=last.validation_loss, holdout=last.validation_loss
  )
  if results.sizes['seed'] < 2:  # There is no other seed to tune on.
    return protocols.select(outcomes, ['rate'], 'oracle')
  return protocols.select(outcomes, ['rate'], 'deployable')


def judge(results: xarray.Dataset) -> list[verdicts.Verdict]:
  """Judges N13 for every number of bits.

  Args:
    results: the dataset over (bits, arm, rate, seed, ...).
  """
  found: list[verdicts.Verdict] = []
  points = 100 * tuned(results).test_accuracy
  known = points.arm.values.tolist()
  for bits in points.bits.values.tolist():
    accuracy = points.sel(bits=bits)
    info: dict[str, Any] = {
      'unit': 'points of test accuracy',
      'protocol': f'deployable, last epoch, {bits} bit',
      'caveat': _CAVEAT,
      'bounds': (-100, 100),
    }
    for finding, arm, against, claim in _CLAIMS:
      if arm in known and against in known:
        found.append(
          contrasts.difference(
            f'{finding}, {bits} bit',
            f'{bits} bit: {claim}.',
            _difference(accuracy, arm, against),
            primary=not found,
            details={
              name: float(accuracy.sel(arm=name).mean())
              for name in (arm, against)
            },
            **info,
          )
        )
    others = [name for name in known if name != 'clipped identity']
    if 'clipped identity' in known and others:
      found.append(
        contrasts.any_arm(
          f'N13 soft, {bits} bit',
          f'{bits} bit: some soft staircase ends better than the clipped identity.',
          {
            name: _difference(accuracy, name, 'clipped identity')
            for name in others
          },
          **info,
        )
      )
  return found


def _difference(accuracy, arm, against):
  return (accuracy.sel(arm=arm) - accuracy.sel(arm=against)).values
