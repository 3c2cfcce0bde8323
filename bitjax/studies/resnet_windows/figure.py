"""Draws accuracy, nearness and decrease against the window; in a supplement, all arms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax.evidence import contrasts
from bitjax.evidence import intervals
from bitjax.evidence import plots
from bitjax.evidence import twoway
from bitjax.studies.resnet_windows import arms as arms_lib
from bitjax.studies.resnet_windows import estimators
from bitjax.studies.resnet_windows import findings
from bitjax.studies.resnet_windows import models
from bitjax.studies.resnet_windows import onestep
from bitjax.studies.resnet_windows import tables

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray

__all__ = ['page']

_COLORS = dict(
  zip(models.STATES, (plots.TEAL, plots.BLUE, plots.RED), strict=True)
)
_UNITS: dict[str, Any] = dict(
  zip(estimators.FAMILIES, ('-', '--'), strict=True)
)
_STARTS = dict(
  zip(arms_lib.STARTS, ('random weights', 'full precision'), strict=True)
)
_STATES = {k: f'from {words}' for k, words in _STARTS.items()} | {
  models.TRAINED: 'after the training'
}
_COSINES = {'cosine': 'A', 'holdout_cosine': 'B'}
_MARKS = {estimators.NONE: 's', estimators.SHRINKING: 'v'}
_SIZE = 7  # Points, of numbers in heat maps.
_MOST = 12  # Layers whose cosines are printed in numbers.


def page(results: xarray.Dataset) -> dict[str, figure.Figure]:
  """Draws the answer, and in a supplement every arm and every network.

  Args:
    results: of the study.
  """
  return {
    'figure': _answer(results),
    'figure_supplement': _supplement(results),
  }


def _answer(results):
  from matplotlib import pyplot

  trained = tables.Trained(results)
  network = results.network.values.tolist()[0]
  looked = {
    state: tables.Looked(results, network, state)
    for state in models.STATES
    if state in results.state.values
  }
  fig, axes = pyplot.subplots(2, 2, figsize=(6.75, 5.6))
  _accuracies(axes[0, 0], trained)
  _decreases(axes[0, 1], looked)
  for ax, name in zip(axes[1], _COSINES, strict=True):
    _heat(fig, ax, looked[models.TRAINED], name)
  _key(fig)
  return fig


def _key(fig):
  """Says what colours, lines and markers mean, below the figure."""
  from matplotlib import lines

  handles = [
    lines.Line2D([], [], color=color, marker='o', label=_STATES[state])
    for state, color in _COLORS.items()
  ]
  styles: dict[str, Any] = {**_UNITS, estimators.KEPT_FAMILY: ':'}
  handles += [
    lines.Line2D([], [], color=plots.GREY, linestyle=style, label=family)
    for family, style in styles.items()
  ]
  handles += [
    lines.Line2D(
      [], [], color=plots.GREY, linestyle='', marker=marker, label=name
    )
    for name, marker in _MARKS.items()
  ]
  fig.legend(handles=handles, loc='outside lower center', ncols=4)


def _accuracies(ax, trained):
  """Draws accuracy against the half-width, by unit and start."""
  for start in arms_lib.STARTS:
    names = trained.names(start)
    for family, style in _UNITS.items():
      windows = tables.half_widths(names, family)
      if not windows:
        continue
      plots.band(
        ax,
        list(windows),
        [
          twoway.interval(trained.right(name, start), bounds=(0, 100))
          for name in windows.values()
        ],
        color=_COLORS[start],
        linestyle=style,
        marker='o',
      )
    _marks(ax, trained, start)
  plots.log_axis(ax)
  ax.set_xlabel('half-width (or in units of the rms)')
  ax.set_ylabel('test accuracy, last epoch (%)')


def _marks(ax, trained, start):
  """Marks what is no window of one width, at the right."""
  widest = max(
    c
    for family in _UNITS
    for c in (*tables.half_widths(trained.names(start), family), 1.0)
  )
  for (name, marker), factor in zip(_MARKS.items(), (2.0, 2.8), strict=True):
    if name in trained.names(start):
      found = twoway.interval(trained.right(name, start), bounds=(0, 100))
      ax.errorbar(
        [factor * widest],
        [found.mean],
        [[found.mean - found.low], [found.high - found.mean]],
        color=_COLORS[start],
        marker=marker,
        linewidth=1,
      )


def _decreases(ax, looked):
  """Draws what a step saves against the half-width of the window, by state."""
  for state, one in looked.items():
    for family, style in zip(
      (estimators.FAMILIES[0], estimators.KEPT_FAMILY), ('-', ':'), strict=True
    ):
      windows = tables.half_widths(one.names, family)
      if family == estimators.KEPT_FAMILY:
        windows = dict(sorted((windows | {1.0: estimators.ONE}).items()))
      saved = np.stack([one.saved(name) for name in windows.values()])
      plots.band(
        ax,
        list(windows),
        [intervals.interval(row) for row in saved],
        color=_COLORS[state],
        linestyle=style,
        marker='o',
      )
  ax.axhline(0, color=plots.GREY, lw=0.8, zorder=0)
  plots.log_axis(ax)
  ax.set_xlabel('half-width of the window')
  ax.set_ylabel('decrease of the loss on B\nby one step of all layers (nats)')


def _heat(fig, ax, looked, name):
  """Draws the cosine of the gradient on A with exact gains, by layer and window."""
  windows = tables.half_widths(looked.names, estimators.FAMILIES[0])
  columns = [*windows.values(), estimators.NONE]
  found = looked.layered(name).sel(estimator=columns).mean('seed')
  values = found.transpose('position', 'estimator').values
  shown = ax.imshow(values, aspect='auto', cmap='viridis')
  ax.grid(visible=False)
  ax.set_xticks(range(len(columns)), [*(f'{c:g}' for c in windows), 'none'])
  layers = found.position.values.astype(int)
  several = max(1, -(-len(layers) // _MOST))
  ax.set_yticks(range(0, len(layers), several), layers[::several].tolist())
  ax.set_xlabel('half-width of the window')
  ax.set_ylabel('quantized layer')
  ax.set_title(
    f'after the training: cosine with\nexact gains on {_COSINES[name]}'
  )
  if several == 1:
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (row, column), value in np.ndenumerate(values):
      ax.text(
        column,
        row,
        f'{value:.2f}',
        ha='center',
        va='center',
        fontsize=_SIZE,
        color='black' if value > middle else 'white',
      )
  fig.colorbar(shown, ax=ax, shrink=0.9)


def _supplement(results):
  from matplotlib import pyplot

  trained = tables.Trained(results)
  networks = results.network.values.tolist()
  states = results.state.values.tolist()
  most = max(len(trained.names(start)) for start in arms_lib.STARTS)
  heights = [0.7 + 0.2 * most, *[2.2] * len(networks)]
  fig = pyplot.figure(figsize=(6.75, min(9.0, 0.7 + sum(heights))))
  parts: Any = fig.subfigures(1 + len(networks), 1, height_ratios=heights)
  for ax, start in zip(
    parts[0].subplots(1, 2), arms_lib.STARTS[::-1], strict=True
  ):
    _differences(ax, trained, start)
  for part, network in zip(parts[1:], networks, strict=True):
    for ax, state in zip(
      part.subplots(1, len(states), squeeze=False)[0], states, strict=True
    ):
      _steps(ax, tables.Looked(results, network, state))
  handles, labels = ax.get_legend_handles_labels()
  fig.legend(handles, labels, loc='outside lower center', ncols=5, fontsize=8)
  return fig


def _differences(ax, trained, start):
  """Draws every arm's accuracy, less that of window 1."""
  names = [n for n in trained.names(start) if n != estimators.ONE]
  samples = [trained.difference(n, estimators.ONE, start) for n in names]
  for row, found in enumerate(twoway.simultaneous(samples, bounds=(-100, 100))):
    plots.whisker(ax, row, found, color=_COLORS[start])
  ax.set_yticks(range(len(names)), names, fontsize=_SIZE)
  ax.set_ylim(len(names) - 0.5, -0.5)
  if start == arms_lib.STARTS[-1]:
    plots.primary_rows(ax, names.index(estimators.HALF))
  _margin(ax, findings.MARGIN)
  ax.set_xlabel('accuracy less that of window 1\n(points)')
  ax.set_title(f'from {_STARTS[start]}')


