"""Smaller data sets: fewer examples, and smaller images.

Many trainings fit in the time of one, if the images are small and few. How small is part
of what is asked, so it is an argument of a study and not another data set.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from bitjax import types
from bitjax.data import datasets
from bitjax.data import evaluation

__all__ = ['reduced']


def reduced(
  dataset: datasets.Dataset,
  *,
  examples: int | None = None,
  side: int | None = None,
) -> datasets.Dataset:
  """Returns a part of a data set, with smaller images.

  Args:
    dataset: the data.
    examples: how many examples, with the shares of classes of the whole, in its order; the
      same ones on every machine. None for all.
    side: height and width of the images, each pixel the mean of a square of pixels,
      rounded (halves to even); it divides the images' own. None for the images as they are.

  Returns:
    A data set of the same name, split and scale.

  Raises:
    BadInput: for more examples than there are, images that are not square, or a side that
      does not divide theirs.
  """
  if examples is not None:
    total = len(dataset.labels)
    examples = types.check_integer('examples', examples, 1)
    if examples > total:
      raise types.BadInput(
        f'examples must be at most {total}, all that there are; got {examples}.'
      )
    if examples < total:
      _, part = evaluation.split_validation(dataset, examples, 0)
      dataset = dataclasses.replace(part, split=dataset.split)
  if side is None:
    return dataset
  side = types.check_integer('side', side, 1)
  count, height, width, channels = dataset.images.shape
  if height != width or height % side:
    raise types.BadInput(
      f'side must divide the height and width of square images, {height} x '
      f'{width}; got {side}.'
    )
  if side == height:
    return dataset
  block = height // side
  squares = dataset.images.reshape(count, side, block, side, block, channels)
  sums = squares.sum(axis=(2, 4), dtype=np.int64)
  images = np.rint(sums / block**2).astype(np.uint8)
  images.setflags(write=False)
  return dataclasses.replace(dataset, images=images)
