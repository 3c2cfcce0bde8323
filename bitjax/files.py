"""Writes files atomically, so that each of them is either whole or absent.

A run may be killed at any moment, so nothing is ever written in place: a
temporary file in the same directory is filled, flushed to the disk and renamed, and
the directory is flushed as well, so that the new name is on the disk too.

JSON has no NaN and no infinities. In the files written here, NaN is ``null`` and the
infinities are the strings ``"inf"`` and ``"-inf"``; `number` reads them back.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import hashlib
import json
import math
import os
import pathlib
from typing import Any

from bitjax import types

__all__ = [
  'atomic',
  'cache_dir',
  'checksum',
  'expand',
  'flush',
  'is_partial',
  'json_text',
  'number',
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
    OSError: if the file cannot be written (the disk is full, say); it names
      ``path``.
  """
  temporary = path.with_name(f'.{path.name}.{os.getpid()}{_SUFFIX}')
  try:
    yield temporary
    flush(temporary)
    os.replace(temporary, path)
    flush(path.parent)
  except BaseException as error:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)
    if isinstance(error, OSError) and error.strerror:
      raise OSError(error.errno, error.strerror, str(path)) from error
    raise


def expand(path: str | os.PathLike[str]) -> pathlib.Path:
  """Returns the path that a user gave, with a leading ``~`` as the home directory.

  Shells expand ``~`` at the beginning of an argument, but not in ``--out=~/run``.

  Raises:
    BadInput: for ``~NAME`` if there is no such user, and for ``~`` without a home.
  """
  try:
    return pathlib.Path(path).expanduser()
  except RuntimeError:
    raise types.BadInput(
      f'{os.fspath(path)}: the home directory of {pathlib.Path(path).parts[0]} is '
      'not known; write the directory in full.'
    ) from None


def cache_dir() -> pathlib.Path:
  """Returns ``~/.cache/bitjax``; raises ``RuntimeError`` if there is no home."""
  return pathlib.Path.home() / '.cache' / 'bitjax'


def remove_partial(directory: pathlib.Path) -> None:
  """Removes the temporary files that killed processes left in ``directory``."""
  for leftover in directory.glob(f'.*{_SUFFIX}'):
    leftover.unlink(missing_ok=True)


def is_partial(path: pathlib.Path) -> bool:
  """Returns whether ``path`` is a temporary file, being written or left behind."""
  return path.name.startswith('.') and path.name.endswith(_SUFFIX)


def checksum(path: pathlib.Path) -> str:
  """Returns the SHA-256 of a file's content, in hexadecimal digits."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def write_bytes(path: pathlib.Path, content: bytes | memoryview) -> None:
  """Writes ``content`` atomically."""
  with atomic(path) as temporary:
    temporary.write_bytes(content)


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes ``text`` atomically, in UTF-8, without changing its line ends."""
  write_bytes(path, text.encode())


def json_text(value: Any, *, indent: int | None = None) -> str:
  """Returns ``value`` as JSON, with NaN as null and infinities as strings."""
  return json.dumps(
    _finite(value), indent=indent, ensure_ascii=False, allow_nan=False
  )


def number(value: float | str | None) -> float:
  """Returns the number that `json_text` wrote as null, as a string or as itself."""
  return math.nan if value is None else float(value)


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes ``value`` as indented JSON, atomically, keeping the order of its keys."""
  text = json_text(value, indent=2) + '\n'
  # Arguments that are not UTF-8 hold lone surrogates, which JSON escapes like this.
  write_bytes(path, text.encode(errors='backslashreplace'))


def read_json(path: pathlib.Path) -> Any:
  """Reads a JSON file, old ones with bare NaN too; raises ``OSError`` or ``ValueError``."""
  return json.loads(path.read_text(encoding='utf-8'))


def flush(path: pathlib.Path) -> None:
  """Flushes a file, or the entries of a directory, to the disk."""
  if os.name == 'nt' and path.is_dir():  # Windows cannot open directories.
    return
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _finite(value: Any) -> Any:
  if isinstance(value, float) and not math.isfinite(value):
    return None if math.isnan(value) else str(float(value))
  if isinstance(value, dict):
    return {key: _finite(entry) for key, entry in value.items()}
  if isinstance(value, (list, tuple)):
    return [_finite(entry) for entry in value]
  return value
