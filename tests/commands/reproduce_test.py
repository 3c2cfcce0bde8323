"""Sets of studies as one command: what is run, how it goes on, and the page of it."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from bitjax import __main__ as command
from bitjax import evidence
from bitjax import studies
from bitjax.commands import items
from bitjax.commands import reproduce

ROOT = pathlib.Path(__file__).parents[2]
ITEM = next(item for item in items.ITEMS if item.label == 'N8')
VERDICT = evidence.Verdict(
  ITEM.finding, 'binary: several steps win.', 'supported', 0.25, 0.125, 0.5,
  'log loss ratio', 8, 'deployable, B', primary=True,
)  # fmt: skip


class Studies:
  """Stands for the processes of studies: writes what a finished run has."""

  def __init__(self):
    self.calls, self.statuses = [], {}

  def __call__(self, argv):
    self.calls.append(argv)
    name, preset, out, *_ = argv
    status = self.statuses.get(name, 0)
    if not status:
      directory = pathlib.Path(out.removeprefix('--out='))
      directory.mkdir(parents=True, exist_ok=True)
      entry = {
        'study': name,
        'preset': preset.removeprefix('--preset='),
        'config': {'dataset': 'digits'},
        'records': {'train_examples': 1242},
        'started': '2026-11-28T10:00:00+00:00',
        'git': {'commit': 'a' * 40, 'dirty': True},
        'code': {'environment': {}, 'sources': {}},
      }
      (directory / 'config.json').write_text(json.dumps(entry))
      (directory / 'verdicts.json').write_text(json.dumps([VERDICT.to_json()]))
    return status


@pytest.fixture
def ran(monkeypatch):
  ran = Studies()
  monkeypatch.setattr(reproduce, '_launch', ran)
  return ran


def test_every_set_names_presets_of_studies():
  for chosen in reproduce.SETS.values():
    assert len(set(chosen)) == len(chosen)
    for name, preset in chosen:
      assert preset in studies.load(name).presets, (name, preset)
  # Whatever answers an item is in the set of all that take minutes.
  answering = {item.study for item in items.ITEMS if item.study}
  assert answering <= {name for name, _ in reproduce.SETS['quick']}


def test_a_set_is_run_as_its_studies_are_singly(ran, tmp_path, capsys):
  argv = ['reproduce', '--set=quick', f'--out={tmp_path}']
  assert command.main(argv) == 0
  wanted = [
    (name, f'--preset={preset}', f'--out={tmp_path / name / preset}')
    for name, preset in reproduce.SETS['quick']
  ]
  assert ran.calls == wanted
  out = capsys.readouterr().out
  assert out.endswith(f'{tmp_path / "reproduce.quick.md"}\n')
  assert f'[1/{len(wanted)}] bitjax multistep_ste --preset=quick\n' in out
  page = (tmp_path / 'reproduce.quick.md').read_text()
  (row,) = [line for line in page.splitlines() if line.startswith('| N8 |')]
  assert ITEM.yes in row and '0.25 [0.12, 0.5] log loss ratio, 8 seeds' in row
  assert '[multistep_ste](multistep_ste/quick/figure.png)' in row
  assert (
    '| `bitjax dsq --preset=quick` | digits, 1242 examples | 2026-11-28 | '
    '`aaaaaaaaaa (edited)` | finished |' in page
  )
  assert page.count('\n![') == len(wanted)


def test_only_some(ran, tmp_path):
  argv = ['reproduce', '--set=quick', '--only=dsq,variant_ste']
  assert command.main([*argv, f'--out={tmp_path}']) == 0
  assert [call[0] for call in ran.calls] == ['variant_ste', 'dsq']


def test_a_study_that_fails_does_not_stop_the_others(ran, tmp_path):
  ran.statuses['variant_ste'] = 2
  argv = ['reproduce', '--set=quick', f'--out={tmp_path}']
  assert command.main(argv) == 1
  assert len(ran.calls) == len(reproduce.SETS['quick'])
  page = (tmp_path / 'reproduce.quick.md').read_text()
  assert (
    '| `bitjax variant_ste --preset=quick` | – | – | – | failed (exit status 2) |'
    in page
  )
  assert '\n| N11 |' not in page and '\n| N8 |' in page


def test_a_signal_ends_all(ran, tmp_path):
  ran.statuses['variant_ste'] = 143
  argv = ['reproduce', '--set=quick', f'--out={tmp_path}']
  assert command.main(argv) == 143
  assert len(ran.calls) == 2
  page = (tmp_path / 'reproduce.quick.md').read_text()
  assert 'interrupted; the same command goes on |' in page
  assert page.count('| not begun |') == len(reproduce.SETS['quick']) - 2


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--set=slow'], 'set must be one of quick, full, gpu'),
    (['--set=quick', '--only=dsqs'], 'no study \'dsqs\'; did you mean dsq?'),
    (['--set=full'], 'dsq --preset=cifar needs --data_dir'),
  ],
)  # fmt: skip
def test_bad_input(ran, tmp_path, capsys, flags, words):
  assert command.main(['reproduce', *flags, f'--out={tmp_path / "runs"}']) == 2
  err = capsys.readouterr().err
  assert words in err and err.count('\n') == 1
  assert not ran.calls and not (tmp_path / 'runs').exists()


def test_data_lie_somewhere(ran, tmp_path):
  argv = ['reproduce', '--set=full', '--only=dsq', '--data_dir=/data']
  assert command.main([*argv, f'--out={tmp_path}']) == 0
  assert ran.calls[0][-1] == '--data_dir=/data'
  page = (tmp_path / 'reproduce.full.md').read_text()
  assert '`bitjax dsq --preset=cifar --data_dir=DIR`' in page


@pytest.mark.parametrize(
  'flags', [[], ['--only=dsq'], ['--set'], ['--to=a'], ['quick']]
)
def test_usage(flags, capsys):
  assert command.main(['reproduce', *flags]) == 2
  assert 'usage: bitjax reproduce --set=' in capsys.readouterr().err
  assert command.main(['reproduce', '--help']) == 0


@pytest.mark.study
def test_a_set_gives_what_a_study_gives_singly(monkeypatch, tmp_path):
  """In processes of their own, bit for bit; and again without work."""
  chosen = ('bits_vs_width', 'smoke'), ('estimator_gallery', 'smoke')
  monkeypatch.setitem(reproduce.SETS, 'quick', chosen)
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  path, status = reproduce.reproduce('quick', out=tmp_path / 'set')
  assert status == 0 and path.read_text().count('| finished |') == 2
  stamps = {}
  for name, preset in chosen:
    one = tmp_path / 'one' / name
    argv = [sys.executable, '-m', 'bitjax', name, f'--preset={preset}']
    subprocess.run([*argv, f'--out={one}'], check=True, capture_output=True)
    for file in ('results.nc', 'results.csv', 'verdicts.json', 'figure.png'):
      both = [
        (folder / file).read_bytes()
        for folder in (one, tmp_path / 'set' / name / preset)
      ]
      assert both[0] == both[1], (name, file)
    archive = tmp_path / 'set' / name / preset / 'results.nc'
    stamps[archive] = archive.stat().st_mtime_ns
  again, status = reproduce.reproduce('quick', out=tmp_path / 'set')
  assert status == 0 and again == path
  assert all(file.stat().st_mtime_ns == t for file, t in stamps.items())


@pytest.mark.study
def test_a_signal_reaches_the_study(tmp_path):
  """A killed set leaves no study behind, and goes on where it stopped."""
  out = tmp_path / 'runs'
  argv = [sys.executable, '-m', 'bitjax', 'reproduce', '--set=quick']
  argv += ['--only=bits_vs_width', f'--out={out}']
  environment = os.environ | {'PYTHONPATH': str(ROOT)}
  process = subprocess.Popen(argv, env=environment, cwd=tmp_path)
  config = out / 'bits_vs_width' / 'quick' / 'config.json'
  for _ in range(1200):
    if config.exists():
      break
    time.sleep(0.1)
  process.send_signal(signal.SIGTERM)
  assert process.wait(60) == 143
  status = [sys.executable, '-m', 'bitjax', 'status', str(config.parent)]
  said = subprocess.run(status, env=environment, capture_output=True, text=True)
  assert 'interrupted' in said.stdout
  page = (out / 'reproduce.quick.md').read_text()
  assert 'interrupted; the same command goes on' in page
