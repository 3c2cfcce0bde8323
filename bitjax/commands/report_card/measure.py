"""Measures estimators one after another, and keeps the numbers of each.

Each estimator has a run directory of its own below ``numbers/``, and so have the truths with
which all are compared. What is there is read again, unless the code that it came from has
changed: then it is measured again. The source of somebody's own estimator is part of
the code of its own numbers only.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import functools
import pathlib
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bitjax import cli
from bitjax import data
from bitjax import files
from bitjax import memory
from bitjax import sums
from bitjax import sweeps
from bitjax.commands.report_card import balls
from bitjax.commands.report_card import cifar
from bitjax.commands.report_card import config as config_lib
from bitjax.commands.report_card import digits
from bitjax.commands.report_card import gradients
from bitjax.commands.report_card import names
from bitjax.commands.report_card import speed
from bitjax.studies import recipes
from bitjax.studies import toy
from bitjax.sweeps import code as code_lib
from bitjax.sweeps import meshes
from bitjax.sweeps import progress

if TYPE_CHECKING:
  import xarray

__all__ = ['FOLDER', 'PROGRESS', 'Kept', 'Measurements', 'kept']

FOLDER = 'numbers'
PROGRESS = (0.0, 0.5, 1.0)  # At which the pseudo-gradient is drawn.
_POINTS = 4001
_STUDY = 'report_card'
_TRUTHS = 'truths'
# Of commands and studies, what the numbers come from.
_COUNTS = (
  *(
    f'bitjax.commands.report_card.{name}'
    for name in (
      'balls', 'cifar', 'config', 'digits', 'gradients', 'measure', 'names', 'speed',
    )
  ),
  'bitjax.studies.local_optima.certificates',
  'bitjax.studies.local_optima.networks',
  'bitjax.studies.recipes',
  'bitjax.studies.toy',
)  # fmt: skip


class Kept(NamedTuple):
  """The numbers of one estimator.

  Attributes:
    name: the estimator.
    results: what was measured.
    entry: ``config.json`` of its run: configuration, versions, commit and time.
  """

  name: str
  results: xarray.Dataset
  entry: dict[str, Any]


class Measurements:
  """Measures the estimators of a configuration.

  Args:
    config: the flags.
    out: folder of the cards.
    settings: entries of ``config.json`` that do not identify a run, such as the preset.
    overwrite: whether numbers that are there are replaced.
    chunk: as for `sweeps.Sweep`, as all that follow.
    width: lanes that are vectorised at a time.
    mesh: devices.
    accept_other_code: whether to go on with chunks of other code.
    limit: memory that one program may take, as for `memory.limited`.

  Raises:
    BadInput: for data that are absent or too few, and a folder of other numbers. Nothing
      is written yet.
  """

  def __init__(
    self,
    config: config_lib.Config,
    out: pathlib.Path,
    *,
    settings: dict[str, Any] | None = None,
    overwrite: bool = False,
    limit: str | None = None,
    mesh: str = meshes.AUTO,
    **options: Any,
  ):
    self._config, self._out = config, out
    self._settings, self._overwrite = settings or {}, overwrite
    self._limit = limit
    self._options = options | {'mesh': meshes.make(mesh)}
    self._facts: dict[str, Any] = {}
    self._codes: dict[str | None, code_lib.Code] = {}
    sums.check(config.precision, config.dtype)
    whole = data.load(
      config.dataset, split=config.split, data_dir=config.data_dir
    )
    config.check_data(whole)
    small = data.load('digits', split='all')
    config.digits().check_data(small)
    self._facts['data_checksum'] = whole.checksum
    self._networks = toy.States(
      toy.Problems(config, whole), toy.STATES, config.train_steps
    )
    self._digits = toy.Problems(config.digits(), small)
    self._cifar: recipes.Parts | None = None
    if config.with_cifar:
      self._cifar, facts = cifar.settings(config).load()
      self._facts |= {f'cifar_{key}': fact for key, fact in facts.items()}
    self._check()

  def all(self) -> Iterator[Kept]:
    """Yields the numbers of every estimator, the normal STE's first."""
    chosen, took = self._config.chosen, []
    for number, name in enumerate(chosen, 1):
      title = f'[{number}/{len(chosen)}] {name}'
      with contextlib.closing(self._directory(name)) as directory:
        results = self._read(title, directory)
        if results is None:
          if took:
            left = (len(chosen) - number + 1) * sum(took) / len(took)
            title += f'; about {progress.duration(left)} left'
          progress.say(title)
          truths = self._truths  # They are no part of what one estimator takes.
          start = time.monotonic()
          results = self._measure(name, directory, truths)
          took.append(time.monotonic() - start)
        assert directory.stored is not None
        yield Kept(name, results, directory.stored)

  def outdated(self, name: str) -> bool:
    """Returns whether the code of numbers that lie in the folder has changed since."""
    return bool(self._at(name, False).changes())

  def _read(self, title, directory):
    """Returns results that are there, None if they are not, or are damaged."""
    if not directory.complete:
      return None
    try:
      results = cli.results.load(directory.path)
    except cli.results.Damaged as error:
      progress.say(f'{title}: {error}; made again')
      return None
    progress.say(f'{title}: {directory.source()}')
    return results

  def _measure(self, name, directory, truths):
    """Measures one estimator, and keeps the results."""
    estimator = names.make(name)
    sweep = self._sweep(directory)
    with memory.limited(self._limit):
      found = gradients.nearness(
        self._networks,
        sweep,
        estimator,
        truths,
        num_parts=self._config.parts,
      )
      spent = balls.spend(
        self._networks,
        sweep,
        estimator,
        balls=self._config.balls,
        num_rounds=self._config.num_rounds,
      )
      trained = digits.train(
        self._digits,
        sweep,
        estimator,
        rates=self._config.adam_rates,
        num_steps=self._config.digits_steps,
        tuning_seeds=self._config.tuning_seeds,
      )
      timed = speed.measure(
        self._networks.problems, sweep, estimator, turns=self._config.turns
      )
      found = found.assign(spent.data_vars).assign(trained.data_vars)
      found = found.assign(timed.data_vars).assign_attrs(trained.attrs)
      if self._cifar is not None:
        more = cifar.train(self._config, self._cifar, sweep, name)
        found = found.assign(more.data_vars)
    found = _with_curves(found, estimator)
    directory.begin(sweep.records)  # Does nothing if a sweep has begun.
    directory.finish()
    cli.results.save(found, directory.path)
    return cli.results.load(directory.path)

  @functools.cached_property
  def _truths(self) -> dict[str, Any]:
    """The truths of all seeds, from the disk or computed."""
    with contextlib.closing(self._directory(_TRUTHS)) as directory:
      progress.say('what all are compared with')
      with memory.limited(self._limit):
        found = gradients.truths(
          self._networks,
          self._sweep(directory),
          draws=self._config.draws,
          flip_rate=self._config.flip_rate,
        )
      directory.finish()
      return found

  def _sweep(self, directory):
    sweep = sweeps.Sweep(
      directory.path, report=True, run=directory, **self._options
    )
    sweep.record(**self._facts)
    return sweep

  def _directory(self, name: str) -> cli.RunDirectory:
    """Returns the run directory of an estimator or the truths; writes nothing."""
    found = self._at(name, self._overwrite)
    finished = found.resumes and 'code' in (found.stored or {})
    if finished and (changes := found.changes()):
      progress.say(f'{name}: its code has changed ({changes}); measured again')
      return self._at(name, True)
    return found

  def _at(self, name, overwrite):
    return cli.RunDirectory(
      self._out / FOLDER / (_TRUTHS if name == _TRUTHS else names.slug(name)),
      study=_STUDY,
      config=self._config.identity(name),
      code=self._code(names.module(name)),
      settings=self._settings,
      overwrite=overwrite,
    )

  def _code(self, own: str | None) -> code_lib.Code:
    """Returns the code of an estimator that comes from a module, or is built in."""
    if own in self._codes:
      return self._codes[own]
    modules = map(names.module, self._config.chosen)
    others = {m for m in modules if m is not None and m != own}
    others |= {
      m
      for m in sys.modules
      if m.startswith(('bitjax.commands', 'bitjax.studies'))
      and not m.startswith(_COUNTS)
    }
    homes = {__name__} | ({own} if own else set())
    aside = code_lib.only_for(others, homes)
    self._codes[own] = code_lib.Code(aside, script=False)
    return self._codes[own]

  def _check(self):
    """Refuses a folder of other numbers before anything is computed."""
    for name in (_TRUTHS, *self._config.chosen):
      with contextlib.closing(self._at(name, self._overwrite)) as directory:
        directory.check(self._facts)


def kept(out: pathlib.Path, config: config_lib.Config) -> list[Kept]:
  """Returns all numbers of a configuration that lie in a folder, of whatever code.

  Args:
    out: folder of the cards.
    config: the flags with which they were measured.
  """
  found = []
  for path in sorted((out / FOLDER).glob(f'*/{cli.results.ARCHIVE}')):
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
      entry = files.read_json(path.with_name('config.json'))
      (name,) = entry['config']['estimators']
      if entry['config'] == config.identity(name):
        found.append(Kept(name, cli.results.load(path.parent), entry))
  return found


def _with_curves(found, estimator):
  """Adds the pseudo-gradient at several values of progress, and properties."""
  curves = [gradients.curve(estimator, _POINTS, p) for p in PROGRESS]
  found = found.assign(gradients.properties(estimator))
  return found.assign_coords(x=curves[0][0], progress=list(PROGRESS)).assign(
    passed=(('progress', 'x'), np.stack([passed for _, passed in curves]))
  )
