"""Draws what each way to spend a budget saves, on the searched batch and on another.

The figure answers what its preset asks: with many balls or choices of layers how
exact gains compare with a step of STE in each, with several numbers of rounds what
rounds save, and otherwise what the main methods save. The supplement shows the decrease
by every method, where the figure is of few balls in the first of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bitjax.evidence import intervals
from bitjax.evidence import plots
from bitjax.studies.discrete_gradient import balls
from bitjax.studies.discrete_gradient import outcomes
from bitjax.studies.discrete_gradient import schedules
from bitjax.studies.toy import labels
from bitjax.studies.toy import outcomes as toy_outcomes
from bitjax.studies.toy import promises
from bitjax.studies.toy import searches

if TYPE_CHECKING:
  from matplotlib import axes as axes_lib
  from matplotlib import figure
  import xarray

  from bitjax.evidence import verdicts

__all__ = ['compared', 'page', 'panel', 'reliability']

_COLORS = {
  'discrete': plots.BLUE,
  'factorial': plots.CYAN,
  'rounds': plots.TEAL,
  'coordinate': plots.ORANGE,
  'ste': plots.RED,
  'multi': plots.RED,
  'random': plots.GREY,
}
# Arms that may spend the whole budget.
_SPENT = ('discrete', 'factorial', 'rounds')
_CELLS = 4  # Panels of a figure that shows what every main method saves.
_FIRST = ('coordinate', 'factorial')  # Arms that move the first layer only.
_ROW = 0.13  # Inches.
_PAIRS = {
  ('exact', 'exact'): ('exact gains on A, exact gains on B', plots.BLUE, 'o'),
  ('linear', 'linear'): (
    'linear gains on A, linear gains on B', plots.RED, 's',
  ),
  ('linear', 'exact'): (
    'linear gains on A, exact gains on B', plots.ORANGE, '^',
  ),
  ('true-linear', 'true-linear'): (
    'only linearised, on A and on B', plots.TEAL, 'v',
  ),
  ('smoothed-exact', 'smoothed-exact'): (
    'only smoothed, on A and on B', plots.CYAN, 'D',
  ),
}  # fmt: skip


def page(results: xarray.Dataset) -> dict[str, figure.Figure]:
  """Draws the figure and the supplement.

  Args:
    results: the results of `toy.arms.collect`.
  """
  cells = toy_outcomes.cells(results)
  wide = len(cells) > _CELLS
  if wide:
    first = _compared(results)
  elif results.num_rounds.size > 1:
    first = schedules.page(
      results, {k: cells[0][k] for k in ('ball', 'layers')}
    )
  else:
    first = _saved(results, cells, brief=True, reliable=True)
  drawn = wide or results.num_rounds.size == 1
  if not wide:  # Every method needs the height of a page.
    cells = [cell for cell in cells if cell['ball'] == cells[0]['ball']]
  rest = _saved(results, cells, brief=wide, reliable=not drawn)
  return {'figure': first, 'figure_supplement': rest}


def reliability(ax: axes_lib.Axes, results: xarray.Dataset, state: str) -> None:
  """Draws how well the promised gains of flips agree, against the batch size.

  Args:
    ax: the axes to draw on.
    results: the results of `toy.arms.collect`.
    state: the state of the network.
  """
  found = results['reliability_correlation'].sel(state=state)
  sizes = found.batch_size.values
  for pair, (label, color, marker) in _PAIRS.items():
    rows = (
      found.sel(pair=promises.pair(*pair))
      .transpose('batch_size', 'seed')
      .values
    )
    plots.band(
      ax, sizes, rows, color=color, marker=marker, label=label, bounds=(-1, 1)
    )
  ax.axhline(0, color='black', linewidth=0.8)
  ax.set_xscale('log', base=2)
  ax.set_xticks(sizes, [f'{size}' for size in sizes])
  ax.set_xlabel('examples in A, and in B')


def compared(
  ax: axes_lib.Axes,
  cells: Sequence[dict[str, Any]],
  table: Sequence[verdicts.Verdict],
) -> None:
  """Draws exact gains against one step of STE in each ball, one row each.

  Bars are the simultaneous intervals of the verdicts.

  Args:
    ax: the axes to draw on.
    cells: labels of ball, layers and state of each row.
    table: a verdict of `balls.steps` for each row.
  """
  for row, (cell, verdict) in enumerate(zip(cells, table, strict=True)):
    trained = cell['state'] != cells[0]['state']
    plots.whisker(
      ax,
      row,
      intervals.Interval(
        verdict.effect, verdict.low, verdict.high, verdict.num_seeds
      ),
      color=plots.BLUE,
      marker='s' if trained else 'o',
      filled=not trained,
    )
  ax.axvline(0, color='black', linewidth=0.8)
  ax.set_yticks(range(len(cells)), [_cell(cell) for cell in cells], fontsize=7)
  ax.set_ylim(len(cells) - 0.5, -0.5)
  ax.locator_params(axis='x', nbins=4)


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
    results: the results of `toy.arms.collect`.
    cell: labels of ball, layers and state.
    brief: whether to draw the main arms only.
  """
  rows = _rows(results, brief)
  start = outcomes.start(results, **cell)
  drawn = []
  for row, (arm, _, options) in enumerate(rows):
    for read in _READS:
      if read.protocol == 'all' and arm not in _SPENT:
        continue
      if arm in _FIRST and cell['layers'] != 'first':
        continue  # There it was not run.
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
              fontsize=7, va='center')  # fmt: skip
    else:
      plots.whisker(
        ax, y, found, color=color, marker=read.marker, filled=read.filled
      )
  for read in _READS:
    ax.plot([], [], read.marker, color='black', label=read.label, markersize=4,
            markerfacecolor='black' if read.filled else 'white')  # fmt: skip
  ax.locator_params(axis='x', nbins=3)
  ax.set_xlim(edge, high + 0.05 * (high - edge))
  ax.axvline(0, color='black', linewidth=0.8)
  ax.set_yticks(range(len(rows)), [name for _, name, _ in rows], fontsize=7)
  ax.set_ylim(len(rows) - 0.5, -0.5)
  if cell == toy_outcomes.cells(results)[0]:
    plots.primary_rows(
      ax, *(i for i, (_, _, o) in enumerate(rows) if o in _COMPARED)
    )


