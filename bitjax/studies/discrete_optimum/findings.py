"""Judges a bound on the best point of a ball, and how much of it methods reach."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import intervals
from bitjax.evidence import verdicts
from bitjax.studies.discrete_optimum import arms

if TYPE_CHECKING:
  import xarray

__all__ = ['BOUND', 'MARGIN', 'NEAREST', 'SHARE', 'inside', 'judge']

BOUND = 'N3 additive bound'  # The primary finding.
SHARE = 0.9  # Of the networks, in which the bound is claimed to hold.
# Of the best decrease, or of the networks: a smaller difference does not matter.
MARGIN = 0.01
NEAREST = 'one by one, by linear'  # The arm that others are compared with.

_PAIR = 'exact per squared cost', 'STE step, gradient'
_OF_BEST: dict[str, Any] = {
  'smallest': MARGIN,
  'protocol': 'oracle, A',
  'unit': 'of the mean best decrease',
}


def judge(results: xarray.Dataset) -> list[verdicts.Verdict]:
  """Judges the bound, how much of the optimum is reached, and what comes nearest.

  What each arm leaves of the best decrease, and how far `NEAREST` is ahead of it, are
  judged arm by arm. That `NEAREST` is ahead of all others is shown if each of these
  verdicts is ``'supported'``, which needs no correction for their number.
  """
  found: list[verdicts.Verdict] = []
  results = divergence.without(results, ['loss', 'optimum', 'bound'])
  for state in results.state.values.tolist():
    at = results.sel(state=state)
    over, near = inside(at)
    holds = over * near
    found.append(
      _exact(
        holds,
        BOUND,
        f'{state}: in nine of ten networks the best point of the ball saves at most '
        'what single gains promise, and at least a third of it.',
        primary=not found,
        details={
          'promised, nats': at.bound.mean(),
          'best, nats': at.optimum.mean(),
          'at most what is promised': over.mean(),
          'at least a third of it': near.mean(),
        },
        protocol='A',
        unit='share of the networks, less 0.9',
      )
    )
    reached = {arm: at.decrease.sel(arm=arm) for arm in arms.ARMS}
    best, nearest = at.optimum.mean(), reached[NEAREST]
    found.append(
      contrasts.difference(
        'N3 optimum',
        f'{state}: of the best decrease, {_PAIR[0]} reaches more than {_PAIR[1]}.',
        reached[_PAIR[0]] - reached[_PAIR[1]],
        whole=at.optimum,
        details={arm: own.mean() / best for arm, own in reached.items()},
        **_OF_BEST,
      )
    )
    for finding, what, samples in (
      (
        f'N3 left, {state}',
        'it saves less than the best point of the ball does',
        {arm: at.optimum - own for arm, own in reached.items()},
      ),
      (
        f'N3 nearest, {state}',
        f'{NEAREST} saves more',
        {a: nearest - own for a, own in reached.items() if a != NEAREST},
      ),
    ):
      found += [
        contrasts.difference(
          finding,
          f'{arm}: {what}.',
          own,
          whole=at.optimum,
          **_OF_BEST,
        )
        for arm, own in samples.items()
      ]
  return found


def inside(at: xarray.Dataset) -> tuple[xarray.DataArray, xarray.DataArray]:
  """Returns 1 where the sum is a bound, and where it is below three times the optimum.

  Args:
    at: results of one state.

  Returns:
    Two arrays of 1 and 0; NaN for networks that diverged.
  """
  rounding = 1e-6 * at.loss
  sound = at.bound.notnull()  # Comparisons with NaN are false.
  over = at.bound >= at.optimum - rounding
  near = at.bound <= 3 * at.optimum + rounding
  return over.astype(float).where(sound), near.astype(float).where(sound)


def _exact(holds, finding, claim, **info):
  """Judges whether something holds in more than `SHARE` of the networks."""
  found = contrasts.difference(
    finding, claim, holds - SHARE, smallest=MARGIN, **info
  )
  if found.num_seeds < 2 or found.verdict == divergence.DIVERGED:
    return found
  share = intervals.proportion(holds)
  low, high = share.low - SHARE, share.high - SHARE
  interval = intervals.Interval(found.effect, low, high, found.num_seeds)
  verdict = intervals.judge(interval, smallest=MARGIN)
  return dataclasses.replace(found, low=low, high=high, verdict=verdict)
