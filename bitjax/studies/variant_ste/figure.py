"""The study's figures: windows, nearness to the discrete gradient, all variants.

Those of windows and thresholds of each layer's own are in `figure_layers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bitjax.evidence import plots
from bitjax.studies.variant_ste import arms
from bitjax.studies.variant_ste import effects
from bitjax.studies.variant_ste import figure_layers
from bitjax.studies.variant_ste import findings

if TYPE_CHECKING:
  from matplotlib import artist
  from matplotlib import axes as axes_lib
  from matplotlib import figure
  import xarray

__all__ = ['every', 'nearness', 'page', 'windows']

STYLES = {
  'window on activations': (plots.BLUE, 'o', '-'),
  'window on weights': (plots.RED, 's', '--'),
  'window on both': (plots.TEAL, '^', ':'),
}
OTHER = plots.GREY
# Factors on the abscissa, which keep equal effects of two families apart.
_DODGE = dict(zip(STYLES, (0.96, 1.0, 1.04), strict=True))
_EFFECT = 'extra decrease of the loss on B'
_UNIT = "% of nSTE's; above 0: better"
_WORDS = {
  'gain 1/c on activations': 'window of height 1/c on activations, c =',
  'gain 1/c on weights': 'window of height 1/c on weights, c =',
}


def page(results: xarray.Dataset) -> dict[str, figure.Figure]:
  """Draws windows and nearness; supplements show each variant, and each layer.

  Args:
    results: of `study.run`.
  """
  from matplotlib import pyplot

  results = everything = effects.sound(results)
  layers = effects.STEPS if effects.within_layers(results.variant) else {}
  results = results.sel(variant=effects.variants(results))
  states = results.state.values.tolist()
  fig, axes = pyplot.subplots(
    2 + len(layers),
    len(states),
    figsize=(6.75, 5.4 + 1.8 * len(layers)),
    squeeze=False,
  )
  for state, column in zip(states, axes.T, strict=True):
    windows(column[0], results, state)
    for ax, step in zip(column[1:-1], layers, strict=True):
      figure_layers.saved(ax, everything, state, step)
    nearness(column[-1], results, state)
  for ax, step in zip(axes[:, 0], ('', *layers, ''), strict=True):
    ax.set_ylabel(
      f'step of {step}\n({_UNIT})' if step else f'{_EFFECT}\n({_UNIT})',
      fontsize=8,
    )
  handles = {}
  for ax in axes[:, 0]:
    for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
      handles.setdefault(label, handle)
  fig.legend(handles.values(), handles, loc='outside lower center', ncols=3)
  varied = bool(layers) or 'shifted_reliability' in results
  supplement = _supplement(results, everything if varied else None)
  return {'figure': fig, 'figure_supplement': supplement}


def windows(ax: axes_lib.Axes, results: xarray.Dataset, state: str) -> None:
  """Draws the effect against the half-width of the window, with bands.

  The window of half-width 1 on the activations is the normal STE itself. Open markers
  are windows that change no entry of the gradient.

  Args:
    ax: where to draw.
    results: of `study.run`.
    state: of the network.
  """
  names = results.variant.values.tolist()
  found = effects.percentages(effects.saved(results, state), names)
  figure_layers.undefined(ax, found)
  inert = effects.inert(results, state)
  drawn: set[float] = set()
  for family, (color, marker, style) in STYLES.items():
    points = _windows(results, family)
    if not points:
      continue
    widths = np.array(list(points))
    drawn.update(points)
    shown = [found[names[index]] for index in points.values()]
    plots.band(
      ax, _beside(results, family) * widths, shown,
      color=color, marker=marker, linestyle=style, label=family,
    )  # fmt: skip
    for width, index, effect in zip(
      widths, points.values(), shown, strict=True
    ):
      if names[index] in inert or index == 0:
        ax.plot(
          _beside(results, family) * width, effect.mean, color=color,
          marker=marker, markerfacecolor='white',
        )  # fmt: skip
  ax.plot(
    [], [], color='black', marker='o', markerfacecolor='white', linestyle='',
    label="gradient is nSTE's",
  )  # fmt: skip
  margin = 100 * findings.MARGIN
  ax.axhspan(
    -margin, margin, color=OTHER, alpha=0.2, linewidth=0,
    label=f'equivalent: within {margin:g} %',
  )  # fmt: skip
  ax.axhline(0, color='black', linewidth=0.8)
  if state == results.state.values[0]:
    _primary(ax, results, state)
  ticks = sorted(drawn)
  ax.set_xscale('log')
  ax.set_xticks(ticks, [f'{tick:g}' for tick in ticks], fontsize=7)
  ax.set_xticks([], minor=True)
  ax.set_xlabel('half-width of the window (nSTE: 1)')
  ax.set_title(f'{state} network')


def nearness(ax: axes_lib.Axes, results: xarray.Dataset, state: str) -> None:
  """Draws the effect of each variant against its cosine with the discrete gradient.

  Bars are simultaneous intervals of the effects; the cross is the normal STE.

  Args:
    ax: where to draw.
    results: of `study.run`.
    state: of the network.
  """
  cosine = results['discrete_cosine'].sel(state=state).mean('seed').values
  names = results.variant.values.tolist()
  inert = effects.inert(results, state)
  found = effects.percentages(effects.saved(results, state), names)
  figure_layers.undefined(ax, found)
  families = results.family.values.tolist()
  labels = {OTHER: 'another estimator'}
  for index, name in enumerate(names[1:], start=1):
    if name in inert:
      continue
    color, marker, _ = STYLES.get(families[index], (OTHER, 'D', ''))
    effect = found[name]
    x = cosine[index]
    ax.plot([x, x], [effect.low, effect.high], color=color, linewidth=0.6)
    ax.plot(
      x, effect.mean, marker=marker, color=color, linestyle='',
      label=labels.pop(color, None),
    )  # fmt: skip
  ax.plot(
    cosine[0], 0, marker='+', color='black', markersize=10,
    markeredgewidth=1.5, linestyle='', label='normal STE (nSTE)', zorder=5,
  )  # fmt: skip
  ax.axhline(0, color='black', linewidth=0.8)
  ax.set_xlabel('cosine with the discrete gradient, on A')


def every(ax: axes_lib.Axes, results: xarray.Dataset, state: str) -> None:
  """Draws all variants, one row each, with simultaneous intervals.

  Crosses stand for variants that change no entry of the gradient.

  Args:
    ax: where to draw.
    results: of `study.run`.
    state: of the network.
  """
  names = results.variant.values.tolist()
  families = results.family.values.tolist()
  rows = _ordered(results)
  found = effects.percentages(effects.saved(results, state), names)
  figure_layers.undefined(ax, found, effect='x')
  inert = effects.inert(results, state)
  for row, index in enumerate(rows):
    color, marker, _ = STYLES.get(families[index], (OTHER, 'D', ''))
    if names[index] in inert:
      ax.plot(0, row, marker='x', color='black', markersize=4)
    else:
      plots.whisker(ax, row, found[names[index]], color=color, marker=marker)
  margin = 100 * findings.MARGIN
  ax.axvspan(-margin, margin, color=OTHER, alpha=0.2, linewidth=0)
  ax.axvline(0, color='black', linewidth=0.8)
  shown = [_name(names[index], families[index]) for index in rows]
  ax.set_yticks(range(len(rows)), shown, fontsize=7)
  ax.set_ylim(len(rows) - 0.5, -0.5)
  if state == results.state.values[0]:
    plots.primary_rows(ax, rows.index(names.index(arms.PRIMARY)))
  ax.set_title(f'{state} network')


def _supplement(results, everything):
  from matplotlib import pyplot

  states = results.state.values.tolist()
  rows = 0.145 * len(_ordered(results))
  heights = [1.4, rows] if everything is not None else [rows]
  fig, axes = pyplot.subplots(
    len(heights),
    len(states),
    figsize=(6.75, 1.6 + sum(heights)),
    sharey='row',
    squeeze=False,
    height_ratios=heights,
  )
  if everything is not None:
    for ax, state in zip(axes[0], states, strict=True):
      figure_layers.varied(ax, everything, state)
    axes[0, 0].set_ylabel('log variance ratio', fontsize=8)
  for ax, state in zip(axes[-1], states, strict=True):
    every(ax, results, state)
    ax.set_xlabel(f"{_EFFECT}\n(% of nSTE's; right of 0: better)", fontsize=8)
  marks: list[artist.Artist] = [
    pyplot.Line2D([], [], color='black', marker='x', linestyle=''),
    pyplot.Rectangle((0, 0), 1, 1, color=OTHER, alpha=0.2),
    pyplot.Rectangle((0, 0), 1, 1, color=plots.PRIMARY),
  ]
  words = [
    "gradient is nSTE's",
    f'equivalent: within {100 * findings.MARGIN:g} %',
    'primary contrast',
  ]
  if everything is not None:
    for mark, word in figure_layers.key(everything):
      marks.append(mark)
      words.append(word)
  fig.legend(marks, words, loc='outside upper center', ncols=3)
  return fig


def _beside(results, family):
  """Returns the factor that draws a family's points beside those of others."""
  drawn = [name for name in STYLES if _windows(results, name)]
  return _DODGE[family] if len(drawn) > 1 else 1.0


