"""Draws accuracy by estimator, what the tuning saw, and fitted widths by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bitjax.evidence import intervals
from bitjax.evidence import plots
from bitjax.evidence import twoway
from bitjax.studies.fitted_windows import arms as arms_lib
from bitjax.studies.fitted_windows import findings
from bitjax.studies.recipes import outcomes

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray

__all__ = ['page']


def page(results: xarray.Dataset) -> dict[str, figure.Figure]:
  """Draws the answer, and in a supplement the parameters and the fitted widths.

  Args:
    results: of `trainings.compare`.
  """
  return {
    'figure': _accuracies(results),
    'figure_supplement': _parameters(results),
  }


def _accuracies(results):
  from matplotlib import pyplot

  found = outcomes.tested(results)
  names = found.arm.values.tolist()
  primary = arms_lib.primary(names)
  usual = primary[1]
  fig, axes = pyplot.subplots(1, 2, figsize=(6.75, 1.6 + 0.26 * len(names)))
  for row, name in enumerate(names):
    at = found.sel(arm=name)
    right = at.right.transpose('seed', 'test_example').values
    training = 100 * at.clean_train_accuracy.values
    for offset, one, marker, color, label in (
      (-0.14, twoway.interval(right, bounds=(0, 100)), 'o', plots.BLUE, 'test'),
      (
        0.14,
        intervals.interval(training, bounds=(0, 100)),
        's',
        plots.GREY,
        'training',
      ),
    ):
      plots.whisker(
        axes[0],
        row + offset,
        one,
        color=color,
        marker=marker,
        label=None if row else label,
      )
    if name != usual:
      less = found.right.sel(arm=usual).transpose('seed', 'test_example')
      plots.whisker(
        axes[1],
        row,
        twoway.interval(right - less.values, bounds=(-100, 100)),
        color=plots.BLUE,
      )
  axes[0].set_yticks(range(len(names)), names)
  axes[1].set_yticks([])
  for ax in axes:
    ax.set_ylim(len(names) - 0.5, -0.5)
    plots.primary_rows(ax, *(names.index(n) for n in primary))
  axes[0].set_xlabel('accuracy, last epoch (%)')
  axes[0].legend(fontsize=7)
  axes[1].axvspan(
    -findings.MARGIN,
    findings.MARGIN,
    color=plots.LIGHT_GREY,
    alpha=0.4,
    lw=0,
    zorder=0,
  )
  axes[1].axvline(0, color=plots.GREY, lw=0.8, zorder=0)
  axes[1].set_xlabel(
    f'test accuracy less that of {usual}\n(points; band: does not matter)'
  )
  return fig


def _parameters(results):
  from matplotlib import pyplot

  losses = results.tuning_validation_loss.mean('tuning_seed').min('rate')
  names = [n for n in losses.arm.values.tolist() if arms_lib.arm_of(n).values]
  layers = findings.fitted_layers(results)
  several = bool(layers) and results.sizes['epoch'] > 1
  fig, axes = pyplot.subplots(
    1, 1 + several, figsize=(6.75 if several else 4, 3), squeeze=False
  )
  colors = [plots.BLUE, plots.CYAN, plots.TEAL, plots.ORANGE, plots.RED]
  colors += [plots.DARK_BLUE, plots.GREY]
  ax = axes[0, 0]
  for name, color in zip(names, colors, strict=False):
    values = np.asarray(arms_lib.arm_of(name).values)
    middle = values[1] if values.size > 1 else values[0]
    label = f'{name} ({middle:g})'
    row = losses.sel(arm=name).values
    ax.plot(values / middle, row, marker='o', color=color, label=label)
  plots.log_axis(ax)
  ax.set_xlabel('parameter, as a multiple of the middle one')
  ax.set_ylabel('validation loss of the tuning seeds\n(best rate; nats)')
  low, high = ax.get_ylim()
  ax.set_ylim(low, high + 0.6 * (high - low))  # Room for the legend.
  ax.legend(fontsize=7, loc='upper left')
  if several:
    _layers(axes[0, 1], results, layers)
  return fig


def _layers(ax, results, layers):
  from matplotlib import pyplot
  from matplotlib import ticker

  widths = results.width.sel(arm=arms_lib.FITTED).transpose(
    'seed', 'epoch', ...
  )
  shades = pyplot.get_cmap('viridis')(np.linspace(0, 0.85, len(layers)))
  for layer, color in zip(layers, shades, strict=True):
    plots.band(
      ax,
      results.epoch.values,
      widths.sel(layer=layer).values.T,
      color=color,
      label=f'before {layer}',
      bounds=(1e-3, np.inf),
    )
  ax.set_yscale('log')
  ax.yaxis.set_major_formatter(ticker.FormatStrFormatter('%g'))
  ax.yaxis.set_minor_formatter(ticker.FormatStrFormatter('%g'))
  ax.xaxis.get_major_locator().set_params(integer=True)
  ax.set_xlabel('epoch')
  ax.set_ylabel('fitted sigma / spread')
  ax.legend(fontsize=7)
