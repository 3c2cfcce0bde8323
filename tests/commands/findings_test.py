"""Published runs, and the page that is made from them."""

import dataclasses
import json
import pathlib

import pytest

from bitjax import __main__ as command
from bitjax import evidence
from bitjax import studies
from bitjax import types
from bitjax.cli import results as results_lib
from bitjax.commands import findings
from bitjax.commands import published

ROOT = pathlib.Path(__file__).parents[2]
VERDICT = evidence.Verdict(
  'N8', 'binary: several steps win.', 'supported', 0.25, 0.125, 0.5,
  'log loss ratio', 8, 'deployable, B', primary=True,
)  # fmt: skip
GIT = {'commit': 'a' * 40, 'dirty': False}
RUN = {
  'study': 'multistep_ste',
  'config': {},
  'preset': 'quick',
  'started': '2026-11-27T10:00:00+00:00',
  'command': [
    'multistep_ste.py', '--seeds=0:8', '--out=x', '--nocompilation_cache',
    '--overwrite', '--chunk=3',
  ],
  'git': GIT,
  'records': {'data': 'abc'},
  'code': {'environment': {'jax': '1'}, 'sources': {'bitjax.tree': ['a', 'b']}},
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
  """Writes a finished run with some entries of its configuration replaced."""
  import xarray

  def write(attrs=None, **replaced):
    directory = tmp_path / 'run'
    directory.mkdir(exist_ok=True)
    results_lib.save(xarray.Dataset({'a': 1.0}, attrs=attrs), directory)
    results_lib.save_verdicts([VERDICT], directory)
    entry = {k: v for k, v in (RUN | replaced).items() if v is not None}
    (directory / 'config.json').write_text(json.dumps(entry))
    return directory

  return write


def test_what_is_published(run, tmp_path):
  path = published.publish(run(), tmp_path / 'results')
  assert path.name == 'multistep_ste.quick.json'
  (found,) = published.load(tmp_path / 'results')
  assert found.command == 'bitjax multistep_ste --preset=quick --seeds=0:8'
  assert found.commit == GIT['commit'] and found.records == {'data': 'abc'}
  assert found.verdicts == (VERDICT,) and len(found.code) == 10


@pytest.mark.parametrize(
  ('replaced', 'message'),
  [
    ({'code': None}, 'not the directory of a finished run'),
    ({'git': None}, 'code that is not committed'),
    ({'git': GIT | {'dirty': True}}, 'code that is not committed'),
    (
      {'resumed': [{'git': GIT | {'dirty': True}}]},
      'code that is not committed',
    ),
    (
      {'attrs': {'other_code': '2 of 4 lanes'}},
      'mixes numbers of different code',
    ),
  ],
)
def test_what_is_not_published(run, tmp_path, capsys, replaced, message):
  directory, to = run(**replaced), tmp_path / 'results'
  assert command.main(['publish', str(directory), f'--to={to}']) == 2
  err = capsys.readouterr().err
  assert err.startswith('bitjax publish: ') and message in err
  assert err.count('\n') == 1 and not to.exists()


def test_the_page_says_what_was_published(run, tmp_path, capsys):
  published.publish(run(), tmp_path)
  assert command.main(['findings', str(tmp_path)]) == 0
  page = capsys.readouterr().out
  (row,) = [line for line in page.splitlines() if line.startswith('| N8 |')]
  _, _, question, answer, small, large, _ = row.split('|')
  assert question.strip().endswith('?') and 'Yes: several steps' in answer
  assert 'studies/multistep_ste.md' in answer and large.strip() == '–'
  assert small.strip() == '0.25 [0.12, 0.5] log loss ratio, 8 seeds: supported'
  assert 'bitjax multistep_ste --preset=quick --seeds=0:8' in page
  labels = [
    line.split('|')[1].strip()
    for line in page.splitlines()
    if line.startswith('| N')
  ]
  assert labels == [f'N{i}' for i in range(1, 21)]


@pytest.mark.parametrize(
  ('verdict', 'answer'),
  [
    ('contradicted', 'No: one scanned step'),
    ('inconclusive', 'Not settled'),
    ('inert', 'no effect at all'),
  ],
)
def test_answers_follow_verdicts(verdict, answer):
  other = dataclasses.replace(VERDICT, verdict=verdict)
  entry = published.Published(
    'multistep_ste', 'note', 'bitjax', 'now', 'a', 'b', {}, (other,)
  )
  assert answer in findings.page([entry])


def test_every_item_names_a_study_and_a_page():
  for item in findings.ITEMS:
    if item.study:
      assert item.study in studies.NAMES
      assert (ROOT / 'docs' / 'studies' / f'{item.study}.md').is_file()
    assert bool(item.finding) == bool(item.no)


def test_the_committed_page_is_made_from_the_committed_results():
  page = findings.page(published.load(ROOT / published.FOLDER))
  assert (ROOT / 'docs' / 'findings.md').read_text() == page


def test_published_verdicts_answer_their_items():
  """A label that a study has renamed would leave its row empty without a word."""
  for run in published.load(ROOT / published.FOLDER):
    found = {verdict.finding for verdict in run.verdicts}
    for item in findings.ITEMS:
      if item.study == run.study and item.finding:
        assert item.finding in found, (run.study, item.label)


@pytest.mark.parametrize('text', ['{', '[]', '{"study": 1}'])
def test_files_that_are_no_results(tmp_path, capsys, text):
  (tmp_path / 'a.json').write_text(text)
  with pytest.raises(types.BadInput, match='not a published run'):
    published.load(tmp_path)
  assert command.main(['findings', str(tmp_path)]) == 2
  assert capsys.readouterr().err.count('\n') == 1


@pytest.mark.parametrize('name', ['publish', 'findings'])
def test_usage(name, capsys):
  assert command.main([name, '--help']) == 0
  assert f'usage: bitjax {name}' in capsys.readouterr().out
  assert command.main([name, '--nonsense']) == 2
