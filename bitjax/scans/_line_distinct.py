r"""Computes the loss along a line once for each distinct quantized kernel.

A quantized kernel is piecewise constant along ``W - eta * d``, so rates between two of its
breakpoints share one loss. Nothing else is assumed: the layer may be a convolution,
and what follows it may be opaque or couple the examples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import quantizers
from bitjax import sizes
from bitjax import types
from bitjax.scans import _line_breakpoints
from bitjax.scans import _report
from bitjax.scans import _split

__all__ = ['losses']


def losses(
  loss: Callable[[types.Array], types.Array],
  kernel: types.Array,
  direction: types.Array,
  quantizer: quantizers.Quantize,
  rates: types.Array,
  width: int | None,
  report: Any = None,
) -> types.Array:
  """Returns ``loss(rate)`` at each rate, [rates, ...].

  Args:
    loss: the loss at a rate; it depends on the quantized kernel only.
    kernel: W.
    direction: d, of the same shape.
    quantizer: q, a staircase with a known number of levels.
    rates: sorted rates.
    width: kernels that are evaluated at a time; None for a good number.
    report: progress; None for no report.
  """
  width = min(width or sizes.here().line_kernels, rates.size)
  _, breakpoints = _line_breakpoints.find(
    kernel, direction, quantizer, _line_breakpoints.Grid(rates)
  )
  first = jnp.zeros(rates.size, bool).at[0].set(True)
  first = first.at[breakpoints.position].set(True, mode='drop')
  ((listed,), (count,)) = _split.true_indices(first[None], room=width)
  of_kernels = jax.vmap(jax.jit(loss))  # Which traces it once only.

  def evaluate(state):
    start, found = state
    _report.tick(report, start, count, by=width)
    which = jax.lax.dynamic_slice(listed, (start,), (width,))
    some = of_kernels(rates[jnp.minimum(which, rates.size - 1)])
    return start + width, found.at[which].set(some, mode='drop')

  shape = jax.eval_shape(of_kernels, rates)
  begin = 0, jnp.zeros(shape.shape, shape.dtype)
  _, found = jax.lax.while_loop(lambda state: state[0] < count, evaluate, begin)
  return found[listed[jnp.cumsum(first) - 1]]
