"""The tiny training of these tests, in this process."""

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
  sys.modules['tiny'] = module  # Dataclasses look themselves up.
  spec.loader.exec_module(module)
  return module


@pytest.fixture(scope='session')
def task(tiny):
  """One task for all that need no special one: it is compiled once."""
  return tiny.task()


@pytest.fixture(scope='session')
def whole(tiny, task, tmp_path_factory):
  """An uninterrupted training of that task, and its folder."""
  jax.config.update('jax_disable_most_optimizations', True)
  folder = tmp_path_factory.mktemp('whole')
  return tiny.train(task, folder), folder


@pytest.fixture(scope='session')
def same():
  """Whether two trees are equal, bit for bit."""

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
