"""Draws accuracy by start and mixup, and how it grows from epoch to epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitjax.evidence import intervals
from bitjax.evidence import plots
from bitjax.evidence import twoway
from bitjax.studies.pretrain_vs_scratch import findings

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray

__all__ = ['page']

_COLORS = {
  'scratch': plots.BLUE,
  'pretrained': plots.RED,
  'half': plots.CYAN,
  'staged': plots.TEAL,
}
_WORDS = {'half': 'scratch, half'}


def _on_test(at):
  right = at.right.transpose('seed', 'test_example').values
  return twoway.interval(right, bounds=(0, 100))


def _on_training(at):
  accuracy = 100 * at.clean_train_accuracy.values
  return intervals.interval(accuracy, bounds=(0, 100))


_READ = (
  (_on_test, 'test', 'o', plots.BLUE),
  (_on_training, 'training', 's', plots.GREY),
)


def page(results: xarray.Dataset) -> figure.Figure:
  """Draws test and training accuracy by arm; below, validation accuracy by epoch.

  Args:
    results: of `trainings.compare`.
  """
  from matplotlib import pyplot

  found = findings.tested(results)
  precisions = list(dict.fromkeys(results.precision.values.tolist()))
  arms = {
    p: [a for a in results.arm.values if results.precision.sel(arm=a) == p]
    for p in precisions
  }
  curves = results.sizes['epoch'] > 1
  most = max(map(len, arms.values()))
  heights = [0.26 * most + 0.5] + [1.9] * curves
  fig, axes = pyplot.subplots(
    1 + curves,
    len(precisions),
    figsize=(6.75, sum(heights) + 0.9),
    height_ratios=heights,
    squeeze=False,
  )
  for column, precision in enumerate(precisions):
    ax = axes[0, column]
    _accuracies(ax, found, arms[precision], primary=not column)
    ax.set_title(precision)
    if curves:
      _curves(axes[1, column], results, arms[precision])
  handles, labels = axes[0, 0].get_legend_handles_labels()
  handles.append(pyplot.Rectangle((0, 0), 1, 1, color=plots.PRIMARY))
  labels.append('compared by the primary contrast (test)')
  fig.legend(handles, labels, loc='outside lower left', ncols=3)
  if curves:
    axes[1, 0].set_ylabel('validation accuracy (%)')
    axes[1, -1].legend(fontsize=7, loc='lower right')
  return fig


def _accuracies(ax, found, arms, *, primary):
  for offset, (reached, label, marker, color) in zip(
    (-0.14, 0.14), _READ, strict=True
  ):
    for position, arm in enumerate(arms):
      plots.whisker(
        ax,
        position + offset,
        reached(found.sel(arm=arm)),
        color=color,
        marker=marker,
        label=None if position else label,
      )
  at = [found.sel(arm=arm) for arm in arms]
  starts = [str(one.start.item()) for one in at]
  mixed = [float(one.alpha.item()) for one in at]
  ax.set_yticks(
    range(len(arms)),
    [
      _WORDS.get(start, start) + (f', mixup {alpha:g}' if alpha else '')
      for start, alpha in zip(starts, mixed, strict=True)
    ],
  )
  ax.set_ylim(len(arms) - 0.5, -0.5)
  if primary:
    plots.primary_rows(ax, starts.index('scratch'), starts.index('pretrained'))
  ax.set_xlabel('accuracy, last epoch\n(%; higher is better)', fontsize=8)


def _curves(ax, results, arms):
  epochs = results.epoch.values
  for arm in arms:
    at = results.sel(arm=arm)
    start = str(at.start.item())
    if at.alpha.item():
      continue
    accuracy = 100 * at.curve.mean('seed').values
    low_bit = slice(None)
    if start == 'pretrained':
      half = len(epochs) // 2
      low_bit = slice(half, None)
      ax.plot(
        epochs[:half],
        accuracy[:half],
        color=_COLORS[start],
        linestyle=':',
        label='in full precision',
      )
    elif start == 'half':
      low_bit = slice(-(-len(epochs) // 2))
    ax.plot(
      epochs[low_bit],
      accuracy[low_bit],
      color=_COLORS[start],
      label=_WORDS.get(start, start),
      marker='o' if len(epochs) < 6 else None,
    )
  ax.set_xlabel('epoch (no mixup)')
  ax.xaxis.get_major_locator().set_params(integer=True)