# Labels of the arms that the primary contrast compares.
_COMPARED = (
  {'direction': searches.DIRECTIONS[0]},
  {'signal': 'exact', 'ranking': searches.RANKINGS[0]},
)


def _saved(results, cells, *, brief, reliable):
  """Draws a panel for each cell, in rows of balls, and reliability below them."""
  from matplotlib import pyplot

  columns = results.sizes['layers'] * results.sizes['state']
  rows = len(cells) // columns
  height = 0.3 + _ROW * len(_rows(results, brief))
  fig = pyplot.figure(figsize=(6.75, rows * height + 0.8 + 2.3 * reliable))
  parts = [rows * height + 0.8, 2.3][: 1 + reliable]
  above, *below = fig.subfigures(
    len(parts), 1, height_ratios=parts, squeeze=False
  )[:, 0]
  axes = above.subplots(rows, columns, sharey=True, squeeze=False)
  for ax, cell in zip(axes.flat, cells, strict=True):
    panel(ax, results, cell, brief=brief)
    ax.tick_params('x', labelsize=7)
    title = f'{cell["state"]}, {_moved(cell)}'
    ball = f'\n{labels.ball(cell["ball"])}' if rows > 1 else ''
    ax.set_title(title + ball, fontsize=7.5 if columns < 3 else 7)
  for ax in axes[-1]:
    ax.set_xlabel('decrease (nats)', fontsize=8)
  above.legend(
    *axes[0, 0].get_legend_handles_labels(),
    loc='outside upper center',
    ncols=3,
    title='Decrease of the loss: higher is better. '
    'Bold: compared, on A, by the primary contrast',
    title_fontsize=8,
  )
  for part in below:
    _reliable(part, results)
  return fig


