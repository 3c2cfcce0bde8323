"""Draws losses before and after flips, shares of flips that help, and the controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitjax.evidence import contrasts
from bitjax.evidence import intervals
from bitjax.evidence import plots
from bitjax.studies.local_optima import margins

if TYPE_CHECKING:
  from matplotlib import axes as axes_lib
  from matplotlib import figure
  import xarray

__all__ = ['page']

_STAGES = (
  ('trained', 'trained', 'o', plots.GREY),
  ('descended', 'after the best flips', 's', plots.BLUE),
  ('again', 'flipped at random, then the best flips', '^', plots.ORANGE),
)
_DEPTHS = (
  ('few', 'controls: after a few of the best flips', 'D', plots.CYAN),
  ('descended', 'controls: after all of them', 's', plots.BLUE),
)
_SHARES = (
  ('improving', 'flips that lower the training loss', 'o', plots.BLUE),
  ('holds', 'of these, those that lower the held-out loss', '^', plots.ORANGE),
  ('random_holds', 'flips that lower the held-out loss', 'x', plots.GREY),
)
_NULLS = (
  _SHARES[0],
  ('significant', 'lower training loss by over 2 errors', 's', plots.TEAL),
  ('mirrored', 'higher training loss by over 2 errors', 'v', plots.RED),
)


def page(results: xarray.Dataset) -> figure.Figure:
  """Draws losses and shares of flips, by estimator, and the same of the controls.

  Args:
    results: the results of the study.
  """
  from matplotlib import pyplot

  results = margins.sound(results)
  names = results.estimator.values.tolist()
  controls = _controls(results)
  rows = len(names), len(controls)
  fig = pyplot.figure(figsize=(6.75, 3.1 + 0.26 * sum(rows)))
  grid = fig.add_gridspec(2, 3, height_ratios=[1 + size for size in rows])
  upper, lower = _row(fig, grid, 0, names), _row(fig, grid, 1, [*controls])
  _losses(upper, results)
  for position, own in enumerate(controls.values()):
    _control(lower, position, own)
  upper[2].set_xlim(0, 1)
  lower[2].axvline(margins.NOMINAL, color=plots.DARK_BLUE, linestyle=':')
  lower[2].set_xlim(left=0)
  for ax in (upper[2], lower[2]):
    ax.set_xlabel('share of flips,\nall layers')
  for ax, batch in zip(lower, margins.NAMES, strict=False):
    ax.axvline(0, color=plots.LIGHT_GREY, linewidth=1)
    ax.set_xlabel(
      f'log ratio of the {margins.NAMES[batch]}\nloss, before / after'
    )
  plots.primary_rows(upper[1], 0)  # The first estimator is the reference.
  upper[0].get_yticklabels()[0].set_fontweight('bold')
  handles, labels = upper[0].get_legend_handles_labels()
  handles.append(pyplot.Rectangle((0, 0), 1, 1, color=plots.PRIMARY))
  labels.append('primary contrast: trained, after the best flips')
  found = lower[0].get_legend_handles_labels()
  fig.legend(handles + found[0], labels + found[1], loc='outside lower left')
  handles, labels = upper[2].get_legend_handles_labels()
  found = lower[2].get_legend_handles_labels()
  handles, labels = handles + found[0][1:], labels + found[1][1:]
  handles.append(pyplot.Line2D([0], [0], color=plots.DARK_BLUE, linestyle=':'))
  labels.append('2.3 %: over 2 standard errors by chance')
  fig.legend(handles, labels, loc='outside lower right')
  return fig


def _row(fig, grid, row, names):
  """Adds three panels that share their rows."""
  first = fig.add_subplot(grid[row, 0])
  axes = [
    first,
    *(fig.add_subplot(grid[row, n], sharey=first) for n in (1, 2)),
  ]
  first.set_yticks(range(len(names)), names)
  first.set_ylim(len(names) - 0.5, -0.5)
  for ax in axes[1:]:
    ax.tick_params(labelleft=False)
  return axes


def _losses(axes, results):
  for ax, batch in zip(axes, margins.NAMES, strict=False):
    for offset, (stage, label, marker, color) in zip(
      (-0.22, 0, 0.22), _STAGES, strict=True
    ):
      losses = results[f'{stage}_{batch}']
      if 'perturbed' in losses.dims:
        losses = losses.isel(perturbed=-1)
      for position, row in enumerate(losses.transpose('estimator', 'seed')):
        _point(ax, position, offset, row, label, marker, color)
    plots.log_axis(ax)
    ax.set_xlabel(f'{margins.NAMES[batch]} loss\n(nats; lower is better)')
  for position in range(results.sizes['estimator']):
    own = results.isel(estimator=position).sel(layer='all')
    _shares(axes[2], position, own, _SHARES)


def _controls(results):
  """Returns what the controls found, by the name of the training."""
  own = results.sel(layer='all')
  found = {}
  for schedule in own.schedule.values.tolist():
    for times in own.updates.values.tolist():
      rate = 'falling' if schedule == 'cosine' else 'constant'
      name = f'{rate} rate' + (f', {times} x longer' if times > 1 else '')
      one = own.sel(schedule=schedule, updates=times)
      found[name] = margins.sound(one, 'control_')
  if 'precise_trained_search' in results:
    for move in own.move.values.tolist():
      name = f'full precision:\n{move} moves'
      found[name] = margins.sound(own.sel(move=move), 'precise_')
  return found


def _control(axes, position, own):
  for ax, batch in zip(axes, margins.NAMES, strict=False):
    for offset, (stage, label, marker, color) in zip(
      (-0.12, 0.12), _DEPTHS, strict=True
    ):
      if f'{stage}_{batch}' not in own:
        continue
      effect = contrasts.log_ratio(
        own[f'trained_{batch}'], own[f'{stage}_{batch}']
      )
      _point(ax, position, offset, effect, label, marker, color)
  _shares(axes[2], position, own, _NULLS)


def _shares(ax, position, own, shares):
  for offset, (name, label, marker, color) in zip(
    (-0.22, 0, 0.22), shares, strict=True
  ):
    _point(ax, position, offset, own[name], label, marker, color, (0, 1))


def _point(
  ax: axes_lib.Axes,
  position: int,
  offset: float,
  values: xarray.DataArray,
  label: str | None,
  marker: str,
  color: str,
  bounds: tuple[float, float] | None = None,
) -> None:
  plots.whisker(
    ax,
    position + offset,
    intervals.interval(values.values, bounds=bounds),
    color=color,
    marker=marker,
    label=label if position == 0 else None,
  )
