"""What diverged has no metrics, and a verdict that lost samples says so.

A network of which a weight is NaN still has an accuracy, a share of flips and a rank
correlation: comparisons with NaN are false, and the largest of ten NaN is the first.
Such numbers are not evidence. They are made NaN, as the loss is, and intervals leave
them out. Networks seldom diverge at random, so if half of them did, what is left is no
sample of them, and the verdict is `DIVERGED`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax.evidence import intervals

if TYPE_CHECKING:
  import xarray

__all__ = ['DIVERGED', 'account', 'finite_mean', 'unless_any', 'without']

DIVERGED = 'inconclusive: diverged'


def without(results: xarray.Dataset, losses: Iterable[str]) -> xarray.Dataset:
  """Returns results with NaN for all that was measured of networks that diverged.

  Args:
    results: any labelled results.
    losses: names of variables over the axes of the networks. A network diverged if one
      of them is not finite; everything over the same axes, and perhaps others, is NaN
      then.
  """
  names = [name for name in losses if name in results]
  sound: Any = True
  for name in names:
    sound = sound & np.isfinite(results[name])
  if not names or bool(sound.all()):
    return results
  return results.assign(
    {
      name: values.where(sound)
      for name, values in results.data_vars.items()
      if set(sound.dims) <= set(values.dims)
    }
  )


def unless_any(
  reduced: xarray.DataArray,
  values: xarray.DataArray,
  dims: str | Sequence[str],
) -> xarray.DataArray:
  """Returns ``reduced`` where all of ``values`` are finite along ``dims``, else NaN.

  xarray leaves NaN out of means and spreads; but the mean of nine draws of which a
  tenth diverged is not the mean of ten.
  """
  sound: Any = np.isfinite(values)
  return reduced.where(sound.all(dims))


def finite_mean(values: xarray.DataArray) -> xarray.DataArray:
  """Returns the mean of the values that are finite, as intervals take it.

  xarray's mean leaves out NaN, but not what is infinite.
  """
  return values.where(np.isfinite(values)).mean()


def account(
  verdict: str, found: intervals.Interval, caveat: str = ''
) -> tuple[str, str, dict[str, float]]:
  """Returns verdict, caveat and details that say how many samples were lost.

  Args:
    verdict: what the samples that are left say.
    found: their interval.
    caveat: what else could overturn the verdict.
  """
  if not found.dropped:
    return verdict, caveat, {}
  lost = (
    f'{found.dropped} of {found.total} samples are left out: they diverged, or are '
    'not defined.'
  )
  if found.num < 2 or 2 * found.dropped >= found.total:
    verdict = DIVERGED
  return (
    verdict,
    f'{caveat} {lost}'.strip(),
    {'diverged': float(found.dropped)},
  )
