"""Published runs, and the page that is made from them."""

import dataclasses
import decimal
import json
import pathlib
import re

import numpy as np
import pytest

from bitjax import __main__ as command
from bitjax import evidence
from bitjax import studies
from bitjax import types
from bitjax.cli import command as cli_command
from bitjax.cli import flags
from bitjax.cli import results as results_lib
from bitjax.commands import findings
from bitjax.commands import items
from bitjax.commands import published
from bitjax.sweeps import provenance

ROOT = pathlib.Path(__file__).parents[2]
VERDICT = evidence.Verdict(
  'N8', 'binary: several steps win.', 'supported', 0.25, 0.125, 0.5,
  'log loss ratio', 8, 'deployable, B', primary=True,
)  # fmt: skip
GIT = {'commit': 'a' * 40, 'dirty': False}
CODE = {'environment': {'jax': '1'}, 'sources': {'bitjax.tree': ['a', 'b']}}


@pytest.fixture
def run(tmp_path, monkeypatch):
  """Writes a finished run, with some entries of its configuration replaced."""
  import xarray

  study = studies.load('multistep_ste')
  monkeypatch.setattr(provenance, 'git', lambda: GIT | {'commit': 'b' * 40})
  # Verdicts are not read: the run is judged again.
  judge = dataclasses.replace(study, verdicts=lambda results: iter([VERDICT]))
  monkeypatch.setattr(studies, 'load', lambda name: judge)

  def write(argv=('--preset=quick',), attrs=None, **replaced):
    directory = tmp_path / 'run'
    directory.mkdir(exist_ok=True)
    results_lib.save(xarray.Dataset({'a': 1.0}, attrs=attrs), directory)
    results_lib.save_verdicts([], directory)
    request = cli_command.parse(study, argv)
    entry = {
      'study': 'multistep_ste',
      'config': flags.encode(request.config),
      'preset': request.preset,
      'started': '2026-11-27T10:00:00+00:00',
      'git': GIT,
      'records': {'data': 'abc'},
      'code': CODE,
    } | replaced
    kept = {k: v for k, v in entry.items() if v is not None}
    (directory / 'config.json').write_text(json.dumps(kept))
    return directory

  return write


def test_what_is_published(run, tmp_path):
  path = published.publish(run(), tmp_path / 'results')
  assert path.name == 'multistep_ste.quick.json'
  (found,) = published.load(tmp_path / 'results')
  assert found.command == 'bitjax multistep_ste --preset=quick'
  assert (found.commit, found.judged) == (GIT['commit'], 'b' * 40)
  assert found.records == {'data': 'abc'} and len(found.code) == 10
  assert found.verdicts == (VERDICT,)


def test_where_the_data_lie_is_no_part_of_a_preset(run, tmp_path):
  directory = run(['--preset=quick', f'--data_dir={tmp_path}'])
  published.publish(directory, tmp_path / 'results')
  (found,) = published.load(tmp_path / 'results')
  assert found.command == 'bitjax multistep_ste --preset=quick --data_dir=DIR'


OTHER = CODE | {'sources': {'mine.shapes': ['a', 'b']}}


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'code': None}, 'not the directory of a finished run'),
    ({'git': None}, 'code that is not committed'),
    ({'git': GIT | {'dirty': True}}, 'code that is not committed'),
    (
      {'resumed': [{'git': GIT | {'dirty': True}}]},
      'code that is not committed',
    ),
    (
      {'resumed': [{'git': GIT | {'commit': 'c'}}]},
      'mixes numbers of different',
    ),
    ({'attrs': {'other_code': '2 of 4 lanes'}}, 'mixes numbers of different'),
    ({'code': OTHER}, 'depends on mine.shapes, which is not part of bitjax'),
    ({'argv': ['--seeds=0,1']}, 'it has another seeds. Publish a preset as it'),
    (
      {'argv': ['--seeds', '0,1', '--budget=1']},
      'it has another seeds, budget',
    ),
    ({'preset': 'other'}, 'does not come from a preset'),
  ],
)
def test_what_is_not_published(run, tmp_path, capsys, options, message):
  directory, to = run(**options), tmp_path / 'results'
  assert command.main(['publish', str(directory), f'--to={to}']) == 2
  err = capsys.readouterr().err
  assert err.startswith('bitjax publish: ') and message in err
  assert err.count('\n') == 1 and not to.exists()


