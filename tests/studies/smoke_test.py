"""Every study runs from flags to figure, and is drawn again without work."""

import dataclasses
import functools
import json
import os
import pathlib
import re
import runpy
import subprocess
import sys

import numpy as np
import pytest

from bitjax import cli
from bitjax import studies
from bitjax.commands import items

pytestmark = pytest.mark.study

ROOT = pathlib.Path(__file__).parents[2]
FILES = {
  'config.json', 'results.nc', 'results.csv', 'verdicts.json', 'figure.png',
  'figure.pdf',
}  # fmt: skip


PROCESS = 'estimator_gallery'  # The study that runs as a process of its own.
OWN_DATA = 'discrete_optimum'  # The study that runs on a file of one's own.


@pytest.mark.parametrize('name', sorted({*studies.NAMES} - {PROCESS}))
def test_smoke_preset_runs_and_is_drawn_again(
  name, tmp_path, capsys, complaints
):
  study, out = studies.load(name), tmp_path / 'run'
  command = ['--preset=smoke', f'--out={out}', '--nocompilation_cache']
  if name == OWN_DATA:
    command.append(f'--dataset={own_data(tmp_path)}')
  checked = dataclasses.replace(study, plot=printed(study.plot, complaints))
  assert cli.launch(checked, command) == 0, capsys.readouterr().err
  before = contents(out)
  check_labels(name, before[1])
  check_tuned(name, out, before[1])
  capsys.readouterr()
  assert cli.launch(study, command) == 0
  assert 'lanes' not in capsys.readouterr().err  # Nothing was computed.
  assert contents(out) == before


def printed(plot, complaints, **options):
  """Returns `plot`, which fails for a figure that no journal would print."""

  @functools.wraps(plot)
  def wrapped(results):
    drawn = plot(results)
    for fig in drawn.values() if isinstance(drawn, dict) else [drawn]:
      assert complaints(fig, **options) == []
    return drawn

  return wrapped


def check_labels(name, verdicts):
  """The page of findings looks for verdicts by label, and finds them."""
  # Smoke presets have one optimiser, batch size and ball, fewer flips and arms, smaller
  # networks, and no mixup.
  larger = {'N3, linf', 'N9', 'N10', 'N16', 'N19, mixup'}
  larger |= {'N20, head and tail', 'N20, upsampler'}
  larger |= {'N12, ResNet', 'N18, one step', 'N18, nearness'}
  for item in items.ITEMS:
    if item.study == name and item.finding and item.label not in larger:
      assert any(
        verdict['finding'] == item.finding
        and verdict['claim'].startswith(item.where)
        for verdict in verdicts
      ), item.finding


# Protocols under which nothing is chosen on tuning seeds: what is measured before any
# choice, the best setting on A of each seed, the whole budget, and what is counted.
UNTUNED = re.compile(r'A\b|parts of A|oracle|all moves|untrained|counted')
# Verdicts that combine others, which say for each of their arms how settled its tuning is.
COMBINED = {'discrete_gradient': 'N3 factorial, B, '}


def check_tuned(name, out, verdicts):
  """Verdicts on tuned settings say how often other tuning seeds would choose others."""
  config = json.loads((out / 'config.json').read_text())['config']
  if not config.get('tuning_seeds'):
    return
  bare = [
    verdict
    for verdict in verdicts
    if not any('tuned otherwise' in detail for detail in verdict['details'])
    and not UNTUNED.match(verdict['protocol'])
  ]
  known = re.compile(COMBINED.get(name, r'\Z'))
  assert not [v['finding'] for v in bare if not known.match(v['finding'])]
  assert len(bare) < len(verdicts)


@pytest.mark.slow
def test_one_seed_is_judged_and_drawn(tmp_path, capsys):
  study, out = studies.load('multistep_ste'), tmp_path / 'run'
  command = ['--preset=smoke', '--seeds=0', f'--out={out}']
  assert cli.launch(study, command) == 0, capsys.readouterr().err
  _, verdicts = contents(out)
  for verdict in verdicts:
    assert verdict['verdict'] in ('inconclusive', 'inert'), verdict
    assert 'One seed: no interval' in verdict['caveat'], verdict


def test_as_a_process(tmp_path, capsys, complaints):
  study, out = studies.load(PROCESS), tmp_path / 'run'
  flags = ['--preset=smoke', f'--out={out}']
  ran = subprocess.run(
    [sys.executable, '-m', 'bitjax', PROCESS, *flags],
    cwd=ROOT,
    env=os.environ | {'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'},
    capture_output=True,
    text=True,
    check=False,
  )
  assert ran.returncode == 0, ran.stderr
  before = contents(out)
  # Panels are named as in the library.
  plot = printed(study.plot, complaints, identifiers=True)
  assert cli.launch(dataclasses.replace(study, plot=plot), flags) == 0
  assert contents(out) == before


def own_data(folder):
  """Writes a data set as Keras does: 6x5 pixels, four classes."""
  rng = np.random.default_rng(0)
  arrays = {}
  for part, size in (('train', 60), ('test', 20)):
    arrays[f'x_{part}'] = rng.random((size, 6, 5), np.float32)
    arrays[f'y_{part}'] = rng.permutation(np.arange(size)[:, None] % 4)
  np.savez(folder / 'mine.npz', **arrays)
  return folder / 'mine.npz'


def contents(out):
  """Checks the files of a finished run; returns its numbers and verdicts."""
  assert {path.name for path in out.iterdir()} >= FILES
  verdicts = json.loads((out / 'verdicts.json').read_text())
  assert verdicts and all(entry['claim'] for entry in verdicts)
  return (out / 'results.nc').read_bytes(), verdicts


@pytest.mark.parametrize('name', studies.NAMES)
def test_a_binary_is_the_same_command(name, capsys, monkeypatch):
  """In a clone, ``python -m experiments.STUDY`` starts a study."""
  path = ROOT / 'experiments' / f'{name}.py'
  monkeypatch.setattr(sys, 'argv', [str(path), '--help'])
  with pytest.raises(SystemExit) as caught:
    runpy.run_path(str(path), run_name='__main__')
  assert caught.value.code == 0
  assert capsys.readouterr().out.startswith(name)


@pytest.mark.parametrize('name', studies.NAMES)
def test_help_is_a_manual_page(name, capsys):
  study = studies.load(name)
  assert study.name == name
  assert cli.launch(study, ['--help'], program=f'bitjax {name}') == 0
  page = capsys.readouterr().out
  words = ' '.join(page.split())  # Without line breaks.
  assert words.startswith(f'{name} {studies.question(name)}')
  assert f'  bitjax {name} [--preset=NAME]' in page
  assert '--preset' in page and 'smoke' in page
