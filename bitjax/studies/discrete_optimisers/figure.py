"""Draws decreases against evaluations, ends on held-out data, and efficiency by dimension.

Of a single network it shows how far signs have moved in the place of the efficiency. The
supplement shows the same from random signs, what genetic search has over random flips,
the tiny network whose best signs are known, and how many flips are left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bitjax.evidence import divergence
from bitjax.evidence import intervals
from bitjax.evidence import plots
from bitjax.studies.discrete_optimisers import arms
from bitjax.studies.discrete_optimisers import findings
from bitjax.studies.discrete_optimisers import outcomes

if TYPE_CHECKING:
  from matplotlib import axes as axes_lib
  from matplotlib import figure
  import xarray

__all__ = ['page']

# Colour, style of the line, and marker.
_LOOKS = {
  'STE, Adam': (plots.RED, '-', 'o'),
  'STE, SGD': (plots.RED, '--', 's'),
  'Bop': (plots.CYAN, '-', 'v'),
  'ADMM': (plots.BLUE, '-', 'D'),
  'ProxQuant': (plots.DARK_BLUE, ':', '^'),
  'PARQ': (plots.DARK_BLUE, '-', 'v'),
  'flips, then STE': (plots.ORANGE, '-', 's'),
  'noise, then STE': (plots.ORANGE, ':', '^'),
  'flips at intervals': (plots.ORANGE, '--', 'D'),
  'weighted flips at intervals': (plots.ORANGE, '-.', 'v'),
  'noise at intervals': (plots.ORANGE, (0, (1, 3)), 'o'),
  'one fall of the rate': (plots.RED, ':', '^'),
  'restarts of the rate': (plots.RED, '-.', 'v'),
  'genetic': (plots.TEAL, '-', 'o'),
  'annealing': (plots.TEAL, '--', 's'),
  'random search': (plots.GREY, '-', 'x'),
}
_BATCHES = {'search': 'A (searched)', 'holdout': 'B (held out)'}


def page(results: xarray.Dataset) -> dict[str, figure.Figure]:
  """Draws the figure and the supplement.

  Args:
    results: of `arms.compare`.
  """
  results = divergence.without(results, ['search', 'holdout'])
  pages = {'figure': _figure(results)}
  if len(outcomes.widths(results)) > 1:
    pages['figure_supplement'] = _supplement(results)
  return pages


def _figure(results):
  from matplotlib import pyplot

  largest = outcomes.widths(results)[-1]
  at = results.sel(signs=largest, start='checkpoint')
  fig, axes = pyplot.subplots(2, 2, figsize=(6.75, 7.6))
  for ax, (batch, name) in zip(axes[0], _BATCHES.items(), strict=True):
    _curves(ax, at, batch)
    ax.set_title(f'checkpoint, {largest} signs: {name}', fontsize=8)
  axes[0, 0].set_ylabel('decrease of the loss (nats)')
  _ends(axes[1, 0], at)
  if len(outcomes.widths(results)) > 1:
    _efficiency(axes[1, 1], results, 'random')
    _legend(fig, axes[1, 1], '(exponent of the efficiency)')
  else:
    _moved(axes[1, 1], at)
    _legend(fig, axes[0, 0])
  return fig


def _legend(fig, ax, title=None):
  """Names the methods above all panels, as they are called in one of them."""
  fig.legend(
    *ax.get_legend_handles_labels(),
    loc='outside upper center',
    ncols=3,
    title=title,
    title_fontsize=7,
    fontsize=7,
  )


def _curves(ax: axes_lib.Axes, at: xarray.Dataset, batch: str) -> None:
  """Draws what every method has saved after each effort."""
  efforts = at.effort.values
  for arm in outcomes.names(at):
    color, style, _ = _LOOKS[arm]
    shown = efforts <= (1 if arm in arms.GRADIENTS else efforts[-1])
    losses = at[batch].sel(arm=arm).transpose('effort', 'seed').values
    plots.band(
      ax, efforts[shown], (losses[:1] - losses)[shown],
      color=color, linestyle=style, label=arm,
    )  # fmt: skip
  ax.axhline(0, color='black', linewidth=0.8)
  ax.axvline(1, color=plots.LIGHT_GREY, zorder=0)
  ax.set_xscale('symlog', linthresh=efforts[1], linscale=0.5)
  names = ['0', '1/8', '1/4', '1/2', '1', '2', '4']
  ax.set_xticks(efforts, names, fontsize=7)
  ax.set_xticks([], minor=True)
  ax.set_xlabel('evaluations (1: whole budget)')
  _room(ax)


def _room(ax):
  """Cuts off what lies far below all gains, which the table of verdicts has."""
  low, high = ax.get_ylim()
  ax.set_ylim(max(low, -1.5 * max(high, 0.02)), high)


def _ends(ax, at):
  """Draws where every method ends on B, from where it began."""
  start = at.holdout.sel(arm='ADMM', effort=0)
  rows = outcomes.names(at)
  if outcomes.exact(at):
    rows.append(arms.DESCENT)
  found = []
  for arm in rows:
    end = (
      at.descended_holdout
      if arm == arms.DESCENT
      else at.holdout.sel(arm=arm, effort=1)
    )
    found.append(intervals.interval((start - end).values))
  best = max(abs(f.high) for f in found[:1])
  edge = -4 * max(best, 0.02)
  for row, (arm, one) in enumerate(zip(rows, found, strict=True)):
    color, _, marker = _LOOKS.get(arm, ('black', '', 'D'))
    if one.mean < edge:
      text = f'\N{LEFTWARDS ARROW}{one.mean:.2g}'
      ax.text(edge, row, text, color=color, fontsize=7, va='center')
    else:
      plots.whisker(ax, row, one, color=color, marker=marker)
  ax.axvline(0, color='black', linewidth=0.8)
  ax.axvspan(
    -findings.MARGIN, findings.MARGIN, color=plots.LIGHT_GREY, alpha=0.3,
    linewidth=0,
  )  # fmt: skip
  ax.set_xlim(left=max(ax.get_xlim()[0], 1.05 * edge))
  ax.set_yticks(range(len(rows)), rows, fontsize=7)
  ax.set_ylim(len(rows) - 0.5, -0.5)
  plots.primary_rows(ax, 0, rows.index('ADMM'))
  ax.locator_params(axis='x', nbins=5)
  ax.set_xlabel('decrease on B, whole budget (nats)')
  ax.set_title('B (shaded: primary contrast)', fontsize=8)


def _moved(ax, at):
  """Draws which share of the signs every method has moved."""
  names = outcomes.names(at)
  for row, arm in enumerate(names):
    color, _, marker = _LOOKS[arm]
    moved = at.moved.sel(arm=arm, effort=1).values
    plots.whisker(
      ax, row, intervals.interval(moved), color=color, marker=marker
    )
  ax.set_yticks(range(len(names)), names, fontsize=7)
  ax.set_ylim(len(names) - 0.5, -0.5)
  ax.set_xlabel('share of signs moved')
  ax.set_title('distance from the start', fontsize=8)


def _efficiency(ax, results, start):
  """Draws what is saved on A per gradient-equivalent, by the number of signs."""
  signs = outcomes.widths(results)
  saved = outcomes.decrease(results, 'search').sel(signs=signs, start=start)
  saved = saved / results.attrs.get('gradients', 1.0)
  for arm in outcomes.names(results):
    color, style, marker = _LOOKS[arm]
    table = saved.sel(arm=arm).transpose('signs', 'seed').values
    slope = outcomes.exponent(signs, table)
    positive = np.where(table.mean(axis=1) > 0, table.mean(axis=1), np.nan)
    known = '' if np.isnan(slope) else f' ({slope:+.2f})'
    ax.plot(
      signs, positive, color=color, linestyle=style, marker=marker,
      label=f'{arm}{known}',
    )  # fmt: skip
  ax.set_yscale('log')
  # Where nothing is saved, nothing is drawn.
  ax.set_xlim(0.8 * signs[0], 1.25 * signs[-1])
  plots.log_axis(ax)
  ax.set_xlabel('signs that may move')
  ax.set_ylabel('nats per gradient-equivalent', fontsize=8)
  where = 'random signs' if start == 'random' else 'the checkpoint'
  ax.set_title(f'efficiency on A, from {where}', fontsize=8)


def _supplement(results):
  from matplotlib import pyplot

  largest = outcomes.widths(results)[-1]
  fig, axes = pyplot.subplots(2, 2, figsize=(6.75, 7.4))
  _efficiency(axes[0, 0], results, 'checkpoint')
  _beyond_random(axes[0, 1], results)
  _tiny(axes[1, 0], results)
  _left(axes[1, 1], results, largest)
  _legend(fig, axes[0, 0], '(exponent of the efficiency)')
  return fig


_STARTS = {'checkpoint': (plots.BLUE, 'o'), 'random': (plots.ORANGE, 's')}


def _beyond_random(ax, results):
  signs = outcomes.widths(results)
  for start, (color, marker) in _STARTS.items():
    for batch, style in (('search', '-'), ('holdout', ':')):
      table = outcomes.advantage(results, batch, start)
      name = f'{start}, {_BATCHES[batch][0]}'
      plots.band(ax, signs, table, color=color, linestyle=style, marker=marker,
                 label=name)  # fmt: skip
  ax.axhline(findings.MARGIN, color=plots.GREY, linestyle='--', linewidth=0.8)
  ax.axhline(0, color='black', linewidth=0.8)
  plots.log_axis(ax)
  ax.set_yscale('symlog', linthresh=findings.MARGIN)
  ax.set_xlabel('signs that may move')
  ax.set_ylabel('nats', fontsize=8)
  ax.set_title('genetic, beyond random flips', fontsize=8)
  ax.legend(fontsize=7)


def _rows(ax, results, of):
  """Draws a row for each method, and in it both starts."""
  rows = [*outcomes.names(results), arms.DESCENT]
  for row, arm in enumerate(rows):
    for offset, start in ((-0.15, 'checkpoint'), (0.15, 'random')):
      color, marker = _STARTS[start]
      plots.whisker(
        ax, row + offset, intervals.interval(of(arm, start).values),
        color=color, marker=marker, label=None if row else start,
      )  # fmt: skip
  ax.set_yticks(range(len(rows)), rows, fontsize=7)
  ax.axvline(0, color='black', linewidth=0.8)
  # Below all rows, where nothing is drawn.
  ax.set_ylim(len(rows) + 1.2, -0.5)
  ax.legend(fontsize=7, loc='lower center', ncols=2)


def _tiny(ax, results):
  at = results.sel(signs=outcomes.tiny())

  def gap(arm, start):
    own = at.sel(start=start)
    if arm == arms.DESCENT:
      return own.descended_search - own.optimum
    return own.search.sel(arm=arm, effort=1) - own.optimum

  _rows(ax, results, gap)
  ax.set_xlabel('loss on A, less the lowest of all (nats)', fontsize=8)
  ax.set_title(f'{outcomes.tiny()} signs, all of them tried', fontsize=8)


def _left(ax, results, signs):
  at = results.sel(signs=signs)
  _rows(ax, results, lambda arm, start: at.improving.sel(arm=arm, start=start))
  ax.set_xlabel('share of flips that lower A', fontsize=8)
  ax.set_title(f'{signs} signs, whole budget', fontsize=8)