def test_what_judges_is_committed(run, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(provenance, 'git', lambda: GIT | {'dirty': True})
  assert command.main(['publish', str(run()), f'--to={tmp_path}']) == 2
  assert 'the code that judges it comes from' in capsys.readouterr().err


def test_damaged_results_are_not_published(run, tmp_path, capsys):
  directory = run()
  archive = directory / 'results.nc'
  archive.write_bytes(archive.read_bytes()[:-1] + b'x')
  assert command.main(['publish', str(directory), f'--to={tmp_path}']) == 2
  err = capsys.readouterr().err
  assert f'{archive} is damaged (its checksum differs)' in err


def rows(page, label):
  return [line for line in page.splitlines() if line.startswith(f'| {label} |')]


def test_the_page_says_what_was_published(run, tmp_path, capsys):
  published.publish(run(), tmp_path)
  assert command.main(['findings', str(tmp_path)]) == 0
  page = capsys.readouterr().out
  (row,) = rows(page, 'N8')
  _, _, question, answer, small, large, _ = row.split('|')
  assert question.strip().endswith('?') and 'Yes: several steps' in answer
  assert 'studies/multistep_ste.md' in answer and large.strip() == '–'
  assert small.strip() == '0.25 [0.12, 0.5] log loss ratio, 8 seeds: supported'
  assert '`bitjax multistep_ste --preset=quick`' in page
  labels = [
    line.split('|')[1].strip()
    for line in page.splitlines()
    if line.startswith('| N')
  ]
  # A question may stand below the item that it belongs to.
  items = [label.partition(',')[0] for label in labels]
  assert list(dict.fromkeys(items)) == [f'N{i}' for i in range(1, 21)]
  assert len(set(labels)) == len(labels)


@pytest.mark.parametrize(
  ('verdict', 'answer'),
  [
    ('contradicted', 'No: one scanned step'),
    ('inconclusive', 'Not settled'),
    ('inert', 'no effect at all'),
    ('inconclusive: diverged', 'too many networks diverged'),
  ],
)
def test_answers_follow_verdicts(verdict, answer):
  other = dataclasses.replace(VERDICT, verdict=verdict)
  entry = published.Published(
    'multistep_ste', 'note', 'bitjax', 'now', 'a', 'b', 'c', {}, (other,)
  )
  assert answer in findings.page([entry])


@pytest.mark.parametrize('order', [1, -1])
def test_large_is_the_note_wherever_it_answers(order):
  """And not whichever run comes first; `full` fills gaps, and says so."""

  def entry(preset, *found):
    named = ('multistep_ste', preset, 'bitjax', 'now', 'a', 'b', 'c', {})
    return published.Published(*named, found)

  momentum = dataclasses.replace(VERDICT, finding='N9 momentum', effect=0.375)
  note = dataclasses.replace(VERDICT, effect=0.2, verdict='contradicted')
  noise = dataclasses.replace(VERDICT, finding='N9 noise, mean', effect=0.5)
  other = dataclasses.replace(momentum, effect=0.4)
  runs = [
    entry('cifar', noise, other),
    entry('full', dataclasses.replace(VERDICT, effect=0.15), momentum),
    entry('note', note),
    entry('quick', VERDICT),
  ]
  page = findings.page(runs[::order])
  (row,) = rows(page, 'N8')
  _, _, _, answer, small, large, _ = (cell.strip() for cell in row.split('|'))
  assert answer.startswith('No: one scanned step')
  assert small == '0.25 [0.12, 0.5] log loss ratio, 8 seeds: supported'
  assert large == (
    '0.2 [0.12, 0.5] log loss ratio, `note`, 8 seeds: contradicted'
  )
  (row,) = rows(page, 'N9')
  assert '0.38 [0.12, 0.5] log loss ratio, `full`, 8 seeds: supported' in row
  (row,) = rows(page, 'N7')
  assert '0.5 [0.12, 0.5] log loss ratio, `cifar`, 8 seeds: supported' in row


def test_every_item_names_a_study_and_a_page():
  for item in items.ITEMS:
    if item.study:
      assert item.study in studies.NAMES
      assert (ROOT / 'docs' / 'studies' / f'{item.study}.md').is_file()
    assert bool(item.finding) == bool(item.no)


def test_the_committed_page_is_made_from_the_committed_results():
  page = findings.page(published.load(ROOT / published.FOLDER))
  assert (ROOT / 'docs' / 'findings.md').read_text() == page


NUMBER = r'(-?\d+(?:\.\d+)?(?:e-\d+)?)'
EFFECT = re.compile(rf'{NUMBER}\s+\[{NUMBER},\s+{NUMBER}\]')
# What a page says of other runs than the published one.
OTHERS = re.compile(
  r'^## (What changed|Earlier runs).*?(?=^## |\Z)', re.M | re.S
)


def intervals(verdict):
  """An effect and its ends, also those of the details, and what it is the other way."""
  found = [(verdict.effect, verdict.low, verdict.high)]
  for name in verdict.details:
    if f'{name} low' in verdict.details:
      ends = (f'{name}{end}' for end in ('', ' low', ' high'))
      found.append(tuple(verdict.details[end] for end in ends))
  return found + [(-mean, -high, -low) for mean, low, high in found]


RUNS = published.load(ROOT / published.FOLDER)


@pytest.mark.parametrize('study', sorted({run.study for run in RUNS}))
def test_effects_in_the_text_of_pages_are_published(study):
  """Those with intervals, rounded as in the text."""
  text = (ROOT / 'docs' / 'studies' / f'{study}.md').read_text()
  found = [v for run in RUNS if run.study == study for v in run.verdicts]
  known = np.array([row for v in found for row in intervals(v)], float)
  unknown = []
  for found in EFFECT.finditer(OTHERS.sub('', text)):
    written = [decimal.Decimal(part) for part in found.groups()]
    digits = [10.0 ** number.as_tuple().exponent for number in written]
    away = np.abs(known - np.array(written, float))
    if not (away <= np.multiply(0.5 + 1e-6, digits)).all(1).any():
      unknown.append(found[0])
  assert not unknown


def test_published_verdicts_answer_their_items():
  """A label that a study has renamed would leave its row empty without a word.

  Small runs answer every item of their study. Large ones may lack arms, and answer
  the one that the study's primary contrast is about.
  """
  shown = [
    run for run in RUNS if run.preset in ('quick', 'full', 'note', 'cifar')
  ]
  assert shown
  for run in shown:
    (primary,) = [v for v in run.verdicts if v.primary]
    for item in items.ITEMS:
      if item.study == run.study and item.finding:
        assert f'| {item.label} ' in findings.page([run])
        (row,) = rows(findings.page([run]), item.label)
        column = 4 if run.preset == 'quick' else 5  # Small, and large.
        answer = row.split('|')[column]
        first = item.finding == primary.finding
        first = first and primary.claim.startswith(item.where)
        if run.preset == 'quick' or first:
          assert '–' not in answer, (run.study, run.preset, item.label)


@pytest.mark.parametrize('text', ['{', '[]', '{"study": 1}'])
def test_files_that_are_no_results(tmp_path, capsys, text):
  (tmp_path / 'a.json').write_text(text)
  with pytest.raises(types.BadInput, match='not a published run'):
    published.load(tmp_path)
  assert command.main(['findings', str(tmp_path)]) == 2
  assert capsys.readouterr().err.count('\n') == 1
  assert command.main(['findings', str(tmp_path / 'none')]) == 2
  assert 'is no folder of published runs' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['publish', 'findings', 'tables'])
def test_usage(name, capsys):
  assert command.main([name, '--help']) == 0
  assert f'usage: bitjax {name}' in capsys.readouterr().out
  assert command.main([name, '--nonsense']) == 2
