r"""Fieller's interval of a ratio of means: a share of something that is itself estimated.

The pairs :math:`(p_i, w_i)` are of the same clusters, and the share is
:math:`\rho = E[p] / E[w]`. For each value of :math:`\rho` the samples :math:`p_i - \rho
w_i` have the mean 0, so the interval is the set of all :math:`\rho` that their t test
does not reject,

.. math:: (\bar p - \rho \bar w)^2 \le q^2 \, \widehat{var}(\bar p - \rho \bar w).

It takes numerator and denominator as they vary together. If the test does not reject
:math:`E[w] \le 0` either, the set is unbounded, and the share is not defined.

Reference:
  Fieller (1954), Some problems in interval estimation, J. R. Statist. Soc. B 16(2).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from bitjax.evidence import samples

__all__ = ['Ratio', 'fieller', 'residuals']


class Ratio(NamedTuple):
  """A ratio with the ends of its interval; NaN and infinite where it is not defined."""

  mean: float
  low: float
  high: float


UNDEFINED = Ratio(math.nan, -math.inf, math.inf)


def residuals(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  """Returns ``part - ratio * whole``, with the ratio of the means, [clusters].

  Args:
    part: numerators by cluster, [clusters].
    whole: denominators by cluster, [clusters], of mean other than 0.
  """
  ratio = part.mean() / whole.mean()
  # Centred once more: equal residuals are 0, whatever the ratio is rounded to.
  return samples.centred((part - ratio * whole)[None])[0]


def fieller(part: np.ndarray, whole: np.ndarray, quantile: float) -> Ratio:
  """Returns the ratio of the means of ``part`` and ``whole``, with its interval.

  Args:
    part: numerators by cluster, [clusters].
    whole: denominators by cluster, [clusters].
    quantile: half the width of the interval of a mean, in standard errors.
  """
  num, mean = len(whole), float(whole.mean())
  spread = samples.centred(whole[None])[0]
  scale = quantile**2 / (num * (num - 1))
  room = mean**2 - scale * float(spread @ spread)
  if not (mean > 0 and room > 0):
    return UNDEFINED
  ratio = float(part.mean()) / mean
  left = residuals(part, whole)
  # An end lies at ratio + x, where x solves room x^2 + 2 joint x = own.
  joint = scale * float(left @ spread)
  own = scale * float(left @ left)
  half = math.sqrt(joint**2 + room * own)
  return Ratio(
    ratio, ratio + (-joint - half) / room, ratio + (-joint + half) / room
  )
