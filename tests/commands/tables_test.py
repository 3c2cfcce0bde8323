"""Tables of pages are made from published verdicts, and the committed ones are."""

import math
import pathlib

import pytest

from bitjax import __main__ as command
from bitjax import evidence
from bitjax import files
from bitjax import types
from bitjax.commands import published
from bitjax.commands import tables

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted((ROOT / 'docs').rglob('*.md'))
PAGE = """# A page

<!-- verdicts of multistep_ste
Several steps win | N8 | binary
In full precision | N8 | full
Noise helps | N9
-->
what stood here before
<!-- end of verdicts -->

More.
"""


def verdict(finding, claim, effect=0.0123, **changed):
  fields = {
    'verdict': 'supported', 'low': -0.5, 'high': 1.25, 'unit': 'nats',
    'num_seeds': 12, 'protocol': 'B',
  }  # fmt: skip
  return evidence.Verdict(
    finding=finding, claim=claim, effect=effect, **fields | changed
  )


def run(preset, *verdicts):
  return published.Published(
    'multistep_ste', preset, 'c', '2026-01-01', 'a', 'b', 'd', {}, verdicts
  )


RUNS = [
  run(
    'note',
    verdict('N8', 'binary: a.', 3.0, num_seeds=9, verdict='inconclusive'),
    verdict('N9', 'noise.', math.nan),
  ),
  run(
    'quick', verdict('N8', 'binary: a.', primary=True), verdict('N8', 'full.')
  ),
]


def test_a_table():
  filled = tables.fill(PAGE, RUNS)
  rows = [line for line in filled.splitlines() if line.startswith('|')]
  assert rows == [
    '|  | `quick`, 12 seeds | `note`, 12 seeds | unit |',
    '| --- | --- | --- | --- |',
    '| **Several steps win (primary)** | supported: 0.012 [-0.5, 1.2] '
    '| inconclusive: 3 [-0.5, 1.2], 9 seeds | nats |',
    '| In full precision | supported: 0.012 [-0.5, 1.2] | – | nats |',
    '| Noise helps | – | supported: undefined | nats |',
  ]
  assert filled.startswith('# A page\n') and filled.endswith('\n\nMore.\n')
  assert 'before' not in filled
  assert tables.fill(filled, RUNS) == filled


CROSSED = """<!-- verdicts of multistep_ste, quick
columns | on A = N8, A | on B=N8, B
the first | first
all layers | all
-->
<!-- end of verdicts -->
"""
CELLS = run(
  'quick',
  *(
    verdict(f'N8, {batch}', f'{layers}: a.', effect)
    for batch, layers, effect in [
      ('A', 'first', 0.11),
      ('B', 'first', 0.12),
      ('B', 'all', 0.22),
      ('A', 'all', 0.21),
    ]
  ),
)


def test_a_table_with_a_column_for_each_finding():
  filled = tables.fill(CROSSED, [CELLS, run('note')])
  lines = [line for line in filled.splitlines() if line.startswith('|')]
  assert lines == [
    '|  | on A | on B |',
    '| --- | --- | --- |',
    '| the first | supported: 0.11 [-0.5, 1.2] | supported: 0.12 [-0.5, 1.2] |',
    '| all layers | supported: 0.21 [-0.5, 1.2] | supported: 0.22 [-0.5, 1.2] |',
  ]
  assert tables.fill(filled, [CELLS]) == filled


@pytest.mark.parametrize(
  ('old', 'new', 'words'),
  [
    (', quick', '', 'is of one preset'),
    ('N8, A', 'N7', r'no verdict is published on N7 \| first'),
    ('on B=', '', 'columns needs "columns'),
    ('| first', '| first | more', 'rows "words'),
  ],
)
def test_columns_that_cannot_be_filled(old, new, words):
  with pytest.raises(types.BadInput, match=words):
    tables.fill(CROSSED.replace(old, new), [CELLS, run('full')])


def test_a_table_of_some_presets():
  chosen = PAGE.replace('multistep_ste\n', 'multistep_ste, quick\n')
  chosen = chosen.replace('Noise helps | N9\n', '')
  filled = tables.fill(chosen, RUNS)
  assert '| supported: 0.012 [-0.5, 1.2] | nats |' in filled
  assert '`note`' not in filled and tables.fill(filled, RUNS) == filled
  both = chosen.replace('quick\n', 'note, quick\n')
  assert '| `quick`, 12 seeds | `note`, 12 seeds |' in tables.fill(both, RUNS)
  with pytest.raises(types.BadInput, match='with the preset full is published'):
    tables.fill(chosen.replace('quick\n', 'quick, full\n'), RUNS)


def test_other_studies_and_pages_without_tables():
  assert tables.fill('# Nothing\n', RUNS) == '# Nothing\n'
  with pytest.raises(types.BadInput, match='no verdict is published on N8'):
    tables.fill(PAGE, [])


@pytest.mark.parametrize(
  ('row', 'words'),
  [
    ('Words alone', 'a row of a table is'),
    ('Words | N1 | a | b', 'a row of a table is'),
    ('Words | N7', 'no verdict is published on N7'),
    ('Words | N8 | ternary', 'no verdict is published on N8'),
  ],
)
def test_rows_that_cannot_be_filled(row, words):
  page = PAGE.replace('Noise helps | N9', row)
  with pytest.raises(types.BadInput, match=words):
    tables.fill(page, RUNS)


@pytest.mark.parametrize(
  ('old', 'new'),
  [
    ('<!-- end of verdicts -->\n', ''),
    ('verdicts of multistep_ste\n', 'verdicts of multistep_ste:\n'),
    ('multistep_ste\n', 'multistep-ste\n'),
  ],
)
def test_a_table_that_does_not_end_takes_nothing_with_it(old, new):
  broken = PAGE.replace(old, new)
  for page in (broken, broken + PAGE):
    with pytest.raises(types.BadInput, match='each "<!-- verdicts of STUDY"'):
      tables.fill(page, RUNS)


def test_command(tmp_path, capsys):
  page = tmp_path / 'page.md'
  page.write_text(PAGE)
  for each in RUNS:
    files.write_json(tmp_path / f'{each.preset}.json', each.to_json())
  assert command.main(['tables', f'--from={tmp_path}', str(page)]) == 0
  assert page.read_text() == tables.fill(PAGE, RUNS)
  assert capsys.readouterr().out == f'{page}\n'
  page.write_text(PAGE.replace('N9', 'N7'))
  assert command.main(['tables', f'--from={tmp_path}', str(page)]) == 2
  assert 'N7' in page.read_text()
  assert f'{page}: no verdict is published on N7' in capsys.readouterr().err
  none = str(tmp_path / 'none.md')
  assert command.main(['tables', f'--from={tmp_path}', none]) == 2
  assert 'none.md cannot be read' in capsys.readouterr().err


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.stem)
def test_committed_pages_agree_with_what_is_published(path):
  text = path.read_text()
  runs = published.load(ROOT / published.FOLDER)
  assert tables.fill(text, runs) == text
