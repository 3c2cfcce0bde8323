"""The suite itself: a process never maps too much memory for its programs."""

import jax
import pytest


@pytest.fixture
def compiled(loaded):
  """A function: runs a program, and returns how many were loaded for that."""

  @jax.jit
  def f(x):
    return 3 * x

  def run():
    before = loaded.fresh
    f(2.0)
    return loaded.fresh - before

  return run


@pytest.mark.slow  # Others compile theirs again, too.
def test_programs_are_counted_and_dropped(loaded, compiled, monkeypatch):
  assert (compiled(), compiled()) == (1, 0)
  loaded.bound()  # Nothing is dropped without need.
  assert compiled() == 0
  monkeypatch.setattr(loaded, 'every', 1)
  monkeypatch.setattr(loaded, 'most', -1)
  loaded.fresh += 1
  loaded.bound()
  assert loaded.fresh == 0
  assert compiled() == 1
