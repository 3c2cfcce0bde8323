"""What all tests share: strictness, quick compilation, and a cache of programs.

Most of the suite's time is the compiler's. So programs are compiled without XLA's
optimisations, but for tests marked ``optimised``, whose subject is arithmetic to the
last bit; and they are kept between runs in the user's cache directory, where other
processes of the suite find them too. ``JAX_ENABLE_COMPILATION_CACHE=0`` keeps none.

A program takes ten to forty memory mappings, of which Linux gives a process 65 530, and
LLVM aborts the process that wants more. So programs are dropped before that.
"""

import gc
import os
import platform
import sys

import jax
import pytest

from bitjax import files
from bitjax import process


def _keep_programs():
  """Lets this process and those that it starts keep what they compile."""
  if os.environ.get('JAX_ENABLE_COMPILATION_CACHE') in ('0', 'false', 'False'):
    return
  try:
    folder = files.cache_dir() / 'tests' / (platform.node() or 'local')
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
  except (OSError, RuntimeError):  # There is no home, or it cannot be written.
    return
  settings = {
    'jax_compilation_cache_dir': str(folder),
    'jax_persistent_cache_min_compile_time_secs': 0.0,
  }
  for name, value in settings.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)


_keep_programs()


class _Loaded:
  """Drops this process's programs when they have mapped much memory."""

  event = '/jax/core/compile/backend_compile_duration'
  most = 30_000  # Mappings; as many again are left to a single test.
  every = 100  # It takes milliseconds to count mappings.

  def __init__(self):
    self.fresh = 0  # Programs since mappings were counted.
    jax.monitoring.register_event_duration_secs_listener(self)

  def __call__(self, event, duration, **kwargs):
    self.fresh += event == self.event

  def bound(self):
    if self.fresh < self.every:
      return
    self.fresh = 0
    if mappings() > self.most:
      jax.clear_caches()


def mappings():
  """The memory mappings of this process; 0 where Linux does not say."""
  try:
    with open('/proc/self/maps', 'rb') as lines:
      return sum(1 for _ in lines)
  except OSError:
    return 0


@pytest.fixture(scope='session')
def loaded():
  """Counts the programs that this process loads, and bounds them."""
  return _Loaded()


@pytest.fixture(autouse=True)
def room_for_programs(loaded):
  """No test starts in a process that is full of programs."""
  loaded.bound()


def pytest_collection_finish():
  """Looks less often for garbage: most objects are JAX's and stay."""
  gc.collect()
  gc.freeze()
  gc.set_threshold(20_000, 20)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
  """Chooses how programs are compiled, before any fixture compiles one."""
  optimised = item.get_closest_marker('optimised') is not None
  jax.config.update('jax_disable_most_optimizations', not optimised)


@pytest.fixture(autouse=True)
def alive(monkeypatch):
  """A command that ends in this process must not end the tests with it."""
  monkeypatch.setattr(process, 'leave', sys.exit)


@pytest.fixture(autouse=True)
def strict():
  """No silent rank promotion, no reused keys."""
  with (
    jax.numpy_rank_promotion('raise'),
    jax.debug_key_reuse(True),
  ):
    yield
