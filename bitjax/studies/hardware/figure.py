"""Draws accuracy against what networks cost; in a supplement, what costs consist of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bitjax.evidence import plots
from bitjax.evidence import twoway
from bitjax.studies.hardware import arms as arms_lib
from bitjax.studies.hardware import findings
from bitjax.studies.recipes import outcomes

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray

__all__ = ['page']

_COLORS = {
  '1': plots.RED,
  '1.58': plots.ORANGE,
  '2': plots.TEAL,
  '3': plots.CYAN,
  '4': plots.BLUE,
  '8': plots.DARK_BLUE,
  '32': plots.GREY,
}
_PARTS = {
  'arithmetic': plots.BLUE,
  'weights': plots.CYAN,
  'features': plots.TEAL,
  'shortcuts': plots.ORANGE,
}


def page(results: xarray.Dataset) -> dict[str, figure.Figure]:
  """Draws the trained networks, and those that are only counted.

  Args:
    results: of `trainings.compare`.
  """
  return {'figure': _fronts(results), 'figure_supplement': _accounts(results)}


def _fronts(results):
  from matplotlib import pyplot

  found = outcomes.tested(results[list(findings.TESTED)])
  accuracy = {
    arm: twoway.interval(
      found.right.sel(arm=arm).transpose('seed', 'test_example').values,
      bounds=(0, 100),
    )
    for arm in found.arm.values.tolist()
  }
  energy = np.sqrt(results.energy_low * results.energy_high)
  fig, axes = pyplot.subplots(1, 3, figsize=(6.75, 3.1), sharey=True)
  for ax, cost, label in (
    (axes[0], energy, 'energy (µJ; lines: band)'),
    (axes[1], results.memory / 1024, 'memory (KiB)'),
    (axes[2], results.latency, 'latency (cycles)'),
  ):
    for bits, color in _COLORS.items():
      own = results.arm[(results.bits == bits).values].values
      cost_of = {a: float(cost.sel(arm=a)) for a in own.tolist()}
      known = [arm for arm, value in cost_of.items() if np.isfinite(value)]
      own = sorted(known, key=lambda arm, cost_of=cost_of: cost_of[arm])
      if not own:
        continue
      ax.plot(
        [cost_of[a] for a in own],
        [accuracy[a].mean for a in own],
        color=color,
        marker='o',
        markersize=3,
        label=f'{bits} bit{"s" * (bits != "1")}',
      )
      for arm in own:
        one, at = accuracy[arm], results.sel(arm=arm)
        ax.plot([cost_of[arm]] * 2, [one.low, one.high], color=color, lw=0.8)
        if cost is energy:
          band = [float(at.energy_low), float(at.energy_high)]
          ax.plot(band, [one.mean] * 2, color=color, lw=0.8)
    ax.set_xlabel(label)
    plots.log_axis(ax)
  for bits in (arms_lib.PRIMARY, arms_lib.REFERENCE):
    own = results.equal_energy & (results.bits == bits)
    (arm,) = results.arm[own.values].values.tolist()
    axes[0].plot(
      float(energy.sel(arm=arm)),
      accuracy[arm].mean,
      marker='o',
      markersize=9,
      markerfacecolor='none',
      markeredgecolor='black',
      linestyle='',
      label=None if bits == arms_lib.PRIMARY else 'primary contrast',
    )
  axes[0].set_ylabel('test accuracy, last epoch (%)')
  handles, labels = axes[0].get_legend_handles_labels()
  fig.legend(handles, labels, loc='outside lower center', ncols=4, fontsize=7)
  return fig


def _accounts(results):
  from matplotlib import pyplot

  energy = results.counted_energy
  names = energy.counted.values.tolist()
  fig, axes = pyplot.subplots(
    1, 2, figsize=(6.75, 1.4 + 0.22 * len(names)), width_ratios=(1, 1.1)
  )
  rows = np.arange(len(names))
  middle = np.sqrt(energy.sel(side='low') * energy.sel(side='high'))
  shares = middle / middle.sum('part')
  start = np.zeros(len(names))
  for part, color in _PARTS.items():
    width = shares.sel(part=part).values
    axes[0].barh(rows, width, left=start, color=color, label=part, height=0.7)
    start = start + width
  axes[0].set_ylim(len(names) - 0.5, -0.5)
  axes[0].set_xlim(0, 1)
  axes[0].set_xlabel('share of the energy')
  fig.legend(loc='outside lower center', ncols=4, fontsize=7)
  total = energy.sum('part')
  for row, name in zip(rows, names, strict=True):
    band = [
      float(total.sel(counted=name, side=side)) for side in ('low', 'high')
    ]
    operations = float(results.counted_operations.sel(counted=name)) / 1e6
    axes[1].plot(
      [operations] * 2, band, color=plots.BLUE, marker='_', markersize=5
    )
    left = row % 2  # So that names of neighbours do not meet.
    axes[1].annotate(
      str(row + 1),
      (operations, band[left - 1]),
      xytext=(-4 if left else 4, 0),
      textcoords='offset points',
      ha='right' if left else 'left',
      va='center',
      fontsize=7,
    )
  axes[0].set_yticks(
    rows, [f'{name}  {row + 1}' for row, name in enumerate(names)], fontsize=7
  )
  axes[1].set_yscale('log')
  plots.log_axis(axes[1])
  axes[1].set_xlabel('operations (millions of OPs)')
  axes[1].set_ylabel('energy of an image (µJ)')
  return fig
