"""Draws windows and thresholds in units of each layer's spread, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bitjax.evidence import joint
from bitjax.evidence import plots
from bitjax.studies.variant_ste import effects
from bitjax.studies.variant_ste import families
from bitjax.studies.variant_ste import findings
from bitjax.studies.variant_ste import variation

if TYPE_CHECKING:
  from matplotlib import axes as axes_lib
  from matplotlib import figure
  import xarray

__all__ = ['page', 'saved', 'varied']

_COLORS = (plots.BLUE, plots.RED, plots.ORANGE, plots.CYAN, plots.DARK_BLUE)
_MARKERS = ('o', 's', 'D', 'v', 'P')
_ALL = (plots.TEAL, '^')
_UNITS = 'in spreads σ of the layer'


def page(results: xarray.Dataset) -> figure.Figure | None:
  """Draws one column for each state; None if nothing was measured by layer.

  The rows are the effects of windows on a step of the first layer and on one of all
  layers, and how much windows, and thresholds of the sign, change the variation of the
  gradient over batches.

  Args:
    results: of `study.run`.
  """
  from matplotlib import pyplot

  names = effects.within_layers(results.variant)
  shifted = 'shifted_reliability' in results
  rows = 3 * bool(names) + shifted
  if not rows:
    return None
  states = results.state.values.tolist()
  fig, axes = pyplot.subplots(
    rows,
    len(states),
    figsize=(6.75, 0.9 + 1.95 * rows),
    sharey='row',
    squeeze=False,
  )
  for column, state in zip(axes.T, states, strict=True):
    rest = iter(column)
    if names:
      for step in effects.STEPS:
        saved(next(rest), results, state, step)
      varied(next(rest), results, state, 'window')
    if shifted:
      varied(next(rest), results, state, 'threshold')
    column[0].set_title(f'{state} network')
  words = (['first layer', 'all layers'], ['window', 'threshold'])
  labels = [f'extra decrease on B,\n{word} (%)' for word in words[0]] * bool(
    names
  )
  labels += [
    f'log variance ratio,\nby {word}'
    for word in words[1][not names : 1 + shifted]
  ]
  for ax, label in zip(axes[:, 0], labels, strict=True):
    ax.set_ylabel(label, fontsize=8)
  handles = {}
  for ax in axes[:, 0]:
    for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
      handles.setdefault(label, handle)
  fig.legend(handles.values(), handles, loc='outside lower center', ncols=3)
  return fig


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
        label=f'{place}, mass kept' if kept else place,
      )  # fmt: skip
  margin = 100 * findings.MARGIN
  ax.axhspan(
    -margin, margin, color=plots.GREY, alpha=0.2, linewidth=0,
    label=f'equivalent: within {margin:g} %',
  )  # fmt: skip
  _frame(
    ax,
    results,
    state,
    [c for points in _by_place(names).values() for c, *_ in points],
  )


def varied(
  ax: axes_lib.Axes, results: xarray.Dataset, state: str, threshold: str
) -> None:
  """Draws how much more the first layer's gradient varies over batches than nSTE's.

  Args:
    ax: where to draw.
    results: of `study.run`.
    state: of the network.
    threshold: which: ``'window'`` or ``'threshold'`` (that of the sign).
  """
  own = results.sel(state=state)
  if threshold == 'window':
    values = variation.relative_variance(own, 'gradient')
    change = values - values.sel(variant='normal')
    names = effects.within_layers(results.variant)
    curves = {
      place: {c: change.sel(variant=name) for c, name, _ in points}
      for place, points in _by_place(names).items()
    }
  else:
    values = variation.relative_variance(own, 'shifted')
    change = values - values.sel(threshold=0)
    curves = {
      place: {
        c: change.sel(place=place, threshold=c)
        for c in results.threshold.values.tolist()
      }
      for place in results.place.values.tolist()
    }
  arms = [samples for curve in curves.values() for samples in curve.values()]
  drawn = iter(joint.simultaneous([each.values for each in arms]))
  for place, curve in curves.items():
    color, marker = _look(place, results)
    plots.band(
      ax, list(curve), [next(drawn) for _ in curve],
      color=color, marker=marker, label=place,
    )  # fmt: skip
  ax.axhspan(
    -variation.LARGER,
    variation.LARGER,
    color=plots.GREY,
    alpha=0.2,
    linewidth=0,
  )
  widths = sorted({c for curve in curves.values() for c in curve})
  if threshold == 'window':
    _frame(ax, results, state, widths)
  else:
    ax.axhline(0, color='black', linewidth=0.8)
    ax.set_xticks(widths, [f'{c:g}' for c in widths], fontsize=7)
    ax.set_xlabel(f'threshold, {_UNITS}', fontsize=8)


def _frame(ax, results, state, widths):
  """Marks the normal STE's window, which is another one in each layer."""
  ax.axhline(0, color='black', linewidth=0.8)
  rms = results['entering_rms'].sel(state=state)
  for index, layer in enumerate(results.layer.values[:-1]):
    color, _ = _look(index, results)
    ax.axvline(
      float(np.nanmean(1 / rms.sel(layer=layer))), color=color, linewidth=0.8,
      linestyle=':', label="nSTE's window, by layer" if index == 0 else None,
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
    plain = name.removesuffix(families.KEPT).removeprefix(families.RELATIVE)
    place, _, width = plain.rpartition(' ')
    kept = name.endswith(families.KEPT)
    found.setdefault(place, []).append((float(width), name, kept))
  return {place: sorted(points) for place, points in found.items()}
