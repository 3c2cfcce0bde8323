"""Every experiment runs from flags to figure, and draws again without work."""

import importlib
import json
import os
import pathlib
import subprocess
import sys

import pytest

from bitjax import cli

ROOT = pathlib.Path(__file__).parents[2]
EXPERIMENTS = sorted(
  path.stem for path in (ROOT / 'experiments').glob('[!_]*.py')
)


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_smoke_preset_runs_and_redraws(name, tmp_path, capsys):
  out = tmp_path / 'run'
  first = subprocess.run(
    [
      sys.executable,
      '-m',
      f'experiments.{name}',
      '--preset=smoke',
      f'--out={out}',
    ],
    cwd=ROOT,
    env=_environment(),
    capture_output=True,
    text=True,
    check=False,
  )
  assert first.returncode == 0, first.stderr
  files = {
    'config.json', 'results.nc', 'results.csv', 'verdicts.json',
    'figure.png', 'figure.pdf',
  }  # fmt: skip
  assert files <= {path.name for path in out.iterdir()}
  verdicts = json.loads((out / 'verdicts.json').read_text())
  assert verdicts and all(entry['claim'] for entry in verdicts)
  before = (out / 'results.nc').read_bytes(), verdicts
  assert _launch(name, '--preset=smoke', f'--out={out}') == 0
  again = capsys.readouterr()
  assert 'lanes' not in again.err  # Nothing was computed.
  assert before == (
    (out / 'results.nc').read_bytes(),
    json.loads((out / 'verdicts.json').read_text()),
  )


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_help_is_a_manual_page(name, capsys):
  assert _launch(name, '--help') == 0
  page = capsys.readouterr().out
  assert '--preset' in page and 'smoke' in page


@pytest.mark.parametrize(
  ('flag', 'words'),
  [
    ('--dataset=imagenet', 'mnist5k'),
    ('--optimizers=sgd,rmsprop', 'adam'),
    ('--norm=l3', 'linf'),
    ('--networks=ternary', 'binary_weights'),
    ('--preset=huge', 'quick'),
    ('--learning_rate=1', 'learning_rates'),
    ('--budget=-1', 'budget'),
    ('--budget=nan', 'budget'),
    ('--noise=-0.1', 'noise'),
    ('--noise=0.5', 'list 0'),
    ('--seeds=', 'seeds'),
    ('--batch_size=4000', '--augment=shift'),
    ('--dataset=mnist', 'data_dir'),
    ('--out=/proc/nowhere/run', '/proc/nowhere'),
  ],
)
def test_bad_input_is_one_line_and_status_2(flag, words, tmp_path, capsys):
  out = tmp_path / 'run'
  assert _launch('multistep_ste', f'--out={out}', flag) == 2
  lines = capsys.readouterr().err.strip().splitlines()
  assert len(lines) == 1 and words in lines[0], lines
  assert not out.exists()


def _launch(name, *flags):
  """Runs an experiment in this process, which has imported everything before."""
  module = importlib.import_module(f'experiments.{name}')
  parts = (getattr(module, part) for part in ('run', 'verdicts', 'plot'))
  return cli.launch(module.Config, module.PRESETS, *parts, flags)


def _environment():
  # What is tested is that it runs, not how fast: most of a smoke run is spent in
  # the compiler.
  return os.environ | {'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'}
