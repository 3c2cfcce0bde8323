r"""Intervals and decisions for few, clustered, paired samples.

A *cluster* is what was drawn independently: a fresh initialisation with its own
batches. Everything measured within a cluster is averaged before clusters are
resampled, so that repeats do not count as independent evidence.

Intervals of means are *expanded percentile* bootstrap intervals. The percentile
bootstrap is too narrow for small n for two reasons: it omits the factor
:math:`\sqrt{n/(n-1)}` of the unbiased standard deviation, and uses normal quantiles
in place of t quantiles. The expanded interval takes the percentiles
:math:`\alpha'/2` and :math:`1-\alpha'/2` with
:math:`\alpha'/2 = \Phi\bigl(-\sqrt{n/(n-1)}\;t_{1-\alpha/2,\,n-1}\bigr)` instead.
Below ``SMALL`` clusters no percentile is wide enough (a resampled mean never leaves
the samples' range, which covers with probability :math:`1-2^{1-n}` at most), so
the t interval takes its place.

References:
  Hesterberg (2015), What teachers should know about the bootstrap, The American
  Statistician 69(4), sections 3.1 and 4; Schuirmann (1987), a comparison of the two
  one-sided tests procedure, J. Pharmacokinet. Biopharm. 15; Miller (1968), Jackknifing variances, Ann. Math. Statist. 39.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from bitjax.evidence import bounds as bounds_lib
from bitjax.evidence import optional
from bitjax.evidence import ratios
from bitjax.evidence import samples as samples_lib

__all__ = [
  'Equivalence',
  'Interval',
  'decide',
  'equivalence',
  'interval',
  'judge',
  'log_variance_ratio',
  'proportion',
  'share',
]

SMALL = 7


@dataclasses.dataclass(frozen=True)
class Interval:
  """An estimate with its confidence interval.

  Attributes:
    mean: the estimate; NaN without samples.
    low: lower end; ``-inf`` where there are too few samples.
    high: upper end.
    num: number of clusters that the estimate rests on.
    dropped: number of samples left out because they were not finite.
    total: number of all samples.
  """

  mean: float
  low: float
  high: float
  num: int
  dropped: int = 0
  total: int = dataclasses.field(default=0, compare=False)


@dataclasses.dataclass(frozen=True)
class Equivalence:
  """Result of two one-sided tests.

  Attributes:
    verdict: ``'supported'`` (equivalent), ``'contradicted'``, ``'inconclusive'``.
    interval: interval of the difference at the requested level.
    inner: interval of the difference at ``2 level - 1``; the claim of equivalence is
      supported if it lies within the margin.
    margin: the largest difference that does not matter.
  """

  verdict: str
  interval: Interval
  inner: Interval
  margin: float


def interval(
  samples: Any,
  *,
  level: float = 0.95,
  num_resamples: int = 10_000,
  seed: int = 0,
  bounds: tuple[float, float] | None = None,
) -> Interval:
  """Returns the mean over clusters with its expanded percentile interval.

  Args:
    samples: one value for each cluster, [clusters], or repeats to be averaged
      within each, [clusters, repeats]. Values that are not finite are dropped and
      counted; note that samples which diverge are seldom missing at random.
    level: nominal coverage.
    num_resamples: number of bootstrap resamples.
    seed: seed of the resampling; the same seed gives the same interval.
    bounds: the smallest and the largest value of a sample, if there are such.

  Returns:
    The interval; it is infinite for fewer than two clusters.
  """
  options = {'level': level, 'num_resamples': num_resamples, 'seed': seed}
  return bounds_lib.within(_interval(samples, **options), bounds)


def _interval(samples, *, level, num_resamples, seed) -> Interval:
  means, dropped = samples_lib.clusters(samples)
  num, total = len(means), np.size(samples)
  if num < 2:
    mean = float(means.mean()) if num else math.nan
    return Interval(mean, -math.inf, math.inf, num, dropped, total)
  mean = float(means.mean())
  # Equal samples give an interval of exactly zero length.
  centred = samples_lib.centred(means[None])[0]
  if num < SMALL:
    special = optional.load('scipy.special')  # scipy.stats takes a second.
    quantile = special.stdtrit(num - 1, 0.5 + level / 2)
    half = float(quantile * centred.std(ddof=1) / math.sqrt(num))
    return Interval(mean, mean - half, mean + half, num, dropped, total)
  shifts = samples_lib.weights(num, num_resamples, seed) @ centred
  low, high = _percentiles(shifts, num, level)
  ends = mean + np.array([low, high])
  # If samples are counts (correct predictions, say), an end may differ from zero only
  # by rounding; make it zero.
  ends[np.abs(ends) <= bounds_lib.ROUNDING * np.abs(means).max()] = 0.0
  return Interval(mean, float(ends[0]), float(ends[1]), num, dropped, total)


def share(
  part: Any,
  whole: Any,
  *,
  level: float = 0.95,
  bounds: tuple[float, float] | None = None,
) -> Interval:
  """Returns the interval of ``mean(part) / mean(whole)``, by Fieller's method.

  Both vary together from cluster to cluster, and the interval takes that into account. A
  share of something that is not clearly positive is not defined.

  Args:
    part: numerators, [clusters] or [clusters, repeats]; a pair of which one number is not
      finite is dropped and counted.
    whole: denominators, of the same shape.
    level: nominal coverage.
    bounds: the smallest and the largest possible share, if there are such.

  Returns:
    The interval; NaN with infinite ends if the interval of ``mean(whole)`` does not lie
    above 0, and infinite for fewer than two clusters.
  """
  part, whole = np.asarray(part, float), np.asarray(whole, float)
  if part.shape != whole.shape:
    raise ValueError(
      f'a share needs samples of one shape; got {part.shape} and {whole.shape}.'
    )
  known = np.isfinite(part) & np.isfinite(whole)
  parts, dropped = samples_lib.clusters(np.where(known, part, math.nan))
  wholes, _ = samples_lib.clusters(np.where(known, whole, math.nan))
  counts = len(parts), dropped, part.size
  if len(parts) < 2:
    with np.errstate(divide='ignore', invalid='ignore'):
      mean = float(parts[0] / wholes[0]) if len(parts) else math.nan
    return Interval(mean, -math.inf, math.inf, *counts)
  quantile = optional.load('scipy.special').stdtrit(
    len(parts) - 1, 0.5 + level / 2
  )
  found = Interval(*ratios.fieller(parts, wholes, float(quantile)), *counts)
  return bounds_lib.within(found, bounds)


def proportion(holds: Any, *, level: float = 0.95) -> Interval:
  """Returns the share of clusters of which something holds, with its exact interval.

  Resampling would say that a share of 0 or 1 is exact, however few clusters there are.

  Args:
    holds: 1 or 0 for each cluster, [clusters]; what is not finite is dropped and counted.
    level: the least coverage.

  References:
    Clopper and Pearson (1934), The use of confidence or fiducial limits illustrated in
    the case of the binomial, Biometrika 26.
  """
  values = np.asarray(holds, float)
  known = values[np.isfinite(values)]
  hits, misses = known.sum(), (1 - known).sum()
  tail = (1 - level) / 2
  special = optional.load('scipy.special')
  low = special.betaincinv(hits, misses + 1, tail) if hits else 0.0
  high = special.betaincinv(hits + 1, misses, 1 - tail) if misses else 1.0
  mean = float(known.mean()) if known.size else math.nan
  dropped = values.size - known.size
  return Interval(
    mean, float(low), float(high), known.size, dropped, values.size
  )


def equivalence(
  differences: Any,
  margin: float,
  *,
  whole: Any = None,
  level: float = 0.95,
  **options: Any,
) -> Equivalence:
  """Tests whether a difference is too small to matter (TOST).

  Failing to find a difference is not equivalence: the ``2 level - 1`` interval has
  to lie within the margin, which amounts to a one-sided test of size ``1 - level`` at
  each end. If the whole ``level`` interval lies outside the margin, the claim of
  equivalence is contradicted.

  Args:
    differences: paired differences, [clusters] or [clusters, repeats].
    margin: the largest absolute difference that does not matter, > 0.
    whole: what the differences are shares of, of the same shape: the effect is then
      their `share`, and so is the margin. None if they are not.
    level: one minus the size of each one-sided test.
    **options: further arguments of `interval`, or of `share`.
  """
  if whole is None:
    find = functools.partial(interval, differences, **options)
  else:
    find = functools.partial(share, differences, whole, **options)
  return decide(find(level=level), find(level=2 * level - 1), margin)


def decide(outer: Interval, inner: Interval, margin: float) -> Equivalence:
  """Returns what intervals at ``level`` and ``2 level - 1`` say of an equivalence.

  Args:
    outer: the wider interval, which contradicts the claim beyond the margin.
    inner: the narrower one, which supports it within the margin.
    margin: the largest difference that does not matter, > 0.
  """
  if not margin > 0:
    raise ValueError(f'the margin of an equivalence must be > 0; got {margin}.')
  verdict = 'inconclusive'
  if not math.isnan(outer.mean):
    if -margin < inner.low and inner.high < margin:
      verdict = 'supported'
    elif outer.low > margin or outer.high < -margin:
      verdict = 'contradicted'
  return Equivalence(verdict, outer, inner, margin)


def judge(found: Interval, *, direction: int = 1, smallest: float = 0.0) -> str:
  """Judges the claim that an effect exceeds ``smallest`` in ``direction``.

  Args:
    found: interval of the effect.
    direction: +1 for a positive effect, -1 for a negative one.
    smallest: the smallest effect that counts, >= 0.

  Returns:
    ``'supported'`` if the interval lies entirely beyond ``smallest``, ``'contradicted'``
    if it lies beyond it in the other direction, ``'equivalent'`` if it lies within
    ``smallest`` of 0 (there may be an effect, but none that counts), else
    ``'inconclusive'``.

  Raises:
    ValueError: if ``direction`` is neither 1 nor -1, or ``smallest`` is negative.
  """
  if direction not in (1, -1):
    raise ValueError(f'direction must be 1 or -1; got {direction}.')
  if not smallest >= 0:
    raise ValueError(f'smallest must be >= 0; got {smallest}.')
  low, high = sorted((direction * found.low, direction * found.high))
  if low > smallest:
    return 'supported'
  if high < -smallest:
    return 'contradicted'
  if smallest and -smallest <= low and high <= smallest:
    return 'equivalent'
  return 'inconclusive'


def log_variance_ratio(
  a: Any,
  b: Any,
  *,
  level: float = 0.95,
  num_resamples: int = 10_000,
  seed: int = 0,
) -> Interval:
  """Returns the interval of ``log(var(a) / var(b))``; below 0, ``a`` varies less.

  Samples of shape [clusters, repeats] must be of the same clusters. Their variances
  are taken over the repeats of each cluster, and the result is the `interval` of the
  clusters' log-ratios.

  For samples of shape [clusters] the variance is taken over clusters, and the result
  is the expanded percentile interval of the resampled log-ratios. Samples of equal
  length are resampled together. The interval is infinite below ``SMALL`` clusters,
  which tell next to nothing about a variance.

  Args:
    a: samples, [clusters] or [clusters, repeats].
    b: samples with as many axes as ``a``.
    level: nominal coverage.
    num_resamples: number of bootstrap resamples.
    seed: seed of the resampling.
  """
  a, b = np.asarray(a, float), np.asarray(b, float)
  if a.ndim != b.ndim or a.ndim not in (1, 2):
    raise ValueError(
      'both samples must be [clusters] or [clusters, repeats]; got '
      f'{a.shape} and {b.shape}.'
    )
  options = {'level': level, 'num_resamples': num_resamples, 'seed': seed}
  if a.ndim == 2:
    if len(a) != len(b):
      raise ValueError(
        f'repeats must be of the same clusters; got {a.shape} and {b.shape}.'
      )
    with np.errstate(invalid='ignore'):
      return interval(_log_variance(a) - _log_variance(b), **options)
  together = len(a) == len(b)
  if together:
    usable = np.isfinite(a) & np.isfinite(b)
    dropped = int((~usable).sum())
    a, b = a[usable], b[usable]
  else:
    dropped = int((~np.isfinite(a)).sum() + (~np.isfinite(b)).sum())
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
  num = min(len(a), len(b))
  total = num + dropped if together else len(a) + len(b) + dropped
  if num < 2:
    return Interval(math.nan, -math.inf, math.inf, num, dropped, total)
  with np.errstate(invalid='ignore'):  # Constant samples give -inf minus -inf.
    mean = float(_log_variance(a[None])[0] - _log_variance(b[None])[0])
  if num < SMALL:
    return Interval(mean, -math.inf, math.inf, num, dropped, total)
  weights = [samples_lib.weights(len(a), num_resamples, seed)]
  weights.append(
    weights[0]
    if together
    else samples_lib.weights(len(b), num_resamples, seed + 1)
  )
  with np.errstate(divide='ignore', invalid='ignore'):
    resampled = _resampled(a, weights[0]) - _resampled(b, weights[1])
  resampled = resampled[~np.isnan(resampled)]
  if not len(resampled):
    return Interval(mean, -math.inf, math.inf, num, dropped, total)
  low, high = _percentiles(resampled, num, level)
  return Interval(mean, low, high, num, dropped, total)


def _percentiles(
  resampled: np.ndarray, num: int, level: float
) -> tuple[float, float]:
  special = optional.load('scipy.special')
  quantile = special.stdtrit(num - 1, 0.5 + level / 2)
  tail = float(special.ndtr(-math.sqrt(num / (num - 1)) * quantile))
  # Quantiles are not interpolated, since a resampled ratio may be infinite.
  low = np.quantile(resampled, tail, method='lower')
  high = np.quantile(resampled, 1 - tail, method='higher')
  return float(low), float(high)


def _resampled(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Returns the resamples' log-variances, centred at that of the samples."""
  spread = samples_lib.variance(weights, samples_lib.centred(values[None])[0])
  # A resample's variance is too small by (n - 1) / n twice: it is taken around the
  # resample's own mean, and the samples lie around theirs.
  bias = 2 * math.log(len(values) / (len(values) - 1))
  with np.errstate(divide='ignore'):
    return np.log(spread) + bias


def _log_variance(values: np.ndarray) -> np.ndarray:
  with np.errstate(divide='ignore', invalid='ignore'):
    spread = (samples_lib.centred(values) ** 2).sum(axis=1)
    return np.log(spread / (values.shape[1] - 1))
