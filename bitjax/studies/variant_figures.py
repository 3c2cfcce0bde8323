"""Figures of the variants: effect, and the share of the gradient that it affects."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from bitjax.studies import plots
from bitjax.studies import variant_findings as findings

if TYPE_CHECKING:
  from matplotlib import axes as axes_lib
  from matplotlib import figure
  import xarray

__all__ = ['affected', 'others', 'page', 'windows']

PLACES = {
  'window on activations': ('#0077BB', 'o', '-'),
  'window on weights': ('#CC3311', 's', '--'),
  'window on both': ('#009988', '^', ':'),
}


def page(results: xarray.Dataset) -> figure.Figure:
  """Effect of the windows, affected share beneath, all else beside.

  Args:
    results: of `toy_variants.compare`.
  """
  from matplotlib import pyplot

  states = results.state.values.tolist()
  tops, bottoms = 'ab'[: len(states)], 'cd'[: len(states)]
  fig, axes = pyplot.subplot_mosaic(
    f'{tops}o;{tops}o;{bottoms}o',
    figsize=(6.75, 4.8),
    width_ratios=[1] * len(states) + [1.1],
  )
  for state, top, bottom in zip(states, tops, bottoms, strict=True):
    windows(axes[top], results, state)
    affected(axes[bottom], results, state)
  others(axes['o'], results)
  axes['a'].set_ylabel("gain over nSTE on B\n(% of nSTE's decrease)")
  axes['c'].set_ylabel('gradient changed (%)')
  lines = axes['a'].get_legend_handles_labels()
  fig.legend(*lines, loc='outside lower left', ncols=3)
  lines = axes['o'].get_legend_handles_labels()
  fig.legend(*lines, loc='outside lower right', ncols=2)
  return fig


def windows(ax: axes_lib.Axes, results: xarray.Dataset, state: str) -> None:
  """Draws the effect against the half-width of the window, with bands.

  Args:
    ax: where to draw.
    results: of `toy_variants.compare`.
    state: of the network.
  """
  found = findings.spread(results, state)
  for family, (color, marker, style) in PLACES.items():
    places = _places(results, family)
    if not places:
      continue
    x = results.setting.values[places]
    plots.band(
      ax, x, [_percent(found[place]) for place in places],
      color=color, marker=marker, linestyle=style, label=family,
    )  # fmt: skip
  margin = 100 * findings.MARGIN
  ax.axhspan(-margin, margin, color='#888888', alpha=0.12, linewidth=0)
  ax.axhline(0, color='black', linewidth=0.8)
  _half_widths(ax, results)
  ax.set_title(f'{state} network')


def affected(ax: axes_lib.Axes, results: xarray.Dataset, state: str) -> None:
  """Draws the share of the gradient's entries that each window changes.

  Args:
    ax: where to draw.
    results: of `toy_variants.compare`.
    state: of the network.
  """
  share = results['affected'].sel(state=state)
  for family, (color, marker, style) in PLACES.items():
    places = _places(results, family)
    samples = share.isel(variant=places).transpose('variant', 'seed')
    if places:
      plots.band(
        ax, results.setting.values[places], 100 * samples,
        color=color, marker=marker, linestyle=style,
      )  # fmt: skip
  _half_widths(ax, results)
  ax.set_ylim(-5, 105)
  ax.set_xlabel('half-width of the window')


def others(ax: axes_lib.Axes, results: xarray.Dataset) -> None:
  """Draws all other variants, one row each, with simultaneous intervals.

  Filled: the initialised network; open: the trained one; crossed: inert.

  Args:
    ax: where to draw.
    results: of `toy_variants.compare`.
  """
  names = results.variant.values.tolist()
  rows = [
    place
    for place, family in enumerate(results.family.values.tolist())
    if family not in PLACES and place
  ]
  looks = zip(results.state.values.tolist(), ('#0077BB', 'white'), strict=False)
  for offset, (state, face) in zip((-0.16, 0.16), looks, strict=True):
    found = [_percent(interval) for interval in findings.spread(results, state)]
    still = findings.inert(results, state)
    for row, place in enumerate(rows):
      y = row + offset
      if names[place] in still:
        ax.plot(0, y, marker='x', color='#888888', markersize=4)
        continue
      plots.whisker(
        ax, y, found[place], color='#0077BB', filled=face != 'white',
        label=state if row == len(rows) - 1 else None,
      )  # fmt: skip
  margin = 100 * findings.MARGIN
  ax.axvspan(-margin, margin, color='#888888', alpha=0.12, linewidth=0)
  ax.axvline(0, color='black', linewidth=0.8)
  ax.set_yticks(range(len(rows)), [names[place] for place in rows], fontsize=6)
  ax.set_ylim(len(rows) - 0.5, -0.5)
  ax.set_xlabel("gain over nSTE on B\n(% of nSTE's decrease)")


def _places(results, family):
  places = np.flatnonzero(results.family.values == family)
  return places[np.argsort(results.setting.values[places])].tolist()


def _half_widths(ax, results):
  drawn = [place for family in PLACES for place in _places(results, family)]
  ticks = np.unique(results.setting.values[drawn])
  ax.set_xscale('log')
  ax.set_xticks(ticks, [f'{tick:g}' for tick in ticks], fontsize=7)
  ax.set_xticks([], minor=True)


def _percent(interval):
  scaled = {n: 100 * getattr(interval, n) for n in ('mean', 'low', 'high')}
  return dataclasses.replace(interval, **scaled)
