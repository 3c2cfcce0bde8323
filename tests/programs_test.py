"""The suite itself: a process never holds too many programs."""

import jax
import pytest


@pytest.fixture
def compiled(loaded):
  """Runs a program; how many were loaded for that."""

  @jax.jit
  def f(x):
    return 3 * x

  def run():
    before = loaded.count
    f(2.0)
    return loaded.count - before

  return run


def test_programs_are_counted_and_dropped(loaded, compiled, monkeypatch):
  assert (compiled(), compiled()) == (1, 0)
  loaded.bound()
  assert compiled() == 0
  monkeypatch.setattr(loaded, 'most', loaded.count - 1)
  loaded.bound()
  assert (loaded.count, compiled()) == (0, 1)
