"""Strictness for every test: no silent rank promotion, no reused keys."""

import os
import pathlib

import jax
import pytest

# No test depends on what an earlier one compiled, in other processes either.
os.environ['JAX_ENABLE_COMPILATION_CACHE'] = '0'
jax.config.update('jax_enable_compilation_cache', False)

# Most of the suite's time is the compiler's. What these tests ask does not depend
# on optimised code; the exactness of scans and projections does, and keeps it.
UNOPTIMISED = {
  'data',
  'descent_test.py',
  'docs_test.py',
  'experiments',
  'measures_test.py',
  'quantizers',
  'studies',
  'training',
}


@pytest.fixture(autouse=True)
def unoptimised(request):
  place = request.path.relative_to(pathlib.Path(__file__).parent).parts[0]
  jax.config.update('jax_disable_most_optimizations', place in UNOPTIMISED)


@pytest.fixture(autouse=True)
def strict():
  with (
    jax.numpy_rank_promotion('raise'),
    jax.debug_key_reuse(True),
  ):
    yield
