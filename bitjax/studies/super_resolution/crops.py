"""Draws crops of one image side by side: the truth, and what each network makes of it."""

from __future__ import annotations

from collections.abc import Sequence
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
  from matplotlib import figure

__all__ = ['Crop', 'draw']

_COLUMNS = 5


class Crop(NamedTuple):
  """A panel of the figure.

  Attributes:
    name: what made it.
    pixels: uint8 [h, w, 3].
    psnr: decibels of the whole image on luma; None for the truth.
  """

  name: str
  pixels: np.ndarray
  psnr: float | None = None


def draw(crops: Sequence[Crop], title: str) -> figure.Figure:
  """Draws crops in rows of five, with PSNR under each.

  Args:
    crops: the panels, all of one size.
    title: what is shown.
  """
  from matplotlib import pyplot

  rows = -(-len(crops) // _COLUMNS)
  height, width = crops[0].pixels.shape[:2]
  side = 6.75 / _COLUMNS
  fig, axes = pyplot.subplots(
    rows,
    _COLUMNS,
    figsize=(6.75, 0.3 + rows * (0.5 + side * height / width)),
    squeeze=False,
  )
  for ax in axes.flat:
    ax.grid(False)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
      spine.set_visible(False)
  for ax, crop in zip(axes.flat, crops, strict=False):
    ax.imshow(crop.pixels, interpolation='nearest')
    decibels = '' if crop.psnr is None else f'\n{crop.psnr:.2f} dB'
    name = re.sub(r' (with|at|and) ', r'\n\1 ', crop.name)
    ax.set_xlabel(f'{name}{decibels}', fontsize=7)
  fig.suptitle(title, fontsize=9)
  return fig
