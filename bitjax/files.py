"""Files that are either whole or absent.

A run may be killed at any moment, so nothing is ever written in place: a
temporary file in the same directory is filled, flushed to the disk and renamed, and
the directory is flushed as well, so that the name lasts too.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
from typing import Any

__all__ = [
  'atomic',
  'is_partial',
  'read_json',
  'remove_partial',
  'write_bytes',
  'write_json',
  'write_text',
]

_SUFFIX = '.partial'


@contextlib.contextmanager
def atomic(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a temporary path that becomes ``path`` when the block succeeds.

  Raises:
    OSError: naming ``path``, if the disk is full, say.
  """
  temporary = path.with_name(f'.{path.name}.{os.getpid()}{_SUFFIX}')
  try:
    yield temporary
    _flush(temporary)
    os.replace(temporary, path)
    _flush(path.parent)
  except BaseException as error:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)
    if isinstance(error, OSError) and error.strerror:
      raise OSError(error.errno, error.strerror, str(path)) from error
    raise


def remove_partial(directory: pathlib.Path) -> None:
  """Removes what a killed process left of files it was writing."""
  for leftover in directory.glob(f'.*{_SUFFIX}'):
    leftover.unlink(missing_ok=True)


def is_partial(path: pathlib.Path) -> bool:
  """Whether ``path`` is a file that somebody is writing, or was."""
  return path.name.startswith('.') and path.name.endswith(_SUFFIX)


def write_bytes(path: pathlib.Path, content: bytes) -> None:
  """Writes ``content`` atomically."""
  with atomic(path) as temporary:
    temporary.write_bytes(content)


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes ``text`` atomically, in UTF-8, its line ends as they are."""
  write_bytes(path, text.encode())


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes ``value`` atomically, indented, in the order it has."""
  text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
  write_text(path, text + '\n')


def read_json(path: pathlib.Path) -> Any:
  """Reads a JSON file; raises `OSError` or `ValueError`."""
  return json.loads(path.read_text(encoding='utf-8'))


def _flush(path: pathlib.Path) -> None:
  """Asks the system to put a file, or the names in a directory, on the disk."""
  if os.name == 'nt' and path.is_dir():  # Where directories cannot be opened.
    return
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
