"""Computes a part of a traced model again, for any number of examples.

Such a part begins with one value and ends with another, [examples, ...] each. It binds
the primitives that the model binds, so that ties are decided as the model decides them,
and derivatives are the model's. Where shapes are written into a primitive, that of the
examples is replaced. A function with derivatives of its own cannot be changed so: it is
applied to groups of as many examples as were traced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import types
from bitjax.nn import _apart
from bitjax.nn import _graph

__all__ = ['Replay', 'replay']

# The parameters that say how many examples there are.
_SIZES = {
  'reshape': 'new_sizes',
  'broadcast_in_dim': 'shape',
  'slice': 'limit_indices',
}


class _Params(dict):
  """Parameters of a primitive; equal if all are, and if each can be compared."""

  def __hash__(self):
    return hash(self._key)

  def __eq__(self, other):
    return isinstance(other, _Params) and self._key == other._key

  @property
  def _key(self):
    key = tuple(sorted(self.items()))
    try:
      hash(key)
    except TypeError:
      return id(self)
    return key


@dataclasses.dataclass(frozen=True)
class _Number:
  """A number that is written into a program."""

  bytes: bytes
  dtype: np.dtype

  @property
  def value(self):
    return np.frombuffer(self.bytes, self.dtype)[0]


@dataclasses.dataclass(frozen=True)
class _Constant:
  """A constant of a replay: its index, and the shape that it is broadcast to."""

  index: int
  shape: tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class _Result:
  """The result of a step, by its index; -1 for the input."""

  index: int


_Argument: TypeAlias = _Number | _Constant | _Result


@dataclasses.dataclass(frozen=True)
class _Step:
  """A primitive applied to arguments; two are equal if they compute the same."""

  primitive: str
  params: _Params
  args: tuple[_Argument, ...]
  equation: _graph.Equation = dataclasses.field(compare=False)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Replay:
  """A callable pytree that computes a part of a model.

  Attributes:
    steps: what it computes, in order.
    examples: the number of examples with which it was traced.
    constants: arrays that it computes with, without an axis of examples.
  """

  steps: tuple[_Step, ...] = dataclasses.field(metadata={'static': True})
  examples: int = dataclasses.field(metadata={'static': True})
  constants: tuple[types.Array, ...]

  def __call__(self, x: types.Array) -> types.Array:
    """Maps [examples, ...] to [examples, ...], for any number of examples."""
    count, size = x.shape[0], self.examples
    fixed = any(s.primitive in _apart.OWN_DERIVATIVES for s in self.steps)
    if count == size or not fixed:
      return self._run(x)
    more = [(0, -count % size), *[(0, 0)] * (x.ndim - 1)]
    x = jnp.pad(x, more, 'edge' if count else 'constant')
    y = jax.vmap(self._run)(x.reshape(-1, size, *x.shape[1:]))
    return y.reshape(-1, *y.shape[2:])[:count]

  def __repr__(self) -> str:
    """Returns the names of its primitives."""
    return f'Replay({", ".join(step.primitive for step in self.steps)})'

  def _run(self, x):
    results: list[Any] = []

    def read(argument):
      if isinstance(argument, _Number):
        return argument.value
      if isinstance(argument, _Result):
        return x if argument.index < 0 else results[argument.index]
      constant = self.constants[argument.index]
      if argument.shape is None:
        return constant
      return jnp.broadcast_to(constant, (x.shape[0], *argument.shape[1:]))

    for step in self.steps:
      changed = {}
      if (size := _SIZES.get(step.primitive)) is not None:
        changed = {size: (x.shape[0], *step.params[size][1:])}
      args = [read(argument) for argument in step.args]
      results += step.equation(args, **changed)
    return results[-1]


def replay(
  values: Sequence[_graph.Value], source: _graph.Value, facts: _apart.Facts
) -> tuple[list[_graph.Atom], Callable[[Sequence[types.Array]], Replay]]:
  """Returns constants of the graph, and a function of their arrays that makes a replay.

  Args:
    values: what is computed from ``source``, in order; each satisfies `is_examplewise`.
    source: the input.
    facts: what is known of the graph.
  """
  constants: list[_graph.Atom] = []
  shapes: list[tuple[int, ...]] = []
  steps: list[_Step] = []
  found: dict[_graph.Value, _Argument] = {source: _Result(-1)}

  def argument(atom):
    if isinstance(atom, _graph.Literal):
      number = np.asarray(atom.value)
      return _Number(number.tobytes(), number.dtype)
    if facts.moves(atom):
      return found[atom]
    base, shape = _apart.narrow(atom)
    constants.append(base)
    shapes.append(shape)
    whole = atom.aval.shape
    return _Constant(len(shapes) - 1, None if whole == shape else whole)

  for value in values:
    equation: Any = value.equation
    args = tuple(map(argument, equation.args))
    if equation.name == 'name':
      (found[value],) = args
      continue
    params = _Params(equation.params)
    steps.append(_Step(equation.name, params, args, equation))
    found[value] = _Result(len(steps) - 1)

  def make(arrays):
    reshaped = [
      jnp.reshape(array, shape)
      for array, shape in zip(arrays, shapes, strict=True)
    ]
    return Replay(tuple(steps), facts.examples, tuple(reshaped))

  return constants, make
