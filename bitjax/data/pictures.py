"""Reads images from PNG and JPEG files as RGB bytes, and writes PNGs.

Files are of many kinds, and each has one meaning here: grey becomes three equal
channels, a palette its colours, transparency is dropped (what a transparent pixel
hides is its colour as stored), and of 16 bits the upper 8 are kept. An orientation that a
camera noted is not applied: pixels stay where the file has them.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from bitjax import extras
from bitjax import files
from bitjax import types
from bitjax.data import reading

__all__ = ['SUFFIXES', 'read', 'size', 'write']

SUFFIXES = ('.png', '.jpg', '.jpeg')

_WIDE = ('I', 'I;16', 'I;16B', 'I;16L')  # Grey of 16 bits, as Pillow names it.
_MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'RGBX', *_WIDE)


def size(path: pathlib.Path) -> tuple[int, int]:
  """Returns the rows and columns of an image, from the head of its file.

  Raises:
    BadInput: for a file that is no PNG or JPEG, or of a kind that has no meaning here.
  """
  with _opened(path) as image:
    return image.height, image.width


def read(path: pathlib.Path) -> np.ndarray:
  """Returns the pixels of an image, RGB, uint8 [H, W, 3].

  Raises:
    BadInput: as `size`, and for a file that is damaged or cut short.
  """
  with _opened(path) as image:
    try:
      if image.mode in _WIDE:
        upper = np.asarray(image).astype(np.int64) >> 8
        grey = np.clip(upper, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
      return np.array(image.convert('RGB'))
    except Exception as error:  # A damaged image can raise nearly anything.
      raise _unreadable(path, error) from error


def write(path: pathlib.Path, image: np.ndarray) -> None:
  """Writes an image, RGB, uint8 [H, W, 3], as a PNG.

  Raises:
    OSError: if the file cannot be written.
  """
  try:
    from PIL import Image
  except ImportError as error:
    raise extras.missing('writing images', 'pillow') from error
  with files.atomic(path) as aside:
    Image.fromarray(image).save(aside, format='PNG')


def _opened(path: pathlib.Path) -> Any:
  """Returns the image with its head read, which closes itself after ``with``."""
  try:
    from PIL import Image
  except ImportError as error:
    raise extras.missing('reading images', 'pillow') from error
  try:
    image = Image.open(path, formats=('PNG', 'JPEG'))
  except Exception as error:
    raise _unreadable(path, error) from error
  if image.mode in _MODES:
    return image
  image.close()
  raise types.BadInput(
    f'{path}: expected an image in grey, of a palette or RGB, transparent or not; '
    f'found {image.mode}. Convert it to RGB.'
  )


def _unreadable(path: pathlib.Path, error: Exception) -> types.BadInput:
  return types.BadInput(
    f'{path}: expected a PNG or JPEG that can be read; found: '
    f'{reading.one_line(error)}.'
  )
