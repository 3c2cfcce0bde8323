"""Traces a network into the operations that it binds, with all constants computed.

Whatever does not depend on the images is computed once, operation by operation:
quantized kernels, scales, the factors of normalisations. What is left are *nodes*, in
the order in which the network computes them. Each treats every image by itself, which
is checked by tracing for one image and for three: the first axis must stay theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any, TypeAlias

import jax
from jax.extend import core
import numpy as np

from bitjax import types
from bitjax.deploy import _images
from bitjax.deploy import _ops

__all__ = ['Atom', 'Constant', 'Node', 'trace']

# Primitives that change nothing.
_SAME = ('copy', 'copy_p', 'name', 'optimization_barrier', 'stop_gradient')
_DTYPES = ('bool', 'float32', 'int32', 'int8', 'uint8')


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
  """An array of a network.

  Attributes:
    value: the array.
    origin: path of the variable that it is made of, with slashes; '' for others.
    stored: whether it is that variable.
  """

  value: np.ndarray
  origin: str = ''
  stored: bool = False


@dataclasses.dataclass(eq=False)
class Node:
  """A value that depends on the images.

  Attributes:
    name: the operation, one of `_ops.NAMES`; 'images' for the images themselves.
    args: what it takes.
    params: its parameters.
    shape: shape for one image.
    dtype: its dtype.
    where: path of the module that computes it, with slashes; '' if unknown.
  """

  name: str
  args: tuple[Atom, ...]
  params: dict[str, Any]
  shape: tuple[int, ...]
  dtype: np.dtype
  where: str = ''


Atom: TypeAlias = Node | Constant


def trace(
  function: Callable[..., Any], variables: types.PyTree, images: Any
) -> tuple[Node, Node]:
  """Returns the images and the logits of a network as nodes.

  Args:
    function: maps variables and images to logits.
    variables: a tree of arrays.
    images: an array or ``jax.ShapeDtypeStruct``, [examples, ...].

  Raises:
    BadInput: if it computes what no operation does, or images depend on others.
  """
  one, three = (
    jax.ShapeDtypeStruct((count, *images.shape[1:]), images.dtype)
    for count in (1, _images.EXAMPLES)
  )
  # Functions under jit would else stay one step.
  with jax.disable_jit():
    closed, other = (
      jax.make_jaxpr(function)(variables, given) for given in (one, three)
    )
  _images.check_apart(closed, other)
  paths, leaves = _named(variables)
  given = [
    Constant(np.asarray(leaf), path, True)
    for path, leaf in zip(paths, leaves, strict=True)
  ]
  dtype = np.dtype(images.dtype)
  source = Node('images', (), {}, tuple(images.shape[1:]), dtype)
  outputs = _read(closed, [*given, source])
  if len(outputs) != 1 or not isinstance(outputs[0], Node):
    raise types.BadInput(
      'model must return logits that depend on the images, and nothing else.'
    )
  return source, outputs[0]


def _named(variables):
  found = jax.tree.leaves_with_path(variables)
  paths = [
    jax.tree_util.keystr(p, simple=True, separator='/') for p, _ in found
  ]
  return paths, [leaf for _, leaf in found]


def _read(closed, args, around=''):
  """Returns the outputs of a jaxpr, closed or not, of nodes and constants."""
  jaxpr = getattr(closed, 'jaxpr', closed)
  consts = [Constant(np.asarray(c)) for c in getattr(closed, 'consts', ())]
  known: dict[Any, Atom] = dict(
    zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True)
  )

  def read(atom):
    if isinstance(atom, core.Literal):
      return Constant(np.asarray(atom.val))
    return known[atom]

  for equation in jaxpr.eqns:
    taken = tuple(map(read, equation.invars))
    where = _images.where(equation) or around
    if not any(isinstance(atom, Node) for atom in taken):
      made: Sequence[Atom] = _folded(equation, taken)
    elif (body := _images.called(equation)) is not None:
      made = _read(body, taken, where)
    else:
      made = [_node(equation, taken, where)]
    known.update(zip(equation.outvars, made, strict=True))
  return [read(atom) for atom in jaxpr.outvars]


def _folded(equation, args):
  """Computes what depends on constants only."""
  origins = [a for a in args if a.origin]
  kernels = [a for a in origins if a.origin.endswith('kernel')]
  origin = next((a.origin for a in (*kernels, *origins)), '')
  if (body := _images.called(equation)) is not None:
    return _read(body, args)
  if equation.primitive.name in _SAME:
    return args
  wanted = [v for v in equation.outvars if type(v).__name__ != 'DropVar']
  if not wanted:
    return [Constant(np.zeros(())) for _ in equation.outvars]
  values = [np.asarray(a.value) for a in args]
  found = equation.primitive.bind(
    *map(jax.numpy.asarray, values), **equation.params
  )
  found = found if equation.primitive.multiple_results else [found]
  return [Constant(np.asarray(value), origin) for value in found]


def _node(equation, args, where):
  """Returns the node of an equation of which an argument depends on the images."""
  name, params = equation.primitive.name, equation.params
  (variable,) = equation.outvars[:1]
  shape, dtype = tuple(variable.aval.shape)[1:], np.dtype(variable.aval.dtype)
  if dtype.name not in _DTYPES:
    raise types.BadInput(
      f'{_images.place(where)} computes in {dtype}; a deployed network computes in float32: '
      'use a model without a dtype of its own, and float32 or uint8 images.'
    )
  first = args[0]
  if name in _SAME or (
    name == 'convert_element_type' and dtype == _dtype(first)
  ):
    return first
  if name in ('reshape', 'squeeze', 'expand_dims', 'broadcast_in_dim') and (
    _shape(first) == shape
  ):
    return first
  if name == 'pad' and not np.any(params['padding_config']):
    return first
  if name == 'mul' and (same := _times_one(args)) is not None:
    return same
  made = _translated(name, params, args, shape, dtype, where)
  if made is None or len(equation.outvars) > 1:
    raise types.BadInput(
      f'{_images.place(where)} computes {name}, which a deployed network cannot.'
    )
  name, args, params = made
  if name not in _ops.PRODUCTS:
    args = [_innermost(atom, name != 'concatenate') for atom in args]
  return Node(name, tuple(args), params, shape, dtype, where)


def _shape(atom):
  return atom.shape if isinstance(atom, Node) else atom.value.shape[1:]


def _dtype(atom):
  return atom.dtype if isinstance(atom, Node) else atom.value.dtype


def _times_one(args):
  """Returns what is multiplied by 1, if an argument is."""
  for value, other in (args, args[::-1]):
    if (
      isinstance(other, Constant)
      and other.value.shape == ()
      and other.value == 1
    ):
      return value
  return None


def _innermost(atom, narrow):
  """Returns a constant with an axis of images at the end instead of the beginning.

  Axes along which nothing changes may have size 1, and all may be left out.
  """
  if isinstance(atom, Node) or atom.value.ndim == 0:
    return atom
  value = atom.value[0]
  for axis in range(value.ndim if narrow else 0):
    first = value.take([0], axis)
    if np.array_equal(np.broadcast_to(first, value.shape), value):
      value = first
  value = value.reshape(()) if narrow and value.size == 1 else value[..., None]
  return dataclasses.replace(atom, value=value)


def _ints(value: Any) -> Any:
  """Returns a number, or nested numbers, as Python's integers and tuples."""
  if np.ndim(value) == 0:
    return int(value)
  return tuple(map(_ints, value))


