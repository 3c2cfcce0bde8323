"""The command ``bitjax``, or ``python -m bitjax``: runs a study, or says how far a run is.

bitjax                        lists the studies
bitjax STUDY --help           prints the manual page of a study
bitjax STUDY [--flag=value]   runs a study
bitjax status DIR...          says how far runs are
bitjax publish DIR...         writes the verdicts of finished runs for the documents
bitjax findings               prints the page of findings, made from what is published
bitjax tables PAGE...         fills the tables of pages from what is published
bitjax pack RUN               packs a trained network of a run: 1 bit a binary weight
bitjax predict FILE IMAGES... predicts classes by a packed network
bitjax super_resolve RUN IMAGE... --out=DIR
                              enlarges images by a trained network of a run
bitjax reproduce --set=NAME   runs a set of studies, and writes a page of what they answer
bitjax report_card [--flag]   measures gradient estimators, and writes a page about each
"""

from __future__ import annotations

from collections.abc import Sequence
import difflib
import shutil
import sys
import textwrap

from bitjax import process
from bitjax import studies

__all__ = ['main']

_COMMANDS = (
  'status',
  'publish',
  'findings',
  'tables',
  'pack',
  'predict',
  'super_resolve',
  'reproduce',
  'report_card',
)
_HELP = ('-h', '-help', '--help')


def main(
  argv: Sequence[str] | None = None, *, program: str = 'bitjax {}'
) -> int:
  """Runs one command and returns its exit status; a study exits by itself.

  Args:
    argv: arguments, without the name of the program; None for those of `sys.argv`.
    program: the command that runs a study, with ``{}`` for the study's name.
  """
  process.prepare()
  try:
    return _run(sys.argv[1:] if argv is None else list(argv), program)
  except BrokenPipeError:  # What reads the output has gone.
    process.leave(141)
  except OSError as error:
    print(f'bitjax: {error.filename}: {error.strerror}', file=sys.stderr)
    process.leave(2)


def _run(argv: Sequence[str], program: str) -> int:
  if not argv or argv[0] in _HELP:
    process.write(_overview(program) + '\n')
    return 0
  from bitjax import cli  # Imports JAX, which takes a second.

  name, *rest = argv
  if name in _COMMANDS:
    from bitjax import commands

    return commands.run(name, rest)
  if name not in studies.NAMES:
    names = (*studies.NAMES, *_COMMANDS)
    close = difflib.get_close_matches(name, names, n=1)
    way = (
      f'did you mean {close[0]}?' if close else '"bitjax" lists the studies.'
    )
    print(f'bitjax: there is no study {name!r}; {way}', file=sys.stderr)
    return 2
  cli.main(studies.load(name), rest, program=program.format(name))


def _overview(program: str) -> str:
  indent = 4 + max(map(len, studies.NAMES))
  # A name and 30 columns of its question stay readable side by side.
  columns = max(indent + 30, min(100, shutil.get_terminal_size().columns))
  rows = [
    textwrap.fill(
      studies.question(name),
      columns,
      initial_indent=f'  {name:<{indent - 2}}',
      subsequent_indent=' ' * indent,
      break_on_hyphens=False,
    )
    for name in studies.NAMES
  ]
  study = program.format('STUDY')
  return '\n'.join(
    [
      'Runs the studies of bitjax.',
      '',
      f'usage: {study} [--preset=NAME] [--flag=value ...]',
      f'       {study} --help',
      '       bitjax status DIRECTORY...',
      '       bitjax publish DIRECTORY...',
      '       bitjax findings',
      '       bitjax tables PAGE...',
      '       bitjax pack RUN',
      '       bitjax predict FILE IMAGES...',
      '       bitjax super_resolve RUN IMAGE... --out=DIR',
      '       bitjax reproduce --set=NAME',
      '       bitjax report_card [--estimators=NAME,...]',
      '',
      'studies:',
      *rows,
    ]
  )


if __name__ == '__main__':
  sys.exit(main())
