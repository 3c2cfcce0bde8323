"""The page of findings: what each item of the note asks, and what the studies answer.

It is made from published verdicts (see `published`) alone: `bitjax findings` prints it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import itertools

from bitjax import cli
from bitjax import evidence
from bitjax import process
from bitjax.commands import items
from bitjax.commands import published
from bitjax.commands import tables

__all__ = ['answered', 'effect', 'main', 'page']

_USAGE = f'bitjax findings [FOLDER]   (default: {published.FOLDER})'

_HEAD = """# Findings: what the studies answer

The questions are those of a lab's note of 2021, N1 to N20, in our words. *Small* is the preset
`quick`, a run of minutes. *Large* is the preset that a cell names: `note`, which has the note's
sizes, or, where no run of it answers, `full`, which has more seeds, arms or weights than `quick`
(and may share its seeds), but not the note's sizes, or else `cifar`, small networks on natural images. If there is a large run, the answer is its
own. An effect is shown with its 95 % interval and the number of seeds; what it is an effect of,
and what else was found, is on the study's page. Pages also hold numbers of earlier code, which
are not repeated here.
[The words are explained here](glossary.md).

| | question | answer | small | large |
|---|---|---|---|---|
"""

_FOOT = """
## Where the numbers come from

This page is made from `docs/results/` by `bitjax findings`; a test holds it to them. A run is
published by `bitjax publish DIRECTORY`, which judges it again and refuses code that is not committed.

| command | begun | commit |
|---|---|---|
"""


_SMALL = 'quick'
_LARGE = ('note', 'full', 'cifar')  # The first that answers is shown.


def page(runs: Iterable[published.Published]) -> str:
  """Returns the page, in Markdown."""
  runs = list(runs)
  rows = [_row(item, runs) for item in items.ITEMS]
  origins = [
    f'| `{run.command}` | {run.started[:10]} | `{run.commit[:10]}` |'
    for run in runs
  ]
  if not origins:
    origins = ['| none is published yet | | |']
  return _HEAD + '\n'.join(rows) + '\n' + _FOOT + '\n'.join(origins) + '\n'


def main(argv: Sequence[str]) -> int:
  """Prints the page; returns the exit status."""
  if len(argv) > 1 or any(part.startswith('-') for part in argv):
    return cli.status.usage(_USAGE, argv)
  process.write(page(published.load(*argv)))
  return 0


def answered(
  item: items.Item, runs: Sequence[published.Published]
) -> tuple[str, str]:
  """Returns the plain answer that runs of its study give to an item, and the effect."""
  verdict = _verdict(item, runs)
  return _answer(item, verdict), effect(verdict)


def _row(item: items.Item, runs: Sequence[published.Published]) -> str:
  found = {
    preset: _verdict(item, [run for run in runs if run.preset == preset])
    for preset in (*_LARGE, _SMALL)
  }
  large = next((preset for preset in _LARGE if found[preset]), '')
  link = f' [More](studies/{item.study}.md).' if item.study else ''
  cells = [
    item.label,
    item.question,
    _answer(item, found[large or _SMALL]) + link,
    effect(found[_SMALL]),
    effect(found.get(large), large),
  ]
  return f'| {" | ".join(cells)} |'


def _verdict(item, runs) -> evidence.Verdict | None:
  own = itertools.chain.from_iterable(
    run.verdicts for run in runs if run.study == item.study
  )
  return tables.find(own, item.finding, item.where)


def _answer(item: items.Item, verdict: evidence.Verdict | None) -> str:
  if not item.finding:
    return item.yes or 'Not studied yet.'
  if verdict is None:
    return "See the page: no run of today's code is published yet."
  return {
    'supported': item.yes,
    'contradicted': item.no,
    'equivalent': 'Neither: if there is a difference, it is too small to count.',
    'inert': 'What was varied had no effect at all.',
    'inconclusive': item.unsettled,
    evidence.divergence.DIVERGED: 'Not settled: too many networks diverged.',
  }[verdict.verdict]


def effect(verdict: evidence.Verdict | None, preset: str = '') -> str:
  """Returns the effect of a verdict, its interval, unit and seeds; a dash for None.

  Args:
    verdict: the verdict.
    preset: whose verdict it is, to be named; '' to name none.
  """
  if verdict is None:
    return '–'
  unit = f' {verdict.unit}' if verdict.unit else ''
  seeds = f'{verdict.num_seeds} seeds' if verdict.num_seeds else 'counted'
  named = f', `{preset}`' if preset else ''
  return f'{tables.cell(verdict)}{unit}{named}, {seeds}: {verdict.verdict}'