def _primary(ax, results, state):
  """Marks the primary contrast with an interval of its own, not a simultaneous one."""
  names = results.variant.values.tolist()
  width = results.setting.values[names.index(arms.PRIMARY)]
  saved = effects.saved(results, state)
  found = effects.percentages(saved, [arms.PRIMARY])[arms.PRIMARY]
  x = _beside(results, 'window on activations') * width
  ax.plot([x, x], [found.low, found.high], color='black', linewidth=1.6)
  ax.plot(
    x, found.mean, marker='*', color='black', markersize=11, linestyle='',
    markerfacecolor='#FFD24D', label='primary contrast, 95 %',
  )  # fmt: skip


def _windows(results, family):
  """Returns half-width -> index of the variant, with 1 where another one is the same."""
  settings = results.setting.values
  points = {settings[i].item(): i for i in _indices(results, family)}
  if points and family == 'window on activations':
    points[1.0] = 0  # This window is the normal STE.
  if points and family == 'window on both':
    # The activations have the window 1 in any case.
    weights = _windows(results, 'window on weights')
    points |= {1.0: weights[1.0]} if 1.0 in weights else {}
  return dict(sorted(points.items()))


def _indices(results, family):
  indices = np.flatnonzero(results.family.values == family)
  return indices[np.argsort(results.setting.values[indices])].tolist()


def _ordered(results):
  """Returns the indices of all variants but the normal STE, family by family."""
  families = dict.fromkeys(results.family.values.tolist()[1:])
  return [index for family in families for index in _indices(results, family)]


def _name(name, family):
  return name.replace(family, _WORDS.get(family, family), 1)
