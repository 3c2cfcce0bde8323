"""Whole runs: their files, resuming, redrawing, refusing, and being killed."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import time

import numpy as np
import pytest

from bitjax import cli
from bitjax import files
from bitjax.cli import results as results_lib

RUN = pathlib.Path('runs/sample_study/smoke')
FILES = {
  'chunks',
  'config.json',
  'figure.pdf',
  'figure.png',
  'results.csv',
  'results.nc',
  'results.sha256',
  'verdicts.json',
}


def names(directory):
  return {path.name for path in pathlib.Path(directory).iterdir()}


def forbidden(*_):
  raise AssertionError('run')


def test_a_run_writes_its_files_and_says_so(launch, sample, capsys):
  assert launch('--preset=smoke', '--chunk=3', plot=sample.plot) == 0
  out, err = capsys.readouterr()
  assert names(RUN) == FILES
  assert 'N9a  ' in out and 'Noise at the start finds better points.' in out
  assert out.splitlines()[-6:] == [
    str(RUN / name)
    for name in (
      'config.json',
      'results.nc',
      'results.csv',
      'verdicts.json',
      'figure.png',
      'figure.pdf',
    )
  ]
  assert 'descent: 4 lanes\n' in err
  assert 'descent: compiling network=binary\n' in err
  config = json.loads((RUN / 'config.json').read_text())
  assert config['study'] == 'sample_study'
  assert config['config']['learning_rates'] == '0.01,0.1'
  assert config['config']['seeds'] == [0]
  assert config['config']['split'] is None
  assert config['records'] == {'checksum': 'abc', 'sizes': [1, 2]}
  assert config['preset'] == 'smoke' and config['chunk'] == 3
  assert config['versions']['jax'] and config['device']['platform']
  (verdict,) = json.loads((RUN / 'verdicts.json').read_text())
  assert (verdict['finding'], verdict['low']) == ('N9a', '-inf')
  assert (RUN / 'figure.png').read_bytes().startswith(b'\x89PNG')
  assert (RUN / 'figure.pdf').read_bytes().startswith(b'%PDF')


def test_a_finished_run_is_only_drawn_again(launch, sample, capsys):
  assert launch('--preset=smoke', plot=sample.plot) == 0
  before = {name: (RUN / name).read_bytes() for name in FILES - {'chunks'}}
  first = capsys.readouterr()
  assert launch('--preset=smoke', run=forbidden, plot=sample.plot) == 0
  again = capsys.readouterr()
  assert again.out == first.out
  assert again.err.startswith('sample_study: read from the run of 20')
  assert again.err.count('\n') == 1 and 'changed' not in again.err
  for name, content in before.items():
    assert (RUN / name).read_bytes() == content, name


def test_figures_are_made_again_from_files_alone(launch):
  seen = []

  def verdicts(results):
    seen.append(results.copy(deep=True))
    return []

  assert launch('--preset=smoke', verdicts=verdicts) == 0
  assert launch('--preset=smoke', verdicts=verdicts, run=forbidden) == 0
  assert seen[0].identical(seen[1])


def test_a_study_may_draw_a_supplement(launch, capsys):
  from matplotlib import figure

  def two(results):
    drawn = {'figure': (1, 1), 'figure_supplement': (2, 1)}
    return {k: figure.Figure(figsize=size) for k, size in drawn.items()}

  more = {'figure_supplement.png', 'figure_supplement.pdf'}
  assert launch('--preset=smoke', plot=two) == 0
  assert names(RUN) == FILES | more
  written = capsys.readouterr().out.splitlines()[-2:]
  assert {pathlib.Path(line).name for line in written} == more
  # It belongs to the run: it goes on, and goes with the figure that has none.
  assert launch('--preset=smoke', plot=two, run=forbidden) == 0
  assert launch('--preset=smoke', run=forbidden) == 0
  assert names(RUN) == FILES


@pytest.mark.parametrize('found', [[], ['figure', 'other'], ['other']])
def test_other_names_of_figures_are_refused(found, tmp_path):
  with pytest.raises(ValueError, match="a study draws 'figure'"):
    results_lib.save_figure(dict.fromkeys(found), tmp_path)
  assert not names(tmp_path)


def test_lost_results_are_made_from_chunks(launch, sample, capsys):
  assert launch('--preset=smoke') == 0
  content = (RUN / 'results.csv').read_bytes()
  (RUN / 'results.csv').unlink()
  (RUN / 'results.nc').write_bytes(b'broken')
  capsys.readouterr()

  assert launch('--preset=smoke') == 0
  err = capsys.readouterr().err
  assert 'results.nc is damaged' in err
  assert 'descent: 4 lanes, all done before' in err
  assert (RUN / 'results.csv').read_bytes() == content


def test_damaged_results_are_made_again(launch, capsys):
  assert launch('--preset=smoke') == 0
  before = {name: (RUN / name).read_bytes() for name in FILES - {'chunks'}}
  for position in (8, len(before['results.nc']) // 2, -9):
    content = bytearray(before['results.nc'])
    content[position] ^= 4
    (RUN / 'results.nc').write_bytes(content)
    capsys.readouterr()
    assert launch('--preset=smoke') == 0
    err = capsys.readouterr().err
    assert 'results.nc is damaged (its checksum differs); made again' in err
    assert 'descent: 4 lanes, all done before' in err
    for name in ('results.csv', 'verdicts.json'):
      assert (RUN / name).read_bytes() == before[name]
  (RUN / 'results.csv').write_bytes(before['results.csv'] + b'x')
  assert launch('--preset=smoke', run=forbidden) == 0
  assert 'results.csv is not as it was written; made' in capsys.readouterr().err
  assert (RUN / 'results.csv').read_bytes() == before['results.csv']


def test_a_run_without_checksums_says_so(launch, capsys):
  assert launch('--preset=smoke') == 0
  (RUN / 'results.sha256').unlink()
  capsys.readouterr()
  assert launch('--preset=smoke', run=forbidden) == 0
  err = capsys.readouterr().err
  assert 'has no checksum, so damage would go unnoticed' in err
  assert err.count('\n') == 1 and 'read from the run of' in err


def test_another_configuration_is_refused(launch, capsys):
  assert launch('--preset=smoke') == 0
  before = (RUN / 'results.csv').read_bytes()
  capsys.readouterr()
  assert launch('--preset=smoke', '--budget=0.2', run=forbidden) == 2
  err = capsys.readouterr().err
  assert err == (
    f'sample_study: {RUN} holds a run with budget = 0.1, this one has '
    'budget = 0.2; choose another --out or replace it with --overwrite.\n'
  )
  assert launch('--preset=smoke', '--budget=0.2', '--overwrite') == 0
  assert (RUN / 'results.csv').read_bytes() != before
  assert names(RUN) == FILES
  assert launch('--preset=smoke', '--budget=0.2', run=forbidden) == 0


def test_overwriting_waits_until_the_new_run_is_sound(launch):
  assert launch('--preset=smoke') == 0
  before = {name: (RUN / name).read_bytes() for name in FILES - {'chunks'}}
  bad = ['--preset=smoke', '--overwrite', '--batch_size=1000']
  assert launch(*bad) == 2
  for name, content in before.items():
    assert (RUN / name).read_bytes() == content
  # A larger preset into the same directory leaves nothing of the old one.
  assert launch('--preset=quick', '--out', str(RUN), '--overwrite') == 0
  assert len(results_lib.load(RUN).seed) == 3
  assert len(list((RUN / 'chunks' / 'descent').glob('*.npz'))) == 2


def test_other_facts_are_refused(launch, sample, capsys):
  assert launch('--preset=smoke') == 0
  (RUN / 'results.nc').unlink()
  capsys.readouterr()

  def run(config, sweep):
    sweep.record(data='new')
    return sample.run(config, sweep)

  assert launch('--preset=smoke', run=run) == 2
  assert 'data = (absent), this one has data = new' in capsys.readouterr().err


def test_another_version_is_refused(launch, capsys):
  assert launch('--preset=smoke') == 0
  config = json.loads((RUN / 'config.json').read_text())
  (RUN / 'config.json').write_text(json.dumps(config | {'bitjax': '99.0'}))
  capsys.readouterr()
  assert launch('--preset=smoke', run=forbidden) == 2
  assert 'a run with bitjax = 99.0' in capsys.readouterr().err


@pytest.mark.parametrize('config', [None, '{"architectures": []}', '{'])
def test_directories_of_others_are_left_alone(launch, capsys, tmp_path, config):
  (tmp_path / 'home').mkdir()
  (tmp_path / 'home' / 'thesis.tex').write_text('x')
  if config is not None:
    (tmp_path / 'home' / 'config.json').write_text(config)
  kept = names(tmp_path / 'home')
  for more in ([], ['--overwrite']):
    assert launch('--preset=smoke', '--out=home', *more) == 2
    err = capsys.readouterr().err
    assert 'home is not the directory of a run (it holds thesis.tex' in err
    assert names(tmp_path / 'home') == kept


def test_a_run_without_a_readable_configuration(launch, capsys):
  assert launch('--preset=smoke') == 0
  (RUN / 'config.json').write_text('{')
  capsys.readouterr()
  assert launch('--preset=smoke', run=forbidden) == 2
  assert 'no readable config.json; choose another' in capsys.readouterr().err
  assert launch('--preset=smoke', '--overwrite') == 0
  assert names(RUN) == FILES


def test_strangers_survive_an_overwrite(launch):
  assert launch('--preset=smoke') == 0
  (RUN / 'notes.txt').write_text('mine')
  (RUN / 'chunks' / 'descent' / 'mine.txt').write_text('mine')
  assert launch('--preset=smoke', '--overwrite') == 0
  assert names(RUN) == FILES | {'notes.txt'}
  assert (RUN / 'chunks' / 'descent' / 'mine.txt').exists()


def test_out_may_be_an_empty_directory_but_no_file(launch, capsys, tmp_path):
  (tmp_path / 'empty').mkdir()
  assert launch('--preset=smoke', '--out=empty') == 0
  assert names('empty') == FILES
  capsys.readouterr()
  assert launch('--preset=smoke', '--out=empty/results.csv') == 2
  assert 'results.csv is a file' in capsys.readouterr().err


def test_a_run_without_sweeps(launch):
  import xarray

  def run(config, sweep):
    sweep.record(fact=1)
    return xarray.Dataset({'a': 1.0})

  options = {'verdicts': lambda _: []}
  assert launch('--preset=smoke', run=run, **options) == 0
  assert names(RUN) == FILES - {'chunks'}
  assert launch('--preset=smoke', run=forbidden, **options) == 0


def test_an_interrupt_says_how_to_go_on(launch, capsys):
  def interrupted(config, sweep):
    raise KeyboardInterrupt

  def terminated(config, sweep):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)

  before = signal.getsignal(signal.SIGTERM)
  assert launch(run=interrupted) == 130
  assert capsys.readouterr().err == (
    'sample_study: interrupted; the same command goes on from here\n'
  )
  assert launch('--overwrite', run=terminated) == 143
  assert 'the same command without --overwrite goes' in capsys.readouterr().err
  assert signal.getsignal(signal.SIGTERM) == before


def _until_chunks(child, folder, count):
  end = time.monotonic() + 60
  while len(list(folder.glob('*.npz'))) < count:
    assert child.poll() is None and time.monotonic() < end
    time.sleep(0.005)


@pytest.mark.study
def test_a_terminated_run_goes_on_bitwise(launch, start, tmp_path, capsys):
  command = ['--preset=many', '--chunk=1']
  assert launch(*command, '--out=whole') == 0
  assert 'descent: 480 lanes\n' in capsys.readouterr().err
  folder = tmp_path / 'cut' / 'chunks' / 'descent'
  child = start(*command, '--out=cut')
  _until_chunks(child, folder, 60)
  child.send_signal(signal.SIGTERM)
  _, err = child.communicate(timeout=60)
  assert child.returncode == 143
  assert err.endswith('interrupted; the same command goes on from here\n')
  done = len(list(folder.glob('*.npz')))
  assert 60 <= done < 480
  for written in (tmp_path / 'cut', folder):  # As if killed within a write.
    (written / '.leftover.1.partial').write_text('x')
  assert launch(*command, '--out=cut') == 0
  assert f'descent: 480 lanes, {done} of them done before\n' in (
    capsys.readouterr().err
  )
  for name in ('results.csv', 'verdicts.json', 'figure.png'):
    assert pathlib.Path('cut', name).read_bytes() == (
      pathlib.Path('whole', name).read_bytes()
    )
  assert results_lib.load('cut').identical(results_lib.load('whole'))
  assert not [p for p in pathlib.Path('cut').rglob('*') if files.is_partial(p)]
  resumed = json.loads(pathlib.Path('cut/config.json').read_text())['resumed']
  assert len(resumed) == 1


def test_atomic_leaves_the_old_file_or_the_new(tmp_path):
  path = tmp_path / 'a.txt'
  with files.atomic(path) as temporary:
    temporary.write_text('old')
    assert not path.exists()
  with pytest.raises(KeyboardInterrupt), files.atomic(path) as temporary:
    temporary.write_text('new')
    raise KeyboardInterrupt
  assert path.read_text() == 'old'
  assert names(tmp_path) == {'a.txt'}


def test_main_exits(sample, monkeypatch, capsys):
  monkeypatch.setattr('sys.argv', ['sample', '--budget=-1'])
  with pytest.raises(SystemExit) as caught:
    cli.main(sample.STUDY)
  assert caught.value.code == 2
  assert np.size(capsys.readouterr().err.splitlines()) == 1


def test_json_holds_arguments_that_are_not_utf8(tmp_path):
  value = {'command': [os.fsdecode(b'--out=\xff'), 'γ "…"']}
  files.write_json(tmp_path / 'a.json', value)
  (tmp_path / 'a.json').read_text(encoding='utf-8')
  assert files.read_json(tmp_path / 'a.json') == value
