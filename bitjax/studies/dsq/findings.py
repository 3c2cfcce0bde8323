"""Judges the note's N13 from the results of the study of DSQ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import protocols
from bitjax.evidence import verdicts
from bitjax.studies.dsq import arms

if TYPE_CHECKING:
  import xarray

__all__ = ['judge', 'tuned']

# (finding, arm, the arm that it is compared with, claim), the primary contrast first.
_CLAIMS = (
  (
    'N13',
    *arms.PRIMARY,
    'an alpha that falls ends better than alpha = 0.2 fixed',
  ),
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
          f'{bits} bit: some other gradient ends better than the clipped identity.',
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
