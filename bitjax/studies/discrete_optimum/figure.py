"""Draws the bound of every network, and the share of the optimum that methods reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bitjax.evidence import intervals
from bitjax.evidence import plots
from bitjax.studies.discrete_optimum import arms
from bitjax.studies.discrete_optimum import findings
from bitjax.studies.toy import labels
from bitjax.studies.toy import searches

if TYPE_CHECKING:
  from matplotlib import axes as axes_lib
  from matplotlib import figure
  import xarray

__all__ = ['bound', 'page', 'shares']

_STATES = {'initialised': ('o', plots.BLUE), 'trained': ('s', plots.RED)}


def page(results: xarray.Dataset) -> figure.Figure:
  """Draws the primary contrast above, and every method below.

  Args:
    results: of `arms.compare`.
  """
  from matplotlib import pyplot

  states = results.state.values.tolist()
  heights = [1.9, 4.0]
  fig = pyplot.figure(figsize=(6.75, sum(heights)))
  top, below = fig.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
  bound(top.subplots(), results)
  axes = below.subplots(
    1, len(states), sharex=True, sharey=True, squeeze=False
  )[0]
  for ax, state in zip(axes, states, strict=True):
    shares(ax, results, state)
  return fig


def bound(ax: axes_lib.Axes, results: xarray.Dataset) -> None:
  """Draws, for every network, the sum of single gains relative to the optimum.

  The primary claim is that nine initialised networks of ten lie in the shaded range. A
  network in which nothing is to be saved, and nothing is promised, stands at 1; one in
  which nothing is promised, but something is to be saved, at the left edge.

  Args:
    ax: where to draw.
    results: of `arms.compare`.
  """
  states = results.state.values.tolist()
  ax.axvspan(1, 3, color=plots.PRIMARY, linewidth=0, zorder=0)
  nothing = (results.bound == 0) & (results.optimum == 0)
  ratios = (results.bound / results.optimum).where(~nothing, 1.0)
  shown = ratios.values[ratios.values > 0]
  edge = 0.9 * min([0.9, *shown])
  ax.set_xlim(edge, 1.1 * max([3.3, *shown]))
  shares = [v for v in findings.judge(results) if v.finding == findings.BOUND]
  for row, (state, share) in enumerate(zip(states, shares, strict=True)):
    ratio = ratios.sel(state=state).values
    y = row + np.linspace(-0.28, 0.28, ratio.size)
    marker, color = _STATES[state]
    for chosen, form in ((ratio > 0, marker), (ratio == 0, '<')):
      ax.plot(
        np.maximum(ratio, 1.03 * edge)[chosen], y[chosen], form, color=color,
        markersize=3, markerfacecolor='none',
      )  # fmt: skip
    inside, low, high = (
      100 * (value + findings.SHARE)
      for value in (share.effect, share.low, share.high)
    )
    ax.annotate(
      f'{inside:.0f} % inside\n[{low:.0f}, {high:.0f}]', (1.02, row),
      xycoords=('axes fraction', 'data'), va='center', fontsize=8,
    )  # fmt: skip
  plots.log_axis(ax)
  ax.set_yticks(range(len(states)), states)
  ax.get_yticklabels()[0].set_fontweight('bold')
  ax.set_ylim(len(states) - 0.5, -0.5)
  ax.axvline(1, color='black', linewidth=0.8)
  ax.set_xlabel('sum of single gains / best decrease, a dot for each network')
  ax.set_title(
    'Is the sum a bound? Shaded: a bound, within a factor of 3\n'
    '(bold: primary contrast, nine of ten inside)'
  )


def shares(ax: axes_lib.Axes, results: xarray.Dataset, state: str) -> None:
  """Draws the share of the best decrease that every method reaches on A.

  Args:
    ax: where to draw.
    results: of `arms.compare`.
    state: of the network.
  """
  at = results.sel(state=state)
  marker, color = _STATES[state]
  for row, arm in enumerate(arms.ARMS):
    share = intervals.share(at.decrease.sel(arm=arm).values, at.optimum.values)
    plots.whisker(ax, row, share, color=color, marker=marker)
  ax.axvline(0, color=plots.LIGHT_GREY, linewidth=0.8)
  ax.axvline(1, color='black', linewidth=0.8)
  ax.set_title(f'{state} (1: the best point of the ball)', fontsize=8)
  ax.set_xlabel('share of the best decrease\n(higher is better)', fontsize=8)
  ax.set_yticks(range(len(arms.ARMS)), _names(), fontsize=7)
  ax.set_ylim(len(arms.ARMS) - 0.5, -0.5)


def _names():
  """Returns the words for `arms.ARMS`."""
  words = {
    **{f'STE step, {d}': labels.direction(d) for d in searches.DIRECTIONS},
    'STE steps, sgd': labels.steps('sgd'),
    **{
      searches.label(s, r): labels.flips(s, r)
      for s in searches.SIGNALS
      for r in searches.RANKINGS
    },
    **{
      f'4 rounds, {s}': f'4 rounds: {labels.flips(s, searches.RANKINGS[-1])}'
      for s in searches.SCORED
    },
    **{f'one by one, by {o}': labels.order(o) for o in searches.ORDERS},
    'random points': 'random points of the ball',
  }
  return [words[arm] for arm in arms.ARMS]
