"""Jobs of several processes equal one process bitwise; bad ones are refused."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from bitjax import types
from bitjax.studies.scaling import soak
from bitjax.sweeps import job

ROOT = pathlib.Path(__file__).parents[2]


def start(arguments, cwd, devices):
  """Starts Python with `devices` virtual devices."""
  flags = os.environ.get('XLA_FLAGS', '')
  flags += f' --xla_force_host_platform_device_count={devices}'
  return subprocess.Popen(
    [sys.executable, *map(str, arguments)],
    cwd=cwd,
    env=os.environ | {'PYTHONPATH': str(ROOT), 'XLA_FLAGS': flags},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(process, status=0):
  out, err = process.communicate(timeout=600)  # A busy machine is slow.
  assert process.returncode == status, err
  return out + err


def work(directory, devices, *flags, number=None, count=2):
  """Starts the workload, alone or as one process of a job."""
  arguments = [
    '-m',
    'bitjax.studies.scaling.workload',
    f'--out={directory}',
    *flags,
  ]
  if number is not None:
    arguments += [f'--num_processes={count}', f'--process_id={number}']
  return start(arguments, directory.parent, devices)


def address():
  with socket.socket() as found:
    found.bind(('localhost', 0))
    return f'--coordinator_address=localhost:{found.getsockname()[1]}'


@pytest.mark.study
class TestProcesses:
  """Jobs of two processes with two devices each."""

  def test_stopped_and_resumed_with_other_devices(self, tmp_path):
    flags = ['--seeds=40', '--chunk=2', '--optimizers=sgd']
    finish(work(tmp_path / 'whole', 1, *flags))
    wanted = soak.fingerprint(tmp_path / 'whole')

    where, cut = address(), tmp_path / 'cut'
    pair = [work(cut, 2, *flags, where, number=i) for i in range(2)]
    end = time.monotonic() + 60
    while len(list(cut.glob('chunks/*/*.npz'))) < 5:
      assert time.monotonic() < end and pair[0].poll() is None
      time.sleep(0.01)
    for process in pair:
      process.send_signal(signal.SIGTERM)
    for process in pair:
      assert 'the same command goes on from here' in finish(process, 143)
    assert not (cut / 'results.nc').exists()

    flags += [address(), '--mesh=lanes:2', '--chunk=7']
    pair = [work(cut, 1, *flags, number=i) for i in range(2)]
    first, second = map(finish, pair)
    assert 'done before' in first and '120/120 lanes after' in first
    assert 'goes on as it began, 2 lanes in a chunk' in first
    assert 'results.nc' in first and 'lanes' not in second
    assert soak.fingerprint(cut) == wanted
    assert not soak.leftovers(cut)

  def test_bad_input_ends_all(self, tmp_path):
    where = address()
    pair = [
      work(tmp_path / 'a', 1, where, '--mesh=lanes:3', number=i)
      for i in range(2)
    ]
    for process in pair:
      assert 'mesh=lanes:3 asks for 3 devices; there are 2' in (
        finish(process, status=2)
      )
    assert not (tmp_path / 'a').exists()


@pytest.mark.slow
def test_ordinary_functions_are_shared_out(tmp_path):
  """Static values are taken as a whole, and lanes where there are none."""

  def run(name, *wheres):
    module = ['-m', 'tests.sweeps.hosted_job', tmp_path / name]
    all_of_them = [
      start([*module, *where], ROOT, 1) for where in wheres or [()]
    ]
    # A library may print lines of its own before.
    return [
      json.loads(process.communicate(timeout=600)[0].splitlines()[-1])
      for process in all_of_them
    ]

  alone = run('a')[0]
  assert alone[2] == [*'aaabbbcccddd']
  where = address().partition('=')[2]
  pair = run('b', (where, 0), (where, 1))
  assert all(values == alone[:2] for *values, _ in pair)
  first, second = (own for *_, own in pair)
  assert sorted(first + second) == alone[2]
  assert all(first.count(kind) in (0, 3) for kind in 'abc')
  assert not [*(tmp_path / 'b').rglob('claims')]
  # One process goes on where a part is missing.
  for path in sorted((tmp_path / 'b' / 'chunks' / 'first').glob('1-*.npz'))[:2]:
    path.unlink()
  assert run('b')[0] == [*alone[:2], ['b', 'b']]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((None, 2, None), 'num_processes needs coordinator_address'),
    (('auto', None, 1), 'process_id needs coordinator_address'),
    (('localhost', 2, 0), "must be HOST:PORT or 'auto'"),
    (('localhost:x', 2, 0), "must be HOST:PORT or 'auto'"),
    (('localhost:0', 2, 0), "must be HOST:PORT or 'auto'"),
    (('localhost:65536', 2, 0), "must be HOST:PORT or 'auto'"),
    (('localhost:1', 2, None), 'needs num_processes and process_id'),
    (('localhost:1', 2, 2), 'process_id from 0 to num_processes - 1'),
    (('localhost:1', 0, 0), 'num_processes must be >= 1'),
  ],
)
def test_what_does_not_form_a_job(arguments, message):
  with pytest.raises(types.BadInput, match=message):
    job.join(*arguments)
