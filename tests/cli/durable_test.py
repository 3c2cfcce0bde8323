"""What is on the disk: manifests, locks, writes that fail, runs that are killed."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import platform
import subprocess

import numpy as np
import pytest

from bitjax import __main__ as command
from bitjax import files
from bitjax import sweeps
from bitjax import types
from bitjax.cli import lock
from bitjax.cli import status
from bitjax.studies.scaling import soak
from bitjax.sweeps import manifest
from bitjax.version import __version__

ROOT = pathlib.Path(__file__).parents[2]
RUN = pathlib.Path('runs/sample_study/smoke')
MANIFEST = RUN / 'chunks' / 'descent' / manifest.NAME


def names(directory):
  return {str(p.relative_to(directory)) for p in directory.rglob('*')}


def contents(directory):
  return {p: p.read_bytes() for p in directory.rglob('*') if p.is_file()}


def forbidden(*_):
  raise AssertionError('run')


class TestManifest:
  """A manifest describes the chunks, and is refused if it was edited."""

  def test_what_it_names(self, launch):
    assert launch('--preset=smoke', '--chunk=3') == 0
    entry = json.loads(MANIFEST.read_text())
    assert entry['bitjax'] == __version__ and entry['complete'] is True
    assert entry['static'] == {'network': ['binary']}
    assert {k: v['size'] for k, v in entry['lanes'].items()} == {
      'seed': 1,
      'noise': 2,
      'learning_rate': 2,
    }
    assert (entry['block'], entry['num_lanes']) == (2, 4)
    assert set(entry['chunks']) == {'0-0', '0-1'}
    for block, checksum in entry['chunks'].items():
      path = MANIFEST.parent / f'{block}.{checksum}.npz'
      ran = subprocess.run(['sha256sum', path], capture_output=True, text=True)
      assert ran.stdout.split()[0] == checksum

  def test_it_is_the_same_for_the_same_numbers(self, launch):
    assert launch('--preset=smoke', '--out=a') == 0
    assert launch('--preset=smoke', '--out=b') == 0
    assert soak.fingerprint(pathlib.Path('a')) == (
      soak.fingerprint(pathlib.Path('b'))
    )

  @pytest.mark.parametrize(
    ('edit', 'message'),
    [
      (
        lambda text: text.replace('"block": 4', '"block": 2'),
        'changed by hand',
      ),
      (lambda text: text[:100], 'changed by hand, or damaged'),
      (lambda text: '[]', 'changed by hand, or damaged'),
      (
        lambda text: text.replace('"format": 2', '"format": 9'),
        'newer version',
      ),
    ],
  )
  def test_one_that_was_edited_is_refused(self, launch, capsys, edit, message):
    assert launch('--preset=smoke') == 0
    (RUN / 'results.nc').unlink()
    whole = MANIFEST.read_text()
    assert edit(whole) != whole
    MANIFEST.write_text(edit(whole))
    before = contents(RUN)
    capsys.readouterr()
    assert launch('--preset=smoke') == 2
    err = capsys.readouterr().err
    assert message in err and str(MANIFEST) in err and err.count('\n') == 1
    assert contents(RUN) == before
    MANIFEST.unlink()
    assert launch('--preset=smoke') == 0
    assert '4 lanes, all done before' in capsys.readouterr().err
    assert MANIFEST.read_text() == whole

  def test_a_configuration_that_was_edited_is_refused(self, launch, capsys):
    assert launch('--preset=smoke') == 0
    (RUN / 'results.nc').unlink()
    config = json.loads((RUN / 'config.json').read_text())
    config['config']['budget'] = 0.2
    (RUN / 'config.json').write_text(json.dumps(config))
    before = contents(RUN)
    assert launch('--preset=smoke', '--budget=0.2') == 2
    assert 'belongs to another configuration' in capsys.readouterr().err
    assert contents(RUN) == before

  def test_a_sweep_goes_on_as_it_began(self, tmp_path, capsys):
    lanes = {'seed': np.arange(10)}

    def fn(seed):
      return {'a': seed * 2.0}

    first = sweeps.Sweep(tmp_path, chunk=4)(fn, name='s', lanes=lanes)
    lost = next(tmp_path.glob('chunks/s/0-1.*'))
    lost.unlink()
    again = sweeps.Sweep(tmp_path, chunk=10, width=2)(fn, name='s', lanes=lanes)
    assert first.identical(again) and lost.exists()
    assert capsys.readouterr().err == (
      's: goes on as it began, 4 lanes in a chunk, the default number '
      'vectorised\n'
    )


class TestLock:
  """The kernel's lock, and the record that replaces it where it is missing."""

  def test_the_second_is_refused(self, launch, sample, capsys):
    def run(config, sweep):
      results = sample.run(config, sweep)
      assert launch('--preset=smoke', run=forbidden) == 2
      return results

    assert launch('--preset=smoke', run=run) == 0
    assert (
      f'{RUN} is in use by process {os.getpid()} on {platform.node()}; wait'
    ) in capsys.readouterr().err
    assert not (RUN / lock.NAME).exists()

  def test_two_that_begin_at_once(self, launch, sample, capsys):
    def run(config, sweep):
      assert launch('--preset=smoke') == 0  # The second overtakes.
      return sample.run(config, sweep)

    assert launch('--preset=smoke', run=run) == 2
    assert 'another process has just run in' in capsys.readouterr().err
    assert launch('--preset=smoke', run=forbidden) == 0

  def test_what_a_dead_process_left_is_no_obstacle(self, launch, tmp_path):
    child = subprocess.Popen(['true'])
    child.wait()
    assert launch('--preset=smoke') == 0
    (RUN / 'results.nc').unlink()
    who = {'pid': child.pid, 'host': platform.node()}
    (RUN / lock.NAME).write_text(json.dumps(who))
    assert lock.holder(RUN) is None
    assert launch('--preset=smoke') == 0
    assert not (RUN / lock.NAME).exists()

  @pytest.mark.parametrize(
    ('pid', 'host', 'taken'),
    [
      (os.getppid(), platform.node(), True),
      (1, 'elsewhere', True),
      (2**22 + 1, platform.node(), False),
      ('x', platform.node(), False),
    ],
  )
  def test_without_locks_the_record_decides(
    self, tmp_path, monkeypatch, pid, host, taken
  ):
    def flock(*_):
      raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(lock.fcntl, 'flock', flock)
    monkeypatch.setattr(lock, '_ATTEMPTS', 1)
    monkeypatch.setattr(lock, '_SETTLE', 0.01)
    record = json.dumps({'pid': pid, 'host': host})
    (tmp_path / lock.NAME).write_text(record)
    if taken:
      with pytest.raises(types.BadInput, match=f'by process {pid} on {host}'):
        lock.Lock(tmp_path).acquire()
      assert (tmp_path / lock.NAME).read_text() == record
    else:
      mine = lock.Lock(tmp_path)
      mine.acquire()
      mine.release()
      assert not list(tmp_path.iterdir())


