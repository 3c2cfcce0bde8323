"""One checkpoint: a folder that is whole or absent, and is read only if it is intact.

Orbax writes the arrays into a folder aside. A file is added that holds the SHA-256 of
every other file and of itself, and then the folder gets its name, by one rename. A
checkpoint is deleted the other way round: it loses its name first. So a process may
be killed at any moment: what lies aside is not a checkpoint, and is removed later.
"""

from __future__ import annotations

from collections.abc import Mapping
import hashlib
import json
import os
import pathlib
import shutil
from typing import Any

import numpy as np
from orbax.checkpoint import v1 as ocp

from bitjax import files
from bitjax import types

__all__ = [
  'NAME',
  'Damaged',
  'facts',
  'load',
  'remove',
  'steps',
  'tidy',
  'write',
]

NAME = 'checkpoint.json'  # The file with facts and checksums.
_FORMAT = 2
_ORBAX = '_CHECKPOINT_METADATA'


class Damaged(Exception):
  """Raised for a checkpoint that cannot be used; the message names the file."""


def steps(folder: pathlib.Path) -> list[int]:
  """Returns the steps whose checkpoints a folder holds, intact or not, in order."""
  return sorted(
    int(path.name)
    for path in _numbered(folder)
    if (path / NAME).exists() or (path / _ORBAX).exists()
  )


def write(
  path: pathlib.Path,
  arrays: Mapping[str, np.ndarray],
  about: Mapping[str, Any],
) -> None:
  """Writes a checkpoint; one of the same name is replaced.

  Args:
    path: its folder, in an existing one.
    arrays: name -> array.
    about: JSON values that are stored with it.
  """
  aside = _aside(path, 'new')
  _erase(aside)
  _orbax().save(aside, dict(arrays))
  inside = sorted(aside.rglob('*'))
  sums = {
    each.relative_to(aside).as_posix(): files.checksum(each)
    for each in inside
    if each.is_file()
  }
  entry = {'format': _FORMAT, **about, 'files': sums}
  for each in inside:
    files.flush(each)
  files.write_json(aside / NAME, entry | {'sha256': _digest(entry)})
  remove(path)
  os.replace(aside, path)
  files.flush(path.parent)


def facts(path: pathlib.Path) -> dict[str, Any]:
  """Returns what is stored with a checkpoint, after checking all of its files.

  Raises:
    Damaged: naming the first file that is missing or differs.
    BadInput: for a checkpoint of another format.
  """
  if not (path / NAME).exists():
    raise Damaged(
      f'{path / NAME} is missing, so {path} is damaged or no checkpoint of bitjax'
    )
  try:
    entry = files.read_json(path / NAME)
    stamp, sums = entry.pop('sha256'), entry['files']
    sound = stamp == _digest(entry)
  except (OSError, ValueError, AttributeError, TypeError, KeyError):
    sound, entry, sums = False, {}, {}
  if not sound:
    raise Damaged(f'{path / NAME} is damaged (it is not as it was written)')
  if entry.get('format') != _FORMAT:
    raise types.BadInput(
      f'{path} has format {entry.get("format")}, this bitjax reads {_FORMAT}: use '
      'the version of bitjax that wrote it, or train in another folder.'
    )
  for name, wanted in sums.items():
    try:
      found = files.checksum(path / name)
    except OSError as error:
      reason = error.strerror or 'it cannot be read'
      raise Damaged(f'{path / name} is damaged ({reason})') from error
    if found != wanted:
      raise Damaged(f'{path / name} is damaged (its checksum differs)')
  return entry


def load(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns the arrays of a checkpoint whose `facts` have been read.

  Raises:
    Damaged: if Orbax cannot read them.
  """
  try:
    found = _orbax().load(path)
    return {name: np.asarray(leaf) for name, leaf in found.items()}
  except Exception as error:  # Orbax promises no kind.
    reason = types.one_line(error)[:200]
    raise Damaged(f'{path} is damaged ({reason})') from error


def remove(path: pathlib.Path) -> None:
  """Deletes a checkpoint, if it exists: takes its name away, then its files."""
  gone = _aside(path, 'old')
  _erase(gone)
  try:
    os.rename(path, gone)
  except FileNotFoundError:
    return
  _erase(gone)


def tidy(folder: pathlib.Path, keep: set[int] | None = None) -> None:
  """Removes what lies aside, and the checkpoints of steps that are not kept, if given."""
  for path in [*folder.iterdir()]:
    if '.orbax-checkpoint-tmp' in path.name or files.is_partial(path):
      _erase(path)
  if keep is not None:
    for path in _numbered(folder):
      if int(path.name) not in keep:
        remove(path)


def _orbax() -> Any:  # Its annotations are narrower than what it takes.
  return ocp


def _numbered(folder):
  return [
    path
    for path in folder.iterdir()
    if path.name.isascii() and path.name.isdigit() and path.is_dir()
  ]


def _aside(path, kind):
  # Killed processes leave it behind: a file that is partial is removed later.
  return path.with_name(f'.{path.name}.{kind}.{os.getpid()}.partial')


def _erase(path):
  if path.is_dir():
    shutil.rmtree(path, ignore_errors=True)
  else:
    path.unlink(missing_ok=True)


def _digest(entry):
  text = json.dumps(entry, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
