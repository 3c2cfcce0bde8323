"""Published runs: the verdicts of a finished run as one small file, with its origin.

`bitjax publish runs/multistep_ste/quick` judges the run again and writes
``docs/results/multistep_ste.quick.json``: the command, the date, the commits of the
numbers and of the verdicts, the data, and every verdict. Pages are made from these
files, so that a page and its numbers cannot part.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import os
import pathlib
from typing import Any

from bitjax import cli
from bitjax import evidence
from bitjax import files
from bitjax import process
from bitjax import studies
from bitjax import types
from bitjax.cli import command
from bitjax.sweeps import code
from bitjax.sweeps import provenance

__all__ = ['FOLDER', 'Published', 'finished', 'load', 'main', 'publish']

FOLDER = pathlib.Path('docs/results')
_USAGE = f'bitjax publish DIRECTORY... [--to={FOLDER}]'


@dataclasses.dataclass(frozen=True)
class Published:
  """What was published of a run.

  Attributes:
    study: name of the study.
    preset: the preset, such as ``'quick'``.
    command: the command that repeats it.
    started: when it began, ISO 8601.
    commit: the commit of bitjax that computed the numbers.
    judged: the commit that judged them.
    code: short name of the code, see `bitjax.sweeps.code.identify`.
    records: facts about the data.
    verdicts: everything that was judged.
  """

  study: str
  preset: str
  command: str
  started: str
  commit: str
  judged: str
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
  """Judges a finished run again, and writes what is to be published of it.

  Args:
    run: directory of the run.
    to: folder of the published files.

  Returns:
    The file.

  Raises:
    BadInput: if the run is not finished; if it is no preset as it stands; if its
      numbers come from more than one commit, from changes that are not committed, or
      from modules outside bitjax; or if the code that judges is not committed.
  """
  run = files.expand(run)
  try:
    stored = files.read_json(run / cli.rundir.CONFIG)
    recorded = stored['code']
    study = studies.load(stored['study'])
    results = cli.results.load(run)
  except (OSError, ValueError, LookupError, TypeError, ImportError) as error:
    raise types.BadInput(
      f'{run} is not the directory of a finished run ({types.one_line(error)}).'
    ) from None
  commit = _origin(run, stored, results)
  entry = Published(
    study=study.name,
    preset=stored['preset'],
    command=_command(run, study, stored),
    started=stored['started'],
    commit=commit,
    judged=_committed(provenance.git(), 'the code that judges it'),
    code=code.identify(recorded),
    records=stored.get('records', {}),
    verdicts=tuple(study.verdicts(results)),
  )
  path = files.expand(to) / f'{entry.study}.{entry.preset}.json'
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write_json(path, entry.to_json())
  return path


def finished(run: str | os.PathLike[str], repeat: str) -> Published:
  """Returns what a finished run says, whether or not its code is committed.

  Args:
    run: directory of the run.
    repeat: the command that repeats it.

  Raises:
    BadInput: if the run is not finished.
  """
  run = files.expand(run)
  try:
    stored = files.read_json(run / cli.rundir.CONFIG)
    judged = files.read_json(run / 'verdicts.json')
    git = stored.get('git') or {'commit': 'unknown', 'dirty': False}
    return Published(
      study=stored['study'],
      preset=stored['preset'],
      command=repeat,
      started=stored['started'],
      commit=git['commit'][:10] + (' (edited)' if git['dirty'] else ''),
      judged='',
      code=code.identify(stored['code']),
      records=stored.get('records', {}),
      verdicts=tuple(map(evidence.Verdict.from_json, judged)),
    )
  except (OSError, ValueError, LookupError, TypeError) as error:
    raise types.BadInput(
      f'{run} is not the directory of a finished run ({types.one_line(error)}).'
    ) from None


def load(folder: str | os.PathLike[str] = FOLDER) -> list[Published]:
  """Reads all published files of a folder, by study and preset.

  Raises:
    BadInput: if there is no such folder, or for a file that `publish` did not write.
  """
  folder, found = files.expand(folder), []
  if not folder.is_dir():
    raise types.BadInput(f'{folder} is no folder of published runs.')
  for path in sorted(folder.glob('*.json')):
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
    return cli.status.usage(_USAGE, runs)
  for run in runs:
    process.write(f'{publish(run, *to[-1:])}\n')
  return 0


def _origin(run: pathlib.Path, stored: dict[str, Any], results: Any) -> str:
  """Returns the commit of a run's numbers; raises `BadInput` if there is no one."""
  processes = [stored, *stored.get('resumed', [])]
  commits = {_committed(one.get('git'), f'{run}') for one in processes}
  if len(commits) > 1 or results.attrs.get('other_code'):
    raise types.BadInput(
      f'{run} mixes numbers of different code; run it again with --overwrite.'
    )
  strangers = [
    name
    for name in stored['code']['sources']
    if name.partition('.')[0] not in ('bitjax', 'experiments')
  ]
  if strangers:
    raise types.BadInput(
      f'{run} depends on {strangers[0]}, which is not part of bitjax.'
    )
  return commits.pop()


def _committed(git: dict[str, Any] | None, what: str) -> str:
  if git is None or git['dirty']:
    raise types.BadInput(
      f'{what} comes from code that is not committed; commit it, and run it again '
      'with --overwrite.'
    )
  return git['commit']


def _command(
  run: pathlib.Path, study: cli.Study[Any], stored: dict[str, Any]
) -> str:
  """Returns the command that repeats a run; raises `BadInput` unless it is a preset."""
  preset = stored.get('preset')
  if preset not in study.presets:
    raise types.BadInput(f'{run} does not come from a preset of {study.name}.')
  wanted = command.parse(study, [f'--preset={preset}']).config
  wanted, config = cli.flags.encode(wanted), dict(stored['config'])
  where = config.pop('data_dir', None)
  changed = [name for name in config if config[name] != wanted[name]]
  if changed:
    raise types.BadInput(
      f'{run} is not {study.name} --preset={preset}: it has another '
      f'{", ".join(changed)}. Publish a preset as it stands.'
    )
  words = ['bitjax', study.name, f'--preset={preset}']
  return ' '.join(words + (['--data_dir=DIR'] if where else []))