class TestWrites:
  """Writes that fail."""

  @pytest.mark.parametrize(
    ('number', 'message'),
    [
      (errno.ENOSPC, 'No space left on device'),
      (errno.EACCES, 'Permission denied'),
    ],
  )
  def test_a_failed_write_keeps_what_is_there(
    self, launch, monkeypatch, capsys, number, message
  ):
    assert launch('--preset=smoke', '--chunk=1', '--out=whole') == 0
    fsync, turns = os.fsync, []

    def fail(descriptor):
      turns.append(os.readlink(f'/proc/self/fd/{descriptor}'))
      if sum('.npz' in path for path in turns) > 2:
        raise OSError(number, os.strerror(number))
      fsync(descriptor)

    capsys.readouterr()
    with monkeypatch.context() as patch:
      patch.setattr(os, 'fsync', fail)
      assert launch('--preset=smoke', '--chunk=1') == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.endswith(
      f'.npz: {message}; what is finished is kept, the same command goes on'
    )
    kept = list(RUN.glob('chunks/*/*.npz'))
    assert len(kept) == 2 and not soak.leftovers(RUN)
    assert launch('--preset=smoke', '--chunk=1') == 0
    assert '4 lanes, 2 of them done before' in capsys.readouterr().err
    assert soak.fingerprint(RUN) == soak.fingerprint(pathlib.Path('whole'))


class TestStatus:
  """Reports of how far a run is."""

  def test_from_begin_to_end(self, launch, sample, capsys):
    seen = []

    def run(config, sweep):
      results = sample.run(config, sweep)
      seen.extend(status.describe(RUN))
      return results

    assert launch('--preset=smoke', run=run) == 0
    assert seen == [
      f'{RUN}: running, process {os.getpid()} on {platform.node()}',
      '  descent: 4/4 lanes',
    ]
    before = contents(RUN)
    capsys.readouterr()
    assert status.main([str(RUN)]) == 0
    assert capsys.readouterr().out == (
      f'{RUN}: finished\n  descent: 4/4 lanes\n'
    )
    assert contents(RUN) == before

  def test_rate_and_divergence(self, tmp_path, monkeypatch):
    (tmp_path / 'config.json').write_text('{}')

    def fn(seed):
      return {'a': np.float32(1) / seed, 'b': seed}

    lanes = {'seed': np.arange(10, dtype=np.float32)}
    sweeps.Sweep(tmp_path, chunk=4)(fn, name='s', lanes=lanes)
    assert (
      status.describe(tmp_path)[1] == '  s: 10/10 lanes, 1 of them not finite'
    )
    folder = tmp_path / 'chunks' / 's'
    next(folder.glob('0-1.*')).unlink()
    for path in folder.iterdir():
      os.utime(path, (100, 100) if path.suffix == '.json' else (103, 103))
    assert status.describe(tmp_path) == [
      f'{tmp_path}: interrupted; the command that began it goes on',
      '  s: 6/10 lanes, 1 of them not finite',
    ]
    monkeypatch.setattr(lock, 'holder', lambda _: {'pid': 3, 'host': 'h'})
    assert status.describe(tmp_path) == [
      f'{tmp_path}: running, process 3 on h',
      '  s: 6/10 lanes, 1 of them not finite, 2 lanes/s, 2.0 s left',
    ]

  def test_bad_input(self, tmp_path, capsys):
    assert command.main(['status', str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
      f'bitjax status: {tmp_path} is not the directory of a run.\n'
    )
    assert status.main([]) == 2
    assert 'usage' in capsys.readouterr().err
    assert status.main(['--help']) == 0
    assert 'usage' in capsys.readouterr().out


def test_atomic_names_the_file_that_failed(tmp_path):
  with (
    pytest.raises(OSError, match=r'No space.*a\.txt'),
    files.atomic(tmp_path / 'a.txt') as temporary,
  ):
    temporary.write_text('x')
    raise OSError(errno.ENOSPC, 'No space left on device')
  assert names(tmp_path) == set()
