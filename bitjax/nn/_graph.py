"""A traced function as a graph of values, of which some can be computed by themselves.

Functions under ``jit`` or ``checkpoint`` are looked into; loops and functions with
derivatives of their own stay single steps. Values are numbered in the order in which
they are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple, TypeAlias

import jax
from jax.extend import core
import jax.numpy as jnp

from bitjax import types

__all__ = ['Atom', 'Equation', 'Graph', 'Literal', 'Value', 'trace']

# Primitives that only call the functions that they hold.
_CALLS = ('jit', 'pjit', 'closed_call', 'remat', 'remat2', 'checkpoint')


@dataclasses.dataclass(frozen=True, eq=False)
class Equation:
  """A primitive applied to values.

  Attributes:
    args: values and literals that it takes.
    traced: the equation that was traced.
    around: the jaxpr that it is part of.
    where: path of the module that computes it, with slashes; '' if unknown.
  """

  args: tuple[Atom, ...]
  traced: core.JaxprEqn
  around: core.Jaxpr
  where: str

  @property
  def name(self) -> str:
    """Name of the primitive."""
    return self.traced.primitive.name

  @property
  def params(self) -> dict[str, Any]:
    """Parameters of the primitive."""
    return self.traced.params

  def __call__(self, args: Sequence[Any], **changed: Any) -> list[Any]:
    """Returns its outputs for other ``args``; ``changed`` replaces parameters."""
    traced = self.traced
    if changed:
      traced = traced.replace(params={**self.params, **changed})
    given = {
      atom: arg
      for atom, arg in zip(traced.invars, args, strict=True)
      if not isinstance(atom, core.Literal)
    }
    jaxpr = self.around.replace(
      constvars=[],
      invars=list(given),
      outvars=list(traced.outvars),
      eqns=[traced],
    )
    return core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, ()))(*given.values())


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
  """A value of a traced function.

  Attributes:
    aval: shape and dtype.
    number: place in the order of computation.
    equation: what computes it; None for arguments and constants of the function.
    output: which output of the equation it is.
  """

  aval: Any
  number: int
  equation: Equation | None = None
  output: int = 0

  @property
  def primitive(self) -> str:
    """Name of the primitive that computes it; '' for arguments."""
    return '' if self.equation is None else self.equation.name

  @property
  def params(self) -> Mapping[str, Any]:
    """Parameters of the primitive that computes it."""
    return {} if self.equation is None else self.equation.params

  @property
  def args(self) -> tuple[Atom, ...]:
    """Values and literals from which it is computed."""
    return () if self.equation is None else self.equation.args


class Literal(NamedTuple):
  """A number that is written into the function."""

  value: Any
  aval: Any


Atom: TypeAlias = Value | Literal


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
  """The values of a traced function.

  Attributes:
    values: all values, in the order of computation.
    outputs: the function's outputs.
    args: the function's arguments as a tree of values.
    named: what each name (`jax.ad_checkpoint.checkpoint_name`) was given to.
    given: the arrays of all values that no equation computes.
  """

  values: tuple[Value, ...]
  outputs: tuple[Atom, ...]
  args: Any
  named: Mapping[str, Atom]
  given: Mapping[Value, types.Array]

  def behind(
    self, *sources: Value, without: Collection[Value] = ()
  ) -> set[Value]:
    """Returns the sources, and values that depend on one, other than by some values."""
    found = set(sources)
    for value in self.values:
      if value not in without and any(
        isinstance(atom, Value) and atom in found for atom in value.args
      ):
        found.add(value)
    return found

  def evaluate(self, atoms: Sequence[Atom]) -> list[types.Array]:
    """Returns the arrays of values, computed by one program."""
    wanted = [atom for atom in atoms if isinstance(atom, Value)]
    needed = _needed(wanted)
    inputs = [value for value in needed if value.equation is None]

    @jax.jit
    def program(arrays):
      known = dict(zip(inputs, arrays, strict=True))
      for value in needed:
        if value not in known and value.equation is not None:
          args = [
            atom.value if isinstance(atom, Literal) else known[atom]
            for atom in value.args
          ]
          known[value] = value.equation(args)[value.output]
      return [known[value] for value in wanted]

    found = iter(program([self.given[value] for value in inputs]))
    return [
      jnp.asarray(atom.value) if isinstance(atom, Literal) else next(found)
      for atom in atoms
    ]


def trace(function: Callable[..., Any], *args: types.PyTree) -> Graph:
  """Returns the graph of a function of trees of arrays."""
  closed = jax.make_jaxpr(function)(*args)
  reader = _Reader()
  leaves, structure = jax.tree.flatten(args)
  held = [
    reader.give(variable.aval, leaf)
    for variable, leaf in zip(closed.jaxpr.invars, leaves, strict=True)
  ]
  outputs = reader.read(closed, held)
  return Graph(
    tuple(reader.values),
    tuple(outputs),
    jax.tree.unflatten(structure, held),
    reader.named,
    reader.given,
  )


class _Reader:
  """Reads a jaxpr, and the jaxprs of the functions that it calls.

  Attributes:
    values: all values, in order.
    named: what each name was given to.
    given: the arrays of the values that no equation computes.
  """

  def __init__(self):
    self.values: list[Value] = []
    self.named: dict[str, Atom] = {}
    self.given: dict[Value, types.Array] = {}

  def give(self, aval: Any, array: types.Array) -> Value:
    """Returns a value that no equation computes."""
    self.given[value := self._new(aval)] = array
    return value

  def read(
    self, closed: Any, args: Sequence[Atom], around: str = ''
  ) -> list[Atom]:
    """Returns the outputs of a jaxpr, closed or not, of these arguments."""
    jaxpr = getattr(closed, 'jaxpr', closed)
    consts = [
      self.give(variable.aval, array)
      for variable, array in zip(
        jaxpr.constvars, getattr(closed, 'consts', ()), strict=True
      )
    ]
    known = dict(
      zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True)
    )

    def read(atom):
      if isinstance(atom, core.Literal):
        return Literal(atom.val, atom.aval)
      return known[atom]

    for equation in jaxpr.eqns:
      taken = tuple(map(read, equation.invars))
      name, params = equation.primitive.name, equation.params
      where = _where(equation) or around
      if name in _CALLS:
        body = params['jaxpr' if 'jaxpr' in params else 'call_jaxpr']
        made = self.read(body, taken, where)
      else:
        step = Equation(taken, equation, jaxpr, where)
        made = [
          self._new(variable.aval, step, output)
          for output, variable in enumerate(equation.outvars)
        ]
      if name == 'name':
        self.named[params['name']] = taken[0]
      known.update(zip(equation.outvars, made, strict=True))
    return [read(atom) for atom in jaxpr.outvars]

  def _new(self, aval, equation=None, output=0):
    self.values.append(Value(aval, len(self.values), equation, output))
    return self.values[-1]


def _where(equation):
  """Returns the path of the module that an equation is in; '' if unknown."""
  # The first name is that of the model's class; others may have those of methods too.
  names = str(equation.source_info.name_stack).split('/')[1:]
  return '/'.join(name for name in names if '.' not in name)


def _needed(values: Iterable[Value]) -> list[Value]:
  """Returns the values that these are computed from, and these, in order."""
  found, left = set(), list(values)
  while left:
    value = left.pop()
    if value not in found:
      found.add(value)
      left += [atom for atom in value.args if isinstance(atom, Value)]
  return sorted(found, key=lambda value: value.number)
