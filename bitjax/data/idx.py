"""Reads MNIST and Fashion-MNIST from their official IDX files, gzipped or raw.

An IDX file is a big-endian header (two zero bytes, the type of the values, the
number of dimensions, then every dimension as uint32), followed by the values in
row-major order. Only unsigned bytes (type 8) occur here.
"""

from __future__ import annotations

import gzip
import math
import pathlib
import struct
import zlib

import numpy as np

from bitjax import types
from bitjax.data import reading

__all__ = ['NUM_CLASSES', 'read', 'read_idx']

NUM_CLASSES = 10

_PREFIXES = {'train': 'train', 'test': 't10k'}
_TORCHVISION = {'mnist': 'MNIST', 'fashion_mnist': 'FashionMNIST'}
_SIDE = 28  # Pixels.


def read(
  name: str, part: str, data_dir: reading.PathLike | None
) -> reading.Arrays:
  """Reads one part of ``'mnist'`` or ``'fashion_mnist'``.

  Looks in ``data_dir/name``, in torchvision's ``MNIST/raw`` or
  ``FashionMNIST/raw``, and in ``data_dir`` itself.

  Args:
    name: name of the data set.
    part: ``'train'`` or ``'test'``.
    data_dir: the folder to look into.

  Returns:
    Images uint8 [N, 28, 28, 1] and labels int32 [N].

  Raises:
    BadInput: for a missing, truncated or wrongly-typed file.
  """
  own, root = reading.roots(name, data_dir)
  folders = (own, root / _TORCHVISION[name] / 'raw', root)
  images_path, labels_path = _find_pair(name, part, folders)
  images = read_idx(images_path, num_dims=3)
  labels = read_idx(labels_path, num_dims=1)
  if images.shape[1:] != (_SIDE, _SIDE):
    raise types.BadInput(
      f'{images_path}: expected images of {_SIDE}x{_SIDE}; found '
      f'{images.shape[1]}x{images.shape[2]}.'
    )
  if len(images) != len(labels):
    raise types.BadInput(
      f'{labels_path}: expected {len(images)} labels, one for each image in '
      f'{images_path}; found {len(labels)}.'
    )
  reading.check_labels(labels_path, labels, NUM_CLASSES)
  return images[..., np.newaxis], labels.astype(np.int32)


def read_idx(path: pathlib.Path, num_dims: int) -> np.ndarray:
  """Reads an IDX file of unsigned bytes; its content tells if it is gzipped.

  Args:
    path: the file.
    num_dims: how many dimensions it must have.

  Returns:
    uint8 array of the dimensions that the file declares.

  Raises:
    BadInput: unless the file has this type, these dimensions and exactly
      the length that they imply.
  """
  try:
    with path.open('rb') as file:
      zipped = file.read(2) == b'\x1f\x8b'
    with gzip.open(path) if zipped else path.open('rb') as file:
      header = file.read(4 + 4 * num_dims)
      dims = _dimensions(path, header, num_dims)
      size = math.prod(dims)
      values = reading.read_at_most(file, size + 1)
  except (OSError, EOFError, zlib.error) as error:
    raise types.BadInput(
      f'{path}: expected an IDX file, gzipped or raw, that can be read to its '
      f'end; found: {reading.one_line(error)}.'
    ) from error
  if len(values) != size:
    found = 'more' if len(values) > size else f'{len(values)}'
    raise types.BadInput(
      f'{path}: expected {size} bytes after the header (dimensions '
      f'{"x".join(map(str, dims))}); found {found}.'
    )
  return np.frombuffer(values, np.uint8).reshape(dims)


def _dimensions(
  path: pathlib.Path, header: bytes, num_dims: int
) -> tuple[int, ...]:
  """Checks an IDX header and returns the dimensions that it declares."""
  magic = bytes((0, 0, 8, num_dims))
  if header[:4] != magic:
    raise types.BadInput(
      f'{path}: expected an IDX file of unsigned bytes with {num_dims} '
      f'dimension(s), which starts with 0x{magic.hex()}; found '
      f'0x{header[:4].hex()}.'
    )
  if len(header) != 4 + 4 * num_dims:
    raise types.BadInput(
      f'{path}: expected a header of {4 + 4 * num_dims} bytes; found '
      f'{len(header)}.'
    )
  dims = struct.unpack(f'>{num_dims}I', header[4:])
  if not all(dims):
    raise types.BadInput(
      f'{path}: expected at least one value; found dimensions '
      f'{"x".join(map(str, dims))}.'
    )
  return dims


def _find_pair(
  name: str, part: str, folders: tuple[pathlib.Path, ...]
) -> tuple[pathlib.Path, pathlib.Path]:
  """Returns the paths of the images and of the labels, both from one folder."""
  kinds = ('images-idx3', 'labels-idx1')
  for folder in folders:
    images, labels = (_find(folder, part, kind) for kind in kinds)
    if images is not None and labels is not None:
      return images, labels
  present = {
    kind for kind in kinds for folder in folders if _find(folder, part, kind)
  }
  # Both kinds may be present but in different folders: then report both.
  missing = [kind for kind in kinds if kind not in present] or kinds
  names = ' and '.join(
    f'{_PREFIXES[part]}-{kind}-ubyte[.gz]' for kind in missing
  )
  hint = ''
  if part == 'train' and any(
    all(_find(folder, 'test', kind) for kind in kinds) for folder in folders
  ):
    hint = ' The test files are there: use --split=test.'
  raise types.BadInput(
    f'{name}, {part}ing files: expected {names} in one of '
    f'{", ".join(map(str, folders))}; found none.{hint}'
  )


def _find(folder: pathlib.Path, part: str, kind: str) -> pathlib.Path | None:
  """Returns the path of this part and kind in ``folder``, in either spelling."""
  stem = f'{_PREFIXES[part]}-{kind}'
  names = (f'{stem}-ubyte', f'{stem.replace("-idx", ".idx")}-ubyte')
  for name in names:
    for path in (folder / name, folder / f'{name}.gz'):
      if path.is_file():
        return path
  return None
