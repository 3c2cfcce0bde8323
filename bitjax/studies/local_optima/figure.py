"""Draws losses before and after flips, and shares of flips that help, by estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitjax.evidence import intervals
from bitjax.evidence import plots
from bitjax.studies.local_optima import findings

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
_SHARES = (
  ('improving', 'flips that lower the training loss', 'o', plots.BLUE),
  ('significant', '... by more than 2 standard errors', 's', plots.TEAL),
  (
    'holds',
    'of the first, those that lower the held-out loss',
    '^',
    plots.ORANGE,
  ),
  ('random_holds', 'flips that lower the held-out loss', 'x', plots.GREY),
)


def page(results: xarray.Dataset) -> figure.Figure:
  """Draws losses on training and held-out data, and shares of flips.

  Args:
    results: the results of `arms.compare`.
  """
  from matplotlib import pyplot

  names = results.estimator.values.tolist()
  fig, axes = pyplot.subplots(
    1, 3, figsize=(6.75, 1.75 + 0.26 * len(names)), sharey=True
  )
  for ax, batch in zip(axes, findings.NAMES, strict=False):
    for offset, (stage, label, marker, color) in zip(
      (-0.22, 0, 0.22), _STAGES, strict=True
    ):
      losses = results[f'{stage}_{batch}']
      if 'perturbed' in losses.dims:
        losses = losses.isel(perturbed=-1)
      _rows(ax, losses, offset, label, marker, color)
    plots.log_axis(ax)
    ax.set_xlabel(f'{findings.NAMES[batch]} loss\n(nats; lower is better)')
  for offset, (name, label, marker, color) in zip(
    (-0.27, -0.09, 0.09, 0.27), _SHARES, strict=True
  ):
    share = results[name].sel(layer='all')
    _rows(axes[2], share, offset, label, marker, color, (0, 1))
  axes[2].set_xlim(0, 1)
  axes[2].set_xlabel('share of flips,\nall layers')
  axes[0].set_yticks(range(len(names)), names)
  axes[0].set_ylim(len(names) - 0.5, -0.5)
  plots.primary_rows(axes[1], 0)  # The first estimator is the reference.
  axes[0].get_yticklabels()[0].set_fontweight('bold')
  handles, labels = axes[0].get_legend_handles_labels()
  handles.append(pyplot.Rectangle((0, 0), 1, 1, color=plots.PRIMARY))
  labels.append('primary contrast: trained, after the best flips')
  fig.legend(handles, labels, loc='outside lower left')
  fig.legend(*axes[2].get_legend_handles_labels(), loc='outside lower right')
  return fig


def _rows(
  ax: axes_lib.Axes,
  values: xarray.DataArray,
  offset: float,
  label: str,
  marker: str,
  color: str,
  bounds: tuple[float, float] | None = None,
) -> None:
  for position, row in enumerate(values.transpose('estimator', 'seed').values):
    band = intervals.interval(row, bounds=bounds)
    plots.whisker(
      ax,
      position + offset,
      band,
      color=color,
      marker=marker,
      label=None if position else label,
    )
