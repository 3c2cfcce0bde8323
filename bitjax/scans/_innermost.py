"""Computes a function of each example by itself with the examples innermost.

`jax.vmap` moves the axis of examples to the front for some primitives, such as windows
that slide over an image, and transposing all images costs more than a small layer. So the
function is traced for one example, and those primitives get an axis more at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

from bitjax import types

__all__ = ['mapped']

_WINDOWS = ('reduce_window_sum', 'reduce_window_max', 'reduce_window_min')


def mapped(
  fn: Callable[[types.Array], types.Array], x: types.Array
) -> types.Array:
  """Returns ``fn`` of each example.

  Args:
    fn: a function of each example by itself, [examples, ...] to [examples, ...].
    x: its inputs, [..., examples].

  Returns:
    Its outputs, [..., examples].
  """
  one = jax.ShapeDtypeStruct((1, *x.shape[:-1]), x.dtype)
  traced = jax.make_jaxpr(fn)(one)
  (y,) = _evaluate(traced.jaxpr, traced.consts, [(x[None], True)])
  return y[0]


def _evaluate(jaxpr, consts, args):
  """Returns the outputs of a jaxpr; each argument is a value, and whether it is mapped."""
  known = {
    variable: (value, False)
    for variable, value in zip(jaxpr.constvars, consts, strict=True)
  }
  known |= dict(zip(jaxpr.invars, args, strict=True))
  size = next(value.shape[-1] for value, is_mapped in args if is_mapped)

  def read(atom):
    return (atom.val, False) if isinstance(atom, core.Literal) else known[atom]

  for equation in jaxpr.eqns:
    inputs = [read(atom) for atom in equation.invars]
    if any(is_mapped for _, is_mapped in inputs):
      found = [(y, True) for y in _mapped(jaxpr, equation, inputs)]
    else:
      values = [value for value, _ in inputs]
      found = [(y, False) for y in _computed(jaxpr, equation, *values)]
    known |= dict(zip(equation.outvars, found, strict=True))
  return [
    value
    if is_mapped
    else jax.lax.broadcast_in_dim(
      value, (*value.shape, size), range(value.ndim)
    )
    for value, is_mapped in map(read, jaxpr.outvars)
  ]


def _mapped(around, equation, inputs):
  """Returns the outputs of an equation of a jaxpr, [..., examples]."""
  name, params = equation.primitive.name, equation.params
  x, *_ = (value for value, is_mapped in inputs if is_mapped)
  called: Any = params.get('jaxpr', params.get('call_jaxpr'))
  if called is not None and name != 'while':
    consts = getattr(called, 'consts', ())
    return _evaluate(getattr(called, 'jaxpr', called), consts, inputs)
  if name in _WINDOWS:
    ones = ('window_dimensions', 'window_strides', 'base_dilation')
    more = {key: (*params[key], 1) for key in (*ones, 'window_dilation')}
    padding = (*params['padding'], (0, 0))
    params = {**params, **more, 'padding': padding}
    return [equation.primitive.bind(x, **params)]
  if name == 'reshape' and params['dimensions'] is None:
    return [x.reshape(*params['new_sizes'], x.shape[-1])]
  if name == 'broadcast_in_dim' and len(inputs) == 1:
    shape, axes = params['shape'], params['broadcast_dimensions']
    return [
      jax.lax.broadcast_in_dim(x, (*shape, x.shape[-1]), (*axes, len(shape)))
    ]
  axes = [-1 if is_mapped else None for _, is_mapped in inputs]
  values = [value for value, _ in inputs]
  return jax.vmap(lambda *args: _computed(around, equation, *args), axes, -1)(
    *values
  )


def _computed(around, equation, *values):
  """Returns the outputs of an equation for the values of its inputs."""
  variables, given = [], []
  for atom, value in zip(equation.invars, values, strict=True):
    if not isinstance(atom, core.Literal) and atom not in variables:
      variables.append(atom)
      given.append(value)
  alone = around.replace(
    constvars=[], invars=variables, outvars=equation.outvars, eqns=[equation]
  )
  return core.jaxpr_as_fun(core.ClosedJaxpr(alone, ()))(*given)
