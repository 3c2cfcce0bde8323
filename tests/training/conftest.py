"""Fixtures with a tiny training, which tests share to compile it once."""

import importlib.util
import pathlib
import sys

import jax
import numpy as np
import pytest


@pytest.fixture(scope='session')
def tiny():
  """The module `tiny`."""
  path = pathlib.Path(__file__).parent / 'tiny.py'
  spec = importlib.util.spec_from_file_location('tiny', path)
  module = importlib.util.module_from_spec(spec)
  sys.modules['tiny'] = module  # Dataclasses look their module up.
  spec.loader.exec_module(module)
  return module


@pytest.fixture(scope='session')
def task(tiny):
  """Returns the task of all tests that need no special one: it compiles once."""
  return tiny.task()


@pytest.fixture(scope='session')
def whole(tiny, task, tmp_path_factory):
  """An uninterrupted training of that task, and its folder."""
  folder = tmp_path_factory.mktemp('whole')
  with tiny.as_in_tests():
    return tiny.train(task, folder), folder


@pytest.fixture(scope='session')
def same():
  """Returns a function that tells whether two trees are equal, bit for bit."""

  def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(bits(x) == bits(y) for x, y in pairs)

  def bits(leaf):
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(
      leaf.dtype, jax.dtypes.prng_key
    ):
      leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    return array.shape, array.dtype, array.tobytes()

  return equal
