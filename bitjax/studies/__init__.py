"""Studies: from a configuration to labelled results, verdicts and a figure.

An experiment is one file with ``Config``, ``PRESETS``, ``run(config, sweep)``,
``verdicts(results)`` and ``plot(results)``, and ends with

  if __name__ == '__main__':
    cli.main(Config, PRESETS, run, verdicts, plot)
"""

from bitjax.cli import results
from bitjax.cli.flags import check
from bitjax.cli.flags import encode
from bitjax.cli.flags import flag
from bitjax.cli.grids import Grid
from bitjax.cli.launch import launch
from bitjax.cli.launch import main
from bitjax.cli.rundir import RunDirectory
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
