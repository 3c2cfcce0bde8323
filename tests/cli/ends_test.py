"""How commands end: what could fail is tried first, and every way out is clean."""

from __future__ import annotations

import errno
import os
import pathlib
import signal
import subprocess
import sys
import time

import h5py
import jax
import pytest

from bitjax import files
from bitjax import process
from bitjax import types
from bitjax.cli import lock
from bitjax.cli import rehearsal

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
leave = process.leave  # The tests put another in its place.
RUN = pathlib.Path('runs/sample_study/smoke')


def forbidden(*_):
  raise AssertionError('run')


def command(study, *argv, **env):
  """The command line and environment of a study of these tests."""
  return {
    'args': [sys.executable, str(HERE / f'{study}.py'), *argv],
    'env': os.environ | {'PYTHONPATH': str(ROOT)} | env,
  }


class TestPaths:
  """``~`` is the home directory, wherever a user names a path."""

  def test_out(self, launch, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    assert launch('--preset=smoke', '--out=~/g') == 0
    assert (tmp_path / 'home' / 'g' / 'results.nc').is_file()
    assert not (tmp_path / '~').exists()
    assert launch('--preset=smoke', '--out=~/g', run=forbidden) == 0

  def test_an_unknown_user_is_one_line(self, launch, capsys, tmp_path):
    assert launch('--preset=smoke', '--out=~nobody-has-this-name/g') == 2
    assert capsys.readouterr().err == (
      'sample_study: ~nobody-has-this-name/g: the home directory of '
      '~nobody-has-this-name is not known; write the directory in full.\n'
    )
    assert not list(tmp_path.iterdir())

  def test_only_a_leading_tilde_counts(self):
    for path in ('a/~/b', '/a/b', 'a~', '.'):
      assert files.expand(path) == pathlib.Path(path)
    assert files.expand(pathlib.Path('~')) == pathlib.Path.home()


class TestRehearsal:
  """What a run does at its end is tried before anything is computed."""

  @pytest.mark.parametrize(
    ('number', 'words'),
    [
      (errno.ENOSPC, 'No space left on device'),
      (errno.EROFS, 'Read-only file system'),
      (errno.EACCES, 'Permission denied'),
      (errno.ENAMETOOLONG, 'File name too long'),
    ],
  )
  @pytest.mark.parametrize(
    'where', [(os, 'fsync'), (os, 'replace'), (pathlib.Path, 'mkdir')]
  )
  def test_a_directory_that_takes_no_files(
    self, launch, monkeypatch, capsys, tmp_path, number, words, where
  ):
    def fail(*_, **__):
      raise OSError(number, os.strerror(number))

    rehearsal.draw()  # Matplotlib makes directories of its own.
    with monkeypatch.context() as patch:
      patch.setattr(*where, fail)
      assert launch('--preset=smoke') == 2
    assert capsys.readouterr().err == (
      f'sample_study: {RUN} cannot hold a run: {words}; mend that, or choose '
      'another --out.\n'
    )
    assert not [path for path in tmp_path.rglob('*') if path.is_file()]
    assert not RUN.exists()

  def test_a_file_system_without_locks(self, launch, monkeypatch):
    def flock(*_):
      raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    class File(h5py.File):
      def __init__(self, name, *args, **kwargs):
        if isinstance(name, (str, bytes, os.PathLike)):
          flock()
        super().__init__(name, *args, **kwargs)

    monkeypatch.setattr(h5py, 'File', File)
    monkeypatch.setattr(lock.fcntl, 'flock', flock)
    monkeypatch.setattr(lock, '_SETTLE', 0.01)
    assert launch('--preset=smoke') == 0
    assert launch('--preset=smoke', run=forbidden) == 0
    assert not (RUN / lock.NAME).exists()

  def test_a_lock_that_fails_otherwise(self, launch, monkeypatch, capsys):
    def flock(*_):
      raise OSError(errno.EIO, 'Input/output error')

    monkeypatch.setattr(lock.fcntl, 'flock', flock)
    assert launch('--preset=smoke') == 2
    assert 'cannot hold a run: Input/output error;' in capsys.readouterr().err
    assert not RUN.exists()

  @pytest.mark.parametrize('module', ['draw', 'pack'])
  def test_libraries_that_fail(self, launch, monkeypatch, capsys, module):
    def fail(*_):
      raise RuntimeError('no\nfonts')

    for cached in (rehearsal.draw, rehearsal._archive):
      cached.cache_clear()
    monkeypatch.setattr(rehearsal.results, module, fail)
    assert launch('--preset=smoke') == 2
    err = capsys.readouterr().err
    assert err.endswith('here: no fonts\n') and err.count('\n') == 1
    assert not RUN.exists()

  def test_a_directory_that_forgets(self, tmp_path, monkeypatch):
    read = pathlib.Path.read_bytes
    monkeypatch.setattr(pathlib.Path, 'read_bytes', lambda p: read(p)[:-1])
    with pytest.raises(types.BadInput, match='does not give back'):
      rehearsal.write(tmp_path)
    assert not list(tmp_path.iterdir())

  def test_no_device(self, launch, monkeypatch, capsys):
    def fail():
      raise RuntimeError("Unable to initialize backend 'cuda'")

    monkeypatch.setattr(jax, 'local_devices', fail)
    assert launch('--preset=smoke') == 2
    err = capsys.readouterr().err
    assert "(Unable to initialize backend 'cuda'); JAX_PLATFORMS=cpu" in err
    assert err.count('\n') == 1 and not RUN.exists()


def test_records_tell_apart_who_begins_at_once(tmp_path, monkeypatch):
  """Without locks, of several that find no record the last to write has the lock."""

  def flock(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

  def other(_):
    (tmp_path / lock.NAME).write_text('{"pid": 1, "host": "elsewhere"}')

  monkeypatch.setattr(lock.fcntl, 'flock', flock)
  monkeypatch.setattr(lock, '_ATTEMPTS', 1)
  monkeypatch.setattr(lock.time, 'sleep', other)
  with pytest.raises(types.BadInput, match='process 1 on elsewhere'):
    lock.Lock(tmp_path).acquire()


class TestStreams:
  """Output that cannot be written, or not as it is."""

  @pytest.mark.study
  def test_ascii_and_a_strange_backend(self, tmp_path):
    done = subprocess.run(
      **command(
        'unicode_study',
        PYTHONIOENCODING='ascii:strict',
        MPLBACKEND='nonsense',
      ),
      cwd=tmp_path,
      capture_output=True,
      check=True,
    )
    assert rb'\u03b2 \xd7 \u03b3 \u2026' in done.stderr
    assert rb'\u03b1 \xd7 \u03b3 \u2026' in done.stdout
    assert (tmp_path / 'runs/unicode_study/quick/figure.pdf').is_file()

  @pytest.mark.slow
  @pytest.mark.parametrize('argv', [(), ('--help',), ('--name=\udcff',)])
  @pytest.mark.parametrize(
    ('where', 'status'),
    [
      ('>&-', 0),
      ('2>&-', 0),
      ('>&- 2>&- <&-', 0),
      ('>/dev/full', 2),
      ('| true; exit ${PIPESTATUS[0]}', 141),
    ],
  )
  def test_streams_that_are_closed(self, tmp_path, argv, where, status):
    options = command(
      'unicode_study',
      *argv,
      LC_ALL='C',
      PYTHONUTF8='0',
      PYTHONCOERCECLOCALE='0',
    )
    args = [os.fsencode(arg) for arg in options.pop('args')]
    for _ in range(1 if argv else 2):  # A finished run is drawn again.
      done = subprocess.run(
        ['bash', '-c', f'"$@" {where}', '-', *args], cwd=tmp_path, **options
      )
      assert done.returncode == status
    run = tmp_path / 'runs/unicode_study/quick'
    assert argv == ('--help',) or (run / 'figure.pdf').is_file()

  @pytest.mark.parametrize(
    ('number', 'status'), [(errno.EPIPE, 141), (errno.ENOSPC, 2)]
  )
  def test_standard_output_that_fails(
    self, launch, monkeypatch, capsys, number, status
  ):
    def write(*_):
      raise OSError(number, os.strerror(number))

    assert launch('--preset=smoke') == 0
    capsys.readouterr()
    monkeypatch.setattr(sys.stdout, 'write', write)
    assert launch('--preset=smoke') == status
    err = capsys.readouterr().err
    assert ('standard output: No space left' in err) == (status == 2)
    assert err.count('\n') == 1 + (status == 2)  # And where it is read from.


def test_an_interactive_interpreter_goes_on(monkeypatch):
  monkeypatch.setattr(sys, 'ps1', '>>> ', raising=False)
  with pytest.raises(SystemExit) as caught:
    leave(3)
  assert caught.value.code == 3


SIGNALS = {'SIGINT': 130, 'SIGTERM': 143, 'SIGHUP': 129}


@pytest.mark.parametrize(
  'name',
  [
    pytest.param('SIGTERM', marks=pytest.mark.study),
    *(
      pytest.param(name, marks=pytest.mark.slow)
      for name in (*SIGNALS, 'twice', 'ignored')
    ),
  ],
)
def test_a_signal_while_xla_compiles(tmp_path, name):
  options = command('long_study', '--out=run', '--nocompilation_cache')
  if name == 'ignored':  # As under nohup.
    ignoring = ['bash', '-c', 'trap "" HUP; exec "$@"', '-']
    options['args'] = [*ignoring, *options['args']]
  with subprocess.Popen(
    **options, cwd=tmp_path, stderr=subprocess.PIPE, text=True
  ) as child:
    try:
      while 'compiling' not in (line := child.stderr.readline()):
        assert line, 'the study has ended'
      time.sleep(0.5)
      if name == 'ignored':
        child.send_signal(signal.SIGHUP)
        time.sleep(1)
        assert child.poll() is None
      for _ in range(2 if name == 'twice' else 1):
        child.send_signal(getattr(signal, name, signal.SIGTERM))
      _, err = child.communicate(timeout=60)
    finally:
      child.kill()
  assert child.returncode == SIGNALS.get(name, 143)
  assert name == 'twice' or err.endswith(
    'long: interrupted; the same command goes on from here\n'
  )
  assert 'Segmentation' not in err and 'Traceback' not in err
  left = {path.name for path in (tmp_path / 'run').iterdir()}
  # What is left after two signals is no obstacle: the kernel has dropped the lock.
  assert left - {lock.NAME} == {'chunks', 'config.json'}
  assert lock.NAME not in left or name == 'twice'
  assert lock.holder(tmp_path / 'run') is None


# XLA calls Python back, where an exception is only printed.
LOST = """
import os, signal, time
from bitjax.cli import signals
signals._UNWINDING = 0.1
with signals.watched(lambda: print('the end', flush=True)), signals.raised():
  try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
  except KeyboardInterrupt:
    time.sleep(60)
"""


# A study that saves what it has, and one that ends a process that it has forked.
OTHERS = """
import os, signal, sys, time
from bitjax.cli import signals
signals._GRACE = signals._UNWINDING = 0.1
with signals.watched(lambda: print('the end', flush=True)), signals.raised():
  child = os.fork()
  if not child:
    try:
      time.sleep(60)
    finally:
      os._exit(0)
  time.sleep(0.2)
  os.kill(child, signal.SIGTERM)
  os.waitpid(child, 0)
  time.sleep(0.5)
  signal.signal(signal.SIGTERM, lambda *_: print('saved', flush=True))
  os.kill(os.getpid(), signal.SIGTERM)
  time.sleep(0.5)
"""


@pytest.mark.study
@pytest.mark.parametrize(
  ('program', 'status', 'out'),
  [(LOST, 143, 'the end\n'), (OTHERS, 0, 'saved\n')],
  ids=['lost', 'others'],
)
def test_signals_of_which_a_second_thread_is_told(program, status, out):
  done = subprocess.run(
    [sys.executable, '-c', program],
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=50,
    check=False,
  )
  assert (done.returncode, done.stdout) == (status, out), done.stderr
