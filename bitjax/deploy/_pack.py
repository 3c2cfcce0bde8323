r"""Turns the nodes of a network into operations on packed words.

A product of ±1 values with ±1 weights becomes one of packed words, whose sums are
integers, and what follows takes them as floats, as the network does. Where nothing but
operations of each channel by itself lies between such sums s and the next signs,

.. math:: b = [f_c(s) \ge 0],

a threshold for each channel replaces them, found by computing the network's own operations
at each integer that s may be (`bitjax.packed.thresholds`). The maximum over a window
commutes with them where the operations in front of it rise.
"""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from bitjax import packed
from bitjax import types
from bitjax.deploy import _codes
from bitjax.deploy import _ops
from bitjax.deploy import _trace

__all__ = ['KEEP', 'layer_of', 'pack', 'sorted_nodes']

KEEP = ('none', 'float')
_SUMS = ('binary_conv', 'binary_dense', 'bytes_dense')
Constant, Node = _trace.Constant, _trace.Node


def pack(logits: _trace.Node, keep: str) -> None:
  """Packs the network that ends with ``logits``, in place.

  Args:
    logits: its last node.
    keep: 'none', or 'float' for what cannot be packed.

  Raises:
    BadInput: for what cannot be packed, unless it is kept.
  """
  made: dict[int, _trace.Node] = {}
  for node in sorted_nodes(logits):
    if node.name in ('conv', 'dense'):
      _pack_product(node, made, keep)
  for node in sorted_nodes(logits):
    if node.name == 'bits':
      _pack_signs(node, keep)


def sorted_nodes(last: _trace.Node) -> list[_trace.Node]:
  """Returns a node and all that it depends on, in an order of computation."""
  found: dict[int, _trace.Node] = {}
  left = [(last, False)]
  while left:
    node, ready = left.pop()
    if ready:
      found.setdefault(id(node), node)
    elif id(node) not in found:
      left.append((node, True))
      left += [(a, False) for a in node.args[::-1] if isinstance(a, Node)]
  return list(found.values())


def layer_of(origin: str) -> str:
  """Returns the name of the layer that a variable belongs to."""
  return '/'.join(origin.split('/')[1:-1]) or origin or 'the model'


def _is_binary(value):
  return value.dtype == np.float32 and bool((np.abs(value) == 1).all())


def _pack_product(node, made, keep):
  x, kernel = node.args
  layer = layer_of(kernel.origin)
  if _is_binary(kernel.value):
    if node.name == 'dense' and (pixels := _bytes(x)) is not None:
      words = _words(kernel, 0)
      if (length := kernel.value.shape[0]) * 255 < 1 << 24:
        _replace(node, 'bytes_dense', (pixels, words), {'length': length})
        return
    if (found := _signs(x, node)) is not None:
      signs, padding, value = found
      bits = made.setdefault(
        id(signs), Node('bits', (signs,), {}, signs.shape, np.dtype(bool))
      )
      if node.name == 'dense':
        params = {'length': kernel.value.shape[0]}
        _replace(node, 'binary_dense', (bits, _words(kernel, 0)), params)
      else:
        params = {
          'channels': kernel.value.shape[2],
          'strides': node.params['strides'],
          'padding': padding,
          'pad_value': value,
          'shape': signs.shape[:2],
        }
        _replace(node, 'binary_conv', (bits, _words(kernel, 2)), params)
      return
  coded = _codes.encode(kernel)
  if coded is not None:
    decode = Node(
      'decode', coded, {'shape': kernel.value.shape}, (), kernel.value.dtype
    )
    node.args = (x, decode)
  elif keep == 'none' and not kernel.stored and not _codes.few(kernel.value):
    raise types.BadInput(
      f'{layer} cannot be packed: a channel of its quantized weights takes more than '
      f"{_codes.MOST} values. keep='float' keeps them in float32."
    )


def _words(kernel, axis):
  words = np.asarray(packed.pack(kernel.value, axis))
  return Constant(words, kernel.origin)


def _replace(node, name, args, params):
  """Makes of a product the float of integer sums."""
  sums = Node(name, args, params, node.shape, np.dtype('int32'), node.where)
  node.name, node.args, node.params = 'to', (sums,), {'dtype': 'float32'}


def _bytes(x):
  """Returns the bytes, [length], that floats were made of; None if they were not."""
  flat = x.args[0] if x.name == 'reshape' else x
  if flat.name != 'to' or flat.args[0].dtype != np.uint8:
    return None
  if flat is x:
    return flat.args[0]
  return Node('reshape', flat.args, x.params, x.shape, np.dtype('uint8'))


