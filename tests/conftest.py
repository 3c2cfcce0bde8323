"""Strictness for every test: no silent rank promotion, no reused keys."""

import jax
import pytest


@pytest.fixture(autouse=True)
def strict():
  with (
    jax.numpy_rank_promotion('raise'),
    jax.debug_key_reuse(True),
  ):
    yield
