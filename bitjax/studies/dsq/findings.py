"""Judges the note's N13 from the results of the study of DSQ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitjax.evidence import contrasts
from bitjax.evidence import protocols
from bitjax.evidence import verdicts
from bitjax.studies.dsq import arms
from bitjax.studies.recipes import outcomes

if TYPE_CHECKING:
  import xarray

__all__ = ['MARGIN', 'judge']

MARGIN = 0.5  # Points of accuracy: a smaller difference does not matter.

_SHAPE = 'N13 shape'
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
  (
    _SHAPE,
    'falling window',
    'falling',
    'a shrinking window and tanh steps, on the same schedule, end within '
    f'{MARGIN:g} points of each other',
  ),
)
_CAVEAT = (
  'Short trainings of a small network on small images, unless told longer.'
)


def judge(results: xarray.Dataset) -> list[verdicts.Verdict]:
  """Judges N13 for every number of bits.

  Args:
    results: of `trainings.compare`.
  """
  found: list[verdicts.Verdict] = []
  right = outcomes.tested(results).right
  losses = results.tuning_validation_loss.to_dataset(name='tuning_holdout')
  unsettled = protocols.unsettled(losses, ['rate'])
  known = right.arm.values.tolist()
  for bits in right.bits.values.tolist():
    answers, doubt = right.sel(bits=bits), unsettled.sel(bits=bits)
    info: dict[str, Any] = {
      'unit': 'points of test accuracy',
      'protocol': f'deployable, last epoch, {bits} bit, over seeds and test images',
      'caveat': _CAVEAT,
    }

    for finding, *names, claim in _CLAIMS:
      if not {*names} <= {*known}:
        continue
      asked = (
        f'{finding}, {bits} bit',
        f'{bits} bit: {claim}.',
        _difference(answers, *names),
      )
      details = {n: float(answers.sel(arm=n).mean()) for n in names} | {
        f'tuned otherwise, {n}': float(doubt.sel(arm=n)) for n in names
      }
      found.append(
        contrasts.equivalent(
          *asked, MARGIN, crossed=True, details=details, **info
        )
        if finding == _SHAPE
        else contrasts.difference(
          *asked,
          crossed=True,
          smallest=MARGIN,
          bounds=(-100, 100),
          primary=not found,
          details=details,
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
            name: _difference(answers, name, 'clipped identity')
            for name in others
          },
          crossed=True,
          smallest=MARGIN,
          bounds=(-100, 100),
          details={
            f'tuned otherwise, {name}': float(doubt.sel(arm=name))
            for name in known
          },
          **info,
        )
      )
  return found


def _difference(answers, arm, against):
  """Returns the paired differences of two arms, [seeds, test examples]."""
  both = answers.sel(arm=arm) - answers.sel(arm=against)
  return both.transpose('seed', 'test_example').values
