r"""Files of deployed networks: 1 bit a binary weight, checksums, and no program in them.

A file is, in this order,

- the 16 bytes ``bitjax packed 2\n``, of which the number is the version,
- length and CRC-32 of the header, two unsigned 32-bit integers, little-endian,
- the header, JSON compressed by zlib: shape and dtype of images, the operations (with the
  operations that they take counted from their own place: -1 is the one before), and name,
  kind, shape and CRC-32 of each tensor,
- the tensors, one after another.

A tensor's kind is its dtype (NumPy's, little-endian, C order), ``'bool'`` or
``'words'``: for both, one bit a value in C order, the most significant of a byte first,
the last byte filled with zeros; a word is +1 where the bit is set, along the axis
and for the length that its product says. safetensors' header is not compressed and has
no checksums: for networks of 40 kB it would be a quarter of the file.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import struct
from typing import Any
import zlib

import jax.numpy as jnp
import numpy as np

from bitjax import files
from bitjax import packed
from bitjax import types
from bitjax.deploy import _network
from bitjax.deploy import _ops
from bitjax.deploy import _summary

__all__ = ['load', 'save']

_MAGIC, _VERSION = b'bitjax packed ', 2
_START = len(_MAGIC) + 2
_SIZES = struct.Struct('<II')
_BITS = ('bool', 'words')
_DTYPES = ('float32', 'int32', 'int8', 'uint8', 'uint32', 'uint16')


def save(
  network: _network.Network, path: str | os.PathLike[str]
) -> pathlib.Path:
  """Writes a network to a file, which is whole or absent.

  Args:
    network: the network.
    path: the file, by custom ``*.bitjax``; one that exists is replaced.

  Returns:
    The path.

  Raises:
    OSError: if the file cannot be written.
  """
  stored = _summary.stored(network)
  axes = _summary.packed_axes(network.ops)
  tensors, parts = [], []
  for name, (kind, shape, _) in stored.items():
    value = np.asarray(network.arrays[name])
    if kind == 'words':
      axis, length = axes[name]
      value = np.asarray(
        packed.unpack(network.arrays[name], length, axis, dtype=bool)
      )
    part = np.packbits(value) if kind in _BITS else value
    parts.append(part.astype(part.dtype.newbyteorder('<')).tobytes())
    tensors.append([name, kind, list(shape), zlib.crc32(parts[-1])])
  ops = [
    [op.name, [_moved(a, -place) for a in op.args if _is_kept(a, stored)]]
    + ([dict(op.params)] if op.params else [])
    for place, op in enumerate(network.ops)
  ]
  header = {
    'shape': network.shape,
    'dtype': network.dtype,
    'chunk': network.chunk,
    'ops': ops,
    'tensors': tensors,
  }
  text = json.dumps(header, separators=(',', ':'), allow_nan=False).encode()
  text = zlib.compress(text, 9)
  start = _MAGIC + f'{_VERSION}\n'.encode()
  sizes = _SIZES.pack(len(text), zlib.crc32(text))
  path = files.expand(path)
  files.write_bytes(path, b''.join([start, sizes, text, *parts]))
  return path


def load(path: str | os.PathLike[str]) -> _network.Network:
  """Reads a network from a file that `save` wrote; what it holds is checked first.

  Args:
    path: the file.

  Raises:
    BadInput: for another file, one of another version, or a damaged one: it names the
      tensor.
    OSError: if it cannot be read.
  """
  path = files.expand(path)
  content = path.read_bytes()
  if not content.startswith(_MAGIC):
    raise types.BadInput(f'{path} is no file of a packed network.')
  version = content[len(_MAGIC) : _START]
  if version != f'{_VERSION}\n'.encode():
    raise types.BadInput(
      f'{path} has version {_printed(version)} of the format; this bitjax reads version '
      f'{_VERSION}: pack the network again.'
    )
  first = _START + _SIZES.size
  if len(content) < first:
    raise _damaged(path, 'its header is cut off')
  length, checksum = _SIZES.unpack(content[_START:first])
  text, rest = content[first : first + length], content[first + length :]
  if len(text) != length or zlib.crc32(text) != checksum:
    raise _damaged(path, 'its header does not fit its checksum')
  try:
    return _network.with_borders(_read(path, text, rest))
  except types.BadInput:
    raise
  except (LookupError, TypeError, ValueError, zlib.error):
    raise _damaged(path, 'its header describes no packed network') from None


def _read(path, text, rest):
  """Returns the network that a header describes, with the tensors behind it."""
  header = json.loads(zlib.decompress(text))
  names = {name for name, *_ in header['tensors']}
  ops = tuple(
    _op(path, names, place, *entry) for place, entry in enumerate(header['ops'])
  )
  axes = _summary.packed_axes(ops)
  arrays, used = {}, 0
  for name, kind, shape, checksum in header['tensors']:
    count = math.prod(shape)
    if kind not in (*_BITS, *_DTYPES):
      raise _damaged(path, f'tensor {name} is of the unknown kind {kind!r}')
    size = -(-count // 8) if kind in _BITS else count * np.dtype(kind).itemsize
    part = rest[used : used + size]
    used += size
    if len(part) != size:
      raise _damaged(path, f'tensor {name} is cut off')
    if zlib.crc32(part) != checksum:
      raise _damaged(path, f'tensor {name} does not fit its checksum')
    if kind in _BITS:
      value = np.unpackbits(np.frombuffer(part, np.uint8), count=count)
      value = value.astype(bool).reshape(shape)
      if kind == 'words':
        value = packed.pack(value, axes[name][0])
    else:
      dtype = np.dtype(kind).newbyteorder('<')
      value = np.frombuffer(part, dtype).astype(kind).reshape(shape)
    arrays[name] = jnp.asarray(value)
  if used != len(rest):
    raise _damaged(path, 'it goes on behind its last tensor')
  shape, dtype, chunk = (header[key] for key in ('shape', 'dtype', 'chunk'))
  sizes = [types.integer(size) or 0 for size in (*shape, chunk)]
  if not ops or dtype not in _network.DTYPES or min(sizes) < 1:
    raise _damaged(path, 'its header describes no packed network')
  return _network.Network(arrays, ops, tuple(shape), dtype, chunk)


def _is_kept(arg, stored):
  return not isinstance(arg, str) or arg in stored


def _moved(arg, by):
  return arg + by if isinstance(arg, int) else arg


def _op(path, names, place, name, args, params=None):
  if name not in _ops.NAMES:
    raise _damaged(path, f'it has the unknown operation {name!r}')
  args = tuple(_moved(arg, place) for arg in args)
  for arg in args:
    known = arg in names if isinstance(arg, str) else -1 <= arg < place
    if not known and not isinstance(arg, float):
      raise _damaged(
        path, f'operation {place} takes {arg!r}, which is not there'
      )
  found = tuple((k, _tuples(v)) for k, v in sorted((params or {}).items()))
  return _ops.Op(name, args, found)


def _tuples(value: Any) -> Any:
  return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _printed(version):
  """Returns a version as text of one line."""
  text = version.decode('latin-1').removesuffix('\n')
  return text if text.isalnum() else repr(text)


def _damaged(path, what):
  return types.BadInput(f'{path} is damaged: {what}. Pack the network again.')
