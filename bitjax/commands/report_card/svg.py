"""Figures as inline SVG, whose colours are those of the page around them.

Nothing is loaded from elsewhere, and no script runs. Colours are classes of the page's style
sheet, so that figures are legible on a light and on a dark ground; text is text.
"""

from __future__ import annotations

from collections.abc import Sequence
import html
import math
from typing import NamedTuple

import numpy as np

from bitjax import evidence

__all__ = ['Curve', 'Means', 'Row', 'curves', 'rows', 'ticks', 'whiskers']

WIDTH = 420  # Units of the drawing, about as many pixels.
_CHAR = 6.6  # Width of a letter, at most, at the size of labels.


class Curve(NamedTuple):
  """A curve.

  Attributes:
    kind: its class in the style sheet: ``'a'``, ``'b'``, ``'c'`` or ``'normal'``.
    x: [points].
    y: [points].
    dash: dashes of the line, as SVG has them; empty for none.
  """

  kind: str
  x: Sequence[float]
  y: Sequence[float]
  dash: str = ''


class Means(NamedTuple):
  """Means with intervals, joined by a line.

  Attributes:
    kind: as for `Curve`, as ``dash`` is.
    x: [points].
    y: [points].
    dash: see ``kind``.
  """

  kind: str
  x: Sequence[float]
  y: Sequence[evidence.Interval]
  dash: str = ''


class Row(NamedTuple):
  """A row of means with intervals.

  Attributes:
    label: what it is.
    intervals: class in the style sheet -> interval.
  """

  label: str
  intervals: dict[str, evidence.Interval]


def curves(
  lines: Sequence[Curve], *, title: str, x_label: str, y_label: str
) -> str:
  """Draws curves over a continuous axis."""
  x = np.concatenate([line.x for line in lines])
  y = np.concatenate([np.asarray(line.y, float) for line in lines])
  frame = _Frame(x, [*y[np.isfinite(y)], 0.0], 250)
  parts = [frame.grid(ticks(frame.x), ticks(frame.y), x_label, y_label)]
  for line in lines:
    known = zip(line.x, line.y, strict=True)
    points = ' '.join(
      f'{frame.at_x(a):.1f},{frame.at_y(b):.1f}'
      for a, b in known
      if math.isfinite(b)
    )
    parts.append(
      f'<polyline class="line {line.kind}" stroke-dasharray="{line.dash}" '
      f'points="{points}"/>'
    )
  return _drawing(title, 250, parts)


def whiskers(
  lines: Sequence[Means], *, title: str, x_label: str, y_label: str
) -> str:
  """Draws means with intervals over a few named positions, such as batch sizes."""
  names = list(dict.fromkeys(x for line in lines for x in line.x))
  place = {name: index for index, name in enumerate(sorted(names))}
  ends = [e for line in lines for one in line.y for e in _ends(one)]
  frame = _Frame([-0.45, len(names) - 0.55], [*ends, 0.0], 250)
  named = [(index, f'{name:g}') for name, index in place.items()]
  parts = [frame.grid(named, ticks(frame.y), x_label, y_label)]
  for number, line in enumerate(lines):
    shift = (number - (len(lines) - 1) / 2) * min(0.09, 0.8 / len(lines))
    points = [
      (frame.at_x(place[x] + shift), one)
      for x, one in zip(line.x, line.y, strict=True)
    ]
    path = ' '.join(
      f'{x:.1f},{frame.at_y(one.mean):.1f}'
      for x, one in points
      if math.isfinite(one.mean)
    )
    parts.append(
      f'<polyline class="line thin {line.kind}" stroke-dasharray="{line.dash}" '
      f'points="{path}"/>'
    )
    for x, one in points:
      parts.append(_mark(x, one, frame.at_y, line.kind, upright=True))
  return _drawing(title, 250, parts)


def rows(found: Sequence[Row], *, title: str, x_label: str) -> str:
  """Draws rows of means with intervals; those of one row lie below each other."""
  left = 14 + _CHAR * max(len(row.label) for row in found)
  gap = 14 * max(len(row.intervals) for row in found) + 10
  ends = [
    e for row in found for one in row.intervals.values() for e in _ends(one)
  ]
  height = round(gap * len(found) + 58)
  frame = _Frame([*ends, 0.0], [-0.5, len(found) - 0.5], height, min(left, 200))
  frame.y = (len(found) - 0.5, -0.5)  # The first row is the uppermost.
  named = [(index, row.label) for index, row in enumerate(found)]
  parts = [frame.grid(ticks(frame.x, 4), named, x_label, '', zero=True)]
  for index, row in enumerate(found):
    for number, (kind, one) in enumerate(row.intervals.items()):
      shift = (number - (len(row.intervals) - 1) / 2) * 12
      y = frame.at_y(index) + shift
      parts.append(_mark(y, one, frame.at_x, kind, upright=False))
  return _drawing(title, height, parts)


