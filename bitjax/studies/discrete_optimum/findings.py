"""Judges a bound on the best point of a ball, and how much of it methods reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import verdicts
from bitjax.studies.discrete_optimum import arms

if TYPE_CHECKING:
  import xarray

__all__ = ['BOUND', 'SHARE', 'judge']

BOUND = 'N3 additive bound'  # The primary finding.
SHARE = 0.9  # Of the networks, in which the bound is claimed to hold.

_PAIR = 'exact per squared cost', 'STE step, gradient'


def judge(results: xarray.Dataset) -> list[verdicts.Verdict]:
  """Judges the bound, and how much of the optimum is reached."""
  found = []
  results = divergence.without(results, ['loss', 'optimum', 'bound'])
  for state in results.state.values.tolist():
    at = results.sel(state=state)
    rounding = 1e-6 * at.loss
    over = at.bound >= at.optimum - rounding
    near = at.bound <= 3 * at.optimum + rounding
    sound = at.bound.notnull()  # Comparisons with NaN are false.
    found.append(
      contrasts.difference(
        BOUND,
        f'{state}: in nine of ten networks the best point of the ball saves at most '
        'what single gains promise, and at least a third of it.',
        ((over & near) - SHARE).where(sound),
        primary=not found,
        details={
          'promised, nats': at.bound.mean(),
          'best, nats': at.optimum.mean(),
          'at most what is promised': over.where(sound).mean(),
          'at least a third of it': near.where(sound).mean(),
        },
        protocol='A',
        unit='share of the networks, less 0.9',
        bounds=(-0.9, 0.1),
      )
    )
    share = at.decrease / divergence.finite_mean(at.optimum)
    ours, ste = (share.sel(arm=arm) for arm in _PAIR)
    found.append(
      contrasts.difference(
        'N3 optimum',
        f'{state}: of the best decrease, {_PAIR[0]} reaches more than {_PAIR[1]}.',
        ours - ste,
        details={arm: share.sel(arm=arm).mean() for arm in arms.ARMS},
        protocol='oracle, A',
        unit='of the mean best decrease',
      )
    )
  return found
