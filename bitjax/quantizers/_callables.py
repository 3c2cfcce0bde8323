"""What can be called with what: functions as pytrees, and their parameters."""

from __future__ import annotations

import inspect
from typing import Any

import jax

from bitjax import types

__all__ = ['as_pytree', 'parameter']


def as_pytree(name: str, rule: Any, arguments: tuple[str, ...]) -> Any:
  """``rule`` as a callable pytree, without leaves if it is a plain function.

  Args:
    name: of the argument that it is, for the error.
    rule: a callable.
    arguments: those without a keyword that it is going to be called with.

  Raises:
    ValueError: if it cannot be called with them.
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
  except ValueError:  # Some builtins do not tell.
    pass
  if jax.tree_util.all_leaves([rule]):
    return jax.tree_util.Partial(rule)
  return rule


def parameter(rule: Any, name: str) -> inspect.Parameter | None:
  """The parameter of that name of what is called, or None."""
  if not callable(rule):
    return None
  try:
    return inspect.signature(rule).parameters.get(name)
  except ValueError:  # Some builtins do not tell.
    return None
