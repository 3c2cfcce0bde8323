"""Weights as codes: numbers of levels, of which a tensor or a channel has few.

A kernel of at most 256 levels is stored as codes of 1, 2, 4 or 8 bits, in planes of one
bit each, and a table of the levels: one for the tensor, or one for each channel.
Nothing is rounded: codes stand for the very numbers that the network computes with.
"""

from __future__ import annotations

import numpy as np

from bitjax import packed
from bitjax.deploy import _trace

__all__ = ['MOST', 'encode', 'few']

MOST = 256


def few(value: np.ndarray) -> bool:
  """Returns whether each channel of weights has few enough levels for codes."""
  columns = value.reshape(-1, value.shape[-1]).T
  return all(np.unique(column).size <= MOST for column in columns)


def encode(
  kernel: _trace.Constant,
) -> tuple[_trace.Constant, _trace.Constant] | None:
  """Returns planes of bits and a table of levels; None if floats take no more.

  Args:
    kernel: weights, [..., channels], float32.
  """
  value = kernel.value
  channels = value.reshape(-1, value.shape[-1])
  levels = np.unique(value)
  if levels.size <= MOST:
    codes = np.searchsorted(levels, channels)
  elif not few(value):
    return None
  else:
    columns = [np.unique(column) for column in channels.T]
    most = max(column.size for column in columns)
    columns = [np.pad(c, (0, most - c.size), mode='edge') for c in columns]
    codes = np.stack(
      [np.searchsorted(c, v) for c, v in zip(columns, channels.T, strict=True)],
      1,
    )
    levels = np.stack(columns, 1)
  bits = next(b for b in (1, 2, 4, 8) if levels.shape[0] <= 1 << b)
  if bits * value.size + 32 * levels.size >= 32 * value.size:
    return None
  planes = (codes.reshape(-1)[None] >> np.arange(bits)[:, None]) & 1
  words = np.asarray(packed.pack(planes.astype(bool), -1, word='uint32'))
  origin = kernel.origin
  return (
    _trace.Constant(words, origin),
    _trace.Constant(levels.astype(np.float32), origin),
  )
