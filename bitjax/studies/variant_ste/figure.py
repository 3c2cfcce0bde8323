"""The study's figure: effects of the variants, changed gradients and nearness."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from bitjax.evidence import plots
from bitjax.studies.variant_ste import findings

if TYPE_CHECKING:
  from matplotlib import axes as axes_lib
  from matplotlib import figure
  import xarray

__all__ = ['affected', 'nearness', 'others', 'page', 'windows']

STYLES = {
  'window on activations': (plots.BLUE, 'o', '-'),
  'window on weights': (plots.RED, 's', '--'),
  'window on both': (plots.TEAL, '^', ':'),
}
OTHER = plots.GREY
# Factors on the abscissa, which keep equal effects of two families apart.
_DODGE = dict(zip(STYLES, (0.96, 1.0, 1.04), strict=True))
_GAIN = "gain over nSTE on B\n(% of nSTE's decrease)"


def page(results: xarray.Dataset) -> figure.Figure:
  """Draws a column of three panels for each state, and a column of other variants.

  The three panels are the effect of the windows, the share of the gradient that they
  affect, and the nearness of all variants to the discrete gradient.

  Args:
    results: of `arms.compare`.
  """
  from matplotlib import pyplot

  states = results.state.values.tolist()
  rows = [row[: len(states)] for row in ('ab', 'cd', 'ef')]
  fig, axes = pyplot.subplot_mosaic(
    ';'.join(f'{row}o' for row in rows),
    figsize=(6.75, 6.6),
    width_ratios=[1] * len(states) + [1.1],
    height_ratios=[2, 1, 2],
  )
  for state, *column in zip(states, *rows, strict=True):
    top, middle, bottom = (axes[panel] for panel in column)
    windows(top, results, state)
    affected(middle, results, state)
    nearness(bottom, results, state)
  others(axes['o'], results)
  axes['a'].set_ylabel(_GAIN)
  axes['c'].set_ylabel('gradient\nchanged (%)')
  axes['e'].set_ylabel(_GAIN)
  drawn = [axes[panel].get_legend_handles_labels() for panel in 'ae']
  lines = [[*a, *b] for a, b in zip(*drawn, strict=True)]
  fig.legend(*lines, loc='outside lower left', ncols=3)
  lines = axes['o'].get_legend_handles_labels()
  fig.legend(*lines, loc='outside lower right', ncols=2)
  return fig


def windows(ax: axes_lib.Axes, results: xarray.Dataset, state: str) -> None:
  """Draws the effect against the half-width of the window, with bands.

  Args:
    ax: where to draw.
    results: of `arms.compare`.
    state: of the network.
  """
  found = findings.spread(results, state)
  for family, (color, marker, style) in STYLES.items():
    indices = _indices(results, family)
    if not indices:
      continue
    x = _DODGE[family] * results.setting.values[indices]
    plots.band(
      ax, x, [_percent(found[index]) for index in indices],
      color=color, marker=marker, linestyle=style, label=family,
    )  # fmt: skip
  margin = 100 * findings.MARGIN
  ax.axhspan(-margin, margin, color=OTHER, alpha=0.12, linewidth=0)
  ax.axhline(0, color='black', linewidth=0.8)
  _half_widths(ax, results)
  ax.set_title(f'{state} network')


def affected(ax: axes_lib.Axes, results: xarray.Dataset, state: str) -> None:
  """Draws the share of the gradient's entries that each window changes.

  Args:
    ax: where to draw.
    results: of `arms.compare`.
    state: of the network.
  """
  share = results['affected'].sel(state=state)
  for family, (color, marker, style) in STYLES.items():
    indices = _indices(results, family)
    samples = share.isel(variant=indices).transpose('variant', 'seed')
    if indices:
      plots.band(
        ax, _DODGE[family] * results.setting.values[indices], 100 * samples,
        color=color, marker=marker, linestyle=style, bounds=(0, 100),
      )  # fmt: skip
  _half_widths(ax, results)
  ax.set_ylim(-5, 105)
  ax.set_xlabel("window's half-width")


def nearness(ax: axes_lib.Axes, results: xarray.Dataset, state: str) -> None:
  """Draws the effect of each variant against its cosine with the discrete gradient.

  Bars are simultaneous intervals of the effects; the cross is the normal STE.

  Args:
    ax: where to draw.
    results: of `arms.compare`.
    state: of the network.
  """
  cosine = results['discrete_cosine'].sel(state=state).mean('seed').values
  inert = findings.inert(results, state)
  found = findings.spread(results, state)
  families = results.family.values.tolist()
  labels = {OTHER: 'another estimator'}
  for index, name in enumerate(results.variant.values.tolist()[1:], start=1):
    if name in inert:
      continue
    color, marker, _ = STYLES.get(families[index], (OTHER, 'D', ''))
    effect = _percent(found[index])
    x = cosine[index]
    ax.plot([x, x], [effect.low, effect.high], color=color, linewidth=0.6)
    ax.plot(
      x, effect.mean, marker=marker, color=color, linestyle='',
      label=labels.pop(color, None),
    )  # fmt: skip
  ax.plot(
    cosine[0], 0, marker='+', color='black', markersize=9, linestyle='',
    label='normal STE',
  )  # fmt: skip
  ax.axhline(0, color='black', linewidth=0.8)
  ax.set_xlabel('cosine with the\ndiscrete gradient, A')


def others(ax: axes_lib.Axes, results: xarray.Dataset) -> None:
  """Draws all other variants, one row each, with simultaneous intervals.

  Filled markers stand for the initialised network, open ones for the trained one, and
  crosses for inert variants.

  Args:
    ax: where to draw.
    results: of `arms.compare`.
  """
  names = results.variant.values.tolist()
  families = results.family.values.tolist()
  rows = [
    index
    for family in dict.fromkeys(families[1:])
    if family not in STYLES
    for index in _indices(results, family)
  ]
  states = results.state.values.tolist()
  looks = ((-0.16, True), (0.16, False))  # Offset, and whether filled.
  for state, (offset, filled) in zip(states, looks, strict=False):
    found = [_percent(interval) for interval in findings.spread(results, state)]
    inert = findings.inert(results, state)
    for row, index in enumerate(rows):
      y = row + offset
      if names[index] in inert:
        ax.plot(0, y, marker='x', color=OTHER, markersize=4)
        continue
      plots.whisker(
        ax, y, found[index], color=plots.BLUE, filled=filled,
        label=state if row == len(rows) - 1 else None,
      )  # fmt: skip
  margin = 100 * findings.MARGIN
  ax.axvspan(-margin, margin, color=OTHER, alpha=0.12, linewidth=0)
  ax.axvline(0, color='black', linewidth=0.8)
  ax.set_yticks(range(len(rows)), [names[index] for index in rows], fontsize=6)
  ax.set_ylim(len(rows) - 0.5, -0.5)
  ax.set_xlabel(_GAIN)


def _indices(results, family):
  indices = np.flatnonzero(results.family.values == family)
  return indices[np.argsort(results.setting.values[indices])].tolist()


def _half_widths(ax, results):
  drawn = [index for family in STYLES for index in _indices(results, family)]
  ticks = np.unique(results.setting.values[drawn])
  ax.set_xscale('log')
  ax.set_xticks(ticks, [f'{tick:g}' for tick in ticks], fontsize=7)
  ax.set_xticks([], minor=True)


def _percent(interval):
  scaled = {n: 100 * getattr(interval, n) for n in ('mean', 'low', 'high')}
  return dataclasses.replace(interval, **scaled)
