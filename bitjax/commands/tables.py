"""Fills the tables of a page from published verdicts, so that the two cannot part.

A page in Markdown says which verdicts a table holds, in a comment in front of it::

  <!-- verdicts of multistep_ste
  several steps beat one, binary | N8 | binary
  the same in full precision | N8 | full_precision
  -->
  <!-- end of verdicts -->

Each line has the words of a row, the label of the finding, and, if several verdicts have
that label, how the claim begins. There is a column for each preset that is published, or
for some of them: ``<!-- verdicts of multistep_ste, quick, full``.

Verdicts of one preset on the same claims about several cases make a table with a column
for each finding, which a first line names, and a row for each case::

  <!-- verdicts of discrete_gradient, full
  columns | on A = N3 ball, A, gradient | on B = N3 ball, B, gradient
  the first layer | l2:0.1, first layer, initialised
  all layers | l2:0.1, all layers, initialised
  -->
  <!-- end of verdicts -->
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import math
import pathlib
import re

from bitjax import cli
from bitjax import evidence
from bitjax import files
from bitjax import process
from bitjax import types
from bitjax.commands import published

__all__ = ['cell', 'fill', 'find', 'main']

_USAGE = f'bitjax tables PAGE... [--from={published.FOLDER}]'
_BEGIN = '<!-- verdicts of '
_BLOCK = re.compile(
  rf'({_BEGIN}(?P<study>\w+)(?P<presets>(?:, *\w+)*)\n(?P<rows>.*?)-->\n)'
  r'.*?(?P<end><!-- end of verdicts -->)',
  re.DOTALL,
)
_COLUMNS = 'columns |'
_ORDER = ('quick', 'full', 'rounds', 'long', 'note', 'note_all')


def fill(page: str, runs: Iterable[published.Published]) -> str:
  """Returns a page with its tables made anew.

  Args:
    page: Markdown.
    runs: what is published.

  Raises:
    BadInput: for a line that is not understood, a preset or a row without any verdict,
      or a table that does not end.
  """
  runs = sorted(runs, key=lambda run: (_rank(run.preset), run.preset))

  def made(block: re.Match[str]) -> str:
    own = [run for run in runs if run.study == block['study']]
    chosen = re.findall(r'\w+', block['presets'])
    for preset in chosen:
      if all(run.preset != preset for run in own):
        raise types.BadInput(
          f'no run of {block["study"]} with the preset {preset} is published.'
        )
    own = [run for run in own if run.preset in chosen or not chosen]
    rows = [line for line in block['rows'].splitlines() if line.strip()]
    return f'{block[1]}\n{_table(rows, own)}\n\n{block["end"]}'

  filled, num = _BLOCK.subn(made, page)
  if num != page.count(_BEGIN):
    raise types.BadInput(
      f'each "{_BEGIN}STUDY" needs rows, "-->", and "<!-- end of verdicts -->" before '
      'the next table.'
    )
  return filled


def find(
  verdicts: Iterable[evidence.Verdict], finding: str, where: str = ''
) -> evidence.Verdict | None:
  """Returns the first verdict on a finding whose claim begins as said, or None."""
  for verdict in verdicts:
    if verdict.finding == finding and verdict.claim.startswith(where):
      return verdict
  return None


def cell(verdict: evidence.Verdict) -> str:
  """Returns effect and interval in two digits, or that there is no effect."""
  if math.isnan(verdict.effect):
    return 'undefined'
  ends = f'[{verdict.low:.2g}, {verdict.high:.2g}]'
  return f'{verdict.effect:.2g} {ends}'


def main(argv: Sequence[str]) -> int:
  """Fills the tables of pages, in place; returns the exit status."""
  folder = [part[7:] for part in argv if part.startswith('--from=')]
  pages = [part for part in argv if not part.startswith('--from=')]
  if not pages or any(part.startswith('-') for part in pages):
    return cli.status.usage(_USAGE, pages)
  runs = published.load(*folder[-1:])
  for name in pages:
    path = pathlib.Path(files.expand(name))
    try:
      text = path.read_text(encoding='utf-8')
    except (OSError, ValueError) as error:
      raise types.BadInput(
        f'{name} cannot be read: {types.one_line(error)}'
      ) from None
    try:
      filled = fill(text, runs)
    except types.BadInput as error:
      raise types.BadInput(f'{name}: {error}') from None
    files.write_text(path, filled)
    process.write(f'{path}\n')
  return 0


def _rank(preset):
  return _ORDER.index(preset) if preset in _ORDER else len(_ORDER)


def _table(rows, runs):
  if rows and rows[0].startswith(_COLUMNS):
    return _crossed(rows, runs)
  found = [(words, _row(rest, runs)) for words, *rest in map(_split, rows)]
  used = [n for n in range(len(runs)) if any(row[n] for _, row in found)]
  head = ['', *(_column(runs[n]) for n in used), 'unit']
  lines = []
  for words, row in found:
    units = {v.unit for v in row if v}
    primary = any(v.primary for v in row if v)
    cells = [_judged(row[n], runs[n]) for n in used]
    first = f'**{words} (primary)**' if primary else words
    lines.append([first, *cells, ', '.join(sorted(units))])
  return _markdown(head, lines)


def _crossed(rows, runs):
  """Returns a table with a column for each finding, of one preset."""
  if len(runs) != 1:
    raise types.BadInput(
      f'a table with {_COLUMNS!r} is of one preset; "{_BEGIN}STUDY, PRESET" names it.'
    )
  head, *rows = (line.split('|') for line in rows)
  columns = [part.partition('=')[::2] for part in head[1:]]
  if any(len(row) != 2 for row in rows) or not all(f for _, f in columns):
    raise types.BadInput(
      'a table with columns needs "columns | words = finding | ...", and rows '
      '"words | claim".'
    )
  lines = [
    [words.strip()]
    + [
      _judged(*_row((f.strip(), claim.strip()), runs), *runs)
      for _, f in columns
    ]
    for words, claim in rows
  ]
  return _markdown(['', *(words.strip() for words, _ in columns)], lines)


def _markdown(head, lines):
  lines = [head, ['---'] * len(head), *lines]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _split(row):
  words, *rest = (part.strip() for part in row.split('|'))
  if len(rest) not in (1, 2):
    raise types.BadInput(
      f'a row of a table is "words | finding" or "words | finding | claim"; got '
      f'{row!r}.'
    )
  return words, *rest


def _row(labels, runs):
  row = [find(run.verdicts, *labels) for run in runs]
  if not any(row):
    raise types.BadInput(f'no verdict is published on {" | ".join(labels)}.')
  return row


def _seeds(run):
  return max((v.num_seeds for v in run.verdicts), default=0)


def _column(run):
  return f'`{run.preset}`, {_seeds(run)} seeds'


def _judged(verdict, run):
  if verdict is None:
    return '–'
  seeds = verdict.num_seeds
  counted = f'{seeds} seeds' if seeds else 'counted'
  lost = f', {counted}' if seeds != _seeds(run) else ''
  return f'{verdict.verdict}: {cell(verdict)}{lost}'
