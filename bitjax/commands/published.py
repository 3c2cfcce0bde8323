"""Published runs: the verdicts of a finished run as one small file, with its origin.

`bitjax publish runs/multistep_ste/quick` writes ``docs/results/multistep_ste.quick.json``:
the command, the date, the commit and code, the data, and every verdict. Pages are made
from these files, so that a page and its numbers cannot part.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import os
import pathlib
import sys
from typing import Any

from bitjax import cli
from bitjax import evidence
from bitjax import files
from bitjax import types
from bitjax.cli import command
from bitjax.sweeps import code

__all__ = ['FOLDER', 'Published', 'load', 'main', 'publish']

FOLDER = pathlib.Path('docs/results')
_USAGE = f'usage: bitjax publish DIRECTORY... [--to={FOLDER}]'


@dataclasses.dataclass(frozen=True)
class Published:
  """What was published of a run.

  Attributes:
    study: name of the study.
    preset: the preset that the run started from, such as ``'quick'``.
    command: the command that repeats it.
    started: when it began, ISO 8601.
    commit: the commit of bitjax.
    code: short name of the code, see `bitjax.sweeps.code.identify`.
    records: facts about the data.
    verdicts: everything that was judged.
  """

  study: str
  preset: str
  command: str
  started: str
  commit: str
  code: str
  records: dict[str, Any]
  verdicts: tuple[evidence.Verdict, ...]

  def to_json(self) -> dict[str, Any]:
    """Returns a dictionary for strict JSON."""
    entry = {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
    }
    return entry | {'verdicts': [one.to_json() for one in self.verdicts]}


def publish(
  run: str | os.PathLike[str], to: str | os.PathLike[str] = FOLDER
) -> pathlib.Path:
  """Writes what is to be published of a finished run.

  Args:
    run: directory of the run.
    to: folder of the published files.

  Returns:
    The file.

  Raises:
    BadInput: if the run is not finished, or its numbers do not come from one commit
      without changes.
  """
  run = files.expand(run)
  try:
    stored = files.read_json(run / 'config.json')
    judged = files.read_json(run / 'verdicts.json')
    recorded = stored['code']
  except (OSError, ValueError, LookupError, TypeError):
    raise types.BadInput(
      f'{run} is not the directory of a finished run; the command that began it '
      'goes on.'
    ) from None
  _check_origin(run, stored)
  entry = Published(
    study=stored['study'],
    preset=stored.get('preset') or 'run',
    command=_command(stored),
    started=stored['started'],
    commit=stored['git']['commit'],
    code=code.identify(recorded),
    records=stored.get('records', {}),
    verdicts=tuple(evidence.Verdict.from_json(one) for one in judged),
  )
  path = files.expand(to) / f'{entry.study}.{entry.preset}.json'
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write_json(path, entry.to_json())
  return path


def load(folder: str | os.PathLike[str] = FOLDER) -> list[Published]:
  """Reads all published files of a folder, by study and preset.

  Raises:
    BadInput: for a file that `publish` did not write.
  """
  found = []
  for path in sorted(files.expand(folder).glob('*.json')):
    try:
      entry = files.read_json(path)
      verdicts = map(evidence.Verdict.from_json, entry.pop('verdicts'))
      found.append(Published(verdicts=tuple(verdicts), **entry))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
      raise types.BadInput(
        f'{path} is not a published run; remove it, or publish the run again.'
      ) from None
  return found


def main(argv: Sequence[str]) -> int:
  """Publishes runs; returns the exit status."""
  to = [part[5:] for part in argv if part.startswith('--to=')]
  runs = [part for part in argv if not part.startswith('--to=')]
  if not runs or any(part.startswith('-') for part in runs):
    asked = runs in (['--help'], ['-h'])
    print(_USAGE, file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2
  try:
    for run in runs:
      print(publish(run, *to[-1:]))
  except (types.BadInput, OSError) as error:
    print(f'bitjax publish: {error}', file=sys.stderr)
    return 2
  return 0


def _check_origin(run: pathlib.Path, stored: dict[str, Any]) -> None:
  processes = [stored, *stored.get('resumed', [])]
  commits = [process.get('git') for process in processes]
  if any(git is None or git['dirty'] for git in commits):
    raise types.BadInput(
      f'{run} was computed by code that is not committed; commit it, and run it '
      'again with --overwrite.'
    )
  if cli.results.load(run).attrs.get('other_code'):
    raise types.BadInput(
      f'{run} mixes numbers of different code; run it again with --overwrite.'
    )


def _command(stored: dict[str, Any]) -> str:
  """Returns the command of a run, without what cannot change its numbers."""
  kept = []
  for argument in stored['command'][1:]:
    name = argument.lstrip('-').partition('=')[0]
    if argument.startswith('-') and (
      name == 'preset' or name.removeprefix('no') not in command.SHARED
    ):
      kept.append(argument)
  if stored.get('preset') and not any('preset' in part for part in kept):
    kept.insert(0, f'--preset={stored["preset"]}')
  return ' '.join(['bitjax', stored['study'], *kept])
