"""Measures what the device can do at most: matrix products, and memory traffic.

Products are measured at each precision, because a share of the peak means little
against the peak of another one. Traffic is that of the benchmark STREAM: a copy reads
and writes an array, a triad ``a + s b`` reads two and writes one.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

from bitjax.studies.benchmark import race

__all__ = ['CALLS', 'PRECISION', 'peaks', 'product']

PRECISION = 'highest'  # Of the networks that are measured.
CALLS = 8  # In a turn, so that launches overlap.


def product(size: int, precision: str = PRECISION) -> Callable[[], Any]:
  """Returns a contestant: a float32 product of square matrices.

  Args:
    size: rows and columns.
    precision: as in ``jax.lax``.
  """
  square = jnp.ones((size, size), jnp.float32)
  multiply = jax.jit(functools.partial(jnp.matmul, precision=precision))
  return lambda: multiply(square, square)


def peaks(gemm: int, numbers: int, turns: int) -> dict[str, float]:
  """Returns the speeds of the device, by name and unit.

  Args:
    gemm: rows and columns of the matrices.
    numbers: float32 numbers of an array whose traffic is measured.
    turns: timed turns of each contestant.

  Returns:
    GFLOP/s of products in float32 and, but for a CPU, where they are the same or
    emulated, of those at the default precision and of bfloat16 with sums in float32;
    GB/s of a copy and of a triad.
  """
  once = {f'float32 {PRECISION} (GFLOP/s)': product(gemm)}
  if jax.default_backend() != 'cpu':
    half = jnp.ones((gemm, gemm), jnp.bfloat16)
    narrow = jax.jit(
      functools.partial(jnp.matmul, preferred_element_type=jnp.float32)
    )
    once['float32 default (GFLOP/s)'] = product(gemm, 'default')
    once['bfloat16 (GFLOP/s)'] = lambda: narrow(half, half)
  a, b = jnp.ones((2, numbers), jnp.float32)
  copy, triad = jax.jit(jnp.copy), jax.jit(_triad)
  once['copy (GB/s)'] = lambda: copy(a)
  once['triad (GB/s)'] = lambda: triad(a, b, 3.0)
  moved = {'copy (GB/s)': 8 * numbers, 'triad (GB/s)': 12 * numbers}
  seconds = race.race(
    {name: _several(call) for name, call in once.items()}, turns
  )
  return {
    name: moved.get(name, 2 * gemm**3) * CALLS / spent / 1e9
    for name, spent in seconds.items()
  }


def _triad(a, b, s):
  return a + s * b


def _several(call):
  def run():
    last = None
    for _ in range(CALLS):
      last = call()  # Only one result is kept, as they are large.
    return last

  return run
