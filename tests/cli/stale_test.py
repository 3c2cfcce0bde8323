"""Numbers do not outlive the code that made them: studies that are edited."""

import importlib
import json
import pathlib
import sys

import pytest

from bitjax import cli
from bitjax.cli import results as results_lib
from bitjax.sweeps import code
from bitjax.sweeps import progress

STUDY = '''"""Asks nothing."""

import dataclasses

from matplotlib import figure
import numpy as np

from bitjax import cli
from bitjax import evidence


@dataclasses.dataclass(frozen=True)
class Config:
  """One field."""

  seeds: tuple[int, ...] = cli.flag(tuple(range(8)), 'Seeds.')


def traced(config, sweep):
  def fn(seed):
    gain = 1.0 + seed
    return {'gain': gain}

  return sweep(fn, name='gains', lanes={'seed': config.seeds}, chunk=2)


def trained(config, sweep):
  def fn(folder, report, mesh, seed):
    if (folder / 'begun').exists() or seed[0] != 2:
      return {'gain': 1.0 + seed}
    (folder / 'begun').touch()
    raise KeyboardInterrupt

  return sweep.hosted(fn, name='gains', lanes={'seed': config.seeds}, chunk=2)


def verdicts(results):
  found = evidence.interval(results.gain.values)
  return [
    evidence.Verdict(
      'N0', 'A claim.', evidence.judge(found), found.mean, found.low,
      found.high, 'nats', found.num, 'oracle', caveat='Few seeds.',
    )
  ]


def plot(results):
  return figure.Figure(figsize=(1, 1))


STUDY = cli.Study('edited', __doc__, Config, {}, RUN, verdicts, plot)
'''
RUN = pathlib.Path('runs/edited/run')


@pytest.fixture(params=['traced', 'trained'])
def kind(request):
  return request.param


