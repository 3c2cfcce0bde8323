"""Judges claims from paired samples: one function for each kind of claim.

Samples have one row for each seed, [seeds] or [seeds, draws]; draws are averaged
within their seed. Samples that diverged (are not finite) are left out; the verdict says
how many of how many, and is ``'inconclusive: diverged'`` if too few are left. A single
seed has no interval: whatever the claim, its verdict is inconclusive and says so.

An effect may be a share: the mean of its samples over the mean of a *whole*. Both are
estimates, and the interval takes that into account. A share of a whole that is not clearly
positive is not defined, and its verdict says so.

*Crossed* samples, [seeds, examples], are of the same examples for every seed, such as which
test images each seed's network guesses correctly. Neither is averaged away: the claim is
about other seeds and other examples, and so are its intervals (see `twoway`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bitjax.evidence import divergence
from bitjax.evidence import intervals
from bitjax.evidence import joint
from bitjax.evidence import twoway
from bitjax.evidence import verdicts

__all__ = [
  'Cell',
  'any_arm',
  'difference',
  'equivalent',
  'family',
  'log_ratio',
  'variances',
]

_NO_SHARE = (
  'The share is not defined: what it is a share of is not clearly positive.'
)
_NO_RATIO = 'The ratio is not defined: neither varies over seeds.'


def log_ratio(above: Any, below: Any) -> Any:
  """Returns the effect ``log(above / below)``, positive where ``below`` is lower.

  Args:
    above: positive numbers, such as losses by seed; an ``xarray.DataArray`` or an array.
    below: numbers to compare them with, of a shape that broadcasts.

  Returns:
    The effect, in the type of the quotient; with labels, if it has any.
  """
  return np.log(above / below)


def difference(
  finding: str,
  claim: str,
  samples: Any,
  *,
  whole: Any = None,
  crossed: bool = False,
  direction: int = 1,
  smallest: float = 0.0,
  bounds: tuple[float, float] | None = None,
  **info: Any,
) -> verdicts.Verdict:
  """Judges the claim that a paired effect is positive (or negative), and counts.

  Args:
    finding: label of the finding.
    claim: the claim in one sentence.
    samples: paired differences, [seeds] or [seeds, draws].
    whole: what they are shares of, of the same shape; None if they are not.
    crossed: whether samples are crossed, [seeds, examples], and no shares.
    direction: +1 if the claim is that they are positive, -1 if negative.
    smallest: the smallest effect that counts, fixed beforehand. If the interval lies
      within it, the verdict is ``'equivalent'``.
    bounds: the smallest and the largest possible difference, if there are such.
    **info: further fields of `Verdict`.
  """
  _check_crossed(crossed, whole)
  if crossed:
    found = twoway.interval(samples, bounds=bounds)
  elif whole is None:
    found = intervals.interval(samples, bounds=bounds)
  else:
    found = intervals.share(samples, whole, bounds=bounds)
  verdict = intervals.judge(found, direction=direction, smallest=smallest)
  return _conclude(
    finding, claim, verdict, found, info, len(samples), smallest=smallest
  )


def equivalent(
  finding: str,
  claim: str,
  samples: Any,
  margin: float,
  *,
  whole: Any = None,
  crossed: bool = False,
  **info: Any,
) -> verdicts.Verdict:
  """Judges the claim that a paired difference does not matter (TOST).

  Args:
    finding: label of the finding.
    claim: the claim in one sentence.
    samples: paired differences, [seeds] or [seeds, draws].
    margin: the largest difference that does not matter, fixed beforehand, > 0: in the
      unit of the samples, or as a share of the whole.
    whole: what the differences are shares of, of the same shape; None if they are not.
    crossed: whether samples are crossed, [seeds, examples], and no shares.
    **info: further fields of `Verdict`.
  """
  _check_crossed(crossed, whole)
  if crossed:
    found = twoway.equivalence(samples, margin)
  else:
    found = intervals.equivalence(samples, margin, whole=whole)
  details = {
    'margin': found.margin,
    'low90': found.inner.low,
    'high90': found.inner.high,
  } | dict(info.pop('details', {}))
  info['details'] = details
  return _conclude(
    finding, claim, found.verdict, found.interval, info, len(samples)
  )


def any_arm(
  finding: str,
  claim: str,
  arms: Mapping[str, Any],
  *,
  wholes: Mapping[str, Any] | None = None,
  crossed: bool = False,
  smallest: float = 0.0,
  bounds: tuple[float, float] | None = None,
  **info: Any,
) -> verdicts.Verdict:
  """Judges the claim that at least one of several arms has a positive effect.

  The intervals hold for all arms at once. The claim is supported if at least one lies
  above the smallest effect that counts; equivalent if all lie within it; and contradicted
  if no arm can have such an effect, and some have the opposite one. The verdict shows
  the best arm's interval; its details hold those of all arms.

  Args:
    finding: label of the finding.
    claim: the claim in one sentence.
    arms: name -> paired differences, [seeds].
    wholes: name -> what they are shares of, [seeds]; None if they are not.
    crossed: whether samples are crossed, [seeds, examples], and no shares.
    smallest: the smallest effect that counts, fixed beforehand.
    bounds: the smallest and the largest possible difference, if there are such.
    **info: further fields of `Verdict`.
  """
  _check_crossed(crossed, wholes)
  samples = list(arms.values())
  if crossed:
    each = twoway.simultaneous(samples, bounds=bounds)
  else:
    shared = wholes and [wholes[name] for name in arms]
    each = joint.simultaneous(samples, shared, bounds=bounds)
  found = dict(zip(arms, each, strict=True))
  judged = {intervals.judge(arm, smallest=smallest) for arm in found.values()}
  verdict = 'inconclusive'
  if 'supported' in judged:
    verdict = 'supported'
  elif judged == {'equivalent'}:
    verdict = 'equivalent'
  elif judged <= {'equivalent', 'contradicted'}:
    verdict = 'contradicted'
  details = dict(info.get('details', {}))
  for name, arm in found.items():
    details |= {
      name: arm.mean,
      f'{name} low': arm.low,
      f'{name} high': arm.high,
    }
  # The best arm has the largest mean among those whose interval lies above what counts,
  # or among all arms if there are none; what is not defined comes last.
  best = max(
    found.values(),
    key=lambda arm: (
      arm.low > smallest,
      -np.inf if np.isnan(arm.mean) else arm.mean,
    ),
  )
  info['details'] = details
  num_seeds = len(next(iter(arms.values())))
  return _conclude(
    finding, claim, verdict, best, info, num_seeds, smallest=smallest
  )


class Cell(NamedTuple):
  """One claim in a table of claims: that a paired effect is positive.

  Attributes:
    finding: label of the finding.
    claim: the claim in one sentence.
    samples: paired differences, [seeds].
    details: further numbers for the details of the verdict.
    whole: what the differences are shares of, [seeds]; None if they are not.
  """

  finding: str
  claim: str
  samples: Any
  details: Mapping[str, Any] = {}
  whole: Any = None


def family(
  cells: Sequence[Cell],
  *,
  smallest: float = 0.0,
  bounds: tuple[float, float] | None = None,
  **info: Any,
) -> list[verdicts.Verdict]:
  """Judges all claims of a table, with intervals that hold for all at once.

  If an effect is 0 for every seed, its verdict is ``'inert'``.

  Args:
    cells: the claims; all have samples of the same seeds.
    smallest: the smallest effect that counts, fixed beforehand.
    bounds: the smallest and the largest possible effect, if there are such.
    **info: further fields of `Verdict`, the same for all.

  Returns:
    One verdict for each cell, in order; an empty list for an empty table.
  """
  if not cells:
    return []
  table = [np.asarray(cell.samples, float) for cell in cells]
  wholes = [
    np.ones_like(samples)
    if cell.whole is None
    else np.asarray(cell.whole, float)
    for cell, samples in zip(cells, table, strict=True)
  ]
  others = len(cells) - 1
  caveat = f'Simultaneous with {others} other claims.' if others else ''
  judged = []
  for cell, samples, found in zip(
    cells, table, joint.simultaneous(table, wholes, bounds=bounds), strict=True
  ):
    known = samples[np.isfinite(samples)]
    inert = known.size > 0 and not known.any()
    verdict = intervals.judge(found, smallest=smallest)
    own = {'details': cell.details, 'caveat': caveat} | info
    judged.append(
      _conclude(
        cell.finding,
        cell.claim,
        'inert' if inert else verdict,
        found,
        own,
        len(samples),
        smallest=smallest,
      )
    )
  return judged


def variances(
  finding: str,
  claim: str,
  a: Any,
  b: Any,
  *,
  smallest: float = 0.0,
  **info: Any,
) -> verdicts.Verdict:
  """Judges the claim that ``a`` varies less over seeds than ``b``, and counts.

  Args:
    finding: label of the finding.
    claim: the claim in one sentence.
    a: samples, [seeds].
    b: samples of the same seeds, [seeds].
    smallest: the smallest log ratio that counts, fixed beforehand.
    **info: further fields of `Verdict`; by default the unit is
      'log variance ratio'.
  """
  found = intervals.log_variance_ratio(a, b)
  verdict = intervals.judge(found, direction=-1, smallest=smallest)
  info = {'unit': 'log variance ratio'} | info
  return _conclude(
    finding,
    claim,
    verdict,
    found,
    info,
    len(a),
    smallest=smallest,
    undefined=_NO_RATIO,
  )


def _check_crossed(crossed, whole):
  if crossed and whole is not None:
    raise ValueError('shares have no interval over seeds and examples.')


def _conclude(
  finding: str,
  claim: str,
  verdict: str,
  found: intervals.Interval,
  info: Mapping[str, Any],
  num_seeds: int,
  *,
  smallest: float = 0.0,
  undefined: str = _NO_SHARE,
) -> verdicts.Verdict:
  """Returns a verdict that says what its interval rests on: what was lost, or one seed.

  Args:
    finding: label of the finding.
    claim: the claim in one sentence.
    verdict: what the interval says.
    found: the interval.
    info: further fields of `Verdict`.
    num_seeds: number of all seeds, lost ones too.
    smallest: the smallest effect that counts.
    undefined: why an effect of several seeds may be NaN.
  """
  info = dict(info)
  details = {'smallest that counts': smallest} if smallest else {}
  details |= dict(info.pop('details', {}))
  if num_seeds == 1:
    if verdict != 'inert':
      verdict = 'inconclusive'
    why = '' if np.isfinite(found.mean) else ', and the effect is not defined'
    _add_caveat(info, f'One seed: no interval{why}.')
  else:
    if np.isnan(found.mean) and found.num > 1:
      _add_caveat(info, undefined)
    verdict, info['caveat'], lost = divergence.account(
      verdict, found, info.get('caveat', '')
    )
    details |= lost
  return verdicts.Verdict(
    finding=finding,
    claim=claim,
    verdict=verdict,
    effect=found.mean,
    low=found.low,
    high=found.high,
    num_seeds=1 if num_seeds == 1 else found.num,
    details=details,
    **info,
  )


def _add_caveat(info, text):
  info['caveat'] = ' '.join(filter(None, [text, info.get('caveat', '')]))