def _signs(x, product):
  """Returns booleans that are true for +1, and the padding; None if x is no sign."""
  padding = product.params.get('padding', ())
  value = 0
  if x.name == 'pad' and isinstance(x.args[1], Constant):
    *edges, (low, high, inner) = x.params['edges']
    number = x.args[1].value
    plain = not (low or high or inner or any(edge[2] for edge in edges))
    if number not in (-1, 1) or not plain or np.any(padding):
      return None
    if min(min(edge[:2]) for edge in edges) < 0:
      return None
    padding, value = tuple((a, b) for a, b, _ in edges), int(number)
    (x, _) = x.args
  if x.name == 'reshape':
    found = _signs(x.args[0], Node('dense', (), {}, (), np.dtype(bool)))
    if found is None:
      return None
    inside = found[0]
    return (
      Node('reshape', (inside,), x.params, x.shape, inside.dtype),
      padding,
      value,
    )
  if x.name != 'select_n' or not isinstance(x.args[0], Node):
    return None
  predicate, *cases = x.args
  if predicate.dtype != bool or len(cases) != 2:
    return None
  if not all(isinstance(c, Constant) and c.value.ndim == 0 for c in cases):
    return None
  levels = [float(c.value) for c in cases]
  if levels == [-1.0, 1.0]:
    return predicate, padding, value
  if levels == [1.0, -1.0]:
    turned = Node('not', (predicate,), {}, predicate.shape, predicate.dtype)
    return turned, padding, value
  return None


def _pack_signs(node, keep):
  """Replaces signs of a function of one channel's sums by thresholds."""
  (signs,) = node.args
  after = _between(signs)
  if after is None:
    return
  pool = None
  if after.name == 'window_max':
    pool, after = after, _between(after.args[0])
    if after is None:
      return
  if after.name != 'to':
    return
  (sums,) = after.args
  kernel = sums.args[1]
  low, high = _range(sums)
  features = node.shape[-1]

  def evaluate(last, source, values):
    """Returns [sums, features] of the node ``last`` for such values of ``source``."""
    shape = (*[1] * (len(source.shape) - 1), features, -1)
    known = {id(source): jnp.asarray(values).T.reshape(shape)}
    result = _evaluated(last, known)
    return (
      jnp.broadcast_to(result, known[id(source)].shape).reshape(features, -1).T
    )

  def before(values):
    return values if pool is None else evaluate(pool.args[0], after, values)

  def function(values):
    source = after if pool is None else pool
    return evaluate(signs, source, before(values))

  if pool is not None and not _rises(before, low, high, features):
    return
  try:
    found = packed.thresholds(function, low, high, features)
  except types.BadInput as why:
    if keep == 'float':
      return
    raise types.BadInput(
      f'{layer_of(kernel.origin)} cannot be packed up to the next signs: {why} '
      "keep='float' computes what is between them in float32."
    ) from None
  low_of = Constant(np.asarray(found.low), kernel.origin)
  flip = Constant(np.asarray(found.flip), kernel.origin)
  if pool is None:
    node.name, node.args = 'threshold', (sums, low_of, flip)
    return
  rising = Constant(np.zeros(features, bool), kernel.origin)
  bits = Node('threshold', (sums, low_of, rising), {}, sums.shape, node.dtype)
  window = {k: v[:2] for k, v in pool.params.items()}
  pooled = Node('max_bits', (bits,), window, pool.shape, node.dtype)
  node.name, node.args = 'flip', (pooled, flip)


def _between(node):
  """Returns the only source of channelwise operations that end with a node.

  It is the float of integer sums, or a maximum over windows of images; None otherwise.
  """
  sources, left, seen = {}, [node], set()
  while left:
    at = left.pop()
    if id(at) in seen:
      continue
    seen.add(id(at))
    if _is_source(at):
      sources[id(at)] = at
    elif at.name not in _ops.ELEMENTWISE or not all(
      map(_is_channelwise, at.args)
    ):
      return None
    else:
      left += [arg for arg in at.args if isinstance(arg, Node)]
  if len(sources) != 1:
    return None
  return next(iter(sources.values()))


def _is_source(node):
  if node.name == 'to' and isinstance(node.args[0], Node):
    return node.args[0].name in _SUMS
  if node.name != 'window_max' or len(node.shape) != 3:
    return False
  keys = ('size', 'strides', 'padding')
  size, strides, padding = (node.params[key] for key in keys)
  covers = all(max(pads) < s for pads, s in zip(padding, size, strict=True))
  return covers and (size[2], strides[2], padding[2]) == (1, 1, (0, 0))


def _is_channelwise(atom):
  if isinstance(atom, Node) or atom.value.ndim == 0:
    return True
  *places, _, images = atom.value.shape
  return images == 1 and math.prod(places) == 1


def _evaluated(node, known):
  """Computes a node from values of others, operation by operation."""
  if id(node) not in known:
    args = [
      _evaluated(a, known) if isinstance(a, Node) else jnp.asarray(a.value)
      for a in node.args
    ]
    op = _ops.Op(node.name, (), tuple(node.params.items()))
    known[id(node)] = _ops.compute(op, args, None)
  return known[id(node)]


def _range(sums):
  if sums.name == 'binary_conv':
    kernel = sums.args[1].value
    length = kernel.shape[0] * kernel.shape[1] * sums.params['channels']
    return -length, length
  length = sums.params['length']
  largest = 255 if sums.name == 'bytes_dense' else 1
  return -largest * length, largest * length


def _rises(
  function: Callable[[Any], Any], low: int, high: int, features: int
) -> bool:
  """Returns whether a function of sums never falls, in any channel."""
  table = np.arange(low, high + 1, dtype=np.float32)[:, None]
  table = np.broadcast_to(table, (table.size, features))
  return bool((np.diff(np.asarray(function(table)), axis=0) >= 0).all())
