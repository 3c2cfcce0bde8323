"""The tables of the documentation list everything that is exported."""

import inspect
import pathlib
import re

import pytest

from bitjax import quantizers

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'quantizers.md'
HEADER = 'idea | paper | checked | annealed | learned | bits | peers'
KINDS = (
  *('Annealed', 'Estimator', 'Grid', 'Scaling', 'Staircase'),
  *('Quantize', 'Quantizer'),
)
PLUMBING = {'attach', 'at_progress', 'bind', 'named'}
MADE = {
  name: make
  for name in quantizers.__all__
  if inspect.isfunction(make := getattr(quantizers, name))
  and name not in PLUMBING
  and make.__annotations__.get('return', '').split('.')[-1] in KINDS
}


def rows(text):
  """Maps names to cells, from all tables with the columns of `HEADER`."""
  found = {}
  for table in re.findall(
    rf'\| \w+ \| {re.escape(HEADER)} \|\n((?:\|.*\n)*)', text
  ):
    for line in table.splitlines()[1:]:
      cells = [c.strip() for c in re.split(r'(?<!\\)\|', line)[1:-1]]
      found[cells[0].strip('`')] = cells[1:]
  return found


ROWS = rows(PAGE.read_text())


def test_every_exported_function_says_what_it_returns():
  """The gallery and these tests find a factory by its annotation."""
  for name in quantizers.__all__:
    made = getattr(quantizers, name)
    if inspect.isfunction(made):
      assert made.__annotations__.get('return'), f'{name} has no annotation'


@pytest.mark.parametrize('name', MADE)
def test_every_export_has_a_full_row(name):
  assert name in ROWS, f'docs/quantizers.md has no row for {name}'
  assert len(ROWS[name]) == 7
  assert all(ROWS[name]), f'an empty cell in the row of {name}'


def test_annealed_is_said_of_what_anneals():
  for name, make in MADE.items():
    if make.__annotations__.get('return', '').endswith('Annealed'):
      assert ROWS[name][3] == 'yes', name


@pytest.mark.parametrize('name', ROWS)
def test_where_it_is_checked_is_there(name):
  """Each listed test file uses it; where none is listed, a table of rows does."""
  here = pathlib.Path(__file__).parent
  files = [f for f in ROWS[name][2].split(', ') if f.endswith('_test.py')]
  for file in files:
    assert f'quantizers.{name}(' in (here / file).read_text(), (name, file)
  if not files:
    tables = [here / f'{kind}_test.py' for kind in ('contract', 'learned')]
    assert any(f'quantizers.{name}' in t.read_text() for t in tables), name


@pytest.mark.parametrize(
  'peer', ['larq', 'bitorch', 'brevitas', 'torchao', 'NNI', 'AQT', 'qwix']
)
def test_every_peer_has_its_own_row(peer):
  by_peer = PAGE.read_text().split('## By peer')[1].split('\n## ')[0]
  (row,) = [
    line
    for line in by_peer.splitlines()
    if line.startswith('|') and peer in line.split('|')[1]
  ]
  named = set(re.findall(r'`(?:transforms\.|nn\.)?(\w+)[`(]', row))
  assert named & set(quantizers.__all__)


def test_a_missing_row_would_be_found():
  text = PAGE.read_text().replace('| `dsq` |', '| `dsk` |')
  assert 'dsq' not in rows(text) and 'dsk' in rows(text)
  assert len(rows(text)) == len(ROWS) > 20
