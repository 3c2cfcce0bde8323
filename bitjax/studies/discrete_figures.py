"""What every way to spend a budget saves, on the batch it searched and on another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitjax.studies import discrete_arms
from bitjax.studies import discrete_findings as findings
from bitjax.studies import plots
from bitjax.studies import protocols
from bitjax.studies import statistics

if TYPE_CHECKING:
  from matplotlib import axes as axes_lib
  from matplotlib import figure
  import xarray

__all__ = ['page', 'panel', 'reliability']

_COLORS = {
  'discrete': '#0077BB',
  'rounds': '#009988',
  'coordinate': '#EE7733',
  'ste': '#CC3311',
  'multi': '#CC3311',
  'random': '#777777',
}


def page(results: xarray.Dataset) -> figure.Figure:
  """A row of panels for each choice of layers in the first ball, and reliability.

  Args:
    results: of `toy_discrete.compare`.
  """
  from matplotlib import pyplot

  states, layers = (results[n].values.tolist() for n in ('state', 'layers'))
  ball = results.ball.values[0]
  fig, axes = pyplot.subplots(
    len(layers) + 1,
    len(states),
    figsize=(6.75, 4.8 * len(layers) + 2.2),
    height_ratios=[4.8] * len(layers) + [2.0],
    sharey='row',
    squeeze=False,
  )
  for row, name in zip(axes[:-1], layers, strict=True):
    for ax, state in zip(row, states, strict=True):
      panel(ax, results, {'state': state, 'ball': ball, 'layers': name})
      moved = 'first layer' if name == 'first' else 'all layers'
      ax.set_title(f'{state}, {moved}, {ball}')
      ax.set_xlabel('decrease of the loss (nats)')
  for ax, state in zip(axes[-1], states, strict=True):
    reliability(ax, results, state)
  axes[-1, 0].set_ylabel('correlation over moves')
  axes[-1, 0].legend(fontsize=6.5)
  lines = axes[0, 0].get_legend_handles_labels()
  fig.legend(*lines, loc='outside upper center', ncols=3)
  return fig


def reliability(ax: axes_lib.Axes, results: xarray.Dataset, state: str) -> None:
  """Draws how the promises of moves agree, against the size of the batch.

  Args:
    ax: where to draw.
    results: of `toy_discrete.compare`.
    state: of the network.
  """
  found = results['reliability_correlation'].sel(state=state)
  sizes = found.batch_size.values
  colors = ('#0077BB', '#CC3311', '#EE7733')
  for pair, color in zip(found.pair.values.tolist(), colors, strict=True):
    rows = found.sel(pair=pair).transpose('batch_size', 'seed').values
    plots.band(ax, sizes, rows, color=color, marker='o', label=pair)
  ax.axhline(0, color='black', linewidth=0.8)
  ax.set_xscale('log', base=2)
  ax.set_xticks(sizes, [f'{size}' for size in sizes])
  ax.set_xlabel('examples in A, and in B')


def panel(
  ax: axes_lib.Axes, results: xarray.Dataset, where: dict[str, Any]
) -> None:
  """Draws the decreases of all arms, one row each, with their intervals.

  Filled: on A, with the number of moves, rate or steps that is best there; open:
  on B, with those chosen on other seeds; a cross: on A, the whole budget spent.

  Args:
    ax: where to draw.
    results: of `toy_discrete.compare`.
    where: labels of state and ball.
  """
  rows = _rows(results, where)
  start = protocols.arm(results, 'discrete').sel(where)
  start = start.isel(prefix=0, signal=0, ranking=0)
  for place, (arm, _, options) in enumerate(rows):
    color = _COLORS[arm]
    for offset, batch, protocol, marker, fill, label in _READS:
      if protocol == 'all' and arm not in ('discrete', 'rounds'):
        continue
      loss = findings.reached(results, arm, protocol, batch, **where, **options)
      found = statistics.interval((start[batch] - loss).values)
      plots.whisker(
        ax, place + offset, found, color=color, marker=marker, filled=fill
      )
      if place == 0 or (protocol == 'all' and not _labelled(ax, label)):
        ax.plot([], [], marker, color='black', label=label, markersize=4,
                markerfacecolor='black' if fill else 'white')  # fmt: skip
  ax.axvline(0, color='black', linewidth=0.8)
  ax.set_yticks(range(len(rows)), [name for _, name, _ in rows], fontsize=6.5)
  ax.set_ylim(len(rows) - 0.5, -0.5)


# Offset, batch, protocol, marker, whether it is filled, label.
_READS = (
  (-0.2, 'search', 'oracle', 'o', True, 'A, best point'),
  (0.0, 'search', 'all', 'x', True, 'A, whole budget'),
  (0.2, 'holdout', 'deployable', 'o', False, 'B, tuned on other seeds'),
)


def _labelled(ax, label):
  return label in ax.get_legend_handles_labels()[1]


def _rows(results, where):
  """Arm, name, labels."""
  rows: list[tuple[str, str, dict[str, Any]]] = [
    ('ste', f'STE step, {d}', {'direction': d})
    for d in results.direction.values.tolist()
  ]
  rows += [
    ('multi', f'STE steps, {o}', {'optimizer': o})
    for o in results.optimizer.values.tolist()
  ]
  rankings = discrete_arms.RANKINGS
  rows += [
    ('discrete', f'{s} {r}', {'signal': s, 'ranking': r})
    for s in discrete_arms.SIGNALS
    for r in (rankings if s != 'cost' else rankings[:1])
  ]
  number = results.num_rounds.values.tolist()[-1]
  rows += [
    (
      'rounds',
      f'{number} rounds: {s} {r}, {p}',
      {'signal': s, 'ranking': r, 'split': p, 'num_rounds': number},
    )
    for s in ('exact', 'linear')
    for r in (rankings[0], rankings[2])
    for p in discrete_arms.SPLITS
  ]
  if where['layers'] == 'first':
    rows += [
      ('coordinate', f'one by one, by {o}', {'order': o})
      for o in results.order.values.tolist()
    ]
  return [*rows, ('random', 'random points', {})]
