"""The study's figure: accuracy over a training, and what its layers do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bitjax.evidence import plots

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray

__all__ = ['page']

_CURVES = (
  ('train_accuracy', 'training, augmented', plots.GREY, '--'),
  ('validation_accuracy', 'validation', plots.BLUE, '-'),
)
_LAYERED = (
  ('flip_ratio', 'sign flips per\nweight and update', 1),
  ('saturated', 'latent weights\nbeyond ±1 (%)', 100),
  ('gradient_signal_to_noise', "gradient's signal\nto noise, 32 images", 1),
)


def page(results: xarray.Dataset) -> figure.Figure:
  """Draws accuracies by epoch, and flips, saturation and gradients of each layer.

  Args:
    results: what `study.run` returned, over seeds, epochs and layers.
  """
  from matplotlib import cm
  from matplotlib import colors as colors_lib
  from matplotlib import pyplot
  from matplotlib import ticker

  fig, axes = pyplot.subplots(2, 2, figsize=(6.75, 4.8), sharex=True)
  if results.attrs.get('own'):
    fig.suptitle(results.own, fontsize=8)
  epochs = results.epoch.values
  marker = 'o' if epochs.size < 4 else None
  ax = axes[0, 0]
  for name, label, color, line in _CURVES:
    samples = 100 * results[name].transpose('epoch', 'seed').values
    plots.band(
      ax,
      epochs,
      samples,
      color=color,
      linestyle=line,
      label=label,
      marker=marker,
      bounds=(0, 100),
    )
  test = 100 * float(results.test_accuracy.mean())
  ax.plot(
    epochs[-1], test, 's', color=plots.RED, label=f'test, once: {test:.1f} %'
  )
  ax.set_ylabel('accuracy (%)')
  ax.legend(loc='lower right')
  # Layers stand in the order of the network: a colour tells how deep one lies.
  colors = pyplot.get_cmap('viridis', max(results.layer.size, 2))
  last = results.layer.size - 1
  for ax, (name, label, unit) in zip(axes.flat[1:], _LAYERED, strict=True):
    mean = unit * results[name].mean('seed').transpose('layer', 'epoch').values
    for depth, values in enumerate(mean):
      ax.plot(
        epochs,
        values,
        color=colors(depth),
        linewidth=1.4 if depth in (0, last) else 0.8,
        linestyle={0: '--', last: ':'}.get(depth, '-'),
        label={0: 'first layer', last: 'last layer'}.get(depth),
        marker=marker,
      )
    ax.set_ylabel(label)
  flips = results.flip_ratio.values
  if np.any(flips > 0):
    smallest = float(flips[flips > 0].min())
    axes[0, 1].set_yscale('symlog', linthresh=smallest)
  if np.any(results.saturated.values > 0):
    axes[1, 0].set_ylim(bottom=0)
  else:
    axes[1, 0].set_ylim(0, 1)
    axes[1, 0].text(
      0.5, 0.5, 'none in any layer', transform=axes[1, 0].transAxes, ha='center'
    )
  axes[1, 1].axhline(0, color=plots.GREY, linewidth=0.6)
  for ax in axes[1]:
    ax.set_xlabel('epoch')
  bar = fig.colorbar(
    cm.ScalarMappable(colors_lib.Normalize(0.5, last + 1.5), colors),
    ax=axes,
    fraction=0.03,
    label='number of the layer, from the input',
  )
  bar.ax.yaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
  fig.legend(
    *axes[0, 1].get_legend_handles_labels(),
    loc='outside lower center',
    ncols=2,
  )
  return fig
