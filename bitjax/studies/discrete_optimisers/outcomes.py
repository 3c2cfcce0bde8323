r"""Looks up losses, and says how what methods save depends on the dimension.

*Efficiency* is the decrease of the loss on A per gradient-equivalent. Its exponent is the slope
of a line through the logs,

.. math:: \log(\text{mean decrease}) = a + b \log(\text{signs}),

by least squares over the networks in which the mean is positive. The dimension from which a
method is no better than another is the first whose mean advantage is at most a
margin, there and in all larger networks, interpolated on the log of the dimension.
Intervals of both resample seeds (percentiles).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax.evidence import intervals
from bitjax.studies.discrete_optimisers import arms
from bitjax.studies.discrete_optimisers import networks

if TYPE_CHECKING:
  import xarray

  from bitjax.evidence import verdicts

__all__ = [
  'advantage',
  'all_hold',
  'both_save',
  'crossing',
  'decrease',
  'exact',
  'exponent',
  'exponents_apart',
  'names',
  'resampled',
  'same_time',
  'searches',
  'tiny',
  'widths',
]

_RESAMPLES = 4000


def tiny() -> int:
  """Returns the number of signs of the network whose best signs are known."""
  return int(np.prod(networks.TINY))


def widths(results: xarray.Dataset) -> list[int]:
  """Returns the numbers of signs of the other networks, growing."""
  return [n for n in results.signs.values.tolist() if n != tiny()]


def names(results: xarray.Dataset) -> list[str]:
  """Returns the methods that took part, the best flip each time not among them."""
  known = results.arm.values.tolist()
  return [name for name in arms.METHODS if name in known]


def searches(results: xarray.Dataset) -> list[str]:
  """Returns those of them that only evaluate losses."""
  return [arm for arm in names(results) if arm not in arms.GRADIENTS]


def exact(results: xarray.Dataset) -> bool:
  """Whether the gains of all flips were computed."""
  return 'improving' in results


def decrease(
  results: xarray.Dataset, batch: str, effort: float = 1
) -> xarray.DataArray:
  """Returns by how much the loss fell from the start on, in nats.

  Args:
    results: of `arms.compare`.
    batch: ``'search'`` or ``'holdout'``.
    effort: one of `methods.EFFORTS`.
  """
  losses = results[batch]
  return losses.sel(effort=0, drop=True) - losses.sel(effort=effort, drop=True)


def advantage(results: xarray.Dataset, batch: str, start: str) -> np.ndarray:
  """Returns what genetic search saves beyond random flips of the same number.

  Returns:
    Nats, [networks, seeds].
  """
  at = results.sel(signs=widths(results), start=start)
  own = at[batch].sel(arm='genetic', effort=1)
  random = at[f'random_{batch}'].sel(effort=1)
  return (random - own).transpose('signs', 'seed').values


def exponent(signs: Any, decreases: np.ndarray) -> float:
  """Returns the exponent of the mean decrease; NaN with less than two positive ones.

  Args:
    signs: [networks].
    decreases: [networks, seeds].
  """
  means = decreases.mean(axis=1)
  known = means > 0
  if known.sum() < 2:
    return float('nan')
  x, y = np.log(np.asarray(signs, float)[known]), np.log(means[known])
  return float(np.polyfit(x, y, 1)[0])


def both_save(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Returns in which networks the mean decreases of two methods are positive.

  Args:
    first: [networks, seeds].
    second: the same of the other method.
  """
  return (first.mean(axis=1) > 0) & (second.mean(axis=1) > 0)


def exponents_apart(signs: Any, first: np.ndarray, second: np.ndarray) -> float:
  """Returns the exponent of one method less that of another, of the same networks.

  These are the networks in which both save something; NaN with less than two.

  Args:
    signs: [networks].
    first: decreases, [networks, seeds].
    second: those of the other method.
  """
  known = both_save(first, second)
  x = np.asarray(signs)[known]
  return exponent(x, first[known]) - exponent(x, second[known])


def all_hold(
  found: Sequence[verdicts.Verdict],
) -> tuple[str, verdicts.Verdict]:
  """Returns the verdict on all of several claims at once, and the one that holds least.

  All are supported if each is, which takes no correction for their number, and
  contradicted if one of them is, or if one effect does not matter.

  Args:
    found: verdicts on the claims.
  """
  names = {one.verdict for one in found}
  verdict = 'inconclusive'
  if names == {'supported'}:
    verdict = 'supported'
  elif names & {'contradicted', 'equivalent', 'inert'}:
    verdict = 'contradicted'
  # What is not known is no effect to speak of.
  least = min(found, key=lambda one: (not np.isnan(one.effect), one.effect))
  return verdict, least


def crossing(signs: Any, advantages: np.ndarray, margin: float) -> float:
  """Returns the log10 of the dimension from which on an advantage is at most a margin.

  Args:
    signs: growing, [networks].
    advantages: [networks, seeds].
    margin: nats.

  Returns:
    That of the smallest network if there is none anywhere, infinity if there is one in
    the largest.
  """
  over = advantages.mean(axis=1) - margin
  above = np.flatnonzero(over > 0)
  x = np.log10(np.asarray(signs, float))
  if not above.size:
    return float(x[0])
  last = above[-1]
  if last == len(x) - 1:
    return float('inf')
  share = over[last] / (over[last] - over[last + 1])
  return float(x[last] + share * (x[last + 1] - x[last]))


def resampled(
  find: Callable[[np.ndarray], float], table: np.ndarray
) -> intervals.Interval:
  """Returns a number with the percentile interval over resampled seeds.

  Args:
    find: ``[networks, seeds] -> number``, of resampled seeds; NaN if not defined.
    table: [networks, seeds].
  """
  sound = np.isfinite(table).all(axis=0)
  table, total = table[:, sound], sound.size
  num = table.shape[1]
  lost = total - num
  if num < 2:
    value = find(table) if num else float('nan')
    return intervals.Interval(value, -np.inf, np.inf, num, lost, total)
  draws = np.random.default_rng(0).integers(num, size=(_RESAMPLES, num))
  found = np.array([find(table[:, rows]) for rows in draws])
  # What is not defined may be anything.
  below, above = (
    np.where(np.isnan(found), x, found) for x in (-np.inf, np.inf)
  )
  low = np.quantile(below, 0.025, method='lower')
  high = np.quantile(above, 0.975, method='higher')
  return intervals.Interval(
    find(table), float(low), float(high), num, lost, total
  )


def same_time(results: xarray.Dataset, arm: str) -> xarray.Dataset:
  """Returns the losses of a method after as much processor time as STE's whole budget.

  Time is proportional to effort, and losses are interpolated between the efforts at which
  they are known, the largest of which stands for all larger ones.

  Args:
    results: of `arms.compare`, of one network and start.
    arm: the method.
  """
  efforts = results.effort.values
  most = 1 if arm in arms.GRADIENTS else efforts[-1]
  own, base = (
    float(results.seconds.sel(arm=name).median())
    for name in (arm, arms.GRADIENTS[0])
  )
  effort = min(most * base / own, most) if own > 0 else most
  return results[['search', 'holdout']].sel(arm=arm).interp(effort=effort)
