r"""The operations of a deployed network, each on values with images innermost.

A network is a list of operations, each of which takes values of operations before it
and named arrays. A value is [..., images]: the shape that it has for one image, and the
images last. Operations are those of `jax.lax` that may follow each other in a network
of images, and a few on packed words; all are written down by their name and by
parameters that JSON can hold, so that a network is data, and a file of it no program.

A compiler may compute :math:`a b + c` with one rounding where the network's own
operations, one by one, round twice, and may reorder products with constants. So
the bits of each float that is computed here pass an integer operation that changes nothing,

.. math:: y \leftarrow \mathrm{bits}^{-1}(\mathrm{bits}(y) \lor 0),

with a zero of which only the program knows that it is one (`unknown_zero`). (An
exclusive or would not do: a compiler cancels two of them.)
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any, NamedTuple, TypeAlias

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from bitjax import packed
from bitjax import types
from bitjax.deploy import _sums

__all__ = [
  'ELEMENTWISE',
  'NAMES',
  'PRODUCTS',
  'ROWS',
  'Op',
  'apart',
  'compute',
  'decoded',
  'in_rows',
  'unknown_zero',
]

Params: TypeAlias = tuple[tuple[str, Any], ...]

ROUNDED: dict[str, Callable[..., Any]] = {
  'add': lax.add,
  'sub': lax.sub,
  'mul': lax.mul,
  'div': lax.div,
  'square': lax.square,
}
ELEMENTWISE: dict[str, Callable[..., Any]] = ROUNDED | {
  'abs': lax.abs,
  'and': lax.bitwise_and,
  'ceil': lax.ceil,
  'clamp': lax.clamp,
  'eq': lax.eq,
  'floor': lax.floor,
  'ge': lax.ge,
  'gt': lax.gt,
  'is_finite': lax.is_finite,
  'le': lax.le,
  'lt': lax.lt,
  'max': lax.max,
  'min': lax.min,
  'ne': lax.ne,
  'neg': lax.neg,
  'not': lax.bitwise_not,
  'or': lax.bitwise_or,
  'round': lambda x, how: lax.round(x, lax.RoundingMethod(how)),
  'select_n': lax.select_n,
  'sign': lax.sign,
  'to': lambda x, dtype: lax.convert_element_type(x, np.dtype(dtype)),
}


class Op(NamedTuple):
  """An operation.

  Attributes:
    name: one of `NAMES`.
    args: what it takes: numbers of operations, -1 for the images; names of arrays;
      and floats.
    params: its parameters, as pairs; integers, strings and tuples of them.
  """

  name: str
  args: tuple[Any, ...]
  params: Params = ()


def unknown_zero(images: types.Array) -> types.Array:
  """Returns an int32 zero that no compiler knows to be one.

  Of three successive integers one is a multiple of 3, and so is their product; the
  first of them is taken from the bits of the first number of the images.
  """
  first = images.reshape(-1)[0]
  if first.dtype == np.float32:
    first = lax.bitcast_convert_type(first, np.int32)
  low = first.astype(np.int32) & 1023
  return lax.rem(low * (low + 1) * (low + 2), np.int32(3))


def compute(op: Op, args: list[Any], zero: types.Array | None) -> types.Array:
  """Returns the value of an operation.

  Args:
    op: the operation.
    args: values and arrays that it takes.
    zero: of `unknown_zero`, in a program of many operations; None where operations
      are computed one by one.
  """
  params = dict(op.params)
  if op.name in ELEMENTWISE:
    shape = jnp.broadcast_shapes(*map(jnp.shape, args))
    args = [jnp.broadcast_to(arg, shape) for arg in args]
    value = ELEMENTWISE[op.name](*args, **params)
    return _guarded(value, zero) if op.name in ROUNDED else value
  if op.name == 'conv' and zero is not None:
    x, kernel = args
    return _float_conv(x, kernel, zero, **params)
  if op.name in _FLOAT:
    return _in_front(_FLOAT[op.name], args, params, zero)
  value = _RULES[op.name](*args, **params)
  return _guarded(value, zero) if op.name == 'window_sum' else value


def _guarded(x, zero):
  if zero is None or x.dtype != np.float32:
    return x
  bits = lax.bitcast_convert_type(x, np.int32) | zero
  return lax.bitcast_convert_type(bits, np.float32)


def _broadcast(x, shape, axes):
  size = x.shape[-1]
  return lax.broadcast_in_dim(x, (*shape, size), (*axes, len(shape)))


def _reshape(x, shape):
  return x.reshape(*shape, x.shape[-1])


def _transpose(x, order):
  return lax.transpose(x, (*order, len(order)))


def _pad(x, value, edges):
  return lax.pad(x, value, (*edges, (0, 0, 0)))


def _slice(x, start, stop, strides):
  return lax.slice(x, (*start, 0), (*stop, x.shape[-1]), (*strides, 1))


def _concatenate(*parts, axis):
  size = max(part.shape[-1] for part in parts)
  whole = [jnp.broadcast_to(part, (*part.shape[:-1], size)) for part in parts]
  return lax.concatenate(whole, axis)


def _sum(x, axes):
  start = np.zeros((), x.dtype)
  return lax.reduce(x, start, lax.add, [axis + 1 for axis in axes])


def _window(kind, x, size, strides, padding):
  start = {'sum': 0.0, 'max': -np.inf}[kind]
  fn = {'sum': lax.add, 'max': lax.max}[kind]
  sizes, steps, edges = (*size, 1), (*strides, 1), (*padding, (0, 0))
  return lax.reduce_window(x, np.float32(start), fn, sizes, steps, edges)


def apart(
  zero: types.Array | None, function: Callable[..., Any], *args: Any
) -> Any:
  """Returns ``function(*args)``, computed in a pass of its own.

  It is a branch of which only the program knows that it is taken: what comes before
  and after is not fused with it, and arrays enter and leave in their usual layout.
  """
  if zero is None:
    return function(*args)
  shape = jax.eval_shape(function, *args)
  return lax.cond(
    zero == 0, function, lambda *_: jnp.zeros(shape.shape, shape.dtype), *args
  )


def _in_front(function, args, params, zero):
  """Returns sums of floats for images in front, where the network has them.

  How many sums are added in which order depends on how arrays lie in memory.
  """
  x, *rest = args
  rows = apart(zero, lambda x: jnp.moveaxis(x, -1, 0), x)
  found = apart(zero, functools.partial(function, **params), rows, *rest)
  return jnp.moveaxis(found, 0, -1)


def _float_conv(x, kernel, zero, strides, padding):
  """Convolves floats by XLA, or by what is faster on CPUs and equal to the bit."""
  params = {'strides': strides, 'padding': padding}

  def by_xla(x, kernel):
    return _in_front(_sums.by_xla, (x, kernel), params, zero)

  def written(x, kernel):
    own = functools.partial(_sums.conv, zero=zero, **params)
    return apart(zero, own, x, kernel)

  # Operations by themselves do not round a product and a sum once.
  compiled = not getattr(jax.config, 'jax_disable_jit')  # noqa: B009 - no stub has it.
  if compiled and _sums.same(x.shape[:-1], kernel.shape, strides, padding):
    return lax.platform_dependent(x, kernel, cpu=written, default=by_xla)
  return by_xla(x, kernel)


def _dense(x, kernel):
  return lax.dot(x, kernel, precision='highest')


def decoded(
  planes: types.Array, levels: types.Array, shape: tuple[int, ...]
) -> types.Array:
  """Returns weights of codes in bit planes, the first bit first."""
  size = int(np.prod(shape))
  bits = packed.unpack(planes, size, dtype=bool).astype(np.int32)
  weights = np.asarray([1 << n for n in range(planes.shape[0])], np.int32)
  codes = jnp.sum(bits * weights[:, None], 0).reshape(shape)
  if levels.ndim == 1:
    return levels[codes]
  return jnp.take_along_axis(levels, codes.reshape(-1, shape[-1]), 0).reshape(
    shape
  )


def _bits(x):
  """Packs booleans [..., channels, images] along the channels."""
  if x.shape[-2] != 16:
    return packed.pack(x, -2)
  # One pass over what the booleans are computed from; `packed.pack` takes two.
  axis, zero = x.ndim - 2, np.uint16(0)
  powers = np.array([1 << n for n in range(16)], np.uint16)
  powers = lax.broadcast_in_dim(powers, x.shape, (axis,))
  found = lax.reduce(jnp.where(x, powers, zero), zero, lax.bitwise_or, (axis,))
  return found[..., None, :]


def _binary_conv(
  x, kernel, *border, channels, strides, padding, pad_value, shape
):
  del shape
  sums = packed.conv(
    x,
    kernel,
    channels,
    strides=strides,
    padding=padding,
    pad_value=-1 if border else pad_value,
  )
  return sums + border[0] if border else sums


def _binary_dense(x, kernel, length):
  return packed.conv(x[None, None], kernel[None, None], length)[0, 0]


def _bytes_dense(x, kernel, length):
  return packed.matmul_bytes(x, kernel, length)


def in_rows(op: Op, args: list[Any]) -> types.Array:
  """Returns the value of an operation of `ROWS`, on values [images, ...].

  Its inputs and value are as `compute` has them, but for the place of the images. What
  a layer makes then lies as the next one reads it.
  """
  x, *rest = args
  if op.name == 'reshape':
    return x.reshape(x.shape[0], *dict(op.params)['shape'])
  if op.name == 'threshold':
    return packed.threshold(x, *rest)
  product = packed.matmul if op.name == 'binary_dense' else packed.matmul_bytes
  return product(x, rest[0], dict(op.params)['length'])


def _threshold(sums, low, flip):
  return packed.threshold(sums, low, flip, axis=-2)


def _flip(words, flip):
  """Turns the signs of channels in packed words."""
  turned = packed.pack(flip, 0, word=words.dtype)
  axis = words.ndim - 2
  return words ^ lax.broadcast_in_dim(turned, words.shape, (axis,))


def _max_bits(x, size, strides, padding):
  return packed.max_pool(x, size, strides=strides, padding=padding)


ROWS = ('reshape', 'bytes_dense', 'binary_dense', 'threshold')
PRODUCTS = ('conv', 'dense', 'binary_conv', 'binary_dense', 'bytes_dense')
_RULES: dict[str, Callable[..., Any]] = {
  'binary_conv': _binary_conv,
  'binary_dense': _binary_dense,
  'bits': _bits,
  'broadcast': _broadcast,
  'concatenate': _concatenate,
  'decode': decoded,
  'flip': _flip,
  'max_bits': _max_bits,
  'pad': _pad,
  'reduce_max': lambda x, axes: jnp.max(x, axes),
  'reduce_min': lambda x, axes: jnp.min(x, axes),
  'reshape': _reshape,
  'slice': _slice,
  'threshold': _threshold,
  'transpose': _transpose,
  'window_max': functools.partial(_window, 'max'),
  'window_sum': functools.partial(_window, 'sum'),
}
_FLOAT: dict[str, Callable[..., Any]] = {
  'bytes_dense': _bytes_dense,
  'conv': _sums.by_xla,
  'dense': _dense,
  'reduce_sum': _sum,
}
NAMES = frozenset({*ELEMENTWISE, *_RULES, *_FLOAT})
