"""Studies: from a configuration to labelled results, verdicts and a figure.

An experiment is one file with ``Config``, ``PRESETS``, ``run(config, sweep)``,
``verdicts(results)`` and ``plot(results)``, and ends with

  if __name__ == '__main__':
    studies.main(Config, PRESETS, run, verdicts, plot)
"""

from bitjax.studies import plots
from bitjax.studies import results
from bitjax.studies.contrasts import any_arm
from bitjax.studies.contrasts import difference
from bitjax.studies.contrasts import equivalent
from bitjax.studies.contrasts import variances
from bitjax.studies.flags import check
from bitjax.studies.flags import encode
from bitjax.studies.flags import flag
from bitjax.studies.grids import Grid
from bitjax.studies.launch import launch
from bitjax.studies.launch import main
from bitjax.studies.protocols import PROTOCOLS
from bitjax.studies.protocols import arm
from bitjax.studies.protocols import select
from bitjax.studies.rundir import RunDirectory
from bitjax.studies.statistics import Equivalence
from bitjax.studies.statistics import Interval
from bitjax.studies.statistics import equivalence
from bitjax.studies.statistics import interval
from bitjax.studies.statistics import judge
from bitjax.studies.statistics import log_variance_ratio
from bitjax.studies.statistics import paired
from bitjax.studies.statistics import simultaneous
from bitjax.studies.sweep import Sweep
from bitjax.studies.sweep import TraceError
from bitjax.studies.toy_config import StepsConfig
from bitjax.studies.toy_config import ToyConfig
from bitjax.studies.verdicts import Verdict

__all__ = [
  'PROTOCOLS',
  'Equivalence',
  'Grid',
  'Interval',
  'RunDirectory',
  'StepsConfig',
  'Sweep',
  'ToyConfig',
  'TraceError',
  'Verdict',
  'any_arm',
  'arm',
  'check',
  'difference',
  'encode',
  'equivalence',
  'equivalent',
  'flag',
  'interval',
  'judge',
  'launch',
  'log_variance_ratio',
  'main',
  'paired',
  'plots',
  'results',
  'select',
  'simultaneous',
  'variances',
]
