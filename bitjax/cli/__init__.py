"""Makes a command of a study: its flags, run directory, manual page and status.

A study is a value, ``Study(name, doc, Config, PRESETS, run, verdicts, plot)``, and a
program that runs one from the command line ends with

  if __name__ == '__main__':
    cli.main(STUDY)
"""

from bitjax.cli import results
from bitjax.cli import status
from bitjax.cli.arithmetic import dtype_flag
from bitjax.cli.arithmetic import precision_flag
from bitjax.cli.costs import Cost
from bitjax.cli.costs import admit
from bitjax.cli.flags import check
from bitjax.cli.flags import decode
from bitjax.cli.flags import encode
from bitjax.cli.flags import flag
from bitjax.cli.grids import Grid
from bitjax.cli.launch import launch
from bitjax.cli.launch import main
from bitjax.cli.rundir import RunDirectory
from bitjax.cli.study import Study

__all__ = [
  'Cost',
  'Grid',
  'RunDirectory',
  'Study',
  'admit',
  'check',
  'decode',
  'dtype_flag',
  'encode',
  'flag',
  'launch',
  'main',
  'precision_flag',
  'results',
  'status',
]
