"""Reads images without labels, to predict their classes, from any file that holds images.

Formats are told by names that end in ``.npy``, ``.npz``, ``.bin`` (CIFAR's binary files),
``.png``, ``.jpg`` or ``.jpeg``; other files are IDX files, gzipped or not.
"""

from __future__ import annotations

from collections.abc import Callable
import pathlib
from typing import Any

import numpy as np

from bitjax import extras
from bitjax import files
from bitjax import types
from bitjax.data import cifar_binary
from bitjax.data import idx
from bitjax.data import reading

__all__ = ['read_images']

# Arrays of an .npz file that are taken, the first that there is; or its only array.
_KEYS = ('images', 'x_test', 'test_images')


def read_images(path: reading.PathLike) -> np.ndarray:
  """Reads the images of one file; labels are not read.

  Args:
    path: an ``.npy`` file; an ``.npz`` file with one array, or with ``images``, ``x_test``
      or ``test_images``; an IDX file, gzipped or raw; a binary file of CIFAR; a PNG or JPEG,
      grey or in colours.

  Returns:
    [N, H, W, C], or the array of an ``.npy`` or ``.npz`` file as it is; uint8, or the
    array's own dtype.

  Raises:
    BadInput: for a file that is missing, damaged, or of another format.
  """
  path = files.expand(path)
  if not path.is_file():
    raise types.BadInput(f'{path}: expected a file of images; there is none.')
  return _READERS.get(path.suffix.lower(), _idx)(path)


def _idx(path: pathlib.Path) -> np.ndarray:
  return idx.read_idx(path, num_dims=3)[..., np.newaxis]


def _npy(path: pathlib.Path) -> np.ndarray:
  return _loaded(path, np.lib.format.read_array)


def _npz(path: pathlib.Path) -> np.ndarray:
  def chosen(file):
    with np.load(file, allow_pickle=False) as archive:
      names = archive.files
      known = [key for key in _KEYS if key in names]
      name = [*known, *(names if len(names) == 1 else [])][:1]
      return archive[name[0]] if name else names

  found = _loaded(path, chosen)
  if isinstance(found, list):
    raise types.BadInput(
      f'{path}: expected one array, or one that is named {", ".join(_KEYS)}; found '
      f'{", ".join(found) or "none"}.'
    )
  return found


def _loaded(path: pathlib.Path, read: Callable[[Any], Any]) -> Any:
  try:
    with path.open('rb') as file:
      return read(file)
  except Exception as error:  # A damaged file can raise nearly anything.
    raise types.BadInput(
      f'{path}: expected plain arrays, none of them objects, that can be read; found: '
      f'{reading.one_line(error)}.'
    ) from error


def _cifar(path: pathlib.Path) -> np.ndarray:
  content = path.read_bytes()
  for label_bytes in (1, 2):
    fmt = cifar_binary.Format(label_bytes, 256)
    count, rest = divmod(len(content), fmt.record)
    if count and not rest:
      return cifar_binary.parse(str(path), content, fmt, count)[0]
  raise types.BadInput(
    f'{path}: expected a binary file of CIFAR, of records of 3073 or 3074 bytes; found '
    f'{len(content)} bytes.'
  )


def _picture(path: pathlib.Path) -> np.ndarray:
  try:
    from PIL import Image
  except ImportError as error:
    raise extras.missing(f'{path}', 'pillow') from error
  try:
    with Image.open(path, formats=('PNG', 'JPEG')) as image:
      mode, pixels = image.mode, np.asarray(image)
  except Exception as error:  # A damaged image can raise nearly anything.
    raise types.BadInput(
      f'{path}: expected a PNG or JPEG; found one that cannot be decoded '
      f'({type(error).__name__}).'
    ) from error
  if mode not in ('L', 'RGB'):
    raise types.BadInput(
      f'{path}: expected grey (L) or colours (RGB), 8 bits each; found {mode}.'
    )
  return pixels.reshape(1, *pixels.shape[:2], -1)


_READERS: dict[str, Callable[[pathlib.Path], np.ndarray]] = {
  '.npy': _npy,
  '.npz': _npz,
  '.bin': _cifar,
  '.png': _picture,
  '.jpg': _picture,
  '.jpeg': _picture,
}
