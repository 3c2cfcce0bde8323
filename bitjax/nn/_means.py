"""Finds means over all positions of an image, however a model writes them.

These are ``x.mean((1, 2))``, with or without the axes kept, an average pooling whose window
is the whole image, and a mean over positions that were flattened before.
"""

from __future__ import annotations

import math
from typing import Any

from bitjax.nn import _graph

__all__ = ['mean_of']

# Primitives that keep the order of entries, where they keep their number.
_ORDERED = ('reshape', 'squeeze', 'broadcast_in_dim', 'slice', 'copy')


def mean_of(value: Any, start: _graph.Value) -> Any:
  """Returns what a value is the mean of over all positions; None if it is no mean.

  Args:
    value: a value, of which only [examples, channels] can be such a mean.
    start: a value that may be what the mean is of, but no part of it.
  """
  shape, count = value.aval.shape, None
  if len(shape) != 2:
    return None
  while True:
    if value is start or _ends(value) != shape:
      return None
    name = value.primitive
    if name == 'div' and count is None:
      value, count = value.args
    elif name in _ORDERED and value.args[0].aval.size == value.aval.size:
      value = value.args[0]
    else:
      break
    if not isinstance(value, _graph.Value):
      return None
  if not isinstance(count, _graph.Literal) or not _is_sum(value):
    return None
  before = value.args[0]
  if float(count.value) != math.prod(before.aval.shape[1:-1]):
    return None
  while before is not start and _flattens(before, shape):
    (before,) = before.args
  return before


def _ends(value):
  shape = value.aval.shape
  return (*shape[:1], *shape[-1:])


def _is_sum(value):
  """Whether a value is the sum of another one over all axes between first and last."""
  params = value.params
  if value.primitive == 'reduce_sum':
    rank = len(value.args[0].aval.shape)
    return rank > 2 and tuple(params['axes']) == tuple(range(1, rank - 1))
  if value.primitive != 'reduce_window_sum':
    return False
  examples, *spatial, channels = value.args[0].aval.shape
  dilations = (*params['base_dilation'], *params['window_dilation'])
  return (
    value.aval.shape == (examples, *(1 for _ in spatial), channels)
    and tuple(params['window_dimensions']) == (1, *spatial, 1)
    and not any(edge for pair in params['padding'] for edge in pair)
    and set(dilations) == {1}
  )


def _flattens(value, ends):
  """Whether a value has the positions of another one on a single axis."""
  if value.primitive != 'reshape' or len(value.aval.shape) != 3:
    return False
  (source,) = value.args
  return len(source.aval.shape) > 3 and _ends(source) == ends
