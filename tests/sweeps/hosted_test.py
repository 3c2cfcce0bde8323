"""Sweeps over functions that JAX does not trace."""

import numpy as np
import pytest
import xarray

from bitjax import sweeps
from bitjax import types
from bitjax.cli import rundir
from bitjax.cli import status
from bitjax.sweeps import hosted
from bitjax.sweeps import job
from bitjax.sweeps import plan

KINDS, RATES, SEEDS = ('a', 'b'), (0.5, 1.0), (3, 4, 5)


class Program:
  """Multiplies the numbers of lanes, and records how it was called."""

  def __init__(self, fail_at=None):
    self.calls, self.fail_at = [], fail_at

  def __call__(self, folder, report, mesh, kind, rate, seed):
    if self.fail_at == len(self.calls):
      raise KeyboardInterrupt
    self.calls.append((kind, rate.tolist(), seed.tolist(), folder))
    assert mesh is None
    if folder is not None:
      path = folder / 'count'
      count = int(path.read_text()) + 1 if path.exists() else 1
      path.write_text(str(count))
    report.begin(10, 0, 'images')
    report.advance(10, 'epoch 1')
    sign = {'a': 1, 'b': -1}[kind]
    curve = np.stack([rate * sign, seed.astype(np.float32)], axis=1)
    return {'value': sign * rate * seed, 'curve': curve}


def call(sweep, program, **options):
  options = {
    'name': 'p',
    'static': {'kind': KINDS},
    'lanes': {'rate': RATES, 'seed': SEEDS},
    'dims': {'curve': ('epoch',)},
    'coords': {'epoch': [1, 2]},
  } | options
  return sweep.hosted(program, **options)


def wanted():
  sign = np.array([1, -1])[:, None, None]
  rate, seed = np.meshgrid(RATES, SEEDS, indexing='ij')
  curve = np.stack(
    np.broadcast_arrays(sign * rate, seed * np.ones((2, 1, 1))), -1
  )
  return xarray.Dataset(
    {
      'value': (('kind', 'rate', 'seed'), sign * rate * seed),
      'curve': (('kind', 'rate', 'seed', 'epoch'), curve),
    },
    {
      'kind': list(KINDS),
      'rate': list(RATES),
      'seed': list(SEEDS),
      'epoch': [1, 2],
    },
  )


@pytest.mark.parametrize('chunk', [None, 2, 100])
def test_labels(chunk, tmp_path):
  for directory in (None, tmp_path):
    program = Program()
    found = call(sweeps.Sweep(directory, chunk=chunk), program)
    xarray.testing.assert_equal(found, wanted())
    assert found.value.dims == ('kind', 'rate', 'seed')
    assert found.attrs['diverged'] == 0
    each = {None: 1, 2: 2, 100: 6}[chunk]
    assert len(program.calls) == 12 // each
    assert all(len(seeds) == each for _, _, seeds, _ in program.calls)
    folders = [folder for *_, folder in program.calls]
    if directory is None:
      assert folders == [None] * len(folders)
    else:
      assert len(set(folders)) == len(folders)
      names = [folder.relative_to(tmp_path / 'lanes/p') for folder in folders]
      assert str(names[0]) == '0-0' and str(names[-1]).startswith('1-')
      assert all(folder.is_dir() for folder in folders)


def test_a_run_that_was_interrupted_goes_on(tmp_path):
  with pytest.raises(KeyboardInterrupt):
    call(sweeps.Sweep(tmp_path), Program(fail_at=4), chunk=2)
  program = Program()
  # The interrupted sweep goes on with chunks of 2.
  found = call(sweeps.Sweep(tmp_path), program, chunk=1)
  xarray.testing.assert_equal(found, wanted())
  assert len(program.calls) == 2
  assert [kind for kind, *_ in program.calls] == ['b', 'b']
  assert [(tmp_path / f'lanes/p/1-{i}/count').read_text() for i in (1, 2)] == (
    ['1', '1']
  )
  again = call(sweeps.Sweep(tmp_path), None, chunk=2)
  xarray.testing.assert_identical(found, again)


def test_a_block_keeps_its_folder(tmp_path):
  """Files that an interrupted block wrote are there when it goes on."""

  def stubborn(folder, report, mesh, kind, rate, seed):
    path = folder / 'half'
    if not path.exists():
      path.write_text('')
      raise KeyboardInterrupt
    return Program()(None, report, mesh, kind, rate, seed)

  for _ in range(2):
    with pytest.raises(KeyboardInterrupt):
      call(sweeps.Sweep(tmp_path), stubborn, chunk=6)
  found = call(sweeps.Sweep(tmp_path), stubborn, chunk=6)
  xarray.testing.assert_equal(found, wanted())


def run(tmp_path, **options):
  return rundir.RunDirectory(tmp_path, study='e', config={}, **options)


def test_overwriting_removes_the_folders(tmp_path):
  first = run(tmp_path)
  call(sweeps.Sweep(tmp_path, run=first), Program(), chunk=6)
  first.close()
  counts = sorted(tmp_path.glob('lanes/p/*/count'))
  assert [path.read_text() for path in counts] == ['1', '1']
  second = run(tmp_path, overwrite=True)
  assert sorted(tmp_path.glob('lanes/p/*/count')) == counts
  call(sweeps.Sweep(tmp_path, run=second), Program(), chunk=4)
  second.close()
  counts = sorted(tmp_path.glob('lanes/p/*/count'))
  assert [path.read_text() for path in counts] == ['1'] * 4


def test_status(tmp_path):
  first = run(tmp_path)
  with pytest.raises(KeyboardInterrupt):
    call(sweeps.Sweep(tmp_path, run=first), Program(fail_at=3), chunk=2)
  first.close()
  assert status.describe(tmp_path) == [
    f'{tmp_path}: interrupted; the command that began it goes on',
    '  p: 6/12 lanes',
  ]


