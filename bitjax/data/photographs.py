"""Photographs that come with Python packages, so that super-resolution needs no files.

scikit-learn ships two and scikit-image some more. Those below are split by scene, so that
no patch of a test image is ever trained on (of the stereo pair only one is taken). Some are
JPEGs, whose decoders may differ by a grey level; so it is sizes and means that are checked,
not checksums.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bitjax import extras
from bitjax import types

__all__ = ['PARTS', 'read']


class _Photograph(NamedTuple):
  """The sides of a photograph and its mean over all values, in grey levels."""

  shape: tuple[int, ...]
  mean: float


_TRAIN = {
  'china': _Photograph((427, 640, 3), 143.702),
  'flower': _Photograph((427, 640, 3), 61.905),
  'rocket': _Photograph((427, 640, 3), 65.277),
  'stereo_motorcycle': _Photograph((500, 741, 3), 107.705),
  'brick': _Photograph((512, 512), 111.455),
  'grass': _Photograph((512, 512), 118.224),
  'gravel': _Photograph((512, 512), 126.545),
  'coins': _Photograph((303, 384), 96.856),
}
_TEST = {
  'astronaut': _Photograph((512, 512, 3), 114.599),
  'camera': _Photograph((512, 512), 129.061),
  'chelsea': _Photograph((300, 451, 3), 115.305),
  'coffee': _Photograph((400, 600, 3), 98.616),
}
PARTS = {'train': _TRAIN, 'test': _TEST}

_OF_SKLEARN = ('china', 'flower')
_TOLERANCE = 0.5  # Grey levels, of a mean.


def read(part: str) -> dict[str, np.ndarray]:
  """Returns name -> RGB, uint8 [H, W, 3], of eight training or four test images.

  Args:
    part: ``'train'`` or ``'test'``.

  Raises:
    BadInput: if a package is missing or ships other images than expected.
  """
  return {name: _read(name, known) for name, known in PARTS[part].items()}


def _read(name: str, known: _Photograph) -> np.ndarray:
  try:
    from skimage import data as pictures
    from sklearn import datasets
  except ImportError as error:
    raise extras.missing(
      'photographs', 'scikit-image', 'scikit-learn'
    ) from error
  if name in _OF_SKLEARN:
    found = datasets.load_sample_image(f'{name}.jpg')
  else:
    found = getattr(pictures, name)()
  if name.startswith('stereo'):
    found = found[0]
  image = np.asarray(found)
  if (
    image.shape != known.shape
    or image.dtype != np.uint8
    or abs(image.mean() - known.mean) > _TOLERANCE
  ):
    raise types.BadInput(
      f'photographs: expected {name} to be uint8 {list(known.shape)} of mean '
      f'{known.mean}; found {image.dtype} {list(image.shape)} of mean '
      f'{image.mean():.3f}. This version of the package has other images.'
    )
  if image.ndim == 2:
    image = np.repeat(image[..., None], 3, axis=2)
  return image
