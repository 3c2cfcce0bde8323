"""Every study runs from flags to figure, and is drawn again without work."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from bitjax import cli
from bitjax import studies

ROOT = pathlib.Path(__file__).parents[2]
FILES = {
  'config.json', 'results.nc', 'results.csv', 'verdicts.json', 'figure.png',
  'figure.pdf',
}  # fmt: skip


@pytest.mark.parametrize('name', studies.NAMES)
def test_smoke_preset_runs_and_is_drawn_again(name, tmp_path, capsys):
  study, out = studies.load(name), tmp_path / 'run'
  command = ['--preset=smoke', f'--out={out}', '--nocompilation_cache']
  assert cli.launch(study, command) == 0, capsys.readouterr().err
  assert {path.name for path in out.iterdir()} >= FILES
  verdicts = json.loads((out / 'verdicts.json').read_text())
  assert verdicts and all(entry['claim'] for entry in verdicts)
  before = (out / 'results.nc').read_bytes(), verdicts
  capsys.readouterr()
  assert cli.launch(study, command) == 0
  assert 'lanes' not in capsys.readouterr().err  # Nothing was computed.
  assert before == (
    (out / 'results.nc').read_bytes(),
    json.loads((out / 'verdicts.json').read_text()),
  )


@pytest.mark.parametrize('name', studies.NAMES)
def test_help_is_a_manual_page(name, capsys):
  study = studies.load(name)
  assert study.name == name
  assert cli.launch(study, ['--help'], program=f'bitjax {name}') == 0
  page = capsys.readouterr().out
  words = ' '.join(page.split())  # However the lines are broken.
  assert words.startswith(f'{name} {studies.question(name)}')
  assert f'  bitjax {name} [--preset=NAME]' in page
  assert '--preset' in page and 'smoke' in page


@pytest.mark.parametrize(
  'program',
  [
    ['-m', 'bitjax', 'estimator_gallery'],
    ['-m', 'experiments.estimator_gallery'],
  ],
)
def test_as_a_process(program, tmp_path):
  command = [sys.executable, *program, '--preset=smoke', f'--out={tmp_path}']
  ran = subprocess.run(
    command,
    cwd=ROOT,
    env=os.environ | {'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'},
    capture_output=True,
    text=True,
    check=False,
  )
  assert ran.returncode == 0, ran.stderr
  assert {path.name for path in tmp_path.iterdir()} >= FILES
