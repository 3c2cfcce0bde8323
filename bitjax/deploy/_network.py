"""A deployed network: packed words and small arrays, and a pure function of images."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import nn
from bitjax import packed
from bitjax import types
from bitjax.deploy import _ops
from bitjax.deploy import _pack
from bitjax.deploy import _trace

__all__ = ['DTYPES', 'Network', 'make', 'pack_network', 'with_borders']

_WORDS = ('bits', 'threshold', 'flip')
_READS = ('conv', 'dense', 'reduce_', 'window_')
_BORDER = '/border'
DTYPES = ('float32', 'uint8')  # Of images.


def _static() -> Any:
  return dataclasses.field(metadata={'static': True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Network:
  """A network of packed words, made by `pack_network` or `load`.

  It is a pytree, and calling it is a pure function: ``network(images)``. Its ``str`` is a
  table of what it holds.

  Attributes:
    arrays: its arrays, by name: packed words, codes, thresholds and what stays float32.
    ops: its operations, in order; the last one gives the logits.
    shape: shape of an image, as ``(32, 32, 3)``.
    dtype: dtype of the images, ``'float32'`` or ``'uint8'``.
    chunk: images that are computed together.
  """

  arrays: dict[str, types.Array]
  ops: tuple[_ops.Op, ...] = _static()
  shape: tuple[int, ...] = _static()
  dtype: str = _static()
  chunk: int = _static()

  def __call__(self, images: types.Array) -> types.Array:
    """Returns the logits, [images, classes].

    Args:
      images: [images, ...] of the shape and dtype that it was packed for.

    Raises:
      BadInput: for images of another shape or dtype.
    """
    if not isinstance(images, jax.Array):  # To ask costs less than a product.
      images = jnp.asarray(images)
    if images.shape[1:] != self.shape or images.dtype != self.dtype:
      wanted = ', '.join(map(str, ('images', *self.shape)))
      raise types.BadInput(
        f'images must be {self.dtype} of shape [{wanted}]; got '
        f'{types.shown(images)}.'
      )
    return _run(self, images)

  def __str__(self) -> str:
    """Returns a table of its parts, with their bits and bytes."""
    from bitjax.deploy import _summary

    return _summary.table(self)


def pack_network(
  model: Any,
  variables: types.PyTree,
  images: Any,
  *,
  keep: str = 'none',
  prepare: Callable[[types.Array], types.Array] | None = None,
  **kwargs: Any,
) -> Network:
  r"""Packs a trained network: 1 bit a binary weight, integers where they suffice.

  The network computes what the model's own operations compute when each of them is
  rounded by itself, as they are outside of ``jax.jit``, to the bit: sums of ±1
  products are integers, all other operations are the model's, in its order. Signs of
  such sums become integer thresholds, channel by channel, which are found by computing
  the model's own operations at each integer. Products of floats (the first layer of
  most networks, the last one, activations that are not binary) are XLA's, or add in its order.

  Args:
    model: a model of flax.linen that draws no random numbers, such as `nn.MLP`,
      `nn.ResNet` or `nn.VGG`.
    variables: its trained variables.
    images: a batch, or its ``jax.ShapeDtypeStruct``, [images, ...], float32 or uint8;
      only shape and dtype matter.
    keep: ``'float'`` keeps in float32 what cannot be packed: quantized kernels with
      more than 256 levels in a channel, and what lies between sums and signs if it is not
      monotone. ``'none'`` refuses it.
    prepare: images as the packed network takes them -> images as the model sees them, such as
      `training.preparation`; it becomes part of what is packed. None for the same.
    **kwargs: keywords of the model's call, such as ``progress``.

  Returns:
    The `Network`.

  Raises:
    BadInput: for images of another dtype, or what cannot be packed: it names the layer.
  """
  types.check_choice('keep', keep, _pack.KEEP)
  shape, dtype = jnp.shape(images), jnp.result_type(images)
  if dtype.name not in DTYPES or len(shape) < 2:
    raise types.BadInput(
      f'images must be float32 or uint8, [images, ...]; got {types.shown(images)}.'
    )
  options = nn.call_options(model, **{'train': False} | kwargs)
  given = jax.ShapeDtypeStruct(shape, dtype)

  def function(variables, images):
    seen = images if prepare is None else prepare(images)
    return model.apply(variables, seen, **options)

  source, logits = _trace.trace(function, variables, given)
  _pack.pack(logits, keep)
  return make(source, logits)


def make(source: _trace.Node, logits: _trace.Node) -> Network:
  """Returns the network that computes ``logits`` of ``source``."""
  nodes = [n for n in _pack.sorted_nodes(logits) if n is not source]
  numbers = {id(source): -1} | {id(node): i for i, node in enumerate(nodes)}
  arrays: dict[str, types.Array] = {}
  given: dict[int, Any] = {}

  def argument(node, position, arg):
    if isinstance(arg, _trace.Node):
      return numbers[id(arg)]
    if id(arg) not in given:
      value = arg.value
      if value.ndim == 0 and value.dtype == np.float32 and np.isfinite(value):
        return float(value)
      name = _unused(_name(node, position, arg), arrays)
      arrays[name], given[id(arg)] = jnp.asarray(value), name
    return given[id(arg)]

  ops = []
  for node in nodes:
    args = tuple(argument(node, i, arg) for i, arg in enumerate(node.args))
    ops.append(_ops.Op(node.name, args, tuple(sorted(node.params.items()))))
  images = any(op.name in ('conv', 'binary_conv') for op in ops)
  return with_borders(
    Network(
      arrays, tuple(ops), source.shape, source.dtype.name, 32 if images else 512
    )
  )


def _name(node, position, constant):
  layer = _pack.layer_of(constant.origin) if constant.origin else node.where
  kinds = {
    'decode': ('codes', 'levels'),
    'threshold': ('', 'low', 'flip'),
    'flip': ('', 'flip'),
  }
  if node.name in kinds:
    return f'{layer}/{kinds[node.name][position]}'
  kind = 'kernel' if node.name in _ops.PRODUCTS else node.name
  return f'{layer}/{kind}' if layer else kind


def _unused(name, names):
  found, number = name, 2
  while found in names:
    found, number = f'{name}_{number}', number + 1
  return found


def with_borders(network: Network) -> Network:
  """Returns a network with what zeros around images add to its packed sums.

  Words have no zero: padding is packed as -1, and corrected by sums of weights, which are
  made here and not stored.
  """
  arrays, ops = dict(network.arrays), []
  for op in network.ops:
    params = dict(op.params)
    padded = op.name == 'binary_conv' and np.any(params['padding'])
    if padded and params['pad_value'] != -1:
      kernel = op.args[1]
      name = f'{kernel}{_BORDER}'
      if name not in arrays:
        arrays[name] = _border(arrays[kernel], params)
      op = op._replace(args=(*op.args[:2], name))
    ops.append(op)
  return dataclasses.replace(network, arrays=arrays, ops=tuple(ops))


def _border(kernel, params):
  """Returns int32 [height', width', features, 1], computed without compiling anything.

  A padded value v instead of -1 adds v + 1 times the weights that it meets.
  """
  weights = np.asarray(kernel)
  # A bit of an unused channel is 0 and none of the weights.
  bits = np.unpackbits(weights.view(np.uint8).reshape(*weights.shape, -1), -1)
  ones = bits.sum((2, 4), dtype=np.int32)
  taps = 2 * ones - np.int32(params['channels'])
  rows, columns = (
    _inside(*sizes)
    for sizes in zip(
      params['shape'],
      weights.shape[:2],
      params['strides'],
      params['padding'],
      strict=True,
    )
  )
  outside = ~(rows[:, None, :, None] & columns[:, None][None])
  missing = np.tensordot(outside.astype(np.int32), taps, 2)
  return jnp.asarray((params['pad_value'] + 1) * missing[..., None], jnp.int32)


def _inside(size, kernel, stride, pads):
  """Returns [output, kernel], which pairs of one axis fall on the image."""
  outputs = (size + sum(pads) - kernel) // stride + 1
  place = np.arange(outputs)[:, None] * stride + np.arange(kernel) - pads[0]
  return (place >= 0) & (place < size)


@jax.jit
def _run(network, images):
  if not images.shape[0]:
    last = jax.eval_shape(
      _run, network, jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
    )
    return jnp.zeros((0, *last.shape[1:]), last.dtype)
  zero = _ops.unknown_zero(images)
  held = {
    i: _ops.compute(op, [network.arrays[a] for a in op.args], zero)
    for i, op in enumerate(network.ops)
    if all(isinstance(a, str) for a in op.args)
  }
  last, cut = len(network.ops) - 1, _cut(network.ops, frozenset(held))
  if (rows := _leading_rows(network.ops)) >= 0:
    x = images
    for op in network.ops[: rows + 1]:
      args = [network.arrays[name] for name in op.args[1:]]
      x = _ops.in_rows(op, [x, *args])
    cut, x = rows, jnp.moveaxis(x, 0, -1)
  else:
    x = jnp.moveaxis(images, 0, -1)
  if rows < 0 <= cut:

    def front(x):
      return _computed(network, held | {-1: x}, zero, -1, cut)

    x = packed.map_images(front, x, chunk=network.chunk)
  if cut < last:
    x = _computed(network, held | {cut: x}, zero, cut, last)
  return jnp.moveaxis(x, -1, 0)


@functools.cache
def _leading_rows(ops):
  """Returns the last of the operations that begin a network and are those of rows.

  Each takes the one before, and no other does; the last one is a product or thresholds.
  -1 if there are none: images of another network are innermost from the beginning.
  """
  users = [a for op in ops for a in op.args if isinstance(a, int)]
  last = -1
  for index, op in enumerate(ops):
    own = op.name in _ops.ROWS and op.args[0] == index - 1
    if not own or users.count(index - 1) > 1:
      break
    if op.name != 'reshape':
      last = index
  return last


@functools.cache
def _cut(ops, held):
  """Returns the operation up to which images are computed some at a time.

  Products of floats with matrices come after it: in products of other sizes their
  sums may be rounded otherwise.
  """
  last = len(ops) - 1
  for op in ops:
    cut = op.args[0]
    if op.name != 'dense':
      continue
    before, left = {-1}, [cut]
    while left:
      index = left.pop()
      if index not in before:
        before.add(index)
        left += [a for a in ops[index].args if isinstance(a, int)]
    across = any(
      a in before - held - {cut}
      for i, other in enumerate(ops)
      if i not in before
      for a in other.args
      if isinstance(a, int)
    )
    return last if across else cut
  return last


def _computed(network, values, zero, first, last):
  """Returns the value of operation ``last``, with images innermost.

  What several places need, and each packed word, is computed in a pass of its own: in
  a branch of which only the program knows that it is taken. Else a compiler would
  compute it again in each place.

  Args:
    network: the network.
    values: values of operations, by number, that are known; -1 are the images.
    zero: of `unknown_zero`.
    first: number of the known operation that the others depend on.
    last: number of the operation.
  """

  def value(index, known):
    if index in values:
      return values[index]
    if index not in known:
      op = network.ops[index]
      args = [argument(arg, known) for arg in op.args]
      known[index] = _ops.compute(op, args, zero)
    return known[index]

  def argument(arg, known):
    if isinstance(arg, str):
      return network.arrays[arg]
    return np.float32(arg) if isinstance(arg, float) else value(arg, known)

  for index in _passes(network.ops):
    if index in values or not first < index < last:
      continue

    def made(index=index):
      return value(index, {})

    values[index] = _ops.apart(zero, made)
  return value(last, {})


@functools.cache
def _passes(ops):
  """Returns the operations that are computed in passes of their own, in order."""
  last = len(ops) - 1
  passes = {last} | {i for i, op in enumerate(ops) if op.name in _WORDS}
  for op in ops:
    if op.name.startswith(_READS):
      passes |= {a for a in op.args[:1] if isinstance(a, int) and a >= 0}
  # Into which passes a value flows; one that flows into several is one itself.
  flows: list[set[int]] = [set() for _ in ops]
  for index in range(last, -1, -1):
    if len(flows[index]) > 1:
      passes.add(index)
    into = {index} if index in passes else flows[index]
    for arg in ops[index].args:
      if isinstance(arg, int) and arg >= 0:
        flows[arg] |= into
  return sorted(passes)
