"""Draws what a budget spent in rounds saves, by signal, ranking and split."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from bitjax.evidence import plots
from bitjax.studies.discrete_gradient import outcomes
from bitjax.studies.toy import searches

if TYPE_CHECKING:
  from matplotlib import axes as axes_lib
  from matplotlib import figure
  import xarray

__all__ = ['height', 'page', 'panel']

_COLORS = {
  'exact': plots.BLUE,
  'linear': plots.RED,
  'random': plots.GREY,
  'cost': plots.ORANGE,
}
_STYLES = {'search': ('-', 'o'), 'holdout': ('--', '^')}


def height(results: xarray.Dataset) -> float:
  """Returns the height in inches that `page` needs."""
  return 1.0 + 1.25 * len(_rankings(results))


def page(
  fig: figure.FigureBase, results: xarray.Dataset, cell: dict[str, Any]
) -> None:
  """Draws panels in a row for each ranking and a column for each state and split.

  Args:
    fig: the figure to draw on.
    results: the results of `arms.collect`.
    cell: labels of ball and layers.
  """
  rows = _rankings(results)
  states = results.state.values.tolist()
  columns = list(itertools.product(states, searches.SPLITS))
  axes = fig.subplots(len(rows), len(columns), sharex=True, squeeze=False)
  for row, ranking in zip(axes, rows, strict=True):
    for ax, (state, split) in zip(row, columns, strict=True):
      panel(ax, results, cell | {'state': state}, ranking, split)
      ax.tick_params(labelsize=7)
    for first, second in zip(row[::2], row[1::2], strict=True):
      first.sharey(second)
      second.tick_params(labelleft=False)
    row[0].set_ylabel(ranking, fontsize=8)
  for ax, (state, split) in zip(axes[0], columns, strict=True):
    ax.set_title(f'{state}\n{split}', fontsize=8)
  for ax in axes[-1]:
    ax.set_xlabel('rounds', fontsize=8)
  fig.supylabel('decrease (nats), whole budget', fontsize=9)
  lines = axes[0, 0].get_legend_handles_labels()
  fig.legend(*lines, loc='outside lower center', ncols=4, fontsize=7)


def panel(
  ax: axes_lib.Axes,
  results: xarray.Dataset,
  cell: dict[str, Any],
  ranking: str,
  split: str,
) -> None:
  """Draws what more rounds save with the whole budget, on A and on B.

  Args:
    ax: the axes to draw on.
    results: the results of `arms.collect`.
    cell: labels of ball, layers and state.
    ranking: the ranking of the moves.
    split: the split of the budget.
  """
  numbers = results.num_rounds.values
  for signal, color in _COLORS.items():
    for batch, (style, marker) in _STYLES.items():
      loss = outcomes.reached(
        results, 'rounds', 'all', batch, **cell,
        signal=signal, split=split, ranking=ranking,
      )  # fmt: skip
      if not bool(loss.notnull().any()):
        continue
      rows = outcomes.decrease(results, batch, cell, loss)
      plots.band(
        ax, numbers, rows.transpose('num_rounds', 'seed').values, color=color,
        linestyle=style, marker=marker,
        label=f'{signal}, {outcomes.BATCHES[batch]}',
      )  # fmt: skip
  ax.axhline(0, color='black', linewidth=0.8)
  ax.set_xscale('log', base=2)
  ax.set_xticks(numbers, [f'{number}' for number in numbers])
  ax.set_xticks([], minor=True)


def _rankings(results):
  """Returns the rankings for which rounds were run, in the order of `RANKINGS`."""
  made = results['rounds_search'].notnull()
  return [r for r in searches.RANKINGS if made.sel(ranking=r).any()]
