"""Draws what a budget spent in rounds saves, by signal, ranking and split."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from bitjax.evidence import plots
from bitjax.studies.discrete_gradient import outcomes
from bitjax.studies.toy import labels
from bitjax.studies.toy import outcomes as toy_outcomes
from bitjax.studies.toy import searches

if TYPE_CHECKING:
  from matplotlib import axes as axes_lib
  from matplotlib import figure
  import xarray

__all__ = ['page', 'panel']

_COLORS = {
  'exact': plots.BLUE,
  'linear': plots.RED,
  'random': plots.GREY,
  'cost': plots.ORANGE,
}
_NAMES = {
  'exact': 'exact gains',
  'linear': 'linear gains',
  'random': 'random gains',
  'cost': 'cheapest first',
}
_SPLITS = {'even': 'equal parts', 'cumulative': 'growing budget'}
_STYLES = {'search': ('-', 'o'), 'holdout': ('--', '^')}


def page(results: xarray.Dataset, cell: dict[str, Any]) -> figure.Figure:
  """Draws panels in a row for each ranking and a column for each state and split.

  Args:
    results: the results of `toy.arms.collect`.
    cell: labels of ball and layers.
  """
  from matplotlib import pyplot

  rows = _rankings(results)
  states = results.state.values.tolist()
  columns = list(itertools.product(states, searches.SPLITS))
  fig, axes = pyplot.subplots(
    len(rows),
    len(columns),
    figsize=(6.75, 1.4 + 1.3 * len(rows)),
    sharex=True,
    squeeze=False,
  )
  for row, ranking in zip(axes, rows, strict=True):
    for ax, (state, split) in zip(row, columns, strict=True):
      panel(ax, results, cell | {'state': state}, ranking, split)
      ax.tick_params(labelsize=7)
    for first, second in zip(row[::2], row[1::2], strict=True):
      first.sharey(second)
      second.tick_params(labelleft=False)
    row[0].set_ylabel(f'ranked {labels.ranking(ranking)}', fontsize=8)
  for ax, (state, split) in zip(axes[0], columns, strict=True):
    ax.set_title(f'{state},\n{_SPLITS[split]}', fontsize=8)
  for ax in axes[-1]:
    ax.set_xlabel('number of rounds', fontsize=8)
  fig.supylabel(
    'decrease of the loss by the whole budget (nats; higher is better)',
    fontsize=8,
  )
  lines = axes[0, 0].get_legend_handles_labels()
  fig.legend(*lines, loc='outside lower center', ncols=4, fontsize=7)
  return fig


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
    results: the results of `toy.arms.collect`.
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
        label=f'{_NAMES[signal]}, {toy_outcomes.BATCHES[batch]}',
      )  # fmt: skip
  ax.axhline(0, color='black', linewidth=0.8)
  ax.set_xscale('log', base=2)
  ax.set_xticks(numbers, [f'{number}' for number in numbers])
  ax.set_xticks([], minor=True)


def _rankings(results):
  """Returns the rankings for which rounds were run, in the order of `RANKINGS`."""
  made = results['rounds_search'].notnull()
  return [r for r in searches.RANKINGS if made.sel(ranking=r).any()]
