"""Whether parts of a traced model treat each entry, or each example, by itself.

The values of the model that depend on what a view replaces are said to *move*. They have
the axis of examples first. Other values are constants of the view.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
import dataclasses
from typing import Any

from jax.extend import core
import jax.numpy as jnp

from bitjax.nn import _graph

__all__ = [
  'OWN_DERIVATIVES',
  'Facts',
  'channels',
  'is_examplewise',
  'is_pointwise',
  'narrow',
]

# Primitives that compute each entry from the same entries of their arguments.
_NAMES = (
  'abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp '
  'convert_element_type copy cos cosh div eq erf erfc exp exp2 expm1 floor ge '
  'gt integer_pow is_finite le log log1p logistic lt max min mul name ne neg '
  'nextafter not or pow reduce_precision rem round rsqrt select_n sign sin sinh '
  'sqrt square stop_gradient sub tan tanh xor'
)
_POINTWISE = frozenset(_NAMES.split())
_CALLS = ('jit', 'pjit', 'closed_call', 'custom_jvp_call', 'custom_vjp_call')
OWN_DERIVATIVES = ('custom_jvp_call', 'custom_vjp_call')


@dataclasses.dataclass(frozen=True)
class Facts:
  """What is known of the values of a graph.

  Attributes:
    examples: number of examples.
    moving: the values that depend on what a view replaces.
    varying: the values that depend on the batch.
  """

  examples: int
  moving: Collection[_graph.Value]
  varying: Collection[_graph.Value]

  def moves(self, atom: _graph.Atom) -> bool:
    """Whether a value depends on what a view replaces."""
    return isinstance(atom, _graph.Value) and atom in self.moving

  def sources(self, value: _graph.Value) -> list[_graph.Value]:
    """Returns the moving values that a value is computed from."""
    values = [a for a in value.args if isinstance(a, _graph.Value)]
    return [*dict.fromkeys(a for a in values if a in self.moving)]

  def differs(self, atom: _graph.Atom) -> bool:
    """Whether a constant, broadcast against [examples, ...], differs between examples."""
    base, shape = narrow(atom)
    varies = isinstance(base, _graph.Value) and base in self.varying
    return shape[:1] == (self.examples,) and (varies or self.examples > 1)


def narrow(atom: _graph.Atom) -> tuple[_graph.Atom, tuple[int, ...]]:
  """Returns a constant before it was broadcast, and its shape with ones instead."""
  if isinstance(atom, _graph.Literal) or atom.primitive != 'broadcast_in_dim':
    return atom, atom.aval.shape
  base, inner = narrow(atom.args[0])
  shape = [1] * len(atom.aval.shape)
  for size, axis in zip(
    inner, atom.params['broadcast_dimensions'], strict=True
  ):
    shape[axis] = size
  return base, tuple(shape)


def is_pointwise(value: _graph.Value, facts: Facts) -> bool:
  """Whether each entry is computed from one entry of moving values, alike in a channel."""
  equation = value.equation
  if equation is None:
    return False
  shape = value.aval.shape
  for atom in equation.args:
    if facts.moves(atom):
      if atom.aval.shape != shape:
        return False
    elif not _even(narrow(atom)[1]) or facts.differs(atom):
      return False
  if _rounds(value, facts):
    return False
  if equation.name in OWN_DERIVATIVES:
    moving = [facts.moves(atom) for atom in equation.args]
    return _calls_pointwise(equation.params['call_jaxpr'], moving, shape)
  return equation.name in _POINTWISE


def _even(shape):
  return all(size == 1 for size in shape[:-1])


def _rounds(value, facts):
  """Whether a primitive turns floating numbers into those of another dtype."""
  kinds = {
    atom.aval.dtype
    for atom in (value, *facts.sources(value))
    if jnp.issubdtype(atom.aval.dtype, jnp.inexact)
  }
  return len(kinds) > 1


def _calls_pointwise(closed, moving, shape):
  """Whether a function's only output is computed pointwise from moving arguments."""
  jaxpr = getattr(closed, 'jaxpr', closed)
  found = {v for v, m in zip(jaxpr.invars, moving, strict=True) if m}
  for equation in jaxpr.eqns:
    name, params = equation.primitive.name, equation.params
    flags = [
      not isinstance(atom, core.Literal) and atom in found
      for atom in equation.invars
    ]
    taken = zip(equation.invars, flags, strict=True)
    if any(atom.aval.shape != shape for atom, m in taken if m):
      return False
    if name in _CALLS:
      body = params['jaxpr' if 'jaxpr' in params else 'call_jaxpr']
      known = _calls_pointwise(body, flags, shape)
    elif name == 'broadcast_in_dim' and not any(flags):
      operand, axes = equation.invars[0].aval, params['broadcast_dimensions']
      last = len(params['shape']) - 1
      known = operand.size == 1 or (
        _even(operand.shape) and axes[-1:] == (last,)
      )
    else:
      known = name in _POINTWISE
    if not known:
      return False
    if any(flags):
      found.update(equation.outvars)
  return len(jaxpr.outvars) == 1 and jaxpr.outvars[0].aval.shape == shape


