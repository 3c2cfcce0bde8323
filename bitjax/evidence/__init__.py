"""Statistical evidence: from paired samples to intervals, verdicts and figures.

The package does not depend on the rest of bitjax: samples are arrays and results are
labelled ``xarray`` datasets, whatever they are about.
"""

from bitjax.evidence import divergence
from bitjax.evidence import plots
from bitjax.evidence import twoway
from bitjax.evidence.contrasts import any_arm
from bitjax.evidence.contrasts import difference
from bitjax.evidence.contrasts import equivalent
from bitjax.evidence.contrasts import family
from bitjax.evidence.contrasts import log_ratio
from bitjax.evidence.contrasts import variances
from bitjax.evidence.intervals import Equivalence
from bitjax.evidence.intervals import Interval
from bitjax.evidence.intervals import equivalence
from bitjax.evidence.intervals import interval
from bitjax.evidence.intervals import judge
from bitjax.evidence.intervals import log_variance_ratio
from bitjax.evidence.intervals import proportion
from bitjax.evidence.intervals import share
from bitjax.evidence.joint import simultaneous
from bitjax.evidence.protocols import PROTOCOLS
from bitjax.evidence.protocols import apart
from bitjax.evidence.protocols import select
from bitjax.evidence.protocols import select_arm
from bitjax.evidence.protocols import unsettled
from bitjax.evidence.targets import Target
from bitjax.evidence.verdicts import Verdict

__all__ = [
  'PROTOCOLS',
  'Equivalence',
  'Interval',
  'Target',
  'Verdict',
  'any_arm',
  'apart',
  'difference',
  'divergence',
  'equivalence',
  'equivalent',
  'family',
  'interval',
  'judge',
  'log_ratio',
  'log_variance_ratio',
  'plots',
  'proportion',
  'select',
  'select_arm',
  'share',
  'simultaneous',
  'twoway',
  'unsettled',
  'variances',
]
