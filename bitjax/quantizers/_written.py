"""Writes rules and quantizers as the code that makes them: window(half_width=0.5).

A ``repr`` is a call of a factory, in one line, without the arguments that equal their
defaults. Arrays are shown by dtype and shape. The arguments are read from the object's
leaves, so that the text of a swept rule is that of the sweep.
"""

from __future__ import annotations

from collections.abc import Callable
import inspect
from typing import Any

import jax

from bitjax import types

__all__ = ['Rule', 'call', 'rule']


def call(factory: Callable[..., Any], /, **arguments: Any) -> str:
  """Returns the text of a call of ``factory``.

  Args:
    factory: the function; its signature gives order and defaults.
    **arguments: values by name; those that ``factory`` does not take are left out.
  """
  parts = []
  for name, parameter in inspect.signature(factory).parameters.items():
    if name not in arguments:
      continue
    text = types.shown(arguments[name])
    if parameter.default is parameter.empty:
      keyword_only = parameter.kind is parameter.KEYWORD_ONLY
      parts.append(f'{name}={text}' if keyword_only else text)
    elif text != types.shown(parameter.default):
      parts.append(f'{name}={text}')
  return f'{factory.__name__}({", ".join(parts)})'


class Rule(jax.tree_util.Partial):
  """A function with its first arguments, as a pytree, that knows its factory.

  Attributes:
    made_by: the factory, and names and values of options that are no leaves.
  """

  made_by: tuple[Callable[..., Any], tuple[tuple[str, Any], ...]]

  def __repr__(self) -> str:
    factory, options = self.made_by
    leaves = zip(
      inspect.signature(self.func).parameters, self.args, strict=False
    )
    return call(factory, **dict(leaves), **dict(options))


def rule(
  factory: Callable[..., Any],
  function: Callable[..., types.Array],
  *leaves: Any,
  **options: Any,
) -> Rule:
  """Returns ``function`` with ``leaves`` as its first arguments, a callable pytree.

  Args:
    factory: the function that makes the rule, by which ``repr`` writes it.
    function: the rule. Its first parameters are called like those of ``factory``.
    *leaves: the values of these parameters, numbers or pytrees.
    **options: further arguments of ``factory``, hashable.
  """
  return _unflatten((function, factory, tuple(options.items())), leaves)


def _unflatten(made, leaves):
  function, factory, options = made
  found = Rule(function, *leaves)
  found.made_by = factory, options
  return found


jax.tree_util.register_pytree_node(
  Rule, lambda rule: (rule.args, (rule.func, *rule.made_by)), _unflatten
)
