"""Figures for print: one style, and colours that colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax.evidence import intervals
from bitjax.evidence import optional

if TYPE_CHECKING:
  from matplotlib import axes as axes_lib

__all__ = [
  'BLUE',
  'CYAN',
  'DARK_BLUE',
  'GREY',
  'LIGHT_GREY',
  'LINE_STYLES',
  'ORANGE',
  'PRIMARY',
  'RED',
  'TEAL',
  'band',
  'log_axis',
  'primary_rows',
  'style',
  'whisker',
]

# Paul Tol's "vibrant" colours, which remain distinct under all common forms of colour
# blindness, and a darker blue of his.
BLUE = '#0077BB'
CYAN = '#33BBEE'
TEAL = '#009988'
ORANGE = '#EE7733'
RED = '#CC3311'
DARK_BLUE = '#004488'
GREY = '#777777'  # For baselines and references.
LIGHT_GREY = '#BBBBBB'  # For zero lines behind curves.
PRIMARY = '#F2E2B3'  # Behind what the primary contrast compares.
LINE_STYLES: tuple[Any, ...] = (
  '-',
  '--',
  ':',
  '-.',
  (0, (5, 1, 1, 1, 1, 1)),
  (0, (8, 2)),
)

# Candidate ticks within a decade, densest first, and the most ticks that an axis takes.
_DIGITS = (
  tuple(d / 100 for d in range(100, 1000, 2)),
  *(tuple(d / 10 for d in range(10, 100, step)) for step in (1, 2, 5)),
  (1, 1.5, 2, 3, 5, 7),
  (1, 3),
  (1,),
)
_MAX_TICKS = 5

_STYLE = {
  'axes.axisbelow': True,
  'axes.grid': True,
  'axes.labelsize': 9,
  'axes.linewidth': 0.8,
  'axes.spines.right': False,
  'axes.spines.top': False,
  'axes.titlesize': 9,
  'figure.constrained_layout.use': True,
  'figure.figsize': (6.75, 2.6),
  'font.size': 9,
  'grid.alpha': 0.6,
  'grid.color': '#CCCCCC',
  'grid.linewidth': 0.4,
  'legend.fontsize': 8,
  'legend.frameon': False,
  'lines.linewidth': 1.4,
  'lines.markersize': 3.5,
  'pdf.fonttype': 42,
  'ps.fonttype': 42,
  'savefig.dpi': 200,
  'text.usetex': False,
  'xtick.labelsize': 8,
  'ytick.labelsize': 8,
}


@contextlib.contextmanager
def style() -> Iterator[None]:
  """Applies the style of all figures inside a ``with`` block; needs no display.

  Studies are plotted inside such a block. Figures are 3.25 inches wide for one column
  of a paper, and 6.75 (the default) for two; they are at most 9 inches high, and no text
  is smaller than 7 points.
  """
  matplotlib = optional.load('matplotlib')
  matplotlib.use('Agg')
  with matplotlib.rc_context(_STYLE):
    yield


def whisker(
  ax: axes_lib.Axes,
  y: float,
  found: intervals.Interval,
  *,
  color: Any,
  marker: str = 'o',
  filled: bool = True,
  label: str | None = None,
) -> None:
  """Draws a mean with its interval as one row of a plot.

  Args:
    ax: where to draw.
    y: position of the row on the y axis.
    found: the interval.
    color: colour of line and marker.
    marker: marker at the mean.
    filled: whether the marker is filled with its colour instead of white.
    label: label in the legend.
  """
  ax.plot([found.low, found.high], [y, y], color=color, linewidth=1)
  ax.plot(
    found.mean,
    y,
    marker=marker,
    color=color,
    linestyle='',
    markersize=4,
    markerfacecolor=color if filled else 'white',
    label=label,
  )


def band(
  ax: axes_lib.Axes,
  x: Any,
  samples: Any,
  *,
  color: Any,
  linestyle: Any = '-',
  label: str | None = None,
  marker: str | None = None,
  level: float = 0.95,
  bounds: tuple[float, float] | None = None,
) -> list[intervals.Interval]:
  """Draws a curve of means with a band of their intervals.

  Args:
    ax: where to draw.
    x: coordinates of the points, [points].
    samples: [points, clusters] or [points, clusters, repeats], or the intervals
      themselves.
    color: colour of line and band.
    linestyle: style of the line.
    label: label in the legend.
    marker: marker at the points, if any.
    level: nominal coverage of the band.
    bounds: the smallest and the largest possible value, if there are such.

  Returns:
    The intervals that were drawn.

  Raises:
    ValueError: if the numbers of samples and points differ.
  """
  x = np.asarray(x)
  drawn = _intervals(samples, level, bounds)
  if len(drawn) != len(x):
    raise ValueError(f'{len(x)} points, but samples for {len(drawn)}.')
  mean = np.array([found.mean for found in drawn])
  low = np.array([found.low for found in drawn])
  high = np.array([found.high for found in drawn])
  ax.plot(x, mean, color=color, linestyle=linestyle, label=label, marker=marker)
  known = np.isfinite(low) & np.isfinite(high)
  if known.any():
    low, high = np.where(known, low, mean), np.where(known, high, mean)
    ax.fill_between(
      x, low, high, where=known.tolist(), color=color, alpha=0.18, linewidth=0
    )
  return drawn


def primary_rows(ax: axes_lib.Axes, *rows: int) -> None:
  """Marks the rows that the primary contrast compares, and prints their names bold.

  Args:
    ax: where rows are drawn, with their tick labels.
    *rows: positions on the y axis.
  """
  for row in rows:
    ax.axhspan(row - 0.5, row + 0.5, color=PRIMARY, linewidth=0, zorder=0)
  # Axes that share their labels with others have none.
  for position, text in zip(
    ax.get_yticks(), ax.get_yticklabels(), strict=False
  ):
    if position in rows:
      text.set_fontweight('bold')


def log_axis(ax: axes_lib.Axes) -> None:
  """Makes the x axis logarithmic, with a few ticks in plain numbers over any range."""
  ax.set_xscale('log')
  low, high = ax.get_xlim()
  decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
  ticks: list[float] = []
  for digits in _DIGITS:
    ticks = [d * 10.0**k for k in decades for d in digits]
    ticks = [tick for tick in ticks if low <= tick <= high]
    if len(ticks) <= _MAX_TICKS:
      break
  ax.set_xticks(ticks, [f'{tick:g}' for tick in ticks], fontsize=7)
  ax.set_xticks([], minor=True)


def _intervals(
  samples: Any, level: float, bounds: tuple[float, float] | None
) -> list[intervals.Interval]:
  return [
    found
    if isinstance(found, intervals.Interval)
    else intervals.interval(found, level=level, bounds=bounds)
    for found in samples
  ]
