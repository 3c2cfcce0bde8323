"""One run directory, one run: a second process is refused, a dead one is not.

The kernel holds the lock (``flock``) and drops it when its process ends, however it
ends; so a file that a killed run left behind is no obstacle. File systems without
such locks fall back on what the file says: the process and its host.
"""

from __future__ import annotations

import json
import os
import pathlib
import platform
import time
from typing import Any

from bitjax import types

try:
  import fcntl
except ImportError:  # Windows.
  fcntl = None

__all__ = ['NAME', 'Lock', 'busy', 'holder']

NAME = 'run.lock'
# Tenths of a second until a lock counts as taken: somebody may have looked just now
# (`holder`), or a dead process's child may not have let go yet.
_PATIENCE = 10


class Lock:
  """The lock of a run directory."""

  def __init__(self, directory: pathlib.Path):
    self._path = directory / NAME
    self._descriptor: int | None = None

  def acquire(self) -> None:
    """Takes the lock, unless it is held already.

    Raises:
      ValueError: if another process has it.
    """
    if self._descriptor is not None:
      return
    for attempt in range(_PATIENCE):
      descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
      taken = _take(descriptor, self._path, shared=False)
      # The one who had it may have removed the file in the meantime.
      if taken and _same(descriptor, self._path):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(_myself()).encode())
        self._descriptor = descriptor
        return
      os.close(descriptor)
      if not taken and attempt < _PATIENCE - 1:
        time.sleep(0.1)
    raise types.BadInput(busy(self._path.parent, _read(self._path)))

  def release(self) -> None:
    """Gives the lock back, if it is held."""
    if self._descriptor is not None:
      self._path.unlink(missing_ok=True)
      os.close(self._descriptor)
      self._descriptor = None


def holder(directory: pathlib.Path) -> dict[str, Any] | None:
  """Who runs in a directory: process and host; None if nobody does."""
  path = directory / NAME
  for attempt in range(_PATIENCE):
    try:
      descriptor = os.open(path, os.O_RDONLY)
    except OSError:
      return None
    free = _take(descriptor, path, shared=True)
    os.close(descriptor)
    if free:
      return None
    if attempt < _PATIENCE - 1:
      time.sleep(0.1)
  return _read(path)


def busy(directory: pathlib.Path, who: dict[str, Any]) -> str:
  """Says that somebody runs in a directory, and what to do."""
  return (
    f'{directory} is in use by process {who.get("pid", "?")} on '
    f'{who.get("host", "?")}; wait for it, stop it, or choose another --out (if '
    f'it is gone, remove {directory / NAME}).'
  )


def _take(descriptor: int, path: pathlib.Path, *, shared: bool) -> bool:
  """Tries to lock an open file; whether it succeeded."""
  if fcntl is not None:
    try:
      kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
      fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
      return True
    except BlockingIOError:
      return False
    except OSError:  # A file system that has no locks.
      pass
  return not _alive(_read(path))


def _alive(who: dict[str, Any]) -> bool:
  """Whether a recorded process may still be there."""
  if not who or who == _myself():
    return False
  if who.get('host') != platform.node():
    return True  # Nobody can know from here.
  try:
    os.kill(int(who['pid']), 0)
  except (ProcessLookupError, KeyError, ValueError):
    return False
  except PermissionError:
    pass
  return True


def _same(descriptor: int, path: pathlib.Path) -> bool:
  try:
    return os.path.samestat(os.fstat(descriptor), os.stat(path))
  except OSError:
    return False


def _myself() -> dict[str, Any]:
  return {'pid': os.getpid(), 'host': platform.node()}


def _read(path: pathlib.Path) -> dict[str, Any]:
  try:
    found = json.loads(path.read_bytes())
  except (OSError, ValueError):
    return {}
  return found if isinstance(found, dict) else {}
