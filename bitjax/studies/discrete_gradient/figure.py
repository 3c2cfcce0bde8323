"""Draws what each way to spend a budget saves, on the searched batch and on another."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bitjax.evidence import intervals
from bitjax.evidence import plots
from bitjax.evidence import protocols
from bitjax.studies.discrete_gradient import outcomes
from bitjax.studies.discrete_gradient import schedules
from bitjax.studies.toy import searches

if TYPE_CHECKING:
  from matplotlib import axes as axes_lib
  from matplotlib import figure
  import xarray

__all__ = ['page', 'panel', 'reliability']

_COLORS = {
  'discrete': plots.BLUE,
  'rounds': plots.TEAL,
  'coordinate': plots.ORANGE,
  'ste': plots.RED,
  'multi': plots.RED,
  'random': plots.GREY,
}


def page(results: xarray.Dataset) -> figure.Figure:
  """Draws what every arm saves and, below, how reliable the promises of moves are.

  If there are several balls, choices of layers or numbers of rounds, only the main
  arms are drawn. If there are several numbers of rounds, all schedules follow below.

  Args:
    results: the results of `arms.collect`.
  """
  from matplotlib import pyplot

  names = ('ball', 'layers', 'state')
  balls, layers, states = (results[name].values.tolist() for name in names)
  columns = [
    {'layers': moved, 'state': state}
    for moved, state in itertools.product(layers, states)
  ]
  by_rounds = results.num_rounds.size > 1
  brief = len(balls) > 1 or len(layers) > 1 or by_rounds
  heights = [0.35 + 0.16 * len(_rows(results, brief))] * len(balls) + [2.0]
  parts = [sum(heights) + 0.3 * len(heights)]
  if by_rounds:
    parts.append(schedules.height(results))
  fig = pyplot.figure(figsize=(6.75, sum(parts)))
  above, *below = fig.subfigures(
    len(parts), 1, height_ratios=parts, squeeze=False
  )[:, 0]
  for part in below:
    schedules.page(part, results, {'ball': balls[0], 'layers': layers[0]})
  axes = above.subplots(
    len(heights),
    len(columns),
    height_ratios=heights,
    sharey='row',
    squeeze=False,
  )
  small = 7 if len(columns) > 2 else 9
  for row, ball in zip(axes, balls, strict=False):
    for ax, column in zip(row, columns, strict=True):
      panel(ax, results, column | {'ball': ball}, brief=brief)
      moved = 'first layer' if column['layers'] == 'first' else 'all layers'
      ax.set_title(f'{column["state"]}\n{moved}, {ball}', fontsize=small)
      ax.tick_params('x', labelsize=small - 1)
  for ax in axes[len(balls) - 1]:
    ax.set_xlabel('decrease (nats)')
  for index, column in enumerate(columns):
    if index >= len(states):  # Reliability is that of the first layer only.
      axes[-1, index].set_axis_off()
    else:
      reliability(axes[-1, index], results, column['state'])
  axes[-1, 0].set_ylabel('correlation over moves')
  # The legend goes to the first free panel of this row, or to its last one.
  free = axes[-1, min(len(states), len(columns) - 1)]
  free.legend(*axes[-1, 0].get_legend_handles_labels(), fontsize=6)
  lines = axes[0, 0].get_legend_handles_labels()
  above.legend(*lines, loc='outside upper center', ncols=3)
  return fig


def reliability(ax: axes_lib.Axes, results: xarray.Dataset, state: str) -> None:
  """Draws how well the promised gains of moves agree, against the batch size.

  Args:
    ax: the axes to draw on.
    results: the results of `arms.collect`.
    state: the state of the network.
  """
  found = results['reliability_correlation'].sel(state=state)
  sizes = found.batch_size.values
  colors = (plots.BLUE, plots.RED, plots.ORANGE)
  for pair, color in zip(found.pair.values.tolist(), colors, strict=True):
    rows = found.sel(pair=pair).transpose('batch_size', 'seed').values
    plots.band(
      ax, sizes, rows, color=color, marker='o', label=pair, bounds=(-1, 1)
    )
  ax.axhline(0, color='black', linewidth=0.8)
  ax.set_xscale('log', base=2)
  ax.set_xticks(sizes, [f'{size}' for size in sizes])
  ax.set_xlabel('batch size')


def panel(
  ax: axes_lib.Axes,
  results: xarray.Dataset,
  cell: dict[str, Any],
  *,
  brief: bool = False,
) -> None:
  """Draws the decreases of all arms, one row each, with their intervals.

  A filled marker is the decrease on A, at the number of moves, the rate or the number
  of steps that is best there; an open one that on B, at the setting chosen on other
  seeds; a cross that on A with the whole budget spent. A value far to the left of all
  others is written as a number at the edge.

  Args:
    ax: the axes to draw on.
    results: the results of `arms.collect`.
    cell: labels of ball, layers and state.
    brief: whether to draw the main arms only.
  """
  rows = _rows(results, brief)
  start = _start(results, cell)
  drawn = []
  for row, (arm, _, options) in enumerate(rows):
    for read in _READS:
      if read.protocol == 'all' and arm not in ('discrete', 'rounds'):
        continue
      if arm == 'coordinate' and cell['layers'] != 'first':
        continue  # There it was not run: every move would cost a forward pass.
      loss = outcomes.reached(
        results, arm, read.protocol, read.batch, **cell, **options
      )
      found = intervals.interval((start[read.batch] - loss).values)
      drawn.append((row + read.offset, found, _COLORS[arm], read))
  near = [found for _, found, _, read in drawn if read.protocol != 'all']
  low, high = _span(near)
  lowest, _ = _span([found for _, found, _, _ in drawn])
  high = high if high > low else low + 1.0  # Nothing decreased at all.
  edge = max(low - 0.5 * (high - low), min(lowest, low) - 0.05 * (high - low))
  for y, found, color, read in drawn:
    if found.mean <= edge:
      ax.text(edge, y, f'\N{LEFTWARDS ARROW}{found.mean:.2g}', color=color,
              fontsize=6, va='center')  # fmt: skip
    else:
      plots.whisker(
        ax, y, found, color=color, marker=read.marker, filled=read.filled
      )
  for read in _READS:
    ax.plot([], [], read.marker, color='black', label=read.label, markersize=4,
            markerfacecolor='black' if read.filled else 'white')  # fmt: skip
  ax.locator_params(axis='x', nbins=3 if brief else 4)
  ax.set_xlim(edge, high + 0.05 * (high - edge))
  ax.axvline(0, color='black', linewidth=0.8)
  ax.set_yticks(range(len(rows)), [name for _, name, _ in rows], fontsize=6.5)
  ax.set_ylim(len(rows) - 0.5, -0.5)


def _span(drawn):
  """Returns the lowest and the highest end of intervals and 0; one seed has no ends."""
  ends = [(found.low, found.high, found.mean) for found in drawn]
  finite = np.ravel(ends)[np.isfinite(np.ravel(ends))]
  return min([0.0, *finite]), max([0.0, *finite])


class _Read(NamedTuple):
  """Which of an arm's losses to draw, and how to draw it."""

  offset: float
  batch: str
  protocol: str
  marker: str
  filled: bool
  label: str


