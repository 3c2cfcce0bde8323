"""The crops on which activations and gradients are measured."""

from __future__ import annotations

import numpy as np

from bitjax.studies.recipes import pairs as pairs_lib

__all__ = ['crops']


def crops(
  parts: pairs_lib.Parts, number: int, side: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the middles of some images at low and at high resolution.

  Args:
    parts: the images; those of the test set come first, then validation and training.
    number: how many images, at most.
    side: height and width of a crop at low resolution; less if an image is smaller.

  Returns:
    uint8 [images, side, side, 3] and [images, scale side, scale side, 3].
  """
  pairs = []
  for part in reversed(parts):
    pairs += [
      part[index] for index in range(min(len(part), number - len(pairs)))
    ]
  scale = parts.test.scale
  side = min(side, *(min(pair.low.shape[:2]) for pair in pairs))
  low, high = [], []
  for pair in pairs:
    row, column = ((length - side) // 2 for length in pair.low.shape[:2])
    low.append(pair.low[row : row + side, column : column + side])
    row, column = scale * row, scale * column
    far = scale * side
    high.append(pair.high[row : row + far, column : column + far])
  return np.stack(low), np.stack(high)
