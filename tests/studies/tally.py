"""Counts how often intervals hold what is true, alone and at once.

A table's row is of one kind of interval: how many claims have it, in how many trials each,
the share of trials in which a claim's interval holds the truth (mean over claims, lowest,
highest), and half its width in standard deviations of the estimate (median over claims).
A claim counts if it has an interval in at least half of the trials. Rows of other numbers
follow:

- *at once*: families, and the share of trials in which all their intervals hold;
- *at once, apart*: the same, of families whose claims are little correlated;
- *one-sided tests*: how often each of the two tests of an equivalence rejects where the
  true effect lies on its end of the margin. Both must reject, so that an equivalence is
  accepted there at most as often;
- *share is not defined*: of claims about shares that exist, the share of trials in which the
  denominator is not clearly positive. These trials do not count above: coverage is that
  of the shares that are reported;
- *share is defined, but does not exist*: of claims whose denominator is truly not
  positive, the share of trials that report a share.
"""

import collections
import dataclasses
import math

import numpy as np
from scipy import stats

from tests.studies import claims

LEVEL = 0.95
APART = 0.5  # Mean squared correlation.
HEAD = """\
| study | noise | intervals | number | trials | mean | lowest | highest | half-width |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


@dataclasses.dataclass(frozen=True)
class Row:
  """Rates of several claims, or families."""

  rates: np.ndarray
  trials: int
  width: float = math.nan

  def text(self, *names):
    fields = [len(self.rates), self.trials]
    for rate in (self.rates.mean(), self.rates.min(), self.rates.max()):
      fields.append(f'{rate:.3f}')
    fields.append('' if math.isnan(self.width) else f'{self.width:.2f}')
    return '| ' + ' | '.join(map(str, (*names, *fields))) + ' |'


class Tally:
  """Claims of many trials, against the truth."""

  def __init__(self, num_seeds):
    self.trials = 0
    self._seeds = num_seeds
    self._kinds = {}
    self._families = {}
    self._hits = collections.defaultdict(list)
    self._errors = collections.defaultdict(list)
    self._halves = collections.defaultdict(list)
    self._undefined = collections.Counter()
    self._absent = collections.defaultdict(list)
    self._at_once = collections.defaultdict(list)
    self._accepted = collections.defaultdict(list)

  def add(self, truth, found):
    """Adds one trial.

    Args:
      truth: label -> `claims.Claim`, whose effect is the true one.
      found: label -> `claims.Claim` of a few seeds.
    """
    self.trials += 1
    together = collections.defaultdict(list)
    for key, claim in found.items():
      true = truth.get(key)
      if true is None or true.low == true.high:  # It does not vary.
        continue
      if not math.isfinite(true.effect):
        if claims.SHARE in claim.kind:
          self._absent[key].append(math.isfinite(claim.effect))
        continue
      self._kinds[key] = claim.kind
      self._undefined[key] += math.isnan(claim.effect)
      if math.isnan(claim.effect):
        continue
      holds = claim.holds(true.effect)
      self._hits[key].append(holds)
      self._errors[key].append(claim.effect - true.effect)
      self._halves[key].append((claim.high - claim.low) / 2)
      if claim.family is not None:
        together[claim.family].append(holds)
        self._families.setdefault(claim.family, set()).add(key)
      if claim.inner is not None:
        low, high = claim.inner
        # If all samples are moved so that the true effect lies on an end of the margin,
        # the interval moves as much.
        self._accepted[*key, 'upper'].append(high < true.effect)
        self._accepted[*key, 'lower'].append(low > true.effect)
    for family, each in together.items():
      if len(each) > 1:
        self._at_once[family].append(all(each))

  def coverage(self, kind=None):
    """Returns the row of all claims, or of those of one kind; None if there are none."""
    keys = [k for k in self._known() if kind in (None, self._kinds[k])]
    if not keys:
      return None
    widths = [w for w in map(self.width, keys) if math.isfinite(w)]
    width = float(np.median(widths)) if widths else math.nan
    return Row(self._rates(self._hits, keys), self.trials, width)

  def at_once(self, most=1.0):
    """Returns the row of families, or None if there are none.

    Args:
      most: mean squared correlation between the claims of a family, at most.
    """
    keys = [
      family
      for family, each in self._at_once.items()
      if 2 * len(each) > self.trials and self.correlation(family) <= most
    ]
    return self._row(self._at_once, keys)

  def correlation(self, family):
    """Returns the mean squared correlation between the estimates of two claims.

    It is 1 where it is not known, since a claim is not always defined.
    """
    rows = [self._errors[key] for key in self._families[family]]
    if {len(row) for row in rows} != {self.trials}:
      return 1.0
    squares = np.corrcoef(rows)[~np.eye(len(rows), dtype=bool)] ** 2
    return min(1.0, float(squares.mean()))

  def sizes(self):
    """Returns the row of one-sided tests, or None."""
    keys = [k for k, v in self._accepted.items() if 2 * len(v) > self.trials]
    return self._row(self._accepted, keys)

  def undefined(self):
    """Returns the row of shares that are not defined, or None."""
    keys = [k for k, kind in self._kinds.items() if claims.SHARE in kind]
    rates = [
      self._undefined[k] / (self._undefined[k] + len(self._hits[k]))
      for k in keys
    ]
    return Row(np.array(rates), self.trials) if rates else None

  def absent(self):
    """Returns the row of shares that do not exist, or None."""
    return self._row(self._absent, list(self._absent))

  def width(self, key):
    """Returns half a claim's mean width, in standard deviations of its estimate."""
    spread = math.sqrt(np.mean(np.square(self._errors[key])))
    return np.mean(self._halves[key]) / spread if spread else math.nan

  def excess(self):
    """Returns how wide families of means are, in widths of Bonferroni's t intervals.

    Returns:
      One number for each family, the median over its claims.
    """
    n, known, found = self._seeds, set(self._known()), []
    # The mean standard error of n normal samples, in terms of what it estimates.
    small = math.sqrt(2 / (n - 1)) * math.exp(
      math.lgamma(n / 2) - math.lgamma((n - 1) / 2)
    )
    for keys in self._families.values():
      if any(claims.SHARE in self._kinds[key] for key in keys):
        continue
      widths = [self.width(key) for key in keys & known]
      if len(widths) > 1:
        critical = stats.t.isf((1 - LEVEL) / 2 / len(keys), n - 1)
        found.append(float(np.median(widths)) / (small * critical))
    return np.array(found)

  def rows(self, *names):
    """Returns the rows of the table, of which the first fields are ``names``."""
    kinds = sorted(set(self._kinds.values()))
    rows = {'all': self.coverage()}
    rows |= {kind: self.coverage(kind) for kind in kinds}
    rows |= {
      'at once': self.at_once(),
      'at once, apart': self.at_once(APART),
      'one-sided tests': self.sizes(),
      'share is not defined': self.undefined(),
      'share is defined, but does not exist': self.absent(),
    }
    return [row.text(*names, what) for what, row in rows.items() if row]

  def lowest(self, num):
    """Returns the claims that are covered least, with their rates."""
    rates = {key: float(np.mean(self._hits[key])) for key in self._known()}
    return sorted(rates.items(), key=lambda item: item[1])[:num]

  def _known(self):
    """Returns the claims that have an interval in at least half of the trials."""
    return [k for k, v in self._hits.items() if 2 * len(v) > self.trials]

  def _row(self, table, keys):
    return Row(self._rates(table, keys), self.trials) if keys else None

  def _rates(self, table, keys):
    return np.array([np.mean(table[key]) for key in keys])