def _translated(name, params, args, shape, dtype, where):
  """Returns name, arguments and parameters of an operation; None if there is none."""
  if name == 'convert_element_type':
    return 'to', args, {'dtype': dtype.name}
  if name == 'round':
    return 'round', args, {'how': int(params['rounding_method'])}
  if name == 'integer_pow' and params['y'] == 2:
    return 'square', args, {}
  if name in _ops.ELEMENTWISE:
    return name, args, {}
  if name == 'conv_general_dilated':
    return _conv(params, args, where)
  if name == 'dot_general':
    return _dense(params, args)
  moving = [isinstance(atom, Node) for atom in args]
  if not moving[0] and name != 'concatenate':
    return None
  if name in ('reshape', 'squeeze', 'expand_dims'):
    return 'reshape', args[:1], {'shape': shape}
  if name == 'broadcast_in_dim':
    axes = _ints(params['broadcast_dimensions'])
    if axes[0]:
      return None
    axes = tuple(axis - 1 for axis in axes[1:])
    return 'broadcast', args[:1], {'shape': shape, 'axes': axes}
  if name == 'transpose':
    order = _ints(params['permutation'])
    rest = tuple(axis - 1 for axis in order[1:])
    return None if order[0] else ('transpose', args, {'order': rest})
  if name == 'pad':
    edges = _ints(params['padding_config'])
    whole = moving[1] or any(edges[0])
    return None if whole else ('pad', args, {'edges': edges[1:]})
  if name == 'slice':
    start, stop = params['start_indices'], params['limit_indices']
    strides = params['strides'] or [1] * len(start)
    keys = {'start': start, 'stop': stop, 'strides': strides}
    return 'slice', args, {key: _ints(v)[1:] for key, v in keys.items()}
  if name == 'concatenate' and params['dimension']:
    return 'concatenate', args, {'axis': int(params['dimension']) - 1}
  if name in ('reduce_sum', 'reduce_max', 'reduce_min'):
    axes = _ints(params['axes'])
    axes = tuple(axis - 1 for axis in axes)
    return None if -1 in axes else (name, args, {'axes': axes})
  if name in ('reduce_window_sum', 'reduce_window_max'):
    return _window(name, params, args)
  return None


def _window(name, params, args):
  dilated = (*params['base_dilation'], *params['window_dilation'])
  size = _ints(params['window_dimensions'])
  if set(dilated) != {1} or size[0] != 1 or args[0].dtype != np.float32:
    return None
  found = {
    'size': size[1:],
    'strides': _ints(params['window_strides'])[1:],
    'padding': _ints(params['padding'])[1:],
  }
  return name.removeprefix('reduce_'), args, found


def _conv(params, args, where):
  images, kernel = args
  numbers = params['dimension_numbers']
  plain = (
    isinstance(images, Node)
    and isinstance(kernel, Constant)
    and kernel.value.ndim == 4
    and tuple(numbers) == ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
    and params['feature_group_count'] == params['batch_group_count'] == 1
    and {*params['lhs_dilation'], *params['rhs_dilation']} == {1}
  )
  if not plain:
    raise types.BadInput(
      f'{_images.place(where)} is a convolution that a deployed network cannot compute: '
      'it must be of images, without groups and dilations.'
    )
  found = {
    'strides': _ints(params['window_strides']),
    'padding': _ints(params['padding']),
  }
  return 'conv', args, found


def _dense(params, args):
  x, kernel = args
  contracted, batched = params['dimension_numbers']
  plain = (
    isinstance(x, Node)
    and isinstance(kernel, Constant)
    and len(x.shape) == 1
    and kernel.value.ndim == 2
    and _ints(contracted) == ((1,), (0,))
    and not any(batched)
  )
  return ('dense', args, {}) if plain else None
