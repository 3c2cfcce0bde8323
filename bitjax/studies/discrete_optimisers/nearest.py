"""Judges which method comes nearest to the best of all signs of the tiny network.

Every method is compared with continued STE, and the one whose mean gap is the smallest with
all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bitjax.evidence import contrasts
from bitjax.evidence import verdicts
from bitjax.studies.discrete_optimisers import arms
from bitjax.studies.discrete_optimisers import outcomes
from bitjax.studies.discrete_optimisers import texts

if TYPE_CHECKING:
  import xarray

__all__ = ['judge']

_STE = arms.GRADIENTS[0]


def judge(
  results: xarray.Dataset, start: str, margin: float
) -> Iterator[verdicts.Verdict]:
  """Yields the findings of one start.

  Args:
    results: of `arms.compare`, with `texts.doubted`.
    start: one of the starts.
    margin: nats; a smaller difference does not matter.
  """
  at = results.sel(signs=outcomes.tiny(), start=start)
  gaps = {
    arm: at.search.sel(arm=arm, effort=1) - at.optimum
    for arm in outcomes.names(results)
  }
  gaps[arms.DESCENT] = at.descended_search - at.optimum
  best = min(gaps, key=lambda arm: float(gaps[arm].mean()))
  where = texts.where(outcomes.tiny(), start)
  info: dict[str, Any] = {
    'smallest': margin,
    'protocol': 'deployable, A',
    'unit': 'nats',
  }
  yield from contrasts.family(
    [
      contrasts.Cell(
        f'N16 {arm}, tiny layer',
        f'{where}: {texts.words(arm)} ends nearer to the best of all signs, on A, than '
        'continued STE.',
        gaps[_STE] - gap,
        {
          f'gap, {arm}': gap.mean(),
          f'gap, {_STE}': gaps[_STE].mean(),
          'the nearest of all': float(arm == best),
        }
        | texts.unsettled(at, (arm, _STE)),
      )
      for arm, gap in gaps.items()
      if arm != _STE
    ],
    **info,
  )
  others = [arm for arm in gaps if arm != best]
  claim = (
    f'{where}: {texts.words(best)}, whose mean gap is the smallest, ends nearer to the '
    'best of all signs, on A, than every other method.'
  )
  finding = f'N16 nearest, {start}'
  found = contrasts.family(
    [
      contrasts.Cell(
        finding,
        f'{where}: {texts.words(best)} ends nearer than {texts.words(arm)}.',
        gaps[arm] - gaps[best],
      )
      for arm in others
    ],
    **info,
  )
  verdict, worst = outcomes.all_hold(found)
  yield verdicts.Verdict(
    finding,
    claim,
    verdict,
    worst.effect,
    # As all intervals hold at once, so does this one of the smallest difference.
    min(one.low for one in found),
    min(one.high for one in found),
    unit='nats, the smallest difference',
    num_seeds=worst.num_seeds,
    protocol=info['protocol'],
    caveat=f'The method was picked by these means. {worst.caveat}'.strip(),
    details={
      'smallest that counts': margin,
      f'gap, {best}': float(gaps[best].mean()),
    }
    | {
      f'nearer than {arm}': one.effect
      for arm, one in zip(others, found, strict=True)
    }
    | texts.unsettled(at, tuple(gaps)),
  )
