"""Meshes: how they are written, which devices they need, what they can split."""

import os
import pathlib
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from bitjax import memory
from bitjax import types as bitjax_types
from bitjax.sweeps import compute
from bitjax.sweeps import meshes
from bitjax.sweeps import plan
from bitjax.sweeps import width

ROOT = pathlib.Path(__file__).parents[2]
CORES = os.cpu_count() or 1


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
def test_meshes_are_written_in_one_way(spec):
  with pytest.raises(
    bitjax_types.BadInput, match=r"mesh is 'auto', 'lanes:N' or"
  ):
    meshes.parse(spec)


def test_more_devices_than_there_are():
  there = jax.device_count()
  assert meshes.parse('batch:2') == {'lanes': 1, 'batch': 2}
  with pytest.raises(
    bitjax_types.BadInput, match=rf'64 devices; there (is|are) {there}'
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
@pytest.mark.study
def test_the_cpu_has_the_devices_of_a_mesh(spec, flags, devices):
  """No more than cores, unless the user has said how many."""
  program = (
    'import jax; from bitjax.sweeps import meshes; '
    f'meshes.split_cpu({spec!r}); print(jax.device_count())'
  )
  env = os.environ | {'PYTHONPATH': str(ROOT), 'XLA_FLAGS': flags}
  found = subprocess.run(
    [sys.executable, '-c', program], env=env, capture_output=True, check=True
  )
  assert int(found.stdout) == devices


@pytest.mark.parametrize(
  ('batched', 'message'),
  [
    ({'more': 0}, "batched names 'more'"),
    ({}, "the sweep 's' has no input that can be split"),
    ({'data': 0}, r"axis 0 of the input 'data' of shape \(3,\)"),
    ({'data': 1}, r"axis 1 of the input 'data' of shape \(3,\)"),
  ],
)
def test_batches_that_cannot_be_split(batched, message):
  # A stand-in, as this machine may have fewer devices.
  mesh = types.SimpleNamespace(shape={'lanes': 1, 'batch': 2})
  with pytest.raises(bitjax_types.BadInput, match=message):
    compute.place('s', {'data': np.ones(3)}, batched, mesh)


def test_idle_devices_are_reported(capsys):
  made = plan.make('s', {}, {'seed': np.arange(8)}, chunk=4, width=None)
  task = types.SimpleNamespace(plan=made, width=None, taken=3 * 2**30)
  for devices in (2, 4):
    task.num_devices = devices
    with memory.limited('16GiB'):
      width.report(task)
  widths = (
    's: 1 of 4 lanes at a time, which takes 3 GiB of memory (budget: 16 GiB)'
  )
  assert capsys.readouterr().err.splitlines() == [
    widths,
    widths,
    's: 2 chunks for each program leave some of 4 devices idle; a smaller '
    '--chunk uses them',
  ]
