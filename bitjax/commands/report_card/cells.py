"""Numbers as cells of a table: mean, interval and difference, in as many digits as count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import html
import math
from typing import Any

from bitjax import evidence
from bitjax.commands.report_card import numbers
from bitjax.commands.report_card import style

__all__ = ['cell', 'compared', 'table', 'words']

_MOST = 5  # Decimals of a number; smaller ones are written as 6.1e−7.


def cell(found: evidence.Interval | None, kind: str = '') -> str:
  """Returns a number with its interval, as HTML."""
  if found is None:
    return '–'
  if math.isnan(found.mean):
    return 'undefined'
  if found.mean == found.low == found.high == 0:
    return '0 in every seed'
  digits = _digits(found)
  mean, low, high = (
    _shown(v, digits) for v in (found.mean, found.low, found.high)
  )
  lost = (
    f' <span class="soft">({found.dropped} lost)</span>'
    if found.dropped
    else ''
  )
  return f'<span class="{kind}">{mean}</span> <span class="ends">[{low}, {high}]</span>{lost}'


def compared(one: numbers.Number) -> str:
  """Returns the difference from the normal STE, coloured where it is not 0."""
  return cell(one.difference, _kind(one))


def words(one: numbers.Number) -> str:
  """Says how a number compares with that of the normal STE."""
  if one.difference is None:
    return ''
  kind = _kind(one)
  return {
    'good': 'better than the normal STE',
    'bad': 'worse than the normal STE',
  }.get(kind, 'not told apart from the normal STE')


def _kind(one):
  gap = one.difference
  if gap is None or not one.sample.better or not gap.low * gap.high > 0:
    return ''
  return 'good' if (gap.low > 0) == (one.sample.better > 0) else 'bad'


def table(
  found: Iterable[numbers.Number], normal: Any, hidden: Sequence[str] = ()
) -> str:
  """Returns a table with a row for each number, under headings of their labels.

  Args:
    found: the numbers.
    normal: None on the card of the normal STE.
    hidden: labels that the text has said already.
  """
  head = ['what', 'this estimator']
  if normal is not None:
    head += ['normal STE', 'difference']
  rows, groups = [], []
  for one in found:
    unit = one.sample.unit
    name = one.sample.name + (f' ({unit})' if unit in ('nats', 'ns') else '')
    row = [html.escape(name), cell(one.found)]
    if normal is not None:
      row += [cell(one.normal), compared(one)]
    rows.append(row)
    groups.append(html.escape(', '.join(_labels(one.sample.where, hidden))))
  return style.table(head, rows, groups=groups if any(groups) else ())


def _labels(where, hidden):
  words = {'state': '{} network', 'batch_size': 'batch {}', 'ball': 'ball {}'}
  return [
    words.get(key, '{}').format(value)
    for key, value in where.items()
    if key not in hidden
  ]


def _digits(found):
  """Returns how many decimals tell the ends of an interval apart."""
  width = found.high - found.low
  if not (math.isfinite(width) and width > 0):
    width = abs(found.mean)
  if width <= 0:
    return 3
  return min(max(1 - math.floor(math.log10(width)), 0), 8)


def _shown(value, digits):
  if math.isinf(value):
    return '∞' if value > 0 else '−∞'
  if digits > _MOST and value:
    text = f'{value:.1e}'.replace('e-0', 'e-')
  else:
    text = f'{value:.{min(digits, _MOST)}f}'
    if not float(text):
      text = text.lstrip('-')
  return text.replace('-', '−')
