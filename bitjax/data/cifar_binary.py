"""Reads CIFAR's binary files: fixed records of label bytes and 3 x 32 x 32 pixels.

An archive is read as a stream up to its end, where its checksum is, so one that is
truncated or changed anywhere is refused. Only the members asked for by name are
kept, and nothing is ever written to disk, so links and ``..`` in an archive can do
no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
import tarfile
from typing import NamedTuple
import zlib

import numpy as np

from bitjax import types
from bitjax.data import reading

__all__ = ['NUM_PIXELS', 'Format', 'parse', 'read_archive', 'read_files']

NUM_PIXELS = 3 * 32 * 32  # Bytes of the planes of red, green and blue.


class Format(NamedTuple):
  """Format of a record, whose first ``label_bytes`` bytes end in the label."""

  label_bytes: int
  num_classes: int

  @property
  def record(self) -> int:
    """Size of a record in bytes."""
    return self.label_bytes + NUM_PIXELS


def read_files(
  paths: Sequence[pathlib.Path], fmt: Format, num_records: int
) -> reading.Arrays:
  """Reads binary files, in order.

  Args:
    paths: the files.
    fmt: their format.
    num_records: how many records each file must have.

  Returns:
    Images uint8 [N, 32, 32, 3] and labels int32 [N].

  Raises:
    BadInput: for a file that cannot be read, has another size, or has labels
      out of range.
  """
  parts = []
  for path in paths:
    try:
      with path.open('rb') as file:
        content = reading.read_at_most(file, num_records * fmt.record + 1)
      size = path.stat().st_size
    except OSError as error:
      raise types.BadInput(
        f'{path}: expected a readable file; found: {reading.one_line(error)}.'
      ) from error
    _check_size(str(path), size, fmt, num_records)
    parts.append(parse(str(path), content, fmt, num_records))
  return _concatenate(parts)


def read_archive(
  archive: pathlib.Path,
  members: Sequence[str],
  fmt: Format,
  num_records: int,
) -> reading.Arrays:
  """Reads binary files out of a ``.tar.gz`` or ``.tar``, without unpacking it.

  Args:
    archive: the archive.
    members: names of the files in it, in the order of the result.
    fmt: their format.
    num_records: how many records each member must have.

  Returns:
    Images uint8 [N, 32, 32, 3] and labels int32 [N].

  Raises:
    BadInput: for a damaged archive, or a member that is missing, not a
      regular file, of another size, or with labels out of range.
  """
  parts = {}
  try:
    with (
      reading.unzipped(archive) as stream,
      tarfile.open(fileobj=stream, mode='r|') as tar,
    ):
      for entry in tar:
        member = entry.name.removeprefix('./')
        if member not in members or member in parts:
          continue
        location = f'{archive}, member {member}'
        file = tar.extractfile(entry) if entry.isreg() else None
        if file is None:
          raise types.BadInput(
            f'{location}: expected a regular file; found a link or a special file.'
          )
        _check_size(location, entry.size, fmt, num_records)
        content = reading.read_at_most(file, entry.size)
        parts[member] = parse(location, content, fmt, num_records)
      # tarfile stops before the end, where gzip verifies the checksum.
      while stream.read(1 << 20):
        pass
  except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
    raise types.BadInput(
      f'{archive}: expected a .tar.gz or .tar archive that can be read; found: '
      f'{reading.one_line(error)}.'
    ) from error
  absent = [member for member in members if member not in parts]
  if absent:
    raise types.BadInput(
      f'{archive}: expected the members {", ".join(members)}; '
      f'{", ".join(absent)} not found.'
    )
  return _concatenate([parts[member] for member in members])


def parse(
  location: str, content: bytes, fmt: Format, num_records: int
) -> reading.Arrays:
  """Returns images [N, 32, 32, 3] and labels [N] from the content of one file."""
  _check_size(location, len(content), fmt, num_records)
  records = np.frombuffer(content, np.uint8).reshape(num_records, fmt.record)
  labels = records[:, fmt.label_bytes - 1].astype(np.int32)
  reading.check_labels(location, labels, fmt.num_classes)
  planes = records[:, fmt.label_bytes :].reshape(-1, 3, 32, 32)
  return planes.transpose(0, 2, 3, 1), labels


def _check_size(
  location: str, size: int, fmt: Format, num_records: int
) -> None:
  """Raises `BadInput` unless ``size`` is that of ``num_records`` records."""
  expected = num_records * fmt.record
  if size != expected:
    raise types.BadInput(
      f'{location}: expected {expected} bytes ({num_records} records of '
      f'{fmt.record}); found {size}.'
    )


def _concatenate(parts: Sequence[reading.Arrays]) -> reading.Arrays:
  """Concatenates the images and the labels of all parts, in contiguous arrays."""
  return (
    np.concatenate([images for images, _ in parts]),
    np.concatenate([labels for _, labels in parts]),
  )