class _Frame:
  """Maps numbers to places of a drawing.

  Args:
    x: numbers that must be inside, likewise y.
    y: see x.
    height: of the drawing.
    left: place of the y axis.
  """

  def __init__(self, x, y, height, left=52.0):
    self.x, self.y = _range(x), _range(y)
    self._left, self._right = left, WIDTH - 12
    self._top, self._bottom = 10, height - 44

  def at_x(self, value):
    low, high = self.x
    share = (value - low) / (high - low)
    return self._left + share * (self._right - self._left)

  def at_y(self, value):
    low, high = self.y
    share = (value - low) / (high - low)
    return self._bottom - share * (self._bottom - self._top)

  def grid(self, xticks, yticks, x_label, y_label, *, zero=False):
    """Returns axes, grid and labels; ticks are pairs of a place and a text."""
    parts = []
    for value, text in xticks:
      x = self.at_x(value)
      kind = 'zero' if zero and value == 0 else 'grid'
      parts.append(
        f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{self._top}" '
        f'y2="{self._bottom}"/>'
        f'<text x="{x:.1f}" y="{self._bottom + 16}" text-anchor="middle">'
        f'{html.escape(text)}</text>'
      )
    for value, text in yticks:
      y = self.at_y(value)
      parts.append(
        f'<line class="grid" x1="{self._left:.1f}" x2="{self._right}" '
        f'y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{self._left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">'
        f'{html.escape(text)}</text>'
      )
    middle = (self._left + self._right) / 2
    parts.append(
      f'<text x="{middle:.1f}" y="{self._bottom + 35}" text-anchor="middle">'
      f'{html.escape(x_label)}</text>'
    )
    if y_label:
      y = (self._top + self._bottom) / 2
      parts.append(
        f'<text transform="translate(12 {y:.1f}) rotate(-90)" '
        f'text-anchor="middle">{html.escape(y_label)}</text>'
      )
    return ''.join(parts)


def _mark(place, one, at, kind, *, upright):
  """Returns a mean with its interval; nothing if there is no mean."""
  if not math.isfinite(one.mean):
    return ''
  low, mean, high = (
    f'{at(e):.1f}' for e in (*_ends(one)[:1], one.mean, *_ends(one)[1:])
  )
  place = f'{place:.1f}'
  if upright:
    line = f'x1="{place}" x2="{place}" y1="{low}" y2="{high}"'
    dot = f'cx="{place}" cy="{mean}"'
  else:
    line = f'x1="{low}" x2="{high}" y1="{place}" y2="{place}"'
    dot = f'cx="{mean}" cy="{place}"'
  return (
    f'<line class="line {kind}" {line}/>'
    f'<circle class="dot {kind}" {dot} r="3.6"/>'
  )


def _ends(one):
  """Returns the ends of an interval; those of an infinite one are its mean."""
  if not math.isfinite(one.mean):
    return ()
  if not (math.isfinite(one.low) and math.isfinite(one.high)):
    return one.mean, one.mean
  return one.low, one.high


def _range(values):
  low, high = min(values, default=0.0), max(values, default=1.0)
  pad = 0.05 * (high - low) or 0.5
  return low - pad, high + pad


def ticks(ends: Sequence[float], most: int = 5) -> list[tuple[float, str]]:
  """Returns round numbers between two ends, with their texts.

  Args:
    ends: the two ends, in any order.
    most: the most steps between them.
  """
  low, high = sorted(ends)
  step = 10.0 ** math.floor(math.log10((high - low) / most))
  while (high - low) / step > most:
    step *= 2 if f'{step:e}'[0] in '15' else 2.5
  first, last = math.ceil(low / step), math.floor(high / step)
  values = [step * number for number in range(first, last + 1)]
  return [(value, f'{value:.6g}'.replace('-', '−')) for value in values]


def _drawing(title, height, parts):
  return (
    f'<svg viewBox="0 0 {WIDTH} {height}" role="img" '
    f'aria-label="{html.escape(title)}"><title>{html.escape(title)}</title>'
    f'{"".join(parts)}</svg>'
  )
