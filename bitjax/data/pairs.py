"""Pairs of images at low and high resolution, from folders, arrays or packages.

A pair belongs together pixel by pixel: pixel (r, c) of the low resolution covers the s x s
pixels from (s r, s c) on of the high one. Low resolutions come with the data set, or
are made by `bicubic`, which is how they were made in all these data sets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import operator
import os
import pathlib
from typing import Any, NamedTuple
import warnings

import numpy as np

from bitjax import files
from bitjax import types
from bitjax.data import photographs
from bitjax.data import pictures
from bitjax.data import reading
from bitjax.data import resampling

__all__ = ['PAIR_SPLITS', 'Pair', 'Pairs', 'load_pairs', 'make_pairs']

PAIR_SPLITS = ('train', 'test')

_EMBEDDED = 'photographs'
_OTHER = {'HR': 'LR', 'LR': 'HR'}  # The ends of names of a pair.
# The part of DIV2K's folders that says for what they are.
_FOLDERS = {'train': ('train',), 'test': ('valid', 'test')}


class Pair(NamedTuple):
  """An image twice: ``high`` is ``scale`` times as large as ``low`` on both sides.

  Attributes:
    name: what messages call it: a file's name, for example.
    low: RGB, uint8 [h, w, 3].
    high: RGB, uint8 [scale h, scale w, 3].
  """

  name: str
  low: np.ndarray
  high: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
  """A sequence of pairs, which are read one by one, when asked for.

  Attributes:
    name: of the data set.
    scale: how many times larger the images at high resolution are.
    names: name of each image.
    sizes: rows and columns of each image at low resolution.
    read: index -> `Pair`, from any thread.
  """

  name: str
  scale: int
  names: tuple[str, ...]
  sizes: tuple[tuple[int, int], ...]
  read: Callable[[int], Pair]

  def __post_init__(self):
    types.check_integer('scale', self.scale, 1)
    sizes = self.sizes
    if not isinstance(sizes, tuple) or not all(
      isinstance(size, tuple) and len(size) == 2 for size in sizes
    ):
      raise types.BadInput(
        'sizes must be a tuple of the (rows, columns) of each image; got '
        f'{types.shown(sizes)}.'
      )
    for length in (length for size in sizes for length in size):
      types.check_integer('sizes', length, 1)
    if not self.names or len(self.names) != len(sizes):
      raise types.BadInput(
        f'{self.name}: expected as many names as sizes, at least one; got '
        f'{len(self.names)} and {len(sizes)}.'
      )

  def __len__(self) -> int:
    """Returns the number of pairs."""
    return len(self.names)

  def __getitem__(self, index: int) -> Pair:
    """Reads a pair."""
    index = operator.index(index)  # Refuses slices by name.
    return self.read(range(len(self))[index])  # Which raises an IndexError.


def make_pairs(
  images: Mapping[str, Any], scale: int, *, name: str = 'arrays'
) -> Pairs:
  """Makes pairs of images at high resolution, by bicubic resampling.

  Args:
    images: name -> RGB, uint8 [H, W, 3], which is cropped at the right and bottom to
      multiples of the scale; a warning of one line says which were.
    scale: 2 for half the resolution, and so on.
    name: a name for messages.

  Raises:
    BadInput: for no images, or for one of another type or that is smaller than the scale.
  """
  types.check_integer('scale', scale, 1)
  kept = {}
  for label, image in images.items():
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
      raise types.BadInput(
        f'{label}: expected RGB, uint8 [H, W, 3]; got {image.dtype} '
        f'{list(image.shape)}.'
      )
    kept[label] = image
  sizes = {label: image.shape[:2] for label, image in kept.items()}
  low_sizes = _low_sizes(name, sizes, scale)
  found = tuple(
    _resampled(label, image, scale) for label, image in kept.items()
  )
  return Pairs(name, scale, tuple(kept), low_sizes, found.__getitem__)


def load_pairs(
  source: reading.PathLike, scale: int, *, split: str = 'train'
) -> Pairs:
  """Finds pairs in a folder, or takes photographs that come with Python packages.

  Args:
    source: ``'photographs'`` for eight training and four test images of scikit-image
      and scikit-learn, or a folder, which has one of these layouts:

      - files ``NAME_HR.png`` and ``NAME_LR.png``, also in ``image_SRF_2`` (for the scale
        2), as Set5, Set14, B100 and Urban100 are published. Others beside them, such as
        what methods made, are left out;
      - DIV2K's: folders ``DIV2K_train_HR`` and ``DIV2K_train_LR_bicubic/X2`` with
        ``0001.png`` and ``0001x2.png``, or ``HR`` and ``LR_bicubic/X2``. Without one of
        low resolutions they are made;
      - PNG and JPEG files, at high resolution. Low ones are made.

      Files whose names begin with a dot are left out.
    scale: how many times larger images at high resolution are.
    split: ``'train'`` or ``'test'``: which photographs, and which of DIV2K's folders
      (``'test'`` is its ``valid``). The other layouts have one part, for either.

  Returns:
    The pairs. Images of files are read when asked for; only their sizes are known
    before. Images whose sides are no multiples of the scale are cropped at the right and
    bottom, and a warning of one line says so.

  Raises:
    BadInput: for a folder without images, a low resolution that is missing, alone or of
      another size (both files are named), an image smaller than the scale, a file that
      cannot be read, or a missing package. One line.
  """
  types.check_integer('scale', scale, 1)
  types.check_choice('split', split, PAIR_SPLITS)
  if os.fspath(source) == _EMBEDDED:
    return make_pairs(photographs.read(split), scale, name=_EMBEDDED)
  folder = files.expand(source)
  found = _benchmark(folder, scale) or _div2k(folder, scale, split)
  if not found:
    found = [(path, None) for path in _images(folder)]
  if not found:
    raise types.BadInput(
      f'{folder}: expected a folder of PNG or JPEG images, of NAME_HR.png and '
      f'NAME_LR.png, or of DIV2K_{split}_HR; found '
      f'{"none of these" if folder.is_dir() else "no folder"}.'
    )
  sizes = {str(high): pictures.size(high) for high, _ in found}
  for high, low in found:
    if low is not None:
      _check_sizes(high, sizes[str(high)], low, pictures.size(low), scale)
  low_sizes = _low_sizes(str(folder), sizes, scale)

  def read(index: int) -> Pair:
    high, low = found[index]
    image = pictures.read(high)
    if low is None:
      return _resampled(high.name, image, scale)
    return Pair(high.name, pictures.read(low), _cropped(image, scale))

  names = tuple(high.name for high, _ in found)
  return Pairs(folder.name, scale, names, low_sizes, read)


_Files = list[tuple[pathlib.Path, pathlib.Path | None]]


def _benchmark(folder: pathlib.Path, scale: int) -> _Files:
  """Returns the files of a folder with NAME_HR and NAME_LR, if it is one."""
  inner = folder / f'image_SRF_{scale}'
  others = sorted(path.name for path in folder.glob('image_SRF_*'))
  if others and not inner.is_dir():
    raise types.BadInput(
      f'{folder}: expected {inner.name} for the scale {scale}; found '
      f'{", ".join(others)}.'
    )
  folder = inner if others else folder
  found: _Files = []
  for path in _images(folder):
    name, line, part = path.stem.rpartition('_')
    if not line or part not in _OTHER:
      continue
    other = path.with_name(f'{name}_{_OTHER[part]}{path.suffix}')
    if not other.is_file():
      raise types.BadInput(
        f'{path}: expected {other.name} beside it; found none.'
      )
    if part == 'HR':
      found.append((path, other))
  return found


def _div2k(folder: pathlib.Path, scale: int, split: str) -> _Files:
  """Returns the files of DIV2K's folders, if there are any."""
  homes = [
    path
    for path in sorted(folder.glob('*HR'))
    if path.is_dir()
    and (path.name == 'HR' or any(w in path.name for w in _FOLDERS[split]))
  ]
  if not homes:
    return []
  home = homes[0]
  lows = home.with_name(f'{home.name.removesuffix("HR")}LR_bicubic')
  inner = lows / f'X{scale}'
  if lows.is_dir() and not inner.is_dir():
    raise types.BadInput(
      f'{lows}: expected X{scale} for the scale {scale}; found '
      f'{", ".join(sorted(p.name for p in lows.iterdir())) or "nothing"}.'
    )
  found: _Files = []
  for high in _images(home):
    low = inner / f'{high.stem}x{scale}{high.suffix}'
    if lows.is_dir() and not low.is_file():
      raise types.BadInput(f'{high}: expected {low} for it; found none.')
    found.append((high, low if lows.is_dir() else None))
  return found


