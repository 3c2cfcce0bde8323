"""Draws decibels over a training, and those of each test image above bicubic resampling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitjax.evidence import intervals
from bitjax.evidence import plots

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray

__all__ = ['page']

_SHOWN = 20  # Test images; all are in the mean.

_CURVES = (
  ('train_psnr', 'training patches', plots.GREY, '--'),
  ('validation_psnr', 'validation tiles', plots.BLUE, '-'),
)


def page(results: xarray.Dataset) -> figure.Figure:
  """Draws PSNR by update, and of whole test images.

  Args:
    results: of `trainings.train`.
  """
  from matplotlib import pyplot
  from matplotlib import ticker

  names = [name.rpartition('.')[0] or name for name in results.image.values]
  shown = [name.replace('_', ' ') for name in names[:_SHOWN]]
  fig, (left, right) = pyplot.subplots(
    1, 2, figsize=(6.75, max(2.4, 1.2 + 0.2 * len(shown)))
  )
  updates = results['update'].values
  marker = 'o' if len(updates) < 4 else None
  for name, label, color, line in _CURVES:
    samples = results[name].transpose('update', 'seed').values
    plots.band(
      left,
      updates,
      samples,
      color=color,
      linestyle=line,
      label=label,
      marker=marker,
    )
  left.set_xlabel('update')
  left.set_ylabel('PSNR (dB)')
  left.xaxis.set_major_locator(ticker.MaxNLocator(4, integer=True))
  left.legend(loc='best')
  gains = (
    (results.psnr - results.bicubic_psnr).transpose('seed', 'image').values
  )
  for row in range(len(shown)):
    found = intervals.interval(gains[:, row])
    plots.whisker(right, row, found, color=plots.BLUE, marker='s')
  plots.whisker(
    right,
    len(shown),
    intervals.interval(gains.mean(axis=1)),
    color=plots.BLUE,
  )
  right.axvline(0, color=plots.LIGHT_GREY, zorder=0)
  right.set_yticks(range(len(shown) + 1), [*shown, 'mean of all'], fontsize=7)
  right.set_ylim(len(shown) + 0.5, -0.5)
  right.set_xlabel('test images: PSNR above\nbicubic resampling (dB)')
  return fig
