"""Runs that are killed over and over end as if nothing had happened."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from bitjax import cli
from bitjax.cli import lock
from bitjax.studies.scaling import soak
from bitjax.studies.scaling import workload

pytestmark = pytest.mark.study

ROOT = pathlib.Path(__file__).parents[3]


def test_killed_at_any_moment_and_inside_of_writes(tmp_path):
  """The short form of ``python -m bitjax.studies.scaling.soak DIRECTORY 50``."""
  program = [sys.executable, '-m', 'bitjax.studies.scaling.soak', tmp_path, '8']
  quickly = {  # Runs share compiled programs.
    'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
    'JAX_ENABLE_COMPILATION_CACHE': '1',
    'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'programs'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  }
  ran = subprocess.run(
    [*program, '--seeds=4', '--chunk=2', '--optimizers=sgd'],
    cwd=ROOT,
    env=os.environ | quickly,
    capture_output=True,
    text=True,
  )
  assert ran.returncode == 0, ran.stdout + ran.stderr
  found = json.loads(ran.stdout)
  assert found['kills'] == 8 and found['ends'] >= 1
  assert found['equal'] and not found['leftovers']


def test_the_soak_would_notice(tmp_path, capsys):
  for name, seeds in (('a', 1), ('b', 2)):
    flags = [f'--out={tmp_path / name}', f'--seeds={seeds}', '--optimizers=sgd']
    status = cli.launch(workload.STUDY, [*flags, '--nocompilation_cache'])
    assert status == 0, capsys.readouterr().err
  a, b = tmp_path / 'a', tmp_path / 'b'
  assert soak.fingerprint(a) != soak.fingerprint(b)
  assert not soak.leftovers(a)
  (a / '.x.1.partial').touch()
  (a / lock.NAME).touch()
  assert len(soak.leftovers(a)) == 2
