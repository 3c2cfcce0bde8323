"""Reads MNIST and Fashion-MNIST from their official IDX files, gzipped or raw.

An IDX file is a big-endian header (two zero bytes, the type of the values, the
number of dimensions, then every dimension as uint32), followed by the values in
row-major order. Only unsigned bytes (type 8) occur here.
"""

from __future__ import annotations

import math
import pathlib
import struct
import zlib

import numpy as np

from bitjax import types
from bitjax.data import reading

__all__ = ['read_idx', 'read_pair']


def read_pair(
  images_path: pathlib.Path, labels_path: pathlib.Path, num_classes: int
) -> reading.Arrays:
  """Reads a file of images and the file of their labels.

  Args:
    images_path: the images; raw or gzipped, like the labels.
    labels_path: the labels.
    num_classes: number of classes; labels are below it.

  Returns:
    Images uint8 [N, H, W, 1] and labels int32 [N].

  Raises:
    BadInput: for a truncated or wrongly-typed file, other than one label for
      each image, or a label out of range.
  """
  images = read_idx(images_path, num_dims=3)
  labels = read_idx(labels_path, num_dims=1)
  if len(images) != len(labels):
    raise types.BadInput(
      f'{labels_path}: expected {len(images)} labels, one for each image in '
      f'{images_path}; found {len(labels)}.'
    )
  reading.check_labels(labels_path, labels, num_classes)
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
    with reading.unzipped(path) as file:
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
