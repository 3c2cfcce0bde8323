"""Draws what flips save by signal, and how near STE is to smoothed gains.

The figure shows every signal's decrease and, below, two correlations: of STE's prediction
with gains averaged over more and more draws, and of signals on A with exact gains on B by
batch size. The supplement shows the factorial and the rounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitjax.evidence import intervals
from bitjax.evidence import plots
from bitjax.studies.smoothed_gradient import arms
from bitjax.studies.smoothed_gradient import outcomes
from bitjax.studies.toy import outcomes as toy_outcomes

if TYPE_CHECKING:
  from matplotlib import axes as axes_lib
  from matplotlib import figure
  import xarray

__all__ = ['page']

_COLORS = {'exact': plots.BLUE, 'linear': plots.RED}
_STATES = {
  'initialised': (plots.ORANGE, 'o'),
  'trained': (plots.TEAL, 's'),
}
_ROUND_COLORS = dict(
  zip(
    arms.ROUND_SIGNALS,
    (plots.BLUE, plots.RED, plots.TEAL, plots.ORANGE),
    strict=True,
  )
)
# Height in a row, batch, protocol, marker, whether it is filled, and words.
_READS = (
  (-0.22, 'search', 'oracle', 'o', True, 'A (searched), best number of flips'),
  (0.0, 'holdout', 'deployable', 'o', False, 'B, number tuned on other seeds'),
  (0.22, 'holdout', 'all', 'x', True, 'B, whole budget'),
)


def page(results: xarray.Dataset) -> dict[str, figure.Figure]:
  """Draws the figure and the supplement.

  Args:
    results: the results of `toy.arms.collect`.
  """
  return {
    'figure': _figure(results),
    'figure_supplement': _supplement(results),
  }


def _figure(results):
  from matplotlib import pyplot

  cells = toy_outcomes.cells(results)
  columns = results.sizes['state']
  rows = len(cells) // columns
  signals = results.signal.values.tolist()
  height = rows * (0.35 + 0.2 * len(signals))
  fig = pyplot.figure(figsize=(6.75, height + 3.2))
  above, below = _parts(fig, height + 0.6, 2.6)
  axes = above.subplots(rows, columns, sharey=True, squeeze=False)
  size = outcomes.largest(results)
  entries = [
    (_name(s), _color(s), {'signal': s, 'batch_size': size}) for s in signals
  ]
  compared = [
    signals.index(s) for s in ('linear', outcomes.co_flips(results)[-1])
  ]
  for ax, cell in zip(axes.flat, cells, strict=True):
    primary = cell == {'layers': cells[0]['layers'], 'state': 'trained'}
    _saved(ax, results, 'once', cell, entries, compared if primary else [])
    ax.set_title(toy_outcomes.describe(cell), fontsize=8)
  for ax in axes[-1]:
    ax.set_xlabel('decrease of the loss (nats)', fontsize=8)
  above.legend(
    *axes[0, 0].get_legend_handles_labels(),
    loc='outside upper center',
    ncols=3,
    title='What flips save: higher is better. Shaded: compared by the primary contrast',
    title_fontsize=8,
    fontsize=7,
  )
  _nearness(below, results)
  return fig


def _saved(
  ax: axes_lib.Axes,
  results: xarray.Dataset,
  arm: str,
  cell: dict[str, Any],
  entries: list[tuple[str, Any, dict[str, Any]]],
  primary: list[int],
) -> None:
  """Draws decreases, one row for each entry: its name, colour and labels.

  What lies far to the left of all other values is written as a number at the edge.
  """
  drawn = []
  for row, (_, color, labels) in enumerate(entries):
    for offset, batch, protocol, marker, filled, _ in _READS:
      found = intervals.interval(
        outcomes.saved(results, arm, batch, protocol, **cell, **labels).values
      )
      drawn.append((row + offset, found, color, marker, filled))
  near = [found for _, found, _, marker, _ in drawn if marker != 'x']
  ends = [e for f in near for e in (f.low, f.high, f.mean) if e == e]
  low, high = min([0.0, *ends]), max([1e-6, *ends])
  edge = low - 0.6 * (high - low)
  beyond = False
  for y, found, color, marker, filled in drawn:
    if found.mean < edge:
      beyond = True
      text = f'\N{LEFTWARDS ARROW}{found.mean:.2g}'
      ax.text(edge, y, text, color=color, fontsize=7, va='center')
    else:
      plots.whisker(ax, y, found, color=color, marker=marker, filled=filled)
  for _, _, _, marker, filled, words in _READS:
    ax.plot([], [], marker, color='black', label=words, markersize=4,
            markerfacecolor='black' if filled else 'white')  # fmt: skip
  if beyond:
    ax.set_xlim(edge, high + 0.08 * (high - edge))
  ax.axvline(0, color='black', linewidth=0.8)
  ax.set_yticks(range(len(entries)), [e[0] for e in entries], fontsize=7)
  ax.set_ylim(len(entries) - 0.5, -0.5)
  ax.locator_params(axis='x', nbins=5)
  ax.tick_params('x', labelsize=7)
  if primary:
    plots.primary_rows(ax, *primary)


def _nearness(fig, results):
  """Draws both correlations, of the first layer."""
  left, right = fig.subplots(1, 2)
  layers = results.layers.values.tolist()[0]
  size = outcomes.largest(results)
  names = ['exact', *outcomes.co_flips(results)]
  for state in results.state.values.tolist():
    color, marker = _STATES[state]
    samples = [
      outcomes.nearness(
        results, 'linear', s, layers=layers, state=state, batch_size=size
      ).values
      for s in names
    ]
    plots.band(left, range(len(names)), samples, color=color, marker=marker,
               label=state, bounds=(-1, 1))  # fmt: skip
  left.set_xticks(
    range(len(names)),
    ['none', *(s.split()[-1] for s in names[1:])],
    fontsize=7,
  )
  left.set_xlabel('draws over which gains are averaged', fontsize=8)
  left.set_ylabel("correlation with\nSTE's prediction", fontsize=8)
  left.set_title('the same batch', fontsize=8)
  left.legend(fontsize=7)
  shown = ['exact', 'linear', names[-1], *arms.ROUND_SIGNALS[-1:]]
  sizes = results.batch_size.values
  for signal in shown:
    samples = [
      outcomes.nearness(
        results, 'exact', signal, layers=layers, state='trained', batch_size=s
      ).values
      for s in sizes.tolist()
    ]
    plots.band(right, sizes, samples, color=_color(signal), marker='o',
               label=_name(signal), bounds=(-1, 1))  # fmt: skip
  right.set_xscale('log', base=2)
  right.set_xticks(sizes, [f'{s}' for s in sizes], fontsize=7)
  right.set_xticks([], minor=True)
  right.set_xlabel('examples in A, and in B', fontsize=8)
  right.set_ylabel('correlation with\nexact gains on B', fontsize=8)
  right.set_title('A and B, trained', fontsize=8)
  right.legend(fontsize=7, loc='best')
  for ax in (left, right):
    ax.tick_params('y', labelsize=7)
    ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))


def _supplement(results):
  """Draws the factorial above, and below what rounds save on B."""
  from matplotlib import pyplot

  cells = toy_outcomes.cells(results)
  states = results.state.values.tolist()
  layers = results.layers.values.tolist()
  rows = len(layers)
  fig = pyplot.figure(figsize=(6.75, 2.3 + 2.0 * rows + 0.4))
  above, below = _parts(fig, 2.3, 2.0 * rows + 0.4)
  entries = [
    (f'{c} crossing, {b}', _behind(b), {'crossing': c, 'behind': b})
    for c in arms.CROSSINGS
    for b in arms.BEHIND
  ]
  axes = above.subplots(1, len(states), sharey=True, squeeze=False)[0]
  for ax, cell in zip(axes, cells, strict=False):
    _saved(ax, results, 'factorial', cell, entries, [])
    ax.set_title(toy_outcomes.describe(cell), fontsize=8)
    ax.set_xlabel('decrease of the loss (nats)', fontsize=8)
  above.legend(
    *axes[0].get_legend_handles_labels(),
    loc='outside upper center',
    ncols=3,
    title='By crossing, and effect behind',
    title_fontsize=8,
    fontsize=7,
  )
  panels = below.subplots(rows, len(states), squeeze=False, sharex=True)
  for ax, cell in zip(panels.flat, cells, strict=True):
    _rounds(ax, results, cell)
    ax.set_title(toy_outcomes.describe(cell), fontsize=8)
  for ax in panels[-1]:
    ax.set_xlabel('number of rounds', fontsize=8)
  for ax in panels[:, 0]:
    ax.set_ylabel('decrease on B (nats)', fontsize=8)
  lines = panels[0, 0].get_legend_handles_labels()
  below.legend(*lines, loc='outside lower center', ncols=4, fontsize=7)
  return fig


def _parts(fig, *heights):
  """Returns parts of a figure, one below the other."""
  parts = fig.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
  return parts[:, 0]


def _rounds(ax, results, cell):
  """Draws what rounds save on B, signals side by side."""
  numbers = results.num_rounds.values.tolist()
  for place, (signal, color) in enumerate(_ROUND_COLORS.items()):
    found = [
      intervals.interval(
        outcomes.saved(
          results, 'rounds', 'holdout', 'deployable', **cell,
          round_signal=signal, num_rounds=n,
        ).values
      )
      for n in numbers
    ]  # fmt: skip
    x = [row + 0.12 * (place - 1.5) for row in range(len(numbers))]
    ax.plot(x, [f.mean for f in found], 'o-', color=color, markersize=4,
            linewidth=0.8, label=_name(signal))  # fmt: skip
    ax.vlines(x, [f.low for f in found], [f.high for f in found], color=color)
  ax.set_xticks(range(len(numbers)), [f'{n}' for n in numbers])
  ax.set_xlim(-0.5, len(numbers) - 0.5)
  ax.tick_params(labelsize=7)
  ax.axhline(0, color='black', linewidth=0.8)


def _name(signal):
  """Returns the words for a signal."""
  if signal == 'exact':
    return 'exact gains'
  if signal == 'linear':
    return 'STE (window 1)'
  return signal


def _color(signal):
  if signal in _COLORS:
    return _COLORS[signal]
  return plots.TEAL if signal.startswith('co-flip') else plots.ORANGE


def _behind(name):
  colors = plots.BLUE, plots.RED, plots.TEAL
  return dict(zip(arms.BEHIND, colors, strict=True))[name]
