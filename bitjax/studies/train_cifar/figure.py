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
  ('flip_ratio', 'sign flips per\nweight and update'),
  ('saturated', 'latent weights\nbeyond ±1 (share)'),
  ('gradient_signal_to_noise', "gradient's signal\nto noise, 32 images"),
)


def page(results: xarray.Dataset) -> figure.Figure:
  """Draws accuracies by epoch, and flips, saturation and gradients of each layer.

  Args:
    results: what `study.run` returned, over seeds, epochs and layers.
  """
  from matplotlib import pyplot

  fig, axes = pyplot.subplots(2, 2, figsize=(6.75, 4.6), sharex=True)
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
  layers = results.layer.values.tolist()
  colors = pyplot.get_cmap('viridis')(np.linspace(0, 0.92, len(layers)))
  for ax, (name, label) in zip(axes.flat[1:], _LAYERED, strict=True):
    mean = results[name].mean('seed').transpose('layer', 'epoch').values
    for layer, color, values in zip(layers, colors, mean, strict=True):
      ax.plot(
        epochs, values, color=color, linewidth=0.9, label=layer, marker=marker
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
  handles, labels = axes[0, 1].get_legend_handles_labels()
  fig.legend(
    handles,
    labels,
    loc='outside right center',
    title='layer',
    fontsize=6 if len(labels) > 12 else 8,
  )
  return fig