@pytest.fixture
def launch(kind, tmp_path, monkeypatch):
  """Runs the study after some edits of its file."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setattr(sys, 'dont_write_bytecode', True)

  def run(*argv, edits=()):
    text = STUDY.replace('RUN', kind)
    for old, new in edits:
      assert old in text
      text = text.replace(old, new)
    (tmp_path / 'edited_study.py').write_text(text)
    sys.modules.pop('edited_study', None)
    importlib.invalidate_caches()
    return cli.launch(importlib.import_module('edited_study').STUDY, argv)

  yield run
  sys.modules.pop('edited_study', None)


@pytest.fixture
def interrupted(kind, launch, monkeypatch, capsys):
  """A run of which 2 of 8 lanes are done."""
  with monkeypatch.context() as patch:
    if kind == 'traced':
      patch.setattr(progress, 'reporter', lambda *_: Impatient())
    assert launch() == 130
  assert len(list(RUN.glob('chunks/gains/*.npz'))) == 1
  capsys.readouterr()


class Impatient(progress.Silent):
  def advance(self, *_):
    raise KeyboardInterrupt


def gains():
  return results_lib.load(RUN).gain.values.tolist()


def caveat():
  (verdict,) = json.loads((RUN / 'verdicts.json').read_text())
  return verdict['caveat']


MORE = ('1.0 + seed', '2.0 + seed')
OLD, NEW = [1.0 + seed for seed in range(8)], [2.0 + seed for seed in range(8)]
HARMLESS = [
  ('Asks nothing.', 'Asks much.'),
  ('  def fn(', '  # A comment.\n  def fn('),
]


def test_a_finished_run_says_where_it_is_read_from(launch, capsys):
  assert launch('--seeds=0,1') == 0
  capsys.readouterr()
  assert launch('--seeds=0,1', edits=HARMLESS) == 0
  err = capsys.readouterr().err
  assert err.startswith('edited: read from the run of 20') and ', code ' in err
  assert 'changed' not in err and caveat() == 'Few seeds.'


def test_a_finished_run_whose_code_has_changed(launch, capsys):
  assert launch('--seeds=0,1') == 0
  capsys.readouterr()
  assert launch('--seeds=0,1', edits=[MORE]) == 0
  err = capsys.readouterr().err
  assert 'the code has changed since (edited_study)' in err
  assert '--overwrite' in err and err.count('\n') == 1
  assert gains() == OLD[:2]
  assert caveat() == (
    'The code has changed since these numbers were computed (edited_study). '
    'Few seeds.'
  )
  assert launch('--seeds=0,1', '--overwrite', edits=[MORE]) == 0
  assert gains() == NEW[:2] and caveat() == 'Few seeds.'


def test_an_interrupted_run_goes_on_with_the_same_code(launch, interrupted):
  assert launch(edits=HARMLESS) == 0
  assert gains() == OLD and caveat() == 'Few seeds.'


def test_another_code_does_not_mix_in(launch, interrupted, capsys):
  before = {p: p.read_bytes() for p in RUN.rglob('*') if p.is_file()}
  assert launch(edits=[MORE]) == 2
  err = capsys.readouterr().err
  assert "lanes of 'gains' come from other code (changed: edited_study)" in err
  for way in ('--overwrite', '--out', '--accept_other_code'):
    assert way in err
  assert err.count('\n') == 1
  after = {p: p.read_bytes() for p in RUN.rglob('*') if p.is_file()}
  assert after == before
  status = launch('--overwrite', edits=[MORE])
  if status == 130:  # The training is interrupted once more.
    status = launch(edits=[MORE])
  assert status == 0 and gains() == NEW


def test_a_mixture_is_marked(launch, interrupted, kind, capsys):
  assert launch('--accept_other_code', edits=[MORE]) == 0
  assert gains() == OLD[:2] + NEW[2:]
  lanes = 2 if kind == 'traced' else 4
  mark = (
    f"{lanes} of 8 lanes of 'gains' come from other code (changed: "
    'edited_study)'
  )
  assert results_lib.load(RUN).attrs['other_code'] == mark
  assert caveat() == f'{mark}. Few seeds.'
  # The mark stays, and is not forgotten when the results are made again.
  assert launch(edits=[MORE]) == 0 and caveat() == f'{mark}. Few seeds.'
  (RUN / 'results.nc').unlink()
  capsys.readouterr()
  assert launch(edits=[MORE]) == 2
  assert "2 of 8 lanes of 'gains' come from other" in capsys.readouterr().err


@pytest.mark.parametrize('kind', ['traced'], indirect=True)
def test_edits_that_leave_the_program_as_it_was(launch, interrupted, capsys):
  edits = [('gain = 1.0 + seed', 'more = 1.0\n    gain = more + seed')]
  assert launch(edits=edits) == 0
  assert gains() == OLD and caveat() == 'Few seeds.'


def test_judging_and_drawing_do_not_count(
  launch, tmp_path, monkeypatch, capsys
):
  judge = STUDY.index('def verdicts'), STUDY.index('STUDY = cli')
  head = STUDY[: STUDY.index('@dataclasses')]
  away = (
    STUDY[slice(*judge)],
    'from edited_findings import verdicts, plot\n\n\n',
  )
  path = tmp_path / 'edited_findings.py'
  path.write_text(head + STUDY[slice(*judge)])
  try:
    assert launch('--seeds=0,1', edits=[away]) == 0
    path.write_text(path.read_text().replace('A claim.', 'Another claim.'))
    sys.modules.pop('edited_findings')
    capsys.readouterr()
    assert launch('--seeds=0,1', edits=[away]) == 0
    captured = capsys.readouterr()
    assert 'Another claim.' in captured.out and 'changed' not in captured.err
  finally:
    sys.modules.pop('edited_findings', None)


def test_a_library_of_another_version(launch, interrupted, monkeypatch, capsys):
  now = code.environment()
  monkeypatch.setattr(code, 'environment', lambda: now | {'numpy': '99.0'})
  assert launch() == 2
  changed = f'(changed: numpy {now["numpy"]} (now 99.0))'
  assert changed in capsys.readouterr().err
