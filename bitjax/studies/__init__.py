"""Studies: from a configuration to labelled results, verdicts and a figure.

An experiment is one file with ``Config``, ``PRESETS``, ``run(config, sweep)``,
``verdicts(results)`` and ``plot(results)``, and ends with

  if __name__ == '__main__':
    studies.main(Config, PRESETS, run, verdicts, plot)
"""

from bitjax.studies import results
from bitjax.studies.flags import check
from bitjax.studies.flags import encode
from bitjax.studies.flags import flag
from bitjax.studies.grids import Grid
from bitjax.studies.launch import launch
from bitjax.studies.launch import main
from bitjax.studies.rundir import RunDirectory
from bitjax.studies.toy_config import StepsConfig
from bitjax.studies.toy_config import ToyConfig

__all__ = [
  'Grid',
  'RunDirectory',
  'StepsConfig',
  'ToyConfig',
  'check',
  'encode',
  'flag',
  'launch',
  'main',
  'results',
]
