"""Compiled programs are kept in a private cache unless the user objects."""

import os
import pathlib
import platform
import stat
import subprocess
import sys

import jax
import pytest

from bitjax.cli import compilation

PROGRAM = """
import jax
jax.config.update('jax_enable_compilation_cache', True)
from bitjax.cli import compilation
print(compilation.keep())
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
jax.jit(lambda x: x + 1)(1.0)
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
  """Sets an empty home directory, and restores JAX's settings afterwards."""
  monkeypatch.setenv('HOME', str(tmp_path))
  names = (
    'jax_enable_compilation_cache',
    'jax_compilation_cache_dir',
    'jax_persistent_cache_min_compile_time_secs',
  )
  before = {name: getattr(jax.config, name) for name in names}
  jax.config.update('jax_enable_compilation_cache', True)
  jax.config.update('jax_compilation_cache_dir', None)
  yield tmp_path
  for name, value in before.items():
    jax.config.update(name, value)


def directory(home):
  return home / '.cache' / 'bitjax' / 'programs' / platform.node()


def test_a_program_is_found_there_again(home):
  env = os.environ | {'HOME': str(home)}
  # The test run has cache settings of its own.
  for name in [name for name in env if 'CACHE' in name]:
    del env[name]
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM],
    cwd=pathlib.Path(__file__).parents[2],
    env=env,
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.strip() == str(directory(home))
  assert any(path.is_file() for path in directory(home).iterdir())
  assert stat.S_IMODE(directory(home).stat().st_mode) == 0o700


def test_a_choice_of_the_users_stands(home):
  jax.config.update('jax_compilation_cache_dir', str(home / 'mine'))
  assert compilation.keep() == home / 'mine'
  jax.config.update('jax_compilation_cache_dir', '~/ours')
  assert compilation.keep() == home / 'ours'
  assert jax.config.jax_compilation_cache_dir == str(home / 'ours')
  jax.config.update('jax_compilation_cache_dir', None)
  jax.config.update('jax_enable_compilation_cache', False)
  assert compilation.keep() is None
  assert not directory(home).exists()


def test_what_cannot_be_written_is_done_without(home):
  (home / '.cache').write_text('in the way')
  assert compilation.keep() is None
  assert jax.config.jax_compilation_cache_dir is None


def test_a_directory_of_others_is_not_trusted(home, monkeypatch):
  monkeypatch.setattr(os, 'getuid', lambda: 12345)
  assert compilation.keep() is None
