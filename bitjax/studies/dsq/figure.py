"""Draws accuracy by gradient, and how fast signs settle with each."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax.evidence import intervals
from bitjax.evidence import plots
from bitjax.evidence import twoway
from bitjax.studies.dsq import arms as arms_lib
from bitjax.studies.recipes import outcomes

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray

__all__ = ['page']

_WORDS = {
  'fixed 0.4': 'alpha 0.4',
  'fixed 0.2': 'alpha 0.2',
  'fixed 0.05': 'alpha 0.05',
  'falling': 'alpha falling',
  'falling window': 'window falling',
  'learned': 'alpha learned',
}


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
  """Draws test and training accuracy by arm; sign flips by epoch, if there are several.

  Args:
    results: of `trainings.compare`.
  """
  from matplotlib import pyplot

  found = outcomes.tested(results)
  arms = found.arm.values.tolist()
  every = found.bits.values.tolist()
  over_time = results.sizes['epoch'] > 1
  fig, axes = pyplot.subplots(
    1,
    len(every) + over_time,
    figsize=(6.75, 1.9 + 0.24 * len(arms)),
    squeeze=False,
  )
  for ax, bits in zip(axes[0], every, strict=False):
    for offset, (reached, label, marker, color) in zip(
      (-0.14, 0.14), _READ, strict=True
    ):
      for position, arm in enumerate(arms):
        plots.whisker(
          ax,
          position + offset,
          reached(found.sel(bits=bits, arm=arm)),
          color=color,
          marker=marker,
          label=None if position else label,
        )
    shown = [_WORDS.get(arm, arm) for arm in arms]
    ax.set_yticks(range(len(arms)), shown if bits == every[0] else [])
    ax.set_ylim(len(arms) - 0.5, -0.5)
    if bits == 1:
      plots.primary_rows(
        ax, *(arms.index(arm) for arm in arms_lib.PRIMARY if arm in arms)
      )
    low, high = ax.get_xlim()
    room = 0.03 * (high - low)  # Keeps markers at 100 % whole.
    ax.set_xlim(max(low, 0), min(high, 100 + room))
    ax.set_xlabel('accuracy, last epoch\n(%; higher is better)', fontsize=8)
    kind = 'weights' if bits == 1 else 'weights and activations'
    ax.set_title(f'{bits}-bit\n{kind}')
  # The legend goes outside, as no corner of a panel is sure to be free.
  handles, labels = axes[0, 0].get_legend_handles_labels()
  handles.append(pyplot.Rectangle((0, 0), 1, 1, color=plots.PRIMARY))
  labels.append('compared by the primary contrast (test)')
  fig.legend(handles, labels, loc='outside lower left', ncols=3)
  if over_time:
    _flips(axes[0, -1], results.sel(bits=every[0]), arms)
    axes[0, -1].set_title(axes[0, 0].get_title())
  return fig


def _flips(ax, results, arms):
  epochs = results.epoch.values
  ratio = results.flip_ratio.mean(('seed', 'layer'))
  colors = [plots.GREY, plots.CYAN, plots.BLUE, plots.DARK_BLUE]
  colors += [plots.ORANGE, plots.RED, plots.TEAL]
  # Arms of one's own come after the seven and have lines of their own.
  styles = itertools.chain(
    zip(_LINES, colors, strict=True),
    itertools.cycle(itertools.product(_MORE_LINES, colors)),
  )
  for arm, (line, color) in zip(arms, styles, strict=False):
    ax.plot(
      epochs,
      ratio.sel(arm=arm).values,
      color=color,
      linestyle=line,
      label=_WORDS.get(arm, arm),
      marker='o' if epochs.size < 4 else None,
    )
  if np.all(ratio.values > 0):
    ax.set_yscale('log')
  ax.set_xlabel('epoch')
  ax.xaxis.get_major_locator().set_params(integer=True)
  ax.set_ylabel('sign flips per weight and update', fontsize=8)
  ax.legend(fontsize=7, loc='lower left', borderpad=0, labelspacing=0.2)


_LINES: tuple[Any, ...] = ('-', '-', '-', '-', '--', '--', ':')
_MORE_LINES: tuple[Any, ...] = ('-.', (0, (6, 2, 1, 2, 1, 2)), (0, (1, 4)))
