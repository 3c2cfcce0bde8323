"""Judges a bound on the best point of a ball, and how much of it methods reach."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import intervals
from bitjax.evidence import verdicts
from bitjax.studies.discrete_optimum import arms

if TYPE_CHECKING:
  import xarray

__all__ = ['BOUND', 'MARGIN', 'SHARE', 'inside', 'judge']

BOUND = 'N3 additive bound'  # The primary finding.
SHARE = 0.9  # Of the networks, in which the bound is claimed to hold.
MARGIN = 0.01  # Of the best decrease: a smaller difference does not matter.

_PAIR = 'exact per squared cost', 'STE step, gradient'


def judge(results: xarray.Dataset) -> list[verdicts.Verdict]:
  """Judges the bound, and how much of the optimum is reached."""
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
    best = at.optimum.mean()
    found.append(
      contrasts.difference(
        'N3 optimum',
        f'{state}: of the best decrease, {_PAIR[0]} reaches more than {_PAIR[1]}.',
        reached[_PAIR[0]] - reached[_PAIR[1]],
        whole=at.optimum,
        smallest=MARGIN,
        details={arm: own.mean() / best for arm, own in reached.items()},
        protocol='oracle, A',
        unit='of the mean best decrease',
      )
    )
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
  found = contrasts.difference(finding, claim, holds - SHARE, **info)
  if found.num_seeds < 2 or found.verdict == divergence.DIVERGED:
    return found
  share = intervals.proportion(holds)
  low, high = share.low - SHARE, share.high - SHARE
  interval = intervals.Interval(found.effect, low, high, found.num_seeds)
  return dataclasses.replace(
    found, low=low, high=high, verdict=intervals.judge(interval)
  )
