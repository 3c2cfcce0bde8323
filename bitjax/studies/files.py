"""Files that are either whole or absent.

A run may be killed at any moment, so nothing is ever written in place: a
temporary file in the same directory is filled, flushed to the disk and renamed.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
from typing import Any

__all__ = ['atomic', 'is_partial', 'read_json', 'remove_partial', 'write_json']

_SUFFIX = '.partial'


@contextlib.contextmanager
def atomic(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a temporary path that becomes ``path`` when the block succeeds."""
  temporary = path.with_name(f'.{path.name}.{os.getpid()}{_SUFFIX}')
  try:
    yield temporary
    with open(temporary, 'rb') as file:
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise


def remove_partial(directory: pathlib.Path) -> None:
  """Removes what a killed process left of files it was writing."""
  for leftover in directory.glob(f'.*{_SUFFIX}'):
    leftover.unlink(missing_ok=True)


def is_partial(path: pathlib.Path) -> bool:
  """Whether ``path`` is a file that somebody is writing, or was."""
  return path.name.startswith('.') and path.name.endswith(_SUFFIX)


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes ``value`` atomically, indented, in the order it has."""
  with atomic(path) as temporary:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    temporary.write_text(text + '\n', encoding='utf-8')


def read_json(path: pathlib.Path) -> Any:
  """Reads a JSON file; raises `OSError` or `ValueError`."""
  return json.loads(path.read_text(encoding='utf-8'))