def _images(folder: pathlib.Path) -> list[pathlib.Path]:
  if not folder.is_dir():
    return []
  return sorted(
    path
    for path in folder.iterdir()
    if path.suffix.lower() in pictures.SUFFIXES
    and not path.name.startswith('.')  # What a Mac adds, ._a.png, is no image.
    and path.is_file()
  )


def _check_sizes(high, size, low, low_size, scale):
  if low_size != tuple(length // scale for length in size):
    rows, columns = size
    raise types.BadInput(
      f'{low}: expected an image {scale} times smaller than {high}, '
      f'{rows // scale} x {columns // scale} of {rows} x {columns}; found '
      f'{low_size[0]} x {low_size[1]}.'
    )


def _low_sizes(name, sizes, scale):
  """Returns sizes at low resolution; warns of what is cropped."""
  if not sizes:
    raise types.BadInput(f'{name}: expected at least one image; got none.')
  cropped = []
  for label, (rows, columns) in sizes.items():
    if min(rows, columns) < scale:
      raise types.BadInput(
        f'{label}: expected an image of {scale} pixels or more on a side; found '
        f'{rows} x {columns}.'
      )
    if rows % scale or columns % scale:
      cropped.append(label)
  if cropped:
    warnings.warn(
      f'{name}: {len(cropped)} of {len(sizes)} images are cropped to sides that '
      f'{scale} divides, {pathlib.Path(cropped[0]).name} for example.',
      stacklevel=3,
    )
  return tuple(
    (rows // scale, columns // scale) for rows, columns in sizes.values()
  )


def _cropped(image: np.ndarray, scale: int) -> np.ndarray:
  rows, columns = (length // scale * scale for length in image.shape[:2])
  return image[:rows, :columns]


def _resampled(name: str, image: np.ndarray, scale: int) -> Pair:
  """Returns the pair of an image at high resolution."""
  high = _cropped(image, scale)
  shape = high.shape[0] // scale, high.shape[1] // scale
  return Pair(name, resampling.bicubic_on_host(high, shape=shape), high)
