r"""Measures gradient estimators of signs, and writes a page about each.

An estimator says what the backward pass puts in place of the derivative of a sign.
Each gets a page, ESTIMATOR.html, and its numbers, ESTIMATOR.json; index.html and
index.json compare all that lie in the directory. The normal straight-through
estimator, window(1), is always measured too: all are compared with it, seed by seed.

An estimator is a call of a factory of bitjax.quantizers, perhaps in units of the layer's
spread, or a function (g, x, x_q, progress) of your own:

  bitjax report_card --estimators=window(0.5),gaussian(0.3,relative)
  bitjax report_card --estimators=my_module:my_estimator
  bitjax report_card

The last measures all that are built in. Numbers are kept: what was measured is not measured
again, unless its code has changed, and a run that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
import os
import pathlib

from bitjax import cli
from bitjax import extras
from bitjax import files
from bitjax import memory
from bitjax import process
from bitjax import types
from bitjax.cli import command
from bitjax.cli import compilation
from bitjax.cli import costs
from bitjax.cli import manual
from bitjax.cli import rehearsal
from bitjax.cli import signals
from bitjax.commands.report_card import caveats
from bitjax.commands.report_card import config as config_lib
from bitjax.commands.report_card import leaderboard
from bitjax.commands.report_card import measure
from bitjax.commands.report_card import names
from bitjax.commands.report_card import numbers
from bitjax.commands.report_card import pages
from bitjax.sweeps import meshes
from bitjax.sweeps import progress

__all__ = ['main', 'report_card', 'write_card']

_RESULTS = (
  'The directory receives a page (ESTIMATOR.html) and its numbers (ESTIMATOR.json) for each '
  'estimator, index.html and index.json for all of them, and below numbers/ the run '
  'directory of each, whose results.nc holds every seed. Pages load nothing from '
  'elsewhere. The same command goes on where it was stopped. Bad input exits with status 2 '
  'and writes nothing. Lists are separated by commas, except inside parentheses.'
)


def report_card(request: command.Request) -> list[pathlib.Path]:
  """Measures estimators and writes their pages.

  Args:
    request: the flags, parsed.

  Returns:
    The pages that were written, the leaderboard last.

  Raises:
    BadInput: for anything that the user should correct, before anything is written.
  """
  config = request.config
  out = files.expand(request.out or f'runs/report_card/{request.preset}')
  _check_writable(out)
  if request.coordinator_address:
    raise types.BadInput(
      'a report card is made by one process; leave coordinator_address out.'
    )
  meshes.split_cpu(request.mesh)
  measurements = measure.Measurements(
    config,
    out,
    settings={'preset': request.preset},
    overwrite=request.overwrite,
    limit=request.memory,
    mesh=request.mesh,
    chunk=request.chunk,
    width=request.width,
    accept_other_code=request.accept_other_code,
  )
  if request.compilation_cache:
    compilation.keep()
  written, every = [], {}
  normal: measure.Kept | None = None
  for kept in measurements.all():
    found = numbers.numbers(kept, normal)
    written.append(write_card(out, kept, found, normal))
    every[kept.name] = kept, found
    normal = normal or kept
  outdated = set()
  for kept in measure.kept(out, config):
    if kept.name not in every:
      found = numbers.numbers(kept, normal)
      every[kept.name] = kept, found
      if measurements.outdated(kept.name):
        outdated.add(kept.name)
  rows = leaderboard.entries(list(every.values()))
  missing = [name for name in names.BUILT_IN if name not in every]
  page = out / 'index.html'
  files.write_text(page, leaderboard.board(rows, missing, outdated))
  table = leaderboard.to_json(rows, missing)
  files.write_json(page.with_suffix('.json'), table)
  return [*written, page]


def main(argv: Sequence[str]) -> int:
  """Measures estimators; returns the exit status."""
  study = cli.Study(
    'report_card',
    __doc__,
    config_lib.Config,
    config_lib.PRESETS,
    _none,
    _none,
    _none,
  )
  if command.wants_help(argv):
    process.write(manual.page(study, 'bitjax report_card', results=_RESULTS))
    return 0
  request = command.parse(study, argv)
  extras.check('a report card', *extras.STUDIES)
  rehearsal.draw()
  try:
    with signals.raised():
      written = report_card(request)
  except memory.Exceeded as error:
    raise types.BadInput(f'{error}{costs.smaller(request.config)}') from error
  except KeyboardInterrupt as interrupt:
    progress.say('report_card: interrupted; the same command goes on from here')
    return signals.SIGNALLED + getattr(
      interrupt, 'number', signals.Signalled().number
    )
  process.write(''.join(f'{path}\n' for path in written))
  return 0


def _check_writable(out):
  """Raises `BadInput` if the directory cannot be made, or written into."""
  known = next(path for path in (out, *out.parents) if path.exists())
  if not known.is_dir() or not os.access(known, os.W_OK | os.X_OK):
    what = 'is a file' if known.is_file() else 'cannot be written'
    raise types.BadInput(f'{known} {what}; choose another --out.')


def write_card(
  out: pathlib.Path,
  kept: measure.Kept,
  found: Sequence[numbers.Number],
  normal: measure.Kept | None,
) -> pathlib.Path:
  """Writes the page of an estimator and its numbers in JSON; returns the page.

  Args:
    out: the directory.
    kept: what was measured.
    found: all of its numbers.
    normal: what was measured of the normal STE; None on its own page.
  """
  path = out / f'{names.slug(kept.name)}.html'
  files.write_text(path, pages.card(kept, found, normal))
  content = {
    'estimator': kept.name,
    'compared_with': names.REFERENCE,
    'numbers': [one.to_json() for one in found],
    'properties': {
      name: bool(kept.results[name])
      for name in ('annealed', 'proportional', 'entrywise')
    },
    'gradient_mass': {
      str(p): pages.mass(kept.results, p) for p in measure.PROGRESS
    },
    'not_measured': [] if kept.entry['config']['with_cifar'] else ['CIFAR-10'],
    'cannot_tell': list(caveats.CAVEATS),
    'origin': {k: v for k, v in kept.entry.items() if k != 'code'},
  }
  files.write_json(path.with_suffix('.json'), content)
  return path


def _none(*arguments):
  raise NotImplementedError  # A card is no study: it has no verdict.
