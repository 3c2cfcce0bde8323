"""Draws accuracies by arm and start; in a supplement, gradients by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bitjax.evidence import intervals
from bitjax.evidence import plots
from bitjax.evidence import twoway
from bitjax.studies.initialisation import arms as arms_lib
from bitjax.studies.initialisation import findings

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray

__all__ = ['page']

_COLORS = (
  plots.BLUE,
  plots.RED,
  plots.TEAL,
  plots.ORANGE,
  plots.CYAN,
  plots.DARK_BLUE,
)


_WORDS = {
  'kaiming_normal': 'Kaiming, normal',
  'kaiming': 'Kaiming, uniform',
  'kaiming_fan_out': 'Kaiming, fan out',
  'xavier': 'Xavier',
  'fitted': 'gains fitted',
  'kaiming_normal, small': 'small classifier',
}
_DEPTHS = {'resnet4': 'ResNet-4'} | {
  f'resnet{depth}': f'ResNet-{depth}' for depth in (8, 20, 32)
}
_SHORTCUTS = {'plain': 'plain', 'bireal': 'Bi-Real'}


def page(results: xarray.Dataset) -> dict[str, figure.Figure]:
  """Draws what trainings reach, and what passes the windows of untrained networks.

  Args:
    results: of the study.
  """
  return {
    'figure': _trained(findings.Table(results)),
    'figure_supplement': _untrained(results),
  }


def _trained(table):
  from matplotlib import pyplot

  starts, factorial = table.starts, table.factorial
  height = 1.5 + 0.26 * max(len(starts) + 1, len(factorial))
  fig, axes = pyplot.subplots(1, 2 + bool(starts), figsize=(6.75, height + 0.4))
  reference = arms_lib.Arm()
  # Pairs of the classifier's spread stand together.
  order = sorted(factorial, key=lambda arm: (arm.fast, arm.decayed, arm.small))
  for row, arm in enumerate(order):
    plots.whisker(
      axes[0],
      row,
      twoway.interval(table.right(arm), bounds=(0, 100)),
      color=plots.RED if arm.small else plots.BLUE,
      label={0: "Kaiming's spread", 1: "PyTorch's, small"}.get(row),
    )
  names = [
    ', '.join(c for c in arms_lib.CHANGES if getattr(arm, c)) or 'as all else'
    for arm in order
  ]
  _rows(axes[0], names)
  axes[0].set_title('classifier')
  axes[0].set_xlabel('test accuracy (%)')

  effects = {
    'small': table.effect('small'),
    'fast': table.effect('fast'),
    'decayed': table.effect('decayed'),
    'small × fast': table.effect('small', 'fast'),
    'small × decayed': table.effect('small', 'decayed'),
  }
  for row, samples in enumerate(effects.values()):
    plots.whisker(axes[1], row, twoway.interval(samples), color=plots.DARK_BLUE)
  _rows(axes[1], list(effects))
  plots.primary_rows(axes[1], 0)
  line = _margin(axes[1])
  axes[1].set_title('its effects')

  if starts:
    differences = [
      table.right(arms_lib.Arm(name)) - table.right(reference)
      for name in starts
    ]
    joint = twoway.simultaneous(differences, bounds=(-100, 100))
    for row, found in enumerate(joint):
      plots.whisker(axes[2], row, found, color=plots.TEAL)
    _rows(axes[2], starts)
    _margin(axes[2])
    axes[2].set_title('other layers')
    axes[2].set_xlabel('difference (points)')
  axes[1].set_xlabel('difference (points)')
  handles, labels = axes[0].get_legend_handles_labels()
  handles.append(pyplot.Rectangle((0, 0), 1, 1, color=plots.PRIMARY))
  handles.append(line)
  labels += ['primary contrast', 'what counts']
  fig.legend(handles, labels, loc='outside lower left', ncols=4)
  return fig


def _rows(ax, names):
  shown = [_WORDS.get(name, name) for name in names]
  ax.set_yticks(range(len(names)), shown, fontsize=7)
  ax.set_ylim(len(names) - 0.5, -0.5)


def _margin(ax):
  for end in (-findings.MARGIN, findings.MARGIN):
    line = ax.axvline(end, color=plots.GREY, linewidth=0.8, linestyle='--')
  ax.axvline(0, color=plots.GREY, linewidth=0.6)
  return line


def _untrained(results):
  from matplotlib import pyplot
  from matplotlib import ticker

  shortcuts = results.shortcut.values.tolist()
  fig, axes = pyplot.subplots(
    2, len(shortcuts) + 1, figsize=(6.75, 5.4), squeeze=False
  )
  for column, shortcut in enumerate(shortcuts):
    at = results.sel(shortcut=shortcut, start=arms_lib.REFERENCE)
    for depth, color in zip(results.depth.values, _COLORS, strict=False):
      for row, name in enumerate(('mass_at', 'log_norm_at')):
        values = at[name].sel(depth=depth).transpose('position', 'seed')
        known = np.isfinite(values.values).all(1)
        scaled = 100 * values.values if name == 'mass_at' else 2**values.values
        plots.band(
          axes[row, column],
          results.position.values[known],
          scaled[known],
          color=color,
          label=_DEPTHS[depth],
          marker='o' if known.sum() < 7 else None,
        )
    axes[0, column].set_title(_SHORTCUTS[shortcut])
    if column:
      axes[0, column].sharey(axes[0, 0])
      axes[1, column].sharey(axes[1, 0])
    axes[0, column].set_ylabel('gradient that passes (%)')
    axes[1, column].set_yscale('log', base=2)
    axes[1, column].yaxis.set_major_formatter(ticker.FormatStrFormatter('%.2g'))
    axes[1, column].set_ylabel('norm of the gradient')
    for ax in axes[:, column]:
      ax.set_xlabel('quantized layer')
      ax.xaxis.get_major_locator().set_params(integer=True)
  deepest = results.depth.values[-1]
  starts = results.start.values.tolist()
  for row, (name, words, factor) in enumerate(
    (
      ('mass', 'passes (%)', 100),
      ('halvings', 'halvings in a layer', 1),
    )
  ):
    ax = axes[row, -1]
    for shortcut, color, offset in zip(
      shortcuts, (plots.BLUE, plots.RED), (-0.15, 0.15), strict=False
    ):
      at = results[name].sel(depth=deepest, shortcut=shortcut)
      for position, start in enumerate(starts):
        plots.whisker(
          ax,
          position + offset,
          intervals.interval(factor * at.sel(start=start).values.astype(float)),
          color=color,
          label=None if position else _SHORTCUTS[shortcut],
        )
    _rows(ax, starts)
    ax.set_xlabel(words)
    ax.set_title(_DEPTHS[deepest])
  axes[1, -1].axvline(0, color=plots.GREY, linewidth=0.6)
  handles, labels = axes[0, 0].get_legend_handles_labels()
  more = axes[1, -1].get_legend_handles_labels()
  fig.legend(
    handles + more[0], labels + more[1], loc='outside lower left', ncols=5
  )
  return fig
