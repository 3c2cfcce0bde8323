r"""Intervals and verdicts for seeds that are all tested on the same examples.

Networks of :math:`n` seeds are measured on :math:`m` test examples, and both are samples:
other seeds, and other examples, would give another mean. An interval over seeds alone
is one for these very examples. Samples :math:`x_{si}` are cells of a table, [seeds,
examples], such as the difference between two methods in whether seed :math:`s` guesses
example :math:`i` correctly. Their mean squares are those of the two-way analysis of
variance without replication,

.. math::
  R &= \frac{m}{n-1} \sum_s (\bar x_{s\cdot} - \bar x)^2, \qquad
  C = \frac{n}{m-1} \sum_i (\bar x_{\cdot i} - \bar x)^2, \\
  E &= \frac{1}{(n-1)(m-1)} \sum_{si}
    (x_{si} - \bar x_{s\cdot} - \bar x_{\cdot i} + \bar x)^2 .

If seeds and examples are drawn independently of each other, then, whatever the
distribution of the cells,

.. math::
  \operatorname{var} \bar x = \frac{\sigma^2_{seeds}}{n} + \frac{\sigma^2_{examples}}{m}
    + \frac{\sigma^2_{both}}{nm} = \frac{\mathbb{E}[R + C - E]}{nm},

which is two-way clustering: the variance clustered by seeds, plus that clustered by
examples, minus that of single cells, which both contain. Where :math:`C - E` is
negative it is taken as 0. The interval is that of Student's t, with Satterthwaite's
degrees of freedom for a sum of mean squares. No bootstrap resamples both axes without
bias (McCullagh): the pigeonhole bootstrap counts :math:`\sigma^2_{both}` three times.

Functions of ``contrasts`` judge such tables as *crossed* samples.

References:
  Cameron, Gelbach & Miller (2011), Robust inference with multiway clustering, J. Business
  & Economic Statistics 29(2); Owen (2007), The pigeonhole bootstrap, Ann. Appl. Statist.
  1(2); McCullagh (2000), Resampling and exchangeable arrays, Bernoulli 6(2);
  Satterthwaite (1946), An approximate distribution of estimates of variance components,
  Biometrics Bulletin 2(6).
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Any

import numpy as np

from bitjax.evidence import bounds as bounds_lib
from bitjax.evidence import intervals
from bitjax.evidence import optional

__all__ = [
  'equivalence',
  'interval',
  'simultaneous',
]

_DRAWS = 50_000  # Of the largest of several statistics.


def interval(
  cells: Any,
  *,
  level: float = 0.95,
  bounds: tuple[float, float] | None = None,
) -> intervals.Interval:
  """Returns the mean with its interval over other seeds and other examples.

  Args:
    cells: one number for each seed and example, [seeds, examples]. A seed whose numbers
      are not all finite is dropped and counted.
    level: nominal coverage.
    bounds: the smallest and the largest value of a cell, if there are such.

  Returns:
    The interval; it is infinite for fewer than two seeds or examples.
  """
  return simultaneous([cells], level=level, bounds=bounds)[0]


def simultaneous(
  tables: Sequence[Any],
  *,
  level: float = 0.95,
  bounds: tuple[float, float] | None = None,
) -> list[intervals.Interval]:
  """Returns intervals that hold for all arms at once (multivariate t).

  Their half-widths, in standard errors, are the ``level`` quantile of the largest of
  the arms' t statistics, which have the correlations of the arms' means and the fewest
  degrees of freedom of any arm.

  Args:
    tables: the cells of each arm, [arms, seeds, examples], of the same seeds and
      examples. A seed that is not finite in one arm is dropped in all.
    level: probability that all intervals hold.
    bounds: the smallest and the largest value of a cell, if there are such.
  """
  values = np.asarray(tables, float)
  if values.ndim != 3:
    raise ValueError(
      f'cells must be [seeds, examples] for each arm; got {values.shape[1:]}.'
    )
  usable = np.isfinite(values).all(axis=(0, 2))
  values = values[:, usable]
  arms, num, examples = values.shape
  counts = num, int((~usable).sum()), usable.size
  means = values.mean(axis=(1, 2)) if num else np.full(arms, math.nan)
  if min(num, examples) < 2:
    return [
      intervals.Interval(float(mean), -math.inf, math.inf, *counts)
      for mean in means
    ]
  squares = _squares(values)
  errors, freedom = zip(
    *(_error(own, num, examples) for own in squares.diagonal(0, 1, 2).T),
    strict=True,
  )
  critical = _critical(_correlations(squares), min(freedom), level)
  found = (
    intervals.Interval(
      float(mean),
      float(mean - critical * error),
      float(mean + critical * error),
      *counts,
    )
    for mean, error in zip(means, errors, strict=True)
  )
  return [bounds_lib.within(one, bounds) for one in found]


def equivalence(
  cells: Any, margin: float, *, level: float = 0.95
) -> intervals.Equivalence:
  """Tests whether a difference is too small to matter, as `bitjax.evidence.equivalence` does.

  Args:
    cells: paired differences, [seeds, examples].
    margin: the largest absolute difference that does not matter, > 0.
    level: one minus the size of each one-sided test.
  """
  outer, inner = (interval(cells, level=p) for p in (level, 2 * level - 1))
  return intervals.decide(outer, inner, margin)


def _squares(values):
  """Returns the mean squares and products R, C and E of all arms, [3, arms, arms]."""
  _, n, m = values.shape
  values = values - values[:, :1, :1]  # Equal cells give exactly zero.
  means = values.mean(axis=(1, 2))[:, None]
  rows, columns = values.mean(axis=2) - means, values.mean(axis=1) - means
  rest = values - means[..., None] - rows[..., None] - columns[:, None]
  rest = rest.reshape(len(values), -1)
  return np.stack(
    [
      m / (n - 1) * rows @ rows.T,
      n / (m - 1) * columns @ columns.T,
      rest @ rest.T / ((n - 1) * (m - 1)),
    ]
  )


def _error(squares, n, m):
  """Returns the standard error of one arm's mean, and its degrees of freedom."""
  rows, columns, rest = squares
  if columns <= rest:  # No sign of a variance over examples.
    return math.sqrt(rows / (n * m)), n - 1.0
  variance = rows + columns - rest
  sampling = (
    rows**2 / (n - 1) + columns**2 / (m - 1) + rest**2 / ((n - 1) * (m - 1))
  )
  freedom = max(variance**2 / sampling, min(n, m) - 1.0)
  return math.sqrt(variance / (n * m)), freedom


def _correlations(squares):
  """Returns the correlations of the arms' means; 0 where an arm does not vary."""
  rows, columns, rest = squares
  weights, vectors = np.linalg.eigh(columns - rest)
  covariance = rows + (vectors * np.maximum(weights, 0)) @ vectors.T
  scale = np.sqrt(covariance.diagonal())
  scale = np.where(scale > 0, scale, np.inf)
  found = covariance / scale / scale[:, None]
  np.fill_diagonal(found, 1.0)
  return found


def _critical(correlations, freedom, level):
  """Returns the quantile of the largest of correlated t statistics, in magnitude."""
  special = optional.load('scipy.special')  # scipy.stats takes a second.
  if len(correlations) == 1:
    return float(special.stdtrit(freedom, 0.5 + level / 2))
  draw = np.random.default_rng(0)
  weights, vectors = np.linalg.eigh(correlations)
  normal = draw.normal(size=(_DRAWS, len(weights)))
  normal = normal * np.sqrt(np.maximum(weights, 0)) @ vectors.T
  spread = np.sqrt(draw.chisquare(freedom, _DRAWS) / freedom)
  largest = np.abs(normal).max(axis=1) / spread
  return float(np.quantile(largest, level))
