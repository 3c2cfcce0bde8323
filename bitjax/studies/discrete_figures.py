"""What every way to spend a budget saves, on the batch it searched and on another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitjax.studies import discrete_findings as findings
from bitjax.studies import protocols
from bitjax.studies import statistics
from bitjax.studies import toy_discrete

if TYPE_CHECKING:
  from matplotlib import axes as axes_lib
  from matplotlib import figure
  import xarray

__all__ = ['page', 'panel']

_COLORS = {
  'discrete': '#0077BB',
  'rounds': '#009988',
  'coordinate': '#EE7733',
  'ste': '#CC3311',
  'multi': '#CC3311',
  'random': '#777777',
}


def page(results: xarray.Dataset) -> figure.Figure:
  """One panel for each state and ball.

  Args:
    results: of `toy_discrete.compare`.
  """
  from matplotlib import pyplot

  states, balls = (results[n].values.tolist() for n in ('state', 'ball'))
  fig, axes = pyplot.subplots(
    len(balls),
    len(states),
    figsize=(6.75, 4.4 * len(balls)),
    sharey=True,
    squeeze=False,
  )
  for row, ball in zip(axes, balls, strict=True):
    for ax, state in zip(row, states, strict=True):
      panel(ax, results, {'state': state, 'ball': ball})
      ax.set_title(f'{state}, {ball}')
      ax.set_xlabel('decrease of the loss (nats)')
  fig.legend(
    *axes[0, 0].get_legend_handles_labels(),
    loc='outside lower center',
    ncols=2,
  )
  return fig


def panel(
  ax: axes_lib.Axes, results: xarray.Dataset, where: dict[str, Any]
) -> None:
  """Draws the decreases of all arms, one row each, with their intervals.

  Filled: on A, with the number of moves, rate or steps that is best there; open:
  on B, with those chosen on other seeds.

  Args:
    ax: where to draw.
    results: of `toy_discrete.compare`.
    where: labels of state and ball.
  """
  rows = _rows(results)
  start = protocols.arm(results, 'discrete').sel(where)
  start = start.isel(prefix=0, signal=0, ranking=0)
  reads = (('search', 'oracle', 'A'), ('holdout', 'deployable', 'B'))
  for place, (arm, _, options) in enumerate(rows):
    for offset, (batch, protocol, label) in zip(
      (-0.17, 0.17), reads, strict=True
    ):
      loss = findings.reached(results, arm, protocol, batch, **where, **options)
      found = statistics.interval((start[batch] - loss).values)
      y, color = place + offset, _COLORS[arm]
      ax.plot([found.low, found.high], [y, y], color=color, linewidth=1)
      ax.plot(
        found.mean, y, marker='o', color=color, linestyle='', markersize=4,
        markerfacecolor=color if label == 'A' else 'white',
        label={'A': 'searched batch A', 'B': 'held-out batch B'}[label]
        if place == 0
        else None,
      )  # fmt: skip
  ax.axvline(0, color='black', linewidth=0.8)
  ax.set_yticks(range(len(rows)), [name for _, name, _ in rows], fontsize=6.5)
  ax.set_ylim(len(rows) - 0.5, -0.5)


def _rows(results):
  """Arm, name, labels."""
  rows: list[tuple[str, str, dict[str, Any]]] = [
    ('ste', f'STE step, {d}', {'direction': d})
    for d in results.direction.values.tolist()
  ]
  rows += [
    ('multi', f'STE steps, {o}', {'optimizer': o})
    for o in results.optimizer.values.tolist()
  ]
  rows += [
    ('discrete', f'{s} {r}', {'signal': s, 'ranking': r})
    for s in toy_discrete.SIGNALS
    for r in (toy_discrete.RANKINGS if s != 'cost' else ['gain'])
  ]
  rows += [
    (
      'rounds',
      f'rounds: {s} {r}, {p}',
      {'signal': s, 'ranking': r, 'split': p},
    )
    for s in ('exact', 'linear')
    for r in (toy_discrete.RANKINGS[0], toy_discrete.RANKINGS[2])
    for p in toy_discrete.SPLITS
  ]
  rows += [
    ('coordinate', f'one by one, by {o}', {'order': o})
    for o in results.order.values.tolist()
  ]
  return [*rows, ('random', 'random points', {})]
