r"""Intervals that hold for several arms at once.

The half-width, in standard errors, is a quantile of the largest absolute t statistic
over the arms. From `FEW` clusters on, that of resampled clusters tells it (bootstrap
max-t): the same clusters are resampled in all arms, which takes the dependence between
arms into account. With fewer, resampled standard errors are so often nearly 0 that these
intervals become far too wide. Then the quantile is that of normal samples, as many as
there are, with the arms' correlations (the multivariate t, with a standard error for
each arm). Estimated from few clusters, correlations :math:`r` are too large, so they are
shrunk towards 0 by the factor :math:`1 - \lambda`,

.. math:: \lambda = \min\Bigl(1, \sum_{i \ne j} \frac{(1 - r_{ij}^2)^2}{n - 1} \Big/
                                 \sum_{i \ne j} r_{ij}^2\Bigr).

References:
  Romano & Wolf (2005), Exact and approximate stepdown methods for multiple hypothesis
  testing, JASA 100; Hothorn, Bretz & Westfall (2008), Simultaneous inference in general
  parametric models, Biometrical J. 50; Schaefer & Strimmer (2005), A shrinkage approach
  to large-scale covariance matrix estimation, Stat. Appl. Genet. Mol. Biol. 4.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bitjax.evidence import bounds as bounds_lib
from bitjax.evidence import optional
from bitjax.evidence import ratios
from bitjax.evidence import samples
from bitjax.evidence.intervals import Interval

__all__ = ['FEW', 'simultaneous']

FEW = 20
_AT_ONCE = 2**22  # Random numbers that are held at a time.


def simultaneous(
  differences: Any,
  wholes: Any = None,
  *,
  level: float = 0.95,
  num_resamples: int = 10_000,
  seed: int = 0,
  bounds: tuple[float, float] | None = None,
) -> list[Interval]:
  """Returns intervals that hold for all arms at once.

  Args:
    differences: one row for each arm, [arms, clusters]. A cluster that is not
      finite in one arm is dropped in all.
    wholes: denominators, if the effects are shares, [arms, clusters]: each interval is
      then one of ``mean(difference) / mean(whole)`` (Fieller's, as in `share`). An arm whose
      denominator is not clearly positive has no share, and its interval is infinite.
    level: probability that all intervals hold.
    num_resamples: number of resamples, or of normal samples.
    seed: seed of the resampling; the same seed gives the same intervals.
    bounds: the smallest and the largest possible difference, as in `interval`.
  """
  values = np.asarray(differences, float)
  whole = np.ones_like(values) if wholes is None else np.asarray(wholes, float)
  if values.ndim != 2 or whole.shape != values.shape:
    raise ValueError(
      'differences must be [arms, clusters], and wholes as well; got '
      f'{values.shape} and {whole.shape}.'
    )
  usable = (np.isfinite(values) & np.isfinite(whole)).all(axis=0)
  values, whole = values[:, usable], whole[:, usable]
  num, total = values.shape[1], usable.size
  counts = num, total - num, total
  if num < 2:
    with np.errstate(divide='ignore', invalid='ignore'):
      means = [
        float(part.mean() / w.mean()) if num else math.nan
        for part, w in zip(values, whole, strict=True)
      ]
    return [Interval(mean, -math.inf, math.inf, *counts) for mean in means]
  single = float(
    optional.load('scipy.special').stdtrit(num - 1, 0.5 + level / 2)
  )
  pairs = list(zip(values, whole, strict=True))
  left = [
    ratios.residuals(*pair)
    for pair in pairs
    if not math.isnan(ratios.fieller(*pair, single).mean)
  ]
  left = np.array([row for row in left if row.any()])
  if len(left) < 2:
    critical = single
  elif num < FEW:
    critical = _of_normal_samples(left, level, num_resamples, seed)
  else:
    critical = _of_resamples(left, level, num_resamples, seed)
  found = (
    Interval(*ratios.fieller(*pair, critical), *counts) for pair in pairs
  )
  return [bounds_lib.within(interval, bounds) for interval in found]


def _of_resamples(rows, level, num_resamples, seed):
  """Returns the quantile of the largest |t| over the rows of resampled clusters."""
  num = rows.shape[1]
  weights = samples.weights(num, num_resamples, seed)
  shift = weights @ rows.T
  error = np.sqrt(samples.variance(weights, rows.T) / (num - 1))
  with np.errstate(divide='ignore', invalid='ignore'):
    ratio = np.where(shift == 0, 0.0, np.abs(shift) / error)
  return float(np.quantile(ratio.max(axis=1), level, method='higher'))


def _of_normal_samples(rows, level, num_resamples, seed):
  """Returns the quantile of the largest |t| of normal samples, correlated as rows are."""
  arms, num = rows.shape
  rows = rows / np.sqrt((rows**2).sum(axis=1, keepdims=True))
  squares = (rows @ rows.T)[~np.eye(arms, dtype=bool)] ** 2
  noise = ((1 - squares) ** 2).sum() / (num - 1)
  shrunk = min(1.0, noise / max(squares.sum(), np.finfo(float).tiny))
  rng = np.random.default_rng(seed)
  largest = []
  step = max(1, _AT_ONCE // (num * (num + arms)))
  for start in range(0, num_resamples, step):
    size = min(step, num_resamples - start)
    drawn = math.sqrt(1 - shrunk) * (
      rows @ rng.standard_normal((size, num, num))
    )
    drawn += math.sqrt(shrunk) * rng.standard_normal((size, arms, num))
    t = drawn.mean(axis=-1) / drawn.std(axis=-1, ddof=1)
    largest.append(math.sqrt(num) * np.abs(t).max(axis=-1))
  return float(np.quantile(np.concatenate(largest), level, method='higher'))
