"""Writes a packed network as an ONNX graph, with quantizers of QONNX or without.

Each operation becomes those of ONNX that compute the same, on images in front: values are
[images, ...] in the order of the model, and convolutions and pooling are between two
transpositions. Signs are ±1 in float32. There are two styles:

- ``'qonnx'``: signs and ±1 weights are ``BipolarQuant`` nodes of QONNX's domain, and weights
  of few levels on an even grid are ``Quant`` nodes.
- ``'plain'``: signs are comparisons, and weights of few levels 8-bit integers (one byte a
  weight) that are cast, times their step.

Sums of ±1 values are integers below 2^24, exact in float32 in any order. A threshold of
integers becomes one midway between two of them, so that no rounding decides it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import importlib
from typing import Any

import numpy as np

from bitjax import packed
from bitjax import types
from bitjax.deploy import _kernels
from bitjax.deploy import _network
from bitjax.deploy import _ops

__all__ = ['STYLES', 'build']

STYLES = ('qonnx', 'plain')
_DOMAIN = 'qonnx.custom_op.general'
_OPSET = 17
_SUMS = ('binary_conv', 'binary_dense', 'bytes_dense')
_SAME = {
  'abs': 'Abs',
  'add': 'Add',
  'and': 'And',
  'ceil': 'Ceil',
  'div': 'Div',
  'eq': 'Equal',
  'floor': 'Floor',
  'ge': 'GreaterOrEqual',
  'gt': 'Greater',
  'le': 'LessOrEqual',
  'lt': 'Less',
  'max': 'Max',
  'min': 'Min',
  'mul': 'Mul',
  'neg': 'Neg',
  'not': 'Not',
  'or': 'Or',
  'sign': 'Sign',
  'sub': 'Sub',
}


def build(network: _network.Network, style: str, batch: int | None) -> Any:
  """Returns an ``onnx.ModelProto`` of a network.

  Args:
    network: the network.
    style: one of `STYLES`.
    batch: number of images; None for any.

  Raises:
    BadInput: for an operation that this cannot write.
  """
  return _Writer(network, style).model(batch)


class _Writer:
  """Writes nodes; values are their names."""

  def __init__(self, network, style):
    self._onnx = importlib.import_module('onnx')
    self._network, self._style = network, style
    self._nodes: list[Any] = []
    self._arrays: dict[str, np.ndarray] = {}
    self._values: dict[int, str] = {-1: 'images'}
    # Integers in the network that are float32 in the graph.
    self._sums = {i for i, op in enumerate(network.ops) if op.name in _SUMS}

  def model(self, batch):
    """Returns the model of the whole network."""
    onnx, network = self._onnx, self._network
    for number, op in enumerate(network.ops):
      self._values[number] = self._written(number, op)
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(network.dtype))
    size = 'images_number' if batch is None else batch
    last = self._values[len(network.ops) - 1]
    self._nodes.append(onnx.helper.make_node('Identity', [last], ['logits']))
    classes = _shape(network)[-1]
    values = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
      self._nodes,
      'bitjax',
      [values('images', kind, [size, *network.shape])],
      [values('logits', onnx.TensorProto.FLOAT, [size, classes])],
      [onnx.numpy_helper.from_array(v, k) for k, v in self._arrays.items()],
    )
    domains = [onnx.helper.make_opsetid('', _OPSET)]
    if self._style == 'qonnx':
      domains.append(onnx.helper.make_opsetid(_DOMAIN, 1))
    return onnx.helper.make_model(
      graph, opset_imports=domains, producer_name='bitjax', ir_version=8
    )

  def _node(self, kind, inputs, domain='', **attributes):
    name = f'{kind}_{len(self._nodes)}'
    node = self._onnx.helper.make_node(
      kind, list(inputs), [name], name=name, domain=domain, **attributes
    )
    self._nodes.append(node)
    return name

  def _array(self, value, name='constant', dtype=np.float32):
    name = f'{name}_{len(self._arrays)}'
    self._arrays[name] = np.ascontiguousarray(value, dtype)
    return name

  def _integers(self, values):
    return self._array(values, 'integers', np.int64)

  def _argument(self, arg):
    """Returns the value of an argument; arrays with images in front."""
    if isinstance(arg, int):
      return self._values[arg]
    if isinstance(arg, float):
      return self._array(arg)
    value = np.asarray(self._network.arrays[arg])
    value = np.moveaxis(value, -1, 0) if value.ndim else value
    return self._array(value, arg, value.dtype)

  def _written(self, number, op):
    """Writes an operation; returns the name of its value."""
    params = dict(op.params)
    if op.name in _SAME:
      return self._node(_SAME[op.name], map(self._argument, op.args))
    rule: Callable[..., str] | None = getattr(self, f'_{op.name}', None)
    if rule is None or op.name not in _ops.NAMES:
      raise types.BadInput(
        f'ONNX export does not know the operation {op.name}.'
      )
    return rule(op.args, **params)

  # Elementwise.

  def _square(self, args):
    x = self._argument(args[0])
    return self._node('Mul', [x, x])

  def _ne(self, args):
    return self._node('Not', [self._node('Equal', map(self._argument, args))])

  def _clamp(self, args):
    low, x, high = map(self._argument, args)
    return self._node('Min', [self._node('Max', [x, low]), high])

  def _round(self, args, how):
    x = self._argument(args[0])
    if how == 1:
      return self._node('Round', [x])
    half = self._node('Add', [self._node('Abs', [x]), self._array(0.5)])
    sign = self._node('Sign', [x])
    return self._node('Mul', [sign, self._node('Floor', [half])])

  def _select_n(self, args):
    which, no, yes = map(self._argument, args)
    return self._node('Where', [which, yes, no])

  def _to(self, args, dtype):
    x = self._argument(args[0])
    if dtype == 'float32' and args[0] in self._sums:
      return x
    kind = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return self._node('Cast', [x], to=kind)

  # Shapes.

  def _reshape(self, args, shape):
    x = self._argument(args[0])
    return self._node('Reshape', [x, self._integers([-1, *shape])])

  def _broadcast(self, args, shape, axes):
    x = self._argument(args[0])
    sizes = [shape[i] if i in axes else 1 for i in range(len(shape))]
    x = self._node('Reshape', [x, self._integers([-1, *sizes])])
    return self._node('Expand', [x, self._integers([1, *shape])])

  def _transpose(self, args, order):
    x = self._argument(args[0])
    return self._node('Transpose', [x], perm=[0, *(i + 1 for i in order)])

  def _pad(self, args, edges):
    if any(inner or min(low, high) < 0 for low, high, inner in edges):
      raise types.BadInput(
        'ONNX export does not know padding inside or below 0.'
      )
    x, value = map(self._argument, args)
    return self._padded(x, value, edges)

  def _padded(self, x, value, edges):
    lows, highs = ([0, *(edge[i] for edge in edges)] for i in (0, 1))
    return self._node('Pad', [x, self._integers([*lows, *highs]), value])

  def _slice(self, args, start, stop, strides):
    x = self._argument(args[0])
    axes = range(1, len(start) + 1)
    rest = [self._integers(list(v)) for v in (start, stop, axes, strides)]
    return self._node('Slice', [x, *rest])

  def _concatenate(self, args, axis):
    if any(isinstance(arg, str) for arg in args):
      raise types.BadInput('ONNX export does not know joining constants.')
    return self._node('Concat', map(self._argument, args), axis=axis + 1)

  # Sums and windows.

  def _reduce_sum(self, args, axes):
    x, places = self._argument(args[0]), [axis + 1 for axis in axes]
    return self._node('ReduceSum', [x, self._integers(places)], keepdims=0)

  def _reduce_max(self, args, axes, kind='ReduceMax'):
    places = [axis + 1 for axis in axes]
    x = self._argument(args[0])
    return self._node(kind, [x], axes=places, keepdims=0)

  def _reduce_min(self, args, axes):
    return self._reduce_max(args, axes, 'ReduceMin')

  def _window_max(self, args, size, strides, padding):
    return self._pooled('MaxPool', args, size, strides, padding)

  _max_bits = _window_max

  def _window_sum(self, args, size, strides, padding):
    # Means include the padding, so that each is a sum by the same number.
    mean = self._pooled(
      'AveragePool', args, size, strides, padding, count_include_pad=1
    )
    return self._node('Mul', [mean, self._array(np.prod(size[:2]))])

  def _pooled(self, kind, args, size, strides, padding, **more):
    _check_window(size, strides, padding)
    more |= {'kernel_shape': size[:2], 'strides': strides[:2]}
    more |= {'pads': _pads(padding)}
    return self._channels_first(
      self._argument(args[0]), lambda x: self._node(kind, [x], **more)
    )

  def _channels_first(self, x, function):
    x = self._node('Transpose', [x], perm=[0, 3, 1, 2])
    return self._node('Transpose', [function(x)], perm=[0, 2, 3, 1])

  # Signs and thresholds.

  def _bipolar(self, x):
    """Returns the sign of numbers."""
    if self._style == 'qonnx':
      return self._node('BipolarQuant', [x, self._array(1.0)], _DOMAIN)
    return self._chosen(self._node('GreaterOrEqual', [x, self._array(0.0)]))

  def _chosen(self, booleans):
    return self._node('Where', [booleans, self._array(1.0), self._array(-1.0)])

  def _bits(self, args):
    op = self._network.ops[args[0]]
    if op.name == 'ge' and op.args[1] == 0.0 and isinstance(op.args[0], int):
      return self._bipolar(self._values[op.args[0]])
    return self._chosen(self._argument(args[0]))

  def _threshold(self, args, *, axis=None):
    del axis
    arrays = self._network.arrays
    low, flip = (np.asarray(arrays[name]) for name in args[1:])
    middle = self._array(low.astype(np.float32) - np.float32(0.5), args[1])
    x = self._node('Sub', [self._argument(args[0]), middle])
    if flip.any():
      turned = self._array(np.where(flip, -1.0, 1.0), args[2])
      x = self._node('Mul', [x, turned])
    return self._bipolar(x)

  def _flip(self, args):
    flip = np.asarray(self._network.arrays[args[1]])
    turned = self._array(np.where(flip, -1.0, 1.0), args[1])
    return self._node('Mul', [self._argument(args[0]), turned])

  # Products.

  def _weights(self, codes, step, name):
    """Returns weights ``codes * step``, for integer codes [..., features].

    Those of convolutions get their features in front, as ONNX has them.
    """
    step = np.asarray(step, np.float32)
    if codes.ndim == 4:
      codes, step = _kernels.first(codes), step.reshape(-1, 1, 1, 1)
    binary = bool((np.abs(codes) == 1).all())
    if self._style == 'plain':
      kind = self._onnx.TensorProto.FLOAT
      held = self._array(codes, name, np.int8)
      value = self._node('Cast', [held], to=kind)
      unit = bool((step == 1).all())
      return value if unit else self._node('Mul', [value, self._array(step)])
    held = self._array(codes.astype(np.float32) * step, name)
    if binary:
      return self._node('BipolarQuant', [held, self._array(step)], _DOMAIN)
    bits, narrow = _kernels.bits(codes)
    rest = [self._array(value) for value in (step, 0.0, bits)]
    return self._node(
      'Quant',
      [held, *rest],
      _DOMAIN,
      signed=1,
      narrow=narrow,
      rounding_mode='ROUND',
    )

  def _decode(self, args, shape):
    arrays = self._network.arrays
    planes, levels = (arrays[name] for name in args)
    weights = np.asarray(_ops.decoded(planes, levels, shape))
    grid = _kernels.grid(weights)
    if grid is None:
      return self._array(_kernels.first(weights), args[0])
    return self._weights(*grid, args[0])

  def _signed(self, name, length, axis):
    words = self._network.arrays[name]
    codes = np.asarray(packed.unpack(words, length, axis, dtype=np.int8))
    return self._weights(codes, 1.0, name)

  def _binary_conv(self, args, channels, strides, padding, pad_value, shape):
    del shape
    x = self._argument(args[0])
    if pad_value and np.any(padding):
      value = self._array(float(pad_value))
      x = self._padded(x, value, (*padding, (0, 0)))
      padding = ((0, 0), (0, 0))
    kernel = self._signed(args[1], channels, 2)
    return self._convolution(x, kernel, strides, padding)

  def _conv(self, args, strides, padding):
    x, kernel = self._argument(args[0]), self._kernel(args[1])
    return self._convolution(x, kernel, strides, padding)

  def _convolution(self, x, kernel, strides, padding):
    return self._channels_first(
      x,
      lambda x: self._node(
        'Conv', [x, kernel], strides=list(strides), pads=_pads(padding)
      ),
    )

  def _kernel(self, arg):
    if isinstance(arg, int):
      return self._values[arg]
    return self._array(
      _kernels.first(np.asarray(self._network.arrays[arg])), arg
    )

  def _dense(self, args):
    return self._node(
      'MatMul', [self._argument(args[0]), self._kernel(args[1])]
    )

  def _binary_dense(self, args, length):
    kernel = self._signed(args[1], length, 0)
    return self._node('MatMul', [self._argument(args[0]), kernel])

  def _bytes_dense(self, args, length):
    float32 = self._onnx.TensorProto.FLOAT
    x = self._node('Cast', [self._argument(args[0])], to=float32)
    return self._node('MatMul', [x, self._signed(args[1], length, 0)])


def _pads(padding: Sequence[Sequence[int]]) -> list[int]:
  (top, bottom), (left, right) = padding[:2]
  return [top, left, bottom, right]


def _check_window(size, strides, padding):
  rest = [part[2:] for part in (size, strides, padding)]
  if rest not in ([(), (), ()], [(1,), (1,), ((0, 0),)]):
    raise types.BadInput('ONNX export knows windows of rows and columns only.')


def _shape(network):
  import jax

  images = jax.ShapeDtypeStruct((1, *network.shape), network.dtype)
  return jax.eval_shape(network, images).shape
