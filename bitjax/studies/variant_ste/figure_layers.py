"""Draws windows and thresholds in units of each layer's spread, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from bitjax.evidence import joint
from bitjax.evidence import plots
from bitjax.studies.variant_ste import effects
from bitjax.studies.variant_ste import families
from bitjax.studies.variant_ste import variation

if TYPE_CHECKING:
  from matplotlib import artist
  from matplotlib import axes as axes_lib
  import xarray

  from bitjax.evidence import intervals

__all__ = ['key', 'saved', 'undefined', 'varied']

_COLORS = (plots.BLUE, plots.RED, plots.ORANGE, plots.CYAN, plots.DARK_BLUE)
_MARKERS = ('o', 's', 'D', 'v', 'P')
_STYLES: dict[str, Literal['-', '--', ':']] = {
  'windows': '-',
  'thresholds of the sign': '--',
  "nSTE's window, by layer": ':',
}
_ALL = (plots.TEAL, '^')
_UNITS = 'in spreads σ of the layer'


def saved(
  ax: axes_lib.Axes, results: xarray.Dataset, state: str, step: str
) -> None:
  """Draws effects against the half-width; dashed lines are windows that keep their mass.

  Args:
    ax: where to draw.
    results: of `study.run`.
    state: of the network.
    step: a name in `effects.STEPS`.
  """
  found = effects.saved(results, state, step=step)
  names = effects.within_layers(found.extra.variant)
  drawn = effects.percentages(found, names)
  for place, points in _by_place(names).items():
    color, marker = _look(place, results)
    for kept in (False, True):
      chosen = [(c, name) for c, name, same in points if same == kept]
      if not chosen:
        continue
      plots.band(
        ax, [c for c, _ in chosen], [drawn[name] for _, name in chosen],
        color=color, marker=marker, linestyle='--' if kept else '-',
        label=None if kept else f'σ of {place}',
      )  # fmt: skip
  if any(name.endswith(families.KEPT) for name in names):
    ax.plot([], [], color='black', linestyle='--', label='mass of windows kept')
  undefined(ax, drawn)
  margin = 100 * effects.MARGIN
  ax.axhspan(-margin, margin, color=plots.GREY, alpha=0.2, linewidth=0)
  _frame(
    ax,
    results,
    state,
    [c for points in _by_place(names).values() for c, *_ in points],
  )


def varied(ax: axes_lib.Axes, results: xarray.Dataset, state: str) -> None:
  """Draws how much more the first layer's gradient varies over batches than nSTE's.

  Solid lines are windows of that half-width, dashed ones thresholds of the sign; each
  kind has simultaneous intervals.

  Args:
    ax: where to draw.
    results: of `study.run`.
    state: of the network.
  """
  own = results.sel(state=state)
  values = variation.relative_variance(own, 'gradient')
  change = values - values.sel(variant='normal')
  names = effects.within_layers(results.variant)
  windows = {
    place: {c: change.sel(variant=name) for c, name, _ in points}
    for place, points in _by_place(names).items()
  }
  shifts = {}
  if 'shifted_reliability' in results:
    values = variation.relative_variance(own, 'shifted')
    change = values - values.sel(threshold=0)
    shifts = {
      place: {
        t: change.sel(place=place, threshold=t)
        for t in results.threshold.values[1:].tolist()
      }
      for place in results.place.values.tolist()
    }
  for curves, style in ((windows, '-'), (shifts, '--')):
    samples = [
      each.values for curve in curves.values() for each in curve.values()
    ]
    drawn = iter(joint.simultaneous(samples) if samples else [])
    for place, curve in curves.items():
      color, marker = _look(place, results)
      plots.band(
        ax, list(curve), [next(drawn) for _ in curve],
        color=color, marker=marker, linestyle=style,
      )  # fmt: skip
  ax.axhspan(
    -variation.LARGER,
    variation.LARGER,
    color=plots.GREY,
    alpha=0.2,
    linewidth=0,
  )
  _frame(
    ax,
    results,
    state,
    [c for kind in (windows, shifts) for x in kind.values() for c in x],
  )
  ax.set_xlabel('window, or threshold (dashed), in σ', fontsize=7)


def key(results: xarray.Dataset) -> list[tuple[artist.Artist, str]]:
  """Returns the entries of a legend for what `varied` draws."""
  from matplotlib import pyplot

  found: list[tuple[artist.Artist, str]] = []
  for place in families.places(results.layer.size - 1):
    color, marker = _look(place, results)
    line = pyplot.Line2D([], [], color=color, marker=marker)
    found.append((line, f'above: {place}'))
  for words, style in _STYLES.items():
    line = pyplot.Line2D([], [], color='black', linestyle=style)
    found.append((line, f'above: {words}'))
  return found


def undefined(
  ax: axes_lib.Axes,
  found: Mapping[str, intervals.Interval],
  *,
  effect: Literal['x', 'y'] = 'y',
) -> None:
  """Says why nothing is drawn, if no effect besides the normal STE's is defined.

  Args:
    ax: where effects would be drawn.
    found: variant -> its effect.
    effect: the axis of the effect, which then has no ticks.
  """
  means = [each.mean for name, each in found.items() if name != 'normal']
  if not means or np.isfinite(means).any():
    return
  ax.text(
    0.5, 0.25, 'not defined: the decrease by\nnSTE is not clearly positive',
    transform=ax.transAxes, ha='center', va='center', fontsize=8,
  )  # fmt: skip
  ax.tick_params(
    axis=effect, **{'labelleft' if effect == 'y' else 'labelbottom': False}
  )


def _frame(ax, results, state, widths):
  """Marks the normal STE's window, which is another one in each layer."""
  ax.axhline(0, color='black', linewidth=0.8)
  rms = results['entering_rms'].sel(state=state)
  for index, layer in enumerate(results.layer.values[:-1]):
    color, _ = _look(index, results)
    ax.axvline(
      float(np.nanmean(1 / rms.sel(layer=layer))), color=color, linewidth=0.8,
      linestyle=':', label="nSTE's window, in σ" if index == 0 else None,
    )  # fmt: skip
  widths = sorted(set(widths))
  ax.set_xscale('log')
  ax.set_xticks(widths, [f'{c:g}' for c in widths], fontsize=7)
  ax.set_xticks([], minor=True)
  ax.set_xlabel(f'half-width, {_UNITS}', fontsize=8)


def _look(place, results):
  """Returns colour and marker of a place, or of the layer with an index."""
  places = list(families.places(results.layer.size - 1))
  index = places.index(place) if isinstance(place, str) else place
  if places[index] == 'all layers':
    return _ALL
  return _COLORS[index % len(_COLORS)], _MARKERS[index % len(_MARKERS)]


def _by_place(names):
  """Returns place -> half-width, name and whether the mass is kept, by half-width."""
  found: dict[str, list[tuple[float, str, bool]]] = {}
  for name in names:
    place, width, kept = effects.placed(name)
    found.setdefault(place, []).append((width, name, kept))
  return {place: sorted(points) for place, points in found.items()}
