"""Caches slow-to-read arrays as npz files in the user's cache directory.

The cache saves time and changes nothing else. An entry that is faulty (truncated,
damaged, of another type) is built again; if the directory cannot be written,
nothing is cached. An entry appears when its complete file is renamed, so
concurrent processes see either no entry or a whole one. The caller's key must name
everything that the content depends on, so that no entry can be stale.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import hashlib
import pathlib

import numpy as np

from bitjax import files
from bitjax.data import reading

__all__ = ['checksum', 'fetch']


def checksum(images: np.ndarray, labels: np.ndarray) -> str:
  """Returns the sha256 of shapes and values, as 64 hexadecimal digits.

  Args:
    images: uint8 [N, H, W, C].
    labels: integers [N]; hashed as little-endian int32 on every machine.
  """
  shape = 'x'.join(str(size) for size in images.shape)
  digest = hashlib.sha256(f'uint8 {shape}; int32 {len(labels)};'.encode())
  digest.update(np.ascontiguousarray(images, np.uint8).data)
  digest.update(np.ascontiguousarray(labels, '<i4').data)
  return digest.hexdigest()


def fetch(
  key: str,
  build: Callable[[], reading.Arrays],
  *,
  expected: str | None = None,
  cache_dir: reading.PathLike | None = None,
) -> reading.Arrays:
  """Returns the arrays cached under ``key``, or builds and caches them.

  Args:
    key: name of the entry; it must name all that the content depends on.
    build: returns images (uint8 [N, H, W, C]) and labels (int32 [N]). If it
      raises, the error propagates and nothing is cached.
    expected: the :func:`checksum` that an entry must have to be used; None if
      it is not known.
    cache_dir: directory of the entries; created, private to the user, if it is
      missing. None means :func:`bitjax.files.cache_dir`.

  Returns:
    Images and labels.
  """
  try:
    directory = (
      files.cache_dir() if cache_dir is None else files.expand(cache_dir)
    )
  except RuntimeError:
    return build()
  path = directory / f'{key}.npz'
  cached = _read(path, expected)
  if cached is not None:
    return cached
  images, labels = build()
  with contextlib.suppress(OSError, ValueError):
    _write(path, images, labels)
  return images, labels


def _read(path: pathlib.Path, expected: str | None) -> reading.Arrays | None:
  """Returns the arrays in ``path``, or None where they cannot be trusted."""
  try:
    with (
      path.open('rb') as file,
      np.load(file, allow_pickle=False) as entry,
    ):
      images, labels = entry['images'], entry['labels']
      recorded = str(entry['checksum'])
  except Exception:  # A damaged archive can raise nearly anything.
    return None
  if (
    images.dtype != np.uint8
    or images.ndim != 4
    or labels.dtype != np.int32
    or labels.shape != images.shape[:1]
  ):
    return None
  found = checksum(images, labels)
  if found != recorded or (expected is not None and found != expected):
    return None
  return images, labels


def _write(path: pathlib.Path, images: np.ndarray, labels: np.ndarray) -> None:
  """Writes an entry, whole or not at all."""
  path.parent.parent.mkdir(parents=True, exist_ok=True)
  path.parent.mkdir(mode=0o700, exist_ok=True)
  with files.atomic(path) as temporary, temporary.open('wb') as file:
    np.savez(
      file,
      images=images,
      labels=labels,
      checksum=np.asarray(checksum(images, labels)),
    )
