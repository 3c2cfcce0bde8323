"""The table of what a deployed network holds, part by part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
  from bitjax.deploy import _network

__all__ = ['stored', 'table']

_BY = {
  'binary_conv': 'popcount of ±1',
  'binary_dense': 'popcount of ±1',
  'bytes_dense': 'bytes by ±1',
  'conv': 'float32',
  'dense': 'float32',
}


def stored(network: Any) -> dict[str, tuple[str, tuple[int, ...], int]]:
  """Returns kind, shape and bits of each array that a file of a network holds.

  The kind is ``'words'`` for packed weights, whose shape is that of the weights, with
  the packed axis; else the dtype.
  """
  found = {}
  for name, (axis, length) in packed_axes(network.ops).items():
    shape = list(network.arrays[name].shape)
    shape[axis] = length
    found[name] = ('words', tuple(shape), int(np.prod(shape)))
  for name, array in network.arrays.items():
    if name not in found and not name.endswith('/border'):
      bits = 1 if array.dtype == bool else 8 * array.dtype.itemsize
      found[name] = (array.dtype.name, array.shape, bits * array.size)
  return {name: found[name] for name in network.arrays if name in found}


def packed_axes(ops: Any) -> dict[str, tuple[int, int]]:
  """Returns the packed axis of each array of words, and how many values it holds."""
  found = {}
  for op in ops:
    params = dict(op.params)
    if op.name == 'binary_conv':
      found[op.args[1]] = (2, params['channels'])
    elif op.name in ('binary_dense', 'bytes_dense'):
      found[op.args[1]] = (0, params['length'])
  return found


def table(network: _network.Network) -> str:
  """Returns a table: a row for each array, its product, its bits and its bytes."""
  rows = [('part', 'shape', 'bits a value', 'bytes', 'computed by')]
  total = 0
  for name, (_, shape, bits) in stored(network).items():
    total += bits
    count = int(np.prod(shape))
    rows.append(
      (
        name,
        'x'.join(map(str, shape)),
        f'{bits / count:.3g}' if count else '',
        f'{bits / 8:,.0f}',
        ', '.join(sorted(set(_users(network.ops, name)))),
      )
    )
  rows.append(('total', '', '', f'{total / 8:,.0f}', ''))
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [
    '  '.join(
      cell.rjust(w) if i in (2, 3) else cell.ljust(w)
      for i, (cell, w) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in rows
  ]
  rule = '-' * max(map(len, lines))
  return '\n'.join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _users(ops, name) -> Iterator[str]:
  """Yields how the products that take an array are computed."""
  for index, op in enumerate(ops):
    if name in op.args:
      if op.name in _BY:
        yield _BY[op.name]
      elif op.name == 'decode':
        yield from (
          _BY[o.name] for o in ops if index in o.args and o.name in _BY
        )
