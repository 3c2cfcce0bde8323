"""Draws decibels and costs of all networks; in a supplement, activations and images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax.evidence import intervals
from bitjax.evidence import plots
from bitjax.studies.super_resolution import arms as arms_lib
from bitjax.studies.super_resolution import findings

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray

__all__ = ['page']

_COLORS = {32: plots.GREY, 1: plots.BLUE, 2: plots.ORANGE, 4: plots.TEAL}
_WORDS = {32: 'full precision', 1: '1 bit', 2: '2 bits', 4: '4 bits'}


def page(results: xarray.Dataset) -> dict[str, figure.Figure]:
  """Draws PSNR and energy by arm, and what may explain it.

  Args:
    results: of `trainings.compare`.
  """
  table = findings.Table(results)
  return {'figure': _answer(table), 'figure_supplement': _supplement(table)}


def _color(arm):
  return _COLORS[arms_lib.ARMS[arm].design.bits]


def _rows(ax, arms, *, labels):
  ax.set_yticks(range(len(arms)), arms if labels else [''] * len(arms))
  ax.set_ylim(len(arms) - 0.5, -0.5)


def _answer(table):
  from matplotlib import lines
  from matplotlib import pyplot

  arms = table.arms
  fig, axes = pyplot.subplots(
    1, 2, figsize=(6.75, 1.6 + 0.22 * len(arms)), width_ratios=(1.6, 1)
  )
  for row, arm in enumerate(arms):
    found = intervals.interval(table.gain(arm))
    plots.whisker(axes[0], row, found, color=_color(arm))
    at = table.found.sel(arm=arm)
    axes[1].plot(
      [float(at.energy_low), float(at.energy_high)],
      [row, row],
      color=_color(arm),
      linewidth=4,
      solid_capstyle='butt',
    )
  axes[0].axvline(0, color=plots.LIGHT_GREY, zorder=0)
  axes[0].set_xlabel('PSNR above bicubic resampling (dB)')
  _rows(axes[0], arms, labels=True)
  _rows(axes[1], arms, labels=False)
  for ax in axes:
    plots.primary_rows(ax, *(arms.index(arm) for arm in arms_lib.PRIMARY))
  plots.log_axis(axes[1])
  axes[1].set_xlabel('energy at 1280 × 720\n(mJ, least to most)', fontsize=8)
  shown = dict.fromkeys(arms_lib.ARMS[arm].design.bits for arm in arms)
  handles: list[Any] = [
    lines.Line2D([], [], color=_COLORS[bits], marker='o', label=_WORDS[bits])
    for bits in shown
  ]
  handles.append(
    pyplot.Rectangle(
      (0, 0),
      1,
      1,
      color=plots.PRIMARY,
      label='compared by the primary contrast',
    )
  )
  fig.legend(handles=handles, loc='outside lower left', ncols=5, fontsize=7)
  return fig


def _supplement(table):
  from matplotlib import pyplot

  arms = table.arms
  fig, axes = pyplot.subplots(
    1,
    3,
    figsize=(6.9, 1.9 + 0.22 * len(arms)),
    width_ratios=(1, 1, 1.1),
  )
  for row, arm in enumerate(arms):
    for ax, samples in (
      (axes[0], table.passing(arm)),
      (axes[1], table.variation('range', arm)),
    ):
      found = intervals.interval(samples, bounds=(0, np.inf))
      plots.whisker(ax, row, found, color=_color(arm))
  axes[0].set_xlabel('gradient that passes\na layer (%)', fontsize=8)
  axes[1].set_xlabel('range of activations,\nvariation (% of mean)', fontsize=8)
  for ax in axes[:2]:
    _rows(ax, arms, labels=ax is axes[0])
    plots.primary_rows(ax, *(arms.index(arm) for arm in arms_lib.PRIMARY))
  _images(axes[2], table)
  return fig


def _images(ax, table):
  """Draws the primary contrast on each test image."""
  each, block = arms_lib.PRIMARY
  cells = table.psnr(each) - table.psnr(block)
  names = [
    (name.rpartition('.')[0] or name).replace('_', ' ')
    for name in table.found.image.values
  ]
  for row in range(len(names)):
    plots.whisker(
      ax, row, intervals.interval(cells[:, row]), color=plots.BLUE, marker='s'
    )
  plots.whisker(
    ax, len(names), intervals.interval(cells.mean(axis=1)), color=plots.BLUE
  )
  ax.axvspan(-findings.MARGIN, findings.MARGIN, color=plots.PRIMARY, zorder=0)
  ax.axvline(0, color=plots.LIGHT_GREY, zorder=0)
  ax.set_yticks(range(len(names) + 1), [*names, 'mean'], fontsize=7)
  ax.set_ylim(len(names) + 0.5, -0.5)
  ax.set_xlabel('shortcut: convolution\nless block (dB)', fontsize=8)