_READS = (
  _Read(-0.2, 'search', 'oracle', 'o', True, 'A, best point'),
  _Read(0.0, 'search', 'all', 'x', True, 'A, whole budget'),
  _Read(0.2, 'holdout', 'deployable', 'o', False, 'B, tuned on other seeds'),
)


def _start(results, cell):
  """Returns the losses before any move."""
  start = protocols.select_arm(results, 'discrete').sel(cell)
  return start.isel(prefix=0, signal=0, ranking=0)


def _rows(results, brief):
  """Returns the arm, the name and the labels of each row to draw."""
  directions = results.direction.values.tolist()
  rows: list[tuple[str, str, dict[str, Any]]] = [
    ('ste', f'STE step, {d}', {'direction': d})
    for d in (directions[:2] if brief else directions)
  ]
  rows += [
    ('multi', f'STE steps, {o}', {'optimizer': o})
    for o in results.optimizer.values.tolist()
  ]
  rankings = results.ranking.values.tolist()
  ends = rankings[0], rankings[-1]
  for name in searches.SIGNALS:
    shown = ends if brief else rankings
    if name == 'cost' or (name == 'random' and brief):
      shown = rankings[-1:]
    rows += [
      ('discrete', searches.label(name, r), {'signal': name, 'ranking': r})
      for r in shown
    ]
  *fewer, number = results.num_rounds.values.tolist()
  made = results['rounds_search'].notnull()
  rows += [
    (
      'rounds',
      f'{number} rounds: {s} {r}, {p}',
      {'signal': s, 'ranking': r, 'split': p, 'num_rounds': number},
    )
    for s in ('exact', 'linear')
    for r in (rankings if fewer else ends)
    for p in searches.SPLITS
    if bool(made.sel(ranking=r).any())
  ]
  rows += [
    ('coordinate', f'one by one, by {o}', {'order': o})
    for o in results.order.values.tolist()
  ]
  return [*rows, ('random', 'random points', {})]