def is_examplewise(value: _graph.Value, facts: Facts) -> bool:
  """Whether each example is computed from the same example of moving values."""
  equation, count = value.equation, facts.examples
  if equation is None or _rounds(value, facts):
    return False
  if is_pointwise(value, facts):
    return True
  moving = [facts.moves(atom) for atom in equation.args]
  inside = [a for a, m in zip(equation.args, moving, strict=True) if m]
  if any(v.aval.shape[:1] != (count,) for v in (value, *inside)):
    return False
  if equation.name in (*_POINTWISE, 'concatenate') and any(
    facts.differs(a)
    for a, m in zip(equation.args, moving, strict=True)
    if not m
  ):
    return False
  if equation.name in _POINTWISE:
    return True
  keeps = _EXAMPLEWISE.get(equation.name)
  return keeps is not None and bool(keeps(equation.params, moving))


def channels(values: Iterable[_graph.Value], facts: Facts) -> str:
  """Returns what values that are examplewise do with the channels, as `scans.Examplewise`.

  It is known of pooling, cropping and padding of positions.
  """
  kinds = {_channels(value, facts) for value in values}
  if 'mixed' in kinds:
    return 'mixed'
  return 'chosen' if kinds == {'chosen'} else 'apart'


def _channels(value, facts):
  """Returns what one value does with the channels, on the last axis."""
  if is_pointwise(value, facts):
    return 'apart'
  name, params, last = value.primitive, value.params, value.aval.ndim - 1
  if name.startswith('reduce_window_'):
    names = 'window_dimensions window_strides base_dilation window_dilation'
    ones = all(params[n][last] == 1 for n in names.split())
    if not ones or tuple(params['padding'][last]) != (0, 0):
      return 'mixed'
    return 'apart' if name == 'reduce_window_sum' else 'chosen'
  if name == 'slice':
    (source,) = facts.sources(value)
    same = value.aval.shape[last] == source.aval.shape[last]
    return 'chosen' if same else 'mixed'
  if name == 'pad' and tuple(params['padding_config'][last]) == (0, 0, 0):
    return 'apart'
  return 'mixed'


def _first_only(moving):
  return moving[0] and not any(moving[1:])


def _keeps_window(params, moving):
  names = 'window_dimensions window_strides base_dilation window_dilation'
  ones = all(params[name][0] == 1 for name in names.split())
  return _first_only(moving) and ones and tuple(params['padding'][0]) == (0, 0)


def _keeps_product(params, moving):
  (contracted, _), (batch, _) = params['dimension_numbers']
  return _first_only(moving) and 0 not in contracted and not batch


def _keeps_convolution(params, moving):
  numbers = params['dimension_numbers']
  first = numbers.lhs_spec[0] == numbers.out_spec[0] == 0
  return _first_only(moving) and first and params['batch_group_count'] == 1


def _keeps_reduced(params, moving):
  del moving
  return 0 not in params['axes']


def _keeps_slice(params, moving):
  del moving
  strides = params['strides']
  return params['start_indices'][0] == 0 and (
    strides is None or strides[0] == 1
  )


# Whether primitives keep the examples apart, given that their inputs and outputs have the
# axis of examples first; by their parameters and which of their arguments move.
_EXAMPLEWISE: dict[str, Callable[[Any, Sequence[bool]], bool]] = {
  **dict.fromkeys(
    ('reduce_window_max', 'reduce_window_min', 'reduce_window_sum'),
    _keeps_window,
  ),
  **dict.fromkeys(
    ('reduce_sum', 'reduce_max', 'reduce_min', 'reduce_prod'), _keeps_reduced
  ),
  'pad': lambda params, moving: (
    _first_only(moving) and tuple(params['padding_config'][0]) == (0, 0, 0)
  ),
  'reshape': lambda params, moving: params['dimensions'] is None,
  'squeeze': lambda params, moving: 0 not in params['dimensions'],
  'broadcast_in_dim': lambda params, moving: (
    params['broadcast_dimensions'][:1] == (0,)
  ),
  'transpose': lambda params, moving: params['permutation'][0] == 0,
  'rev': lambda params, moving: 0 not in params['dimensions'],
  'concatenate': lambda params, moving: params['dimension'] != 0,
  'slice': _keeps_slice,
  'dot_general': _keeps_product,
  'conv_general_dilated': _keeps_convolution,
}
