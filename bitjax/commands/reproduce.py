"""Runs a named set of studies, and writes one page of all that they answer.

`bitjax reproduce --set=quick` runs each study of the set by the command that runs it singly,
in a process of its own, into the directory that this command takes by itself. So the
numbers are the same to the bit, a run that is finished is only judged and drawn again,
and one that was stopped goes on where it stopped. A study that fails does not stop the
others; the page says so, and the exit status is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import difflib
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

from bitjax import cli
from bitjax import files
from bitjax import process
from bitjax import studies
from bitjax import types
from bitjax.cli import command
from bitjax.cli import signals
from bitjax.commands import findings
from bitjax.commands import items
from bitjax.commands import published
from bitjax.data import layouts

__all__ = ['SETS', 'main', 'page', 'reproduce']

# Studies about the library itself, not about the note.
_APART = ('estimator_gallery', 'benchmark', 'scaling')
# Name of a set -> studies and presets, in the order in which they run.
SETS: dict[str, tuple[tuple[str, str], ...]] = {
  # Minutes each on two cores, one of them an hour.
  'quick': tuple(
    (name, 'quick') for name in studies.NAMES if name not in _APART
  ),
  # Hours each on two cores; all from dsq on need the files of CIFAR-10.
  'full': (
    ('multistep_ste', 'long'),
    ('variant_ste', 'full'),
    ('discrete_gradient', 'full'),
    ('smoothed_gradient', 'full'),
    ('local_optima', 'full'),
    ('dsq', 'cifar'),
    ('pretrain_vs_scratch', 'cifar'),
    ('bits_vs_width', 'cifar'),
    ('fitted_windows', 'cifar'),
    ('hardware', 'cifar'),
    ('initialisation', 'cifar'),
    ('resnet_windows', 'cifar'),
  ),
  # What a CPU takes too long for; all but the first need the files of CIFAR-10.
  'gpu': (
    ('benchmark', 'gpu'),
    ('multistep_ste', 'note'),
    ('variant_ste', 'note'),
    ('discrete_gradient', 'note'),
    ('smoothed_gradient', 'cifar'),
    ('local_optima', 'note'),
    ('bits_vs_width', 'cifar'),
    ('fitted_windows', 'note'),
    ('dsq', 'note'),
    ('pretrain_vs_scratch', 'note'),
  ),
}
_FLAGS = ('set', 'only', 'out', 'data_dir')
_USAGE = (
  f'bitjax reproduce --set={"|".join(SETS)} [--only=STUDY,...] [--out=runs] '
  '[--data_dir=DIR]'
)
_PATIENCE = 10.0  # Seconds.
_STOPPED = 128  # Statuses above tell which signal ended a process.


@dataclasses.dataclass(frozen=True)
class _Run:
  """A run of a set, and how its command ended."""

  study: str
  preset: str
  directory: pathlib.Path
  argv: tuple[str, ...]
  status: int = 0

  @property
  def command(self) -> str:
    """The command that repeats it; where data lie is left out."""
    parts = [p for p in self.argv if not p.startswith(('--out', '--data_dir'))]
    data = [p for p in self.argv if p.startswith('--data_dir')]
    return ' '.join(['bitjax', *parts, *(['--data_dir=DIR'] if data else [])])


def reproduce(
  name: str,
  *,
  only: Sequence[str] = (),
  out: str | os.PathLike[str] = 'runs',
  data_dir: str | None = None,
) -> tuple[pathlib.Path, int]:
  """Runs a set of studies, and writes its page.

  Args:
    name: one of `SETS`.
    only: names of the studies that are run; empty for all of the set.
    out: folder of the runs, each in STUDY/PRESET, and of the page.
    data_dir: folder of the files of data sets.

  Returns:
    The page, and the exit status: 0; 1 if a study failed; that of the study for one that
    a signal ended, which ends all.

  Raises:
    BadInput: for an unknown set, a study that is not in it, or one that needs
      ``data_dir``.
  """
  types.check_choice('set', name, tuple(SETS))
  folder = files.expand(out)
  runs = [
    _planned(study, preset, folder, data_dir)
    for study, preset in _chosen(name, only)
  ]
  path, status, done = folder / f'reproduce.{name}.md', 0, []
  for number, run in enumerate(runs, 1):
    process.write(f'[{number}/{len(runs)}] {run.command}\n')
    found = _launch(run.argv)
    done.append(dataclasses.replace(run, status=found))
    status = max(status, min(found, 1))
    if found >= _STOPPED:
      status = found
      break
  left = [dataclasses.replace(run, status=-1) for run in runs[len(done) :]]
  folder.mkdir(parents=True, exist_ok=True)
  files.write_text(path, page(name, [*done, *left], folder))
  return path, status


def main(argv: Sequence[str]) -> int:
  """Runs a set of studies; returns the exit status."""
  given = {}
  for part in argv:
    flag, equals, value = part.removeprefix('--').partition('=')
    if not part.startswith('--') or not equals or flag not in _FLAGS:
      return cli.status.usage(_USAGE, argv)
    given[flag] = value
  if 'set' not in given:
    return cli.status.usage(_USAGE, argv)
  only = [part for part in given.pop('only', '').split(',') if part]
  path, status = reproduce(given.pop('set'), only=only, **given)
  process.write(f'{path}\n')
  return status


def page(name: str, runs: Sequence[Any], folder: pathlib.Path) -> str:
  """Returns the page of a set in Markdown: what it answers, and where from.

  Args:
    name: one of `SETS`.
    runs: its runs.
    folder: where the page will lie; figures are linked from there.
  """
  found = {run: _finished(run) for run in runs}
  lines = [
    f'# What the set `{name}` answers',
    '',
    f'Written by `bitjax reproduce --set={name}`. An effect is shown with its 95 % '
    'interval and the number of seeds.',
    '',
    '| | question | answer | effect | figure |',
    '|---|---|---|---|---|',
  ]
  for item in items.ITEMS:
    for run, entry in found.items():
      if run.study == item.study and entry is not None:
        answer, effect = findings.answered(item, [entry])
        figure = f'[{run.study}]({_figure(run, folder)})'
        cells = item.label, item.question, answer, effect, figure
        lines.append(f'| {" | ".join(cells)} |')
  lines += [
    '',
    '## Runs',
    '',
    '| command | data | begun | commit | state |',
    '|---|---|---|---|---|',
  ]
  for run, entry in found.items():
    cells = [f'`{run.command}`', '–', '–', '–', _state(run, entry)]
    if entry is not None:
      cells[1:4] = _data(run), entry.started[:10], f'`{entry.commit}`'
    lines.append(f'| {" | ".join(cells)} |')
  for run, entry in found.items():
    if entry is not None:
      lines += ['', f'## {run.study}', '', f'`{run.command}`', '']
      lines += [
        f'- **{one.verdict}**: {one.claim} {findings.effect(one)}'
        for one in entry.verdicts
        if one.primary
      ]
      lines += ['', f'![{run.study}]({_figure(run, folder)})']
  return '\n'.join(lines) + '\n'


def _chosen(name, only):
  """Returns the studies and presets to run."""
  known = [study for study, _ in SETS[name]]
  for study in only:
    if study not in known:
      close = difflib.get_close_matches(study, known, n=1)
      way = (
        f'did you mean {close[0]}?' if close else f'it has {", ".join(known)}.'
      )
      raise types.BadInput(f'the set {name} has no study {study!r}; {way}')
  return [pair for pair in SETS[name] if not only or pair[0] in only]


def _planned(study, preset, folder, data_dir):
  """Returns a run that is still to be made."""
  directory = folder / study / preset
  argv = [study, f'--preset={preset}', f'--out={directory}']
  config = command.parse(studies.load(study), argv[1:]).config
  if getattr(config, 'dataset', None) in layouts.FILES:
    if data_dir is None:
      raise types.BadInput(
        f'{study} --preset={preset} needs --data_dir, the folder of the files of '
        f'{config.dataset}; or leave it out by --only.'
      )
    argv.append(f'--data_dir={data_dir}')
  return _Run(study, preset, directory, tuple(argv))


def _launch(argv: Sequence[str]) -> int:
  """Runs one study in a process of its own; returns its exit status."""
  with signals.raised():
    child = subprocess.Popen([sys.executable, '-m', 'bitjax', *argv])
    try:
      status = child.wait()
    except KeyboardInterrupt as interrupt:
      number = getattr(interrupt, 'number', signals.Signalled().number)
      _end(child, number)
      return _STOPPED + number
  return _STOPPED - status if status < 0 else status


def _end(child: subprocess.Popen[bytes], number: int) -> None:
  """Ends a study; a terminal that interrupts this process interrupts it by itself."""
  try:
    child.wait(_PATIENCE if number == signal.SIGINT else 0)
  except subprocess.TimeoutExpired:
    child.send_signal(number)
    child.wait()


def _finished(run) -> published.Published | None:
  """Returns what a run found; None if it has not finished, or failed."""
  if run.status:
    return None
  return published.finished(run.directory, run.command)


def _state(run, entry):
  if entry is not None:
    return 'finished'
  if run.status < 0:
    return 'not begun'
  if run.status >= _STOPPED:
    return 'interrupted; the same command goes on'
  return f'failed (exit status {run.status})'


def _data(run):
  """Returns the data set of a run, and the number of its training examples."""
  stored = files.read_json(run.directory / cli.rundir.CONFIG)
  data, number = (
    stored['config'].get('dataset'),
    stored.get('records', {}).get('train_examples'),
  )
  return ', '.join(
    part for part in (data, number and f'{number} examples') if part
  )


def _figure(run, folder):
  return (run.directory.relative_to(folder) / 'figure.png').as_posix()
