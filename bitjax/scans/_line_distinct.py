r"""Computes the loss along a line once for each distinct quantized kernel.

A quantized kernel is piecewise constant along ``W - eta * d``, so rates between two of its
breakpoints share one loss. Nothing else is assumed: the layer may be a convolution,
and what follows it may be opaque or couple the examples.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import sizes
from bitjax import types
from bitjax.scans import _line_breakpoints
from bitjax.scans import _report
from bitjax.scans import _split
from bitjax.scans import _view

__all__ = ['losses']


@functools.partial(jax.jit, static_argnames='width')
def losses(
  views: Sequence[_view.LayerView],
  direction: types.Array,
  rates: types.Array,
  width: int | None,
  report: Any = None,
) -> types.Array:
  """Returns the mean loss of each view at each rate, [views, rates].

  Args:
    views: views of one kernel, whose quantizer is a staircase with a known number of
      levels.
    direction: d, of the kernel's shape.
    rates: sorted rates.
    width: kernels that are evaluated at a time; None for a good number.
    report: progress; None for no report.
  """
  kernel, quantizer = views[0].kernel, views[0].quantizer
  assert quantizer is not None
  width = min(width or sizes.here().line_kernels, rates.size)
  _, breakpoints = _line_breakpoints.find(
    kernel, direction, quantizer, _line_breakpoints.Grid(rates)
  )
  first = jnp.zeros(rates.size, bool).at[0].set(True)
  first = first.at[breakpoints.position].set(True, mode='drop')
  ((listed,), (count,)) = _split.true_indices(first[None], room=width)

  @jax.vmap
  @jax.jit  # So that it is traced once.
  def of_kernels(rate):
    moved = kernel - rate * direction
    return jnp.stack([view.loss(moved) for view in views])

  def evaluate(state):
    start, found = state
    _report.tick(report, start, count, by=width)
    which = jax.lax.dynamic_slice(listed, (start,), (width,))
    some = of_kernels(rates[jnp.minimum(which, rates.size - 1)])
    return start + width, found.at[which].set(some, mode='drop')

  shape = jax.eval_shape(of_kernels, rates)
  begin = 0, jnp.zeros(shape.shape, shape.dtype)
  _, found = jax.lax.while_loop(lambda state: state[0] < count, evaluate, begin)
  return found[listed[jnp.cumsum(first) - 1]].T
