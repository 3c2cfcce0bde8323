"""The lock that keeps a second process out of a run directory.

The kernel holds the lock (``flock``) and drops it when the process ends, however it
ends, so the lock file of a killed run is no obstacle.

Some network file systems have no such locks. There the record in the file decides, which
names a process and its host: whoever finds no live one writes its own, waits, and has
the lock if its record is still there (Fischer's algorithm: of several that begin at
once, the last to write stays). Processes of other hosts count as alive, so that what a
run that was killed there has left must be removed by hand, as the message says.
"""

from __future__ import annotations

import errno
import json
import os
import pathlib
import platform
import time
from typing import Any

from bitjax import types

try:
  import fcntl
except ImportError:  # Windows has no such module.
  fcntl = None

__all__ = ['NAME', 'Lock', 'busy', 'holder', 'release_all']

NAME = 'run.lock'
# Attempts, 0.1 seconds apart, until a lock counts as taken: another process may hold it
# for a moment to look (`holder`), or the child of a dead one may not have released it.
_ATTEMPTS = 10
_SETTLE = 0.5  # Seconds between writing a record and looking whether it stands.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class Lock:
  """The lock of a run directory."""

  def __init__(self, directory: pathlib.Path):
    self._path = directory / NAME
    self._descriptor: int | None = None

  def acquire(self) -> None:
    """Takes the lock, unless this object holds it already.

    Raises:
      BadInput: if another process holds it.
      OSError: if there can be no lock.
    """
    if self._descriptor is not None:
      return
    for attempt in range(_ATTEMPTS):
      descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
      try:
        taken = _take(descriptor, self._path, shared=False)
      except BaseException:
        # It is new, or names this process, which does not have it.
        if not os.fstat(descriptor).st_size or _read(self._path) == _myself():
          self._path.unlink(missing_ok=True)
        os.close(descriptor)
        raise
      # The previous holder may have removed the file in the meantime.
      if taken and _same(descriptor, self._path):
        _sign(descriptor)
        self._descriptor = descriptor
        _held.append(self)
        return
      os.close(descriptor)
      if not taken and attempt < _ATTEMPTS - 1:
        time.sleep(0.1)
    raise types.BadInput(busy(self._path.parent, _read(self._path)))

  def release(self) -> None:
    """Releases the lock, if this object holds it."""
    if self._descriptor is not None:
      _held.remove(self)
      self._path.unlink(missing_ok=True)
      os.close(self._descriptor)
      self._descriptor = None


_held: list[Lock] = []  # By this process.


def release_all() -> None:
  """Releases the locks of a process that is about to end."""
  for lock in list(_held):
    lock.release()


def holder(directory: pathlib.Path) -> dict[str, Any] | None:
  """Returns the process and host that run in a directory, or None for none."""
  path = directory / NAME
  for attempt in range(_ATTEMPTS):
    try:
      descriptor = os.open(path, os.O_RDONLY)
    except OSError:
      return None
    try:
      free = _take(descriptor, path, shared=True)
    finally:
      os.close(descriptor)
    if free:
      return None
    if attempt < _ATTEMPTS - 1:
      time.sleep(0.1)
  return _read(path)


def busy(directory: pathlib.Path, who: dict[str, Any]) -> str:
  """Returns a message that a directory is in use, and what the user can do."""
  return (
    f'{directory} is in use by process {who.get("pid", "?")} on '
    f'{who.get("host", "?")}; wait for it, stop it, or choose another --out (if '
    f'it is gone, remove {directory / NAME}).'
  )


def _take(descriptor: int, path: pathlib.Path, *, shared: bool) -> bool:
  """Tries to lock an open file, and returns whether it succeeded."""
  if fcntl is not None:
    try:
      kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
      fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
      return True
    except BlockingIOError:
      return False
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        raise OSError(error.errno, error.strerror, str(path)) from error
  if _alive(_read(path)):
    return False
  if shared:
    return True
  _sign(descriptor)
  os.fsync(descriptor)  # Other hosts read what the server of the files has.
  time.sleep(_SETTLE)
  return _read(path) == _myself()


def _sign(descriptor: int) -> None:
  """Writes which process this is into an open lock file."""
  os.ftruncate(descriptor, 0)
  os.lseek(descriptor, 0, os.SEEK_SET)
  os.write(descriptor, json.dumps(_myself()).encode())


def _alive(who: dict[str, Any]) -> bool:
  """Returns whether another process, named in a lock file, may still run."""
  if not who or who == _myself():
    return False
  if who.get('host') != platform.node():
    return True  # Processes of another host cannot be checked.
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
