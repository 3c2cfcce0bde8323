"""Runs a command that is no study, and turns bad input into one line."""

from __future__ import annotations

from collections.abc import Sequence
import sys

from bitjax import types
from bitjax.cli import status
from bitjax.commands import findings
from bitjax.commands import pack
from bitjax.commands import predict
from bitjax.commands import published
from bitjax.commands import report_card
from bitjax.commands import reproduce
from bitjax.commands import super_resolve
from bitjax.commands import tables

__all__ = ['COMMANDS', 'run']

COMMANDS = {
  'status': status.main,
  'publish': published.main,
  'findings': findings.main,
  'tables': tables.main,
  'pack': pack.main,
  'predict': predict.main,
  'super_resolve': super_resolve.main,
  'reproduce': reproduce.main,
  'report_card': report_card.main,
}


def run(name: str, argv: Sequence[str]) -> int:
  """Runs a command of `COMMANDS`.

  Args:
    name: its name.
    argv: its arguments.

  Returns:
    Its exit status; 2 for bad input and errors of the file system.

  Raises:
    BrokenPipeError: if nothing reads the output any more.
  """
  try:
    return COMMANDS[name](argv)
  except BrokenPipeError:
    raise
  except (types.BadInput, OSError) as error:
    print(f'bitjax {name}: {types.one_line(error)}', file=sys.stderr)
    return 2
