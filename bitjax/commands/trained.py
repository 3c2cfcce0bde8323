"""Finds one of the networks that a run of trainings has kept in checkpoints.

A run keeps a checkpoint for each block of lanes: one seed, of one arm, in one sweep.
The configuration of the run says which network it was and how its images were prepared;
what the checkpoint says of its network is compared with that.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import itertools
import os
import pathlib
from typing import Any

import jax
import numpy as np

from bitjax import cli
from bitjax import files
from bitjax import studies
from bitjax import training
from bitjax import types
from bitjax.studies import recipes
from bitjax.sweeps import chunks
from bitjax.sweeps import hosted
from bitjax.sweeps import manifest

__all__ = [
  'Kept',
  'Trained',
  'check_described',
  'chosen',
  'find',
  'kept',
  'opened',
]

_OF_RUNS = ('phase', 'seeds', 'rates')  # Not of the network.


@dataclasses.dataclass(frozen=True)
class Trained:
  """A trained network.

  Attributes:
    study: name of the study.
    labels: what distinguishes it from the others of its run: ``seed`` and the arm.
    model: the network.
    variables: its variables.
    prepare: images as stored -> images as the network sees them.
    images: shape and dtype of a stored image, [1, H, W, C].
  """

  study: str
  labels: dict[str, Any]
  model: Any
  variables: types.PyTree
  prepare: Callable[[types.Array], types.Array]
  images: jax.ShapeDtypeStruct


@dataclasses.dataclass(frozen=True)
class Kept:
  """A network in a checkpoint.

  Attributes:
    labels: what distinguishes it from the others of its run.
    static: the arm.
    folder: folder of the checkpoint.
    index: its place among the networks there.
    about: what the checkpoint says of it.
  """

  labels: dict[str, Any]
  static: dict[str, Any]
  folder: pathlib.Path
  index: int
  about: dict[str, str]


def find(
  run: str | os.PathLike[str],
  labels: Mapping[str, str],
  *,
  which: str = 'latest',
  data_dir: str | None = None,
) -> Trained:
  """Returns a trained network of a run, which may be finished or not.

  Args:
    run: directory of the run.
    labels: label -> its text: ``seed``, ``sweep`` and axes of the run, as many as are needed
      to tell networks apart; without a ``seed`` the first of the configuration.
    which: the checkpoint, ``'latest'`` or ``'best'`` on validation examples.
    data_dir: folder of the data; None for the one that the run was given.

  Raises:
    BadInput: if this is no run of trainings, has no such network, has several, holds
      networks of another kind than its configuration says, or if the data are others.
  """
  run = files.expand(run)
  types.check_choice('which', which, training.KEPT)
  study, config, records = opened(run, recipes.TrainConfig, data_dir)
  found = chosen(run, kept(run, which), labels, config.seeds)
  parts, facts = config.load()
  for name in ('train_checksum', 'train_examples'):
    if facts[name] != records.get(name):
      raise types.BadInput(
        f'{config.dataset} is not the data that {run} was trained on: its {name} is '
        f'{facts[name]}, not {records.get(name)}.'
      )
  model = config.model(parts.train.num_classes, **found.static)
  check_described(found, training.describe(model))
  variables = training.load_variables(
    found.folder,
    which=which,
    seed=found.index,
    average=config.average is not None,
  )
  shape = (1, *parts.train.images.shape[1:])
  return Trained(
    study,
    found.labels,
    model,
    variables,
    training.preparation(parts.train),
    jax.ShapeDtypeStruct(shape, np.uint8),
  )


def opened(
  run: pathlib.Path,
  kind: type[Any] | tuple[type[Any], ...],
  data_dir: str | None = None,
) -> tuple[str, Any, dict[str, Any]]:
  """Returns name, configuration and recorded facts of a run of trainings.

  Args:
    run: directory of the run.
    kind: class of the configurations that are expected, or several.
    data_dir: folder of the data; None for the one that the run was given.

  Raises:
    BadInput: for what is no such run.
  """
  try:
    stored = files.read_json(run / cli.rundir.CONFIG)
    study = studies.load(stored['study'])
    values = dict(stored['config'])
    records = stored.get('records', {})
  except (OSError, ValueError, LookupError, TypeError, ImportError) as error:
    raise types.BadInput(
      f'{run} is not the directory of a run ({types.one_line(error)}).'
    ) from None
  if not issubclass(study.config, kind):
    raise types.BadInput(
      f'{run} is a run of {study.name}, which keeps no trained networks of this kind.'
    )
  if data_dir is not None:
    values['data_dir'] = data_dir
  try:
    config = cli.decode(study.config, values)
  except types.BadInput as error:
    raise types.BadInput(
      f'{run} is of another version of {study.name}: {error}'
    ) from None
  return study.name, config, records


def kept(run: pathlib.Path, which: str) -> list[Kept]:
  """Returns all networks in the checkpoints of a run.

  Args:
    run: directory of the run.
    which: the checkpoint, as for `find`.
  """
  found = []
  for folder in sorted((run / hosted.FOLDER).glob('*/*-*')):
    sweep = folder.parent.name
    entry = manifest.read(run / chunks.FOLDER / sweep)
    if entry is None:
      continue
    try:
      about = training.description_of(folder, which=which)
    except types.BadInput:  # A training that has only begun.
      continue
    axes = entry['static']
    every = list(itertools.product(*axes.values()))
    combination = every[int(folder.name.split('-')[0])]
    static = dict(zip(axes, combination, strict=True))
    rates = ast.literal_eval(about['rates'])
    for index, seed in enumerate(ast.literal_eval(about['seeds'])):
      labels = static | {'seed': seed, 'sweep': sweep}
      if rates is not None:
        labels['rate'] = rates[index]
      found.append(Kept(labels, static, folder, index, about))
  return found


def chosen(
  run: pathlib.Path,
  found: list[Kept],
  labels: Mapping[str, str],
  tested: Sequence[int],
) -> Kept:
  """Returns the only network that has some labels.

  Args:
    run: directory of the run, for messages.
    found: its networks.
    labels: as for `find`.
    tested: seeds of the configuration, the first of which is the default.

  Raises:
    BadInput: if there is no such network, or if there are several.
  """
  if not found:
    raise types.BadInput(f'{run} holds no such checkpoint of a network yet.')
  seeds = {one.labels['seed'] for one in found}
  first = next((seed for seed in tested if seed in seeds), min(seeds))
  wanted = {'seed': str(first)} | dict(labels)
  names = list(dict.fromkeys(name for one in found for name in one.labels))
  for name, text in wanted.items():
    if name not in names:
      raise types.BadInput(
        f'networks of {run} are told apart by {", ".join(names)}; got {name}.'
      )
    shown = sorted({str(one.labels.get(name)) for one in found})
    found = [one for one in found if _is(one.labels.get(name), text)]
    if not found:
      raise types.BadInput(
        f'{name} must be one of {"; ".join(shown)}; got {text}.'
      )
  for name in ('sweep', *names):
    values = list(dict.fromkeys(str(one.labels.get(name)) for one in found))
    if len(values) > 1:
      raise types.BadInput(
        f'{run} holds several such networks; choose one by --{name}=... of '
        f'{"; ".join(values)}.'
      )
  return found[0]


def _is(value, text):
  if isinstance(value, int | float) and not isinstance(value, bool):
    try:
      return value == float(text)
    except ValueError:
      return False
  return str(value) == text


def check_described(one: Kept, described: Mapping[str, str]) -> None:
  """Refuses a checkpoint of another network than the one that its run ends with.

  Args:
    one: the network in the checkpoint.
    described: what `training.describe` says of the expected one.

  Raises:
    BadInput: naming the first field that differs.
  """
  stored = {k: v for k, v in one.about.items() if k not in _OF_RUNS}
  for name in {**described, **stored}:
    here, there = described.get(name), stored.get(name)
    if here != there:
      raise types.BadInput(
        f'{one.folder} holds a network with {name} = {there}, and its run ends with '
        f'one with {here}: it was trained by other code, or is in an earlier phase.'
      )
