"""The page of all estimators that have been measured, the best in one number first."""

from __future__ import annotations

from collections.abc import Collection, Sequence
import html
import math
from typing import Any, NamedTuple

import numpy as np

from bitjax import evidence
from bitjax.commands.report_card import caveats
from bitjax.commands.report_card import cells
from bitjax.commands.report_card import measure
from bitjax.commands.report_card import names
from bitjax.commands.report_card import numbers
from bitjax.commands.report_card import pages
from bitjax.commands.report_card import style
from bitjax.commands.report_card import svg

__all__ = ['Entry', 'board', 'entries', 'to_json']


class Entry(NamedTuple):
  """A row of the leaderboard.

  Attributes:
    kept: what was measured.
    found: all of its numbers.
    gap: the difference of the first number from the normal STE's, whose interval holds for
      all rows at once; undefined where a seed was lost; None for the normal STE.
  """

  kept: measure.Kept
  found: Sequence[numbers.Number]
  gap: evidence.Interval | None


def entries(
  every: Sequence[tuple[measure.Kept, Sequence[numbers.Number]]],
) -> list[Entry]:
  """Returns the rows, those whose first number is largest at the top.

  Args:
    every: the estimators and their numbers, the normal STE among them.
  """
  firsts = [_columns(one, found)[0] for one, found in every]
  values = {
    one.name: first.sample.values
    for (one, _), first in zip(every, firsts, strict=True)
  }
  normal = values.pop(names.REFERENCE)
  known = np.isfinite(normal)
  # A seed that is lost in one row would be lost to all that hold at once.
  whole = sorted(
    name for name, own in values.items() if np.isfinite(own[known]).all()
  )
  lost = evidence.Interval(math.nan, -math.inf, math.inf, 0, normal.size)
  gaps = dict.fromkeys(values, lost)
  if whole:
    differences = np.stack([values[name] - normal for name in whole])
    gaps |= zip(whole, evidence.simultaneous(differences), strict=True)
  rows = [
    (first.found.mean, Entry(one, found, gaps.get(one.name)))
    for (one, found), first in zip(every, firsts, strict=True)
  ]
  # Where there is no number, the row comes last.
  order = lambda row: -np.inf if np.isnan(row[0]) else row[0]
  return [row for _, row in sorted(rows, key=order, reverse=True)]


def board(
  rows: Sequence[Entry], missing: Sequence[str], outdated: Collection[str]
) -> str:
  """Returns the page.

  Args:
    rows: the rows, in order.
    missing: built-in estimators that have not been measured.
    outdated: names of rows that other code measured.
  """
  one = rows[0].kept
  config = one.entry['config']
  (first, _), *_ = pages.primary(config)
  body = [
    '<h1>Gradient estimators, measured</h1>',
    f'<p class="soft">Preset {html.escape(str(one.entry.get("preset")))}, '
    f'{len(config["seeds"])} seeds, {html.escape(config["dataset"])}. Brackets are 95 % '
    'intervals over seeds. An estimator’s name leads to its card.</p>',
    f'<p>Ordered by one number that was fixed beforehand: {html.escape(_lower(first))}. '
    'Its differences from the normal STE hold for all rows at once; where they do not '
    'include 0, they are bold, and where a seed was lost, there is none. A place in the order is no finding: neighbours are seldom told '
    'apart.</p>',
    _figure(rows, first),
    _table(rows, config, outdated),
    *_absent(missing, outdated),
    *caveats.section(),
  ]
  return style.page('Gradient estimators, measured', body)


def to_json(rows: Sequence[Entry], missing: Sequence[str]) -> dict[str, Any]:
  """Returns the leaderboard in JSON values."""
  found = []
  for row in rows:
    columns = [one.to_json() for one in _columns(row.kept, row.found)]
    gap = row.gap
    found.append(
      {
        'estimator': row.kept.name,
        'card': f'{names.slug(row.kept.name)}.json',
        'numbers': columns,
        'difference_of_all_at_once': None
        if gap is None
        else {'mean': gap.mean, 'low': gap.low, 'high': gap.high},
      }
    )
  return {'estimators': found, 'not_measured': list(missing)}


def _columns(one, found):
  """Returns the numbers of a row."""
  chosen = []
  for _, where in pages.primary(one.entry['config']):
    chosen += numbers.find(found, **where)
  chosen += numbers.find(
    found,
    'optimality',
    name='flips that lower the training loss',
    layer='all layers',
  )
  name = 'time for a gradient of the network, likewise'
  return chosen + numbers.find(found, 'speed', name=name)


def _figure(rows, first):
  found = []
  for row in rows:
    own = _columns(row.kept, row.found)[0].found
    kind = 'normal' if row.kept.name == names.REFERENCE else 'a'
    found.append(svg.Row(_cut(row.kept.name), {kind: own}))
  drawing = svg.rows(found, title=first, x_label='nats; more is better')
  return style.figures([(first, drawing)])


def _table(rows, config, outdated):
  head = [
    'estimator',
    f'held-out decrease, one step, {html.escape(config["balls"][0])} (nats)',
    'difference from the normal STE, all at once',
    'correlation with held-out gains',
    'test accuracy on digits',
    'share of flips that still help',
    'time of a gradient, normal STE = 1',
  ]
  lines = []
  for row in rows:
    first, *rest = _columns(row.kept, row.found)
    mark = (
      ' <span class="soft">(earlier code)</span>'
      if row.kept.name in outdated
      else ''
    )
    name = style.code(row.kept.name)
    link = f'<a href="{names.slug(row.kept.name)}.html">{name}</a>{mark}'
    gap = row.gap
    kind = ''
    if gap is not None and gap.low * gap.high > 0:
      kind = 'good' if gap.low > 0 else 'bad'
    difference = 'the normal STE' if gap is None else cells.cell(gap, kind)
    others = [cells.cell(one.found) for one in rest]
    lines.append([link, cells.cell(first.found), difference, *others])
  return style.table(head, lines, kind='board')


def _absent(missing, outdated):
  found = []
  if missing:
    listed = ', '.join(style.code(name) for name in missing)
    found.append(
      f'<p>Not measured yet: {listed}. <code>bitjax report_card</code> measures them, and '
      'goes on where it was stopped.</p>'
    )
  if outdated:
    found.append(
      '<p>Rows of earlier code were measured before the code of the numbers changed; '
      'naming them in <code>--estimators</code> measures them again.</p>'
    )
  return found


def _cut(name):
  return name if len(name) <= 26 else f'{name[:16]}…{name[-9:]}'


def _lower(text):
  return text[:1].lower() + text[1:]
