"""Helpers that all readers of files share: what they read, and errors to raise.

Whatever is wrong with a file, a reader raises `BadInput` whose message is one
line that names the file, what was expected and what was found.
"""

from __future__ import annotations

import gzip
import os
import pathlib
from typing import BinaryIO, Protocol, TypeAlias, cast

import numpy as np

from bitjax import types

__all__ = [
  'Arrays',
  'PathLike',
  'Readable',
  'check_labels',
  'one_line',
  'read_at_most',
  'unzipped',
]

PathLike: TypeAlias = str | os.PathLike[str]

# Images uint8 [N, H, W, C] and labels int32 [N].
Arrays: TypeAlias = tuple[np.ndarray, np.ndarray]

_CHUNK = 1 << 20  # Bytes.


class Readable(Protocol):
  """A binary file, zipped or not, or a member of an archive."""

  def read(self, size: int, /) -> bytes:
    """Returns up to ``size`` bytes, and ``b''`` at the end of the file."""
    ...


def read_at_most(file: Readable, num_bytes: int) -> bytes:
  """Reads up to ``num_bytes``, without reserving memory beyond the file's size.

  ``file.read(num_bytes)`` would reserve memory for all of them at once, and the
  number may come from a damaged header.
  """
  chunks = []
  while num_bytes > 0 and (chunk := file.read(min(num_bytes, _CHUNK))):
    chunks.append(chunk)
    num_bytes -= len(chunk)
  return b''.join(chunks)


def unzipped(path: pathlib.Path) -> BinaryIO:
  """Opens a file, gzipped or not: its content tells, not its name."""
  with path.open('rb') as file:
    zipped = file.read(2) == b'\x1f\x8b'
  return cast(BinaryIO, gzip.open(path)) if zipped else path.open('rb')


def check_labels(path: PathLike, labels: np.ndarray, num_classes: int) -> None:
  """Raises `BadInput` unless all labels are in ``[0, num_classes)``."""
  if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
    raise types.BadInput(
      f'{path}: expected labels from 0 to {num_classes - 1}; found labels '
      f'from {labels.min()} to {labels.max()}.'
    )


def one_line(error: BaseException) -> str:
  """Returns the message of ``error`` on one line, without a final stop."""
  return types.one_line(error).rstrip('.')
