"""The command ``bitjax``, or ``python -m bitjax``: runs a study, or says how far a run is.

bitjax                        lists the studies
bitjax STUDY --help           prints the manual page of a study
bitjax STUDY [--flag=value]   runs a study
bitjax status DIR...          says how far runs are
bitjax publish DIR...         writes the verdicts of finished runs for the documents
bitjax findings               prints the page of findings, made from what is published
"""

from __future__ import annotations

from collections.abc import Sequence
import difflib
import sys

from bitjax import process
from bitjax import studies

__all__ = ['main']

_COMMANDS = {'publish': 'published', 'findings': 'findings'}
_HELP = ('-h', '-help', '--help')


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command and returns its exit status; a study exits by itself.

  Args:
    argv: arguments, without the name of the program; None for those of `sys.argv`.
  """
  process.prepare()
  try:
    return _run(sys.argv[1:] if argv is None else list(argv))
  except BrokenPipeError:  # What reads the output has gone.
    process.leave(141)
  except OSError as error:
    print(f'bitjax: standard output: {error.strerror}', file=sys.stderr)
    process.leave(2)


def _run(argv: Sequence[str]) -> int:
  if not argv or argv[0] in _HELP:
    print(_overview(), flush=True)
    return 0
  from bitjax import cli  # Imports JAX, which takes a second.

  name, *rest = argv
  if name == 'status':
    return cli.status.main(rest)
  if name in _COMMANDS:
    from bitjax import commands

    return getattr(commands, _COMMANDS[name]).main(rest)
  if name not in studies.NAMES:
    names = (*studies.NAMES, 'status', *_COMMANDS)
    close = difflib.get_close_matches(name, names, n=1)
    way = (
      f'did you mean {close[0]}?' if close else '"bitjax" lists the studies.'
    )
    print(f'bitjax: there is no study {name!r}; {way}', file=sys.stderr)
    return 2
  cli.main(studies.load(name), rest, program=f'bitjax {name}')


def _overview() -> str:
  width = max(map(len, studies.NAMES))
  rows = [
    f'  {name:<{width}}  {studies.question(name)}' for name in studies.NAMES
  ]
  return '\n'.join(
    [
      'Runs the studies of bitjax.',
      '',
      'usage: bitjax STUDY [--preset=NAME] [--flag=value ...]',
      '       bitjax STUDY --help',
      '       bitjax status DIRECTORY...',
      '       bitjax publish DIRECTORY...',
      '       bitjax findings',
      '',
      'studies:',
      *rows,
    ]
  )


if __name__ == '__main__':
  sys.exit(main())
