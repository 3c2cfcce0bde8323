"""Turns functions into callable pytrees, and looks up their parameters."""

from __future__ import annotations

import inspect
from typing import Any

import jax

from bitjax import types

__all__ = ['as_pytree', 'parameter']


def as_pytree(name: str, rule: Any, arguments: tuple[str, ...]) -> Any:
  """Returns ``rule`` as a callable pytree, without leaves if it is a plain function.

  Args:
    name: what the caller's own argument is called, for the error message.
    rule: a callable.
    arguments: the names of the positional arguments that it will be called with.

  Raises:
    BadInput: if ``rule`` cannot be called with these arguments.
  """
  wanted = f'{name} must be a function ({", ".join(arguments)})'
  if hasattr(rule, 'apply') and hasattr(rule, 'init'):
    raise types.BadInput(
      f'{wanted}; got a learned Quantizer, whose parameters are filled in with '
      'bind(quantizer, qparams).'
    )
  if not callable(rule):
    raise types.BadInput(f'{wanted}; got {rule!r}.')
  try:
    inspect.signature(rule).bind_partial(*arguments)
  except TypeError:
    raise types.BadInput(
      f'{wanted}; got {rule!r}. Is it a factory that has yet to be called?'
    ) from None
  except ValueError:  # Some builtins have no signature to inspect.
    pass
  if jax.tree_util.all_leaves([rule]):
    return jax.tree_util.Partial(rule)
  return rule


def parameter(rule: Any, name: str) -> inspect.Parameter | None:
  """Returns the parameter of ``rule`` called ``name``, or None if it has none."""
  if not callable(rule):
    return None
  try:
    return inspect.signature(rule).parameters.get(name)
  except ValueError:  # Some builtins have no signature to inspect.
    return None
