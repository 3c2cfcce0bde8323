"""Intervals of what has bounds: shares, correlations, accuracies.

The mean of samples that lie within bounds lies within them too, so the ends of its
interval that lie beyond are moved onto them. This loses no coverage. An interval on
another scale (Fisher's z, the logit) would be one of another quantity, since the mean of
transformed samples is not the transform of their mean: from 20 clusters whose correlations
lie around 0.95, it covers the mean correlation in 55 % of cases instead of 95 %.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from bitjax.evidence import intervals

__all__ = ['ROUNDING', 'within']

ROUNDING = 1e-5  # Relative to the largest number: results are float32.


def within(
  found: intervals.Interval, bounds: tuple[float, float] | None
) -> intervals.Interval:
  """Returns an interval that lies within the bounds of its samples.

  Args:
    found: an interval of a mean.
    bounds: the smallest and the largest value of a sample; None if there are none. With
      fewer than two clusters, or without an estimate, the ends are unknown, and infinite.

  Raises:
    ValueError: if the mean lies outside the bounds by more than rounding.
  """
  if bounds is None or found.num < 2 or math.isnan(found.mean):
    return found
  low, high = bounds
  slack = ROUNDING * max(abs(low), abs(high))
  if not low - slack <= found.mean <= high + slack:
    raise ValueError(f'samples must lie within {bounds}; got {found.mean}.')
  return dataclasses.replace(
    found,
    low=min(max(found.low, low), high),
    high=max(min(found.high, high), low),
  )
