"""Several devices, several processes: the same numbers, to the bit."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest

from bitjax import lanes
from bitjax.studies.scaling import soak
from bitjax.sweeps import compute
from bitjax.sweeps import job
from bitjax.sweeps import meshes
from bitjax.sweeps import plan
from bitjax.sweeps import sweep

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
CORES = os.cpu_count() or 1


def start(arguments, cwd, devices):
  """Starts Python with as many virtual devices."""
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


@pytest.fixture(scope='module')
def found(tmp_path_factory):
  out = tmp_path_factory.mktemp('devices') / 'found.npz'
  finish(start([HERE / 'device_checks.py', out], ROOT, devices=8))
  return dict(np.load(out))


def same(a, b):
  return (
    a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
  )


class TestDevices:
  """21 lanes in blocks of 4, which no number of devices divides."""

  @pytest.mark.parametrize('variable', ['loss', 'flips'])
  def test_one_two_and_four_devices_are_bitwise_equal(self, found, variable):
    one = found[f'sweep.1.{variable}']
    assert one.shape[:3] == (2, 7, 3)
    assert same(one, found[f'sweep.2.{variable}'])
    assert same(one[1:], found[f'sweep.4.{variable}'])

  def test_eight_devices(self, found):
    one, eight = found['sweep.1.loss'], found['sweep.8.loss']
    np.testing.assert_allclose(eight, one[1:], rtol=1e-6)

  def test_diverged_lanes_stay_alone(self, found):
    for name in ('1', '2', '4', '8'):
      bad = ~np.isfinite(found[f'sweep.{name}.loss']).all(-1)
      assert bad[..., 2].all() and not bad[..., :2].any()

  def test_a_batch_that_is_split(self, found):
    one, split = found['sweep.1.loss'][1:], found['batch.2.loss']
    assert not same(one, split)  # The sums over examples are.
    np.testing.assert_allclose(split[..., :2, :], one[..., :2, :], rtol=1e-4)

  def test_grids(self, found):
    for name in ('curve', 'key'):
      plain = found[f'grid.plain.jit.{name}']
      assert plain.shape[:2] == (3, 4)
      assert same(found[f'grid.mesh.jit.{name}'], plain)
      assert same(found[f'grid.mesh.eager.{name}'], plain)

  def test_trainings(self, found):
    """Seeds over lanes, every batch in halves: the same to rounding."""
    one = {
      name.removeprefix('fit.one.'): value
      for name, value in found.items()
      if name.startswith('fit.one.')
    }
    assert any('Block_0' in name for name in one) and 'odd_loss' in one
    for name, value in one.items():
      np.testing.assert_allclose(
        found[f'fit.four.{name}'], value, rtol=1e-4, atol=1e-5, err_msg=name
      )

  def test_trainings_split_batches(self, found):
    assert found['fit.spread'] == 4 and found['fit.all_reduces'] > 0
    assert found['fit.rows_2'] > 0 and found['fit.rows_4'] == 0

  @pytest.mark.parametrize('name', ['gains', 'losses'])
  def test_scans_of_a_layer(self, found, name):
    plain = found[f'{name}.plain']
    assert np.unique(plain).size >= 3
    np.testing.assert_allclose(found[f'{name}.mesh'], plain, atol=1e-6)


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


class TestBadInput:
  """What does not fit is said."""

  @pytest.mark.parametrize(
    'spec',
    [
      '',
      'lanes',
      'lanes:0',
      'lanes:-1',
      'lanes:a',
      'rows:2',
      'lanes:1,lanes:1',
    ],
  )
  def test_meshes_are_written_in_one_way(self, spec):
    with pytest.raises(ValueError, match=r"mesh is 'auto', 'lanes:N' or"):
      meshes.parse(spec)

  def test_more_devices_than_there_are(self):
    there = jax.device_count()
    assert meshes.parse('batch:2') == {'lanes': 1, 'batch': 2}
    with pytest.raises(
      ValueError, match=rf'64 devices; there (is|are) {there}'
    ):
      meshes.make('lanes:32,batch:2')

  @pytest.mark.parametrize(
    ('spec', 'flags', 'devices'),
    [
      ('batch:2', '', min(2, CORES)),
      ('lanes:2,batch:1', '', min(2, CORES)),
      ('auto', '', 1),
      (f'lanes:{2 * CORES}', '', CORES),
      ('batch:2', '--xla_force_host_platform_device_count=3', 3),
    ],
  )
  def test_the_cpu_has_the_devices_of_a_mesh(self, spec, flags, devices):
    """No more than cores, unless the user has said how many."""
    program = (
      'import jax; from bitjax.sweeps import meshes; '
      f'meshes.reserve({spec!r}); print(jax.device_count())'
    )
    env = os.environ | {'PYTHONPATH': str(ROOT), 'XLA_FLAGS': flags}
    found = subprocess.run(
      [sys.executable, '-c', program], env=env, capture_output=True, check=True
    )
    assert int(found.stdout) == devices

  def test_meshes_without_lanes(self):
    mesh = jax.make_mesh((1,), ('rows',))
    with pytest.raises(ValueError, match="mesh needs an axis 'lanes'; got"):
      lanes.each(lambda a: a, {'a': np.ones(2)}, mesh=mesh)

  @pytest.mark.parametrize(
    ('batched', 'message'),
    [
      ({'more': 0}, "batched names 'more'"),
      ({}, "the sweep 's' has no input that can be split"),
      ({'data': 0}, r"axis 0 of the input 'data' of shape \(3,\)"),
      ({'data': 1}, r"axis 1 of the input 'data' of shape \(3,\)"),
    ],
  )
  def test_batches_that_cannot_be_split(self, batched, message):
    # As many devices as this machine may not have.
    mesh = types.SimpleNamespace(shape={'lanes': 1, 'batch': 2})
    with pytest.raises(ValueError, match=message):
      compute.place('s', {'data': np.ones(3)}, batched, mesh)

  @pytest.mark.parametrize(
    ('arguments', 'message'),
    [
      ((None, 2, None), 'num_processes needs coordinator_address'),
      (('auto', None, 1), 'process_id needs coordinator_address'),
      (('localhost', 2, 0), "must be HOST:PORT or 'auto'"),
      (('localhost:x', 2, 0), "must be HOST:PORT or 'auto'"),
      (('localhost:1', 2, None), 'needs num_processes and process_id'),
      (('localhost:1', 2, 2), 'process_id from 0 to num_processes - 1'),
      (('localhost:1', 0, 0), 'num_processes must be >= 1'),
    ],
  )
  def test_jobs(self, arguments, message):
    with pytest.raises(ValueError, match=message):
      job.join(*arguments)


def test_a_lanes_key_is_its_own():
  root = jax.random.key(0)
  data = lambda keys: np.asarray(jax.random.key_data(keys))
  many = data(lanes.keys(root, np.arange(9)))
  np.testing.assert_array_equal(data(lanes.keys(root, [7, 2])), many[[7, 2]])
  np.testing.assert_array_equal(many[3], data(jax.random.fold_in(root, 3)))
  assert np.unique(many, axis=0).shape == many.shape


def test_idle_devices_are_reported(capsys):
  made = plan.make('s', {}, {'seed': np.arange(8)}, chunk=4, width=None)
  for devices in (2, 4):
    sweep._report_idle(types.SimpleNamespace(plan=made, num_devices=devices))
  assert capsys.readouterr().err == (
    's: 2 chunks for each program leave some of 4 devices idle; a smaller '
    '--chunk uses them\n'
  )
