"""The directory of a run: which run owns it, and which runs may go on in it.

``config.json`` is written before anything is computed and identifies the run. A run
of the same study and configuration, with the same recorded facts (a checksum of the
data, say) and the same version of bitjax, goes on where the first one stopped. Any
other run is refused until the user names another directory or asks to replace this one.
The file also holds the code from which finished results came.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import Any

from bitjax import files
from bitjax import types
from bitjax.cli import lock
from bitjax.cli import rehearsal
from bitjax.cli import results
from bitjax.sweeps import chunks
from bitjax.sweeps import code as code_lib
from bitjax.sweeps import hosted
from bitjax.sweeps import manifest
from bitjax.sweeps import origin as origin_lib
from bitjax.sweeps import provenance
from bitjax.version import __version__

__all__ = ['CONFIG', 'RunDirectory']

_FILES = (
  results.ARCHIVE,
  results.TABLE,
  results.CHECKSUMS,
  'verdicts.json',
  *(f'{name}.{kind}' for name in results.FIGURES for kind in ('png', 'pdf')),
)
CONFIG = 'config.json'
_WAYS_OUT = 'choose another --out or replace it with --overwrite'


class RunDirectory:
  """A directory that one run owns. Nothing is written before `begin` or `claim`.

  Args:
    path: the directory; it need not exist.
    study: name of the study.
    config: every field of the configuration, as JSON values.
    code: the code that counts; None for all that this process has loaded.
    settings: further entries of ``config.json``, which do not identify the run.
    overwrite: whether `begin` removes the run that the directory holds.

  Raises:
    BadInput: if the directory belongs to another run, holds the files of something
      else, or is in use.
  """

  def __init__(
    self,
    path: str | os.PathLike[str],
    *,
    study: str,
    config: dict[str, Any],
    code: code_lib.Code | None = None,
    settings: dict[str, Any] | None = None,
    overwrite: bool = False,
  ):
    self.path = files.expand(path)
    self._identity = {
      'study': study,
      'config': config,
      'bitjax': __version__,
    }
    self.code = code or code_lib.Code()
    self._settings = settings or {}
    self._lock = lock.Lock(self.path)
    self._begun = False
    self._overwrite = False
    self.stored = self._read()
    if self.stored is not None:
      self._overwrite = overwrite
      if not overwrite:
        self._check_identity(self.stored)
      who = lock.holder(self.path)
      if who is not None:
        raise types.BadInput(lock.busy(self.path, who))

  @property
  def resumes(self) -> bool:
    """Whether the directory may hold chunks of the same run."""
    return self.stored is not None and not self._overwrite

  @property
  def complete(self) -> bool:
    """Whether the directory holds the results of this very run."""
    return self.resumes and (self.path / results.ARCHIVE).is_file()

  def identity(self, records: dict[str, Any]) -> dict[str, Any]:
    """Returns what distinguishes this run from others."""
    return self._identity | {'records': records}

  def check(self, records: dict[str, Any]) -> None:
    """Raises `BadInput` if the run in the directory recorded other facts."""
    if self.stored is not None and self.resumes:
      self._compare(self.stored.get('records', {}), records)

  def begin(self, records: dict[str, Any]) -> None:
    """Claims the directory on disk, once, just before something is computed.

    Raises:
      BadInput: if another process runs there, or has run there since this object
        was made; or if the directory does not take what a run writes.
    """
    if self._begun:
      return
    origin = provenance.collect()
    self._prepare()
    if self._read() != self.stored:
      self._lock.release()
      raise types.BadInput(
        f'another process has just run in {self.path}; start again, or choose '
        'another --out.'
      )
    self._begun = True
    files.remove_partial(self.path)
    if self.stored is not None and self.resumes:
      again = {key: origin[key] for key in origin if key != 'bitjax'}
      again.update(self._settings)
      entry = dict(self.stored)
      entry['resumed'] = [*self.stored.get('resumed', []), again]
    else:
      self._clear()
      entry = self.identity(records) | self._settings | origin
    self._write(entry)
    self._overwrite = False

  def finish(self) -> None:
    """Records the code from which the results came, once they are complete."""
    assert self.stored is not None
    self._write(self.stored | {'code': self.code.record()})

  def _prepare(self) -> None:
    """Makes and claims the directory, and tries what will be written at the end."""
    new = not self.path.exists()
    try:
      self.path.mkdir(parents=True, exist_ok=True)
      self.claim()
      rehearsal.write(self.path)
    except BaseException as error:
      with contextlib.suppress(OSError):
        self._lock.release()
      if new:
        with contextlib.suppress(OSError):
          self.path.rmdir()
      if isinstance(error, OSError):
        raise types.BadInput(
          f'{self.path} cannot hold a run: {error.strerror or error}; mend that, '
          'or choose another --out.'
        ) from error
      raise

  def claim(self) -> None:
    """Locks the directory; raises `BadInput` if another process runs there."""
    self._lock.acquire()

  def close(self) -> None:
    """Releases the lock of the directory."""
    self._lock.release()

  def changes(self) -> str:
    """Says how the code has changed since the results were computed, '' if it has not."""
    then = (self.stored or {}).get('code')
    return origin_lib.listed(self.code.changes(then))

  def source(self) -> str:
    """Says when, and by which code, the results were computed."""
    stored = self.stored or {}
    text = f'read from the run of {stored.get("started", "an unknown date")}'
    if stored.get('code'):
      text += f', code {code_lib.identify(stored["code"])}'
    if stored.get('git'):
      edited = ' (edited)' if stored['git']['dirty'] else ''
      text += f', commit {stored["git"]["commit"][:10]}{edited}'
    return text

  def _write(self, entry: dict[str, Any]) -> None:
    files.write_json(self.path / CONFIG, entry)
    self.stored = entry

  def _read(self) -> dict[str, Any] | None:
    if self.path.exists() and not self.path.is_dir():
      raise types.BadInput(f'{self.path} is a file; choose another --out.')
    if not self.path.is_dir():
      return None
    names = {
      entry.name for entry in self.path.iterdir() if not files.is_partial(entry)
    }
    if not names - {lock.NAME}:
      return None
    try:
      stored = files.read_json(self.path / CONFIG)
      ours = isinstance(stored, dict) and {'bitjax', 'config'} <= stored.keys()
    except (OSError, ValueError):
      stored, ours = None, False
    foreign = sorted(
      names - {CONFIG, chunks.FOLDER, hosted.FOLDER, lock.NAME, *_FILES}
    )
    if not ours and foreign:
      raise types.BadInput(
        f'{self.path} is not the directory of a run (it holds {foreign[0]} and '
        f'no {CONFIG} of bitjax); choose another --out.'
      )
    # Without a readable configuration, a run can go on with --overwrite only.
    return stored if ours else {}

  def _check_identity(self, stored: dict[str, Any]) -> None:
    if not stored:
      raise types.BadInput(
        f'{self.path} holds files of a run but no readable {CONFIG}; '
        f'{_WAYS_OUT}.'
      )
    wanted = self._identity
    for key in ('study', 'bitjax'):
      self._compare({key: stored.get(key)}, {key: wanted[key]})
    self._compare(stored['config'], wanted['config'])

  def _compare(self, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key in [*wanted, *(key for key in stored if key not in wanted)]:
      there, here = stored.get(key, _ABSENT), wanted.get(key, _ABSENT)
      if there != here:
        raise types.BadInput(
          f'{self.path} holds a run with {key} = {_short(there)}, this one has '
          f'{key} = {_short(here)}; {_WAYS_OUT}.'
        )

  def _clear(self) -> None:
    """Removes the files that a run writes, the configuration last."""
    for name in _FILES:
      (self.path / name).unlink(missing_ok=True)
    kept = self.path / chunks.FOLDER
    for folder in kept.glob('*/'):
      manifest.clear(folder)
    if kept.is_dir() and not any(kept.iterdir()):
      kept.rmdir()
    if (self.path / hosted.FOLDER).is_dir():
      shutil.rmtree(self.path / hosted.FOLDER)
    (self.path / CONFIG).unlink(missing_ok=True)


_ABSENT = object()


def _short(value: Any) -> str:
  text = '(absent)' if value is _ABSENT else str(value)
  return text if len(text) <= 60 else text[:57] + '...'