def _reliable(fig, results):
  states = results.state.values.tolist()
  axes = fig.subplots(1, len(states), sharey=True, squeeze=False)[0]
  for ax, state in zip(axes, states, strict=True):
    reliability(ax, results, state)
    ax.set_title(f'{state}, first layer', fontsize=7.5)
  axes[0].set_ylabel('correlation over flips')
  lines = axes[0].get_legend_handles_labels()
  fig.legend(*lines, loc='outside lower center', ncols=3, fontsize=7)


def _compared(results):
  """Draws exact gains against STE's step, by batch and direction."""
  from matplotlib import pyplot

  cells = toy_outcomes.cells(results)
  found = list(balls.steps(results))
  fig, axes = pyplot.subplots(
    1, 4, figsize=(6.75, 1.2 + 0.2 * len(cells)), sharey=True, sharex=True
  )
  reads = [
    (b, d) for b in toy_outcomes.BATCHES.values() for d in balls.OPPONENTS
  ]
  for ax, (batch, direction) in zip(axes, reads, strict=True):
    name = f'N3 ball, {batch}, {direction}'
    compared(ax, cells, [v for v in found if v.finding == name])
    along = 'gradient' if direction == 'gradient' else 'its sign'
    ax.set_title(f'loss on {batch},\nstep along {along}', fontsize=8)
    ax.tick_params('x', labelsize=7)
  fig.supxlabel(
    'log(loss of one STE step / loss of exact gains); above 0: exact gains are better',
    fontsize=8,
  )
  return fig


def _moved(cell):
  return f'{cell["layers"]} layer{"s" * (cell["layers"] == "all")}'


def _cell(cell):
  return f'{labels.ball(cell["ball"])}, {_moved(cell)}, {cell["state"]}'


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
  _Read(-0.2, 'search', 'oracle', 'o', True, 'A (searched), best point'),
  _Read(0.0, 'search', 'all', 'x', True, 'A, whole budget'),
  _Read(
    0.2,
    'holdout',
    'deployable',
    'o',
    False,
    'B (held out), tuned on other seeds',
  ),
)


def _rows(results, brief):
  """Returns the arm, the name and the labels of each row to draw."""
  directions = results.direction.values.tolist()
  rows: list[tuple[str, str, dict[str, Any]]] = [
    ('ste', labels.direction(d), {'direction': d})
    for d in (directions[:2] if brief else directions)
  ]
  optimizers = results.optimizer.values.tolist()
  rows += [
    ('multi', labels.steps(o), {'optimizer': o})
    for o in (optimizers[:1] if brief else optimizers)
  ]
  rankings = results.ranking.values.tolist()
  ends = rankings[0], rankings[-1]
  for name in searches.SIGNALS:
    shown = ends if brief else rankings
    if name == 'cost' or (name == 'random' and brief):
      shown = rankings[-1:]
    rows += [
      ('discrete', labels.flips(name, r), {'signal': name, 'ranking': r})
      for r in shown
    ]
  rows += [
    ('factorial', labels.between(c, b), {'crossing': c, 'behind': b})
    for c, b in (('true', 'linear'), ('smoothed', 'exact'))
  ]
  number = results.num_rounds.values.tolist()[-1]
  made = results['rounds_search'].notnull()
  rows += [
    (
      'rounds',
      labels.rounds(number, s, None if brief else r, p),
      {'signal': s, 'ranking': r, 'split': p, 'num_rounds': number},
    )
    for s in ('exact', 'linear')
    for r in (rankings[-1:] if brief else rankings)
    for p in searches.SPLITS
    if bool(made.sel(ranking=r).any())
  ]
  rows += [
    ('coordinate', labels.order(o), {'order': o})
    for o in results.order.values.tolist()
  ]
  return [*rows, ('random', 'random points of the ball', {})]