def _steps(ax, looked):
  """Draws nearness to exact gains on B against the loss after a step, by estimator."""
  one = looked.reached(estimators.ONE)
  families: dict[str, list[Any]] = {}
  for name in looked.names:
    near = np.nanmean(looked.mean('holdout_cosine', estimator=name))
    better = np.nanmean(contrasts.log_ratio(one, looked.reached(name)))
    families.setdefault(_group(name), []).append((near, better))
  for (group, points), color, marker in zip(
    families.items(),
    (plots.BLUE, plots.DARK_BLUE, plots.TEAL, plots.RED, plots.GREY),
    'oDs^v',
    strict=False,
  ):
    ax.plot(
      *zip(*points, strict=True),
      linestyle='',
      marker=marker,
      color=color,
      label=group,
      alpha=0.8,
    )
  for side in (-1, 1):
    ax.axhline(side * onestep.MARGIN, color=plots.LIGHT_GREY, lw=0.8, zorder=0)
  ax.set_title(
    f'{looked.network.replace("_", " ")}, {looked.state}', fontsize=8
  )
  ax.set_xlabel('cosine with exact gains on B', fontsize=8)
  ax.xaxis.set_major_locator(_few_ticks())
  if ax.get_subplotspec().is_first_col():
    ax.set_ylabel(
      'log loss ratio on B,\nabove 0: better than window 1', fontsize=_SIZE
    )


def _few_ticks():
  from matplotlib import ticker

  return ticker.MaxNLocator(4)


def _group(name):
  """Returns the legend's word for an estimator."""
  family = estimators.of(name).family
  known = (*estimators.FAMILIES, estimators.KEPT_FAMILY, estimators.NONE)
  return family if family in known else 'other shape'


def _margin(ax, margin):
  ax.axvspan(-margin, margin, color=plots.LIGHT_GREY, alpha=0.4, lw=0, zorder=0)
  ax.axvline(0, color=plots.GREY, lw=0.8, zorder=0)