def test_lines_of_progress(tmp_path, capsys):
  call(sweeps.Sweep(tmp_path, report=True), Program(), chunk=3)
  lines = capsys.readouterr().err.splitlines()
  assert lines[0] == 'p (kind=a, rate=0.5,0.5,0.5, seed=3,4,5): 10 images'
  assert lines[1].startswith(
    'p (kind=a, rate=0.5,0.5,0.5, seed=3,4,5): 10/10 images after '
  )
  call(sweeps.Sweep(tmp_path, report=True), None, chunk=3)
  assert capsys.readouterr().err == 'p: 12 lanes, all done before\n'


def test_lanes_that_report_nothing_are_counted(tmp_path, capsys):
  def silent(folder, report, mesh, seed):
    return {'loss': np.asarray(seed, float)}

  def call(fn, last):
    sweep = sweeps.Sweep(tmp_path, report=True)
    sweep.hosted(fn, name='s', lanes={'seed': range(last)}, chunk=2)
    return capsys.readouterr().err.splitlines()

  first, last = call(silent, 6)
  assert first == 's: 6 lanes, 2 of them done before'
  assert last.startswith('s: 6/6 lanes after ')
  sweeps.Sweep().hosted(silent, name='s', lanes={'seed': range(2)})
  assert not capsys.readouterr().err


def test_lanes_that_diverge_are_counted(capsys):
  def program(folder, report, mesh, seed):
    return {'loss': np.where(seed == 1, np.nan, 1.0)}

  found = sweeps.Sweep().hosted(program, name='d', lanes={'seed': [0, 1]})
  assert found.attrs['diverged'] == 1
  assert capsys.readouterr().err == (
    'd: 1 of 2 lanes have outputs that are not finite (loss 1)\n'
  )


@pytest.mark.parametrize(
  ('outputs', 'message'),
  [
    (None, 'must return a dictionary, output name -> array; got NoneType'),
    ({}, 'must return a dictionary'),
    (np.ones(2), 'must return a dictionary'),
    ({'a': 1.0}, r"'a' .* real numbers, \[2 lanes, ...\]; got .* shape \(\)"),
    ({'a': np.ones(3)}, r"output 'a' .* got float64 of shape \(3,\)"),
    ({'a': ['x', 'y']}, "output 'a' .* must be real numbers"),
    ({'a': np.ones(2, complex)}, "output 'a' .* must be real numbers"),
  ],
)
def test_outputs_are_checked(outputs, message, tmp_path):
  program = lambda folder, report, mesh, seed: outputs
  with pytest.raises(TypeError, match=message):
    sweeps.Sweep(tmp_path).hosted(
      program, name='q', lanes={'seed': [0, 1]}, chunk=2
    )
  assert not list(tmp_path.rglob('*.npz'))


@pytest.mark.parametrize('change', ['name', 'shape', 'dtype'])
def test_outputs_are_the_same_everywhere(change):
  def program(folder, report, mesh, seed):
    value = seed * 1.0
    if seed[0] == 1:
      value = value.astype(np.float32) if change == 'dtype' else value
      value = np.stack([value], 1) if change == 'shape' else value
    return {'b' if change == 'name' and seed[0] else 'a': value}

  with pytest.raises(TypeError, match='the same names, shapes and dtypes'):
    sweeps.Sweep().hosted(program, name='q', lanes={'seed': [0, 1]}, chunk=1)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'name': 'a/b'}, 'named by letters'),
    ({'lanes': {}}, 'at least one axis of lanes'),
    ({'lanes': {'rate': RATES, 'seed': (1, 1)}}, 'lists 1 twice'),
    ({'dims': {'other': ('epoch',)}}, "dims names 'other'"),
    ({'dims': {}}, "output 'curve' has shape"),
  ],
)
def test_bad_input(options, message):
  with pytest.raises(types.BadInput, match=message):
    call(sweeps.Sweep(), Program(), **options)


def test_names_are_used_once():
  sweep = sweeps.Sweep()
  call(sweep, Program())
  with pytest.raises(
    types.BadInput, match="two sweeps of one run are named 'p'"
  ):
    call(sweep, Program())
  with pytest.raises(RuntimeError, match='before the first sweep'):
    sweep.record(a=1)


def test_jobs_of_several_processes_are_refused(monkeypatch):
  monkeypatch.setattr(job, 'count', lambda: 2)
  with pytest.raises(
    types.BadInput, match="each lane of 'p' runs in one process"
  ):
    call(sweeps.Sweep(), Program())


@pytest.mark.parametrize(
  ('count', 'taken'),
  [(1, [3, 3]), (2, [3, 3]), (3, [1] * 6)],
)
def test_what_one_process_takes_at_once(count, taken, monkeypatch):
  monkeypatch.setattr(job, 'count', lambda: count)
  blocks = [
    plan.Block(kind, n, n, n + 1) for kind in range(2) for n in range(3)
  ]
  units = hosted._units(blocks)
  assert [len(unit) for unit in units] == taken
  assert [block for unit in units for block in unit] == blocks


def test_only_the_first_claim_counts(monkeypatch, tmp_path):
  """A job that was killed leaves claims that count for nothing."""
  monkeypatch.setattr(job, 'count', lambda: 2)
  task = hosted.HostTask(*[None] * 9, folder=tmp_path / 'p')
  first, second = ([plan.Block(kind, 0, 0, 1)] for kind in (0, 1))
  assert [task._claim('x', unit) for unit in (first, first, second)] == [
    True, False, True,
  ]  # fmt: skip
  assert task._claim('y', first)
  task._release()
  assert not [*(tmp_path / 'p').iterdir()]
