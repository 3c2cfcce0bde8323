"""Calls models with the keywords that they take, and so that they can be intercepted.

Not every network has batch statistics or an annealed quantizer, so that the ``__call__``
of somebody's own model may lack either keyword.
"""

from __future__ import annotations

from collections.abc import Mapping
import inspect
from typing import Any

from flax import core
from flax import linen as nn

__all__ = ['below', 'call_options', 'descend', 'mutable_but', 'path']

_OPTIONAL = ('train', 'progress')


def call_options(
  model: nn.Module, method: str = '__call__', /, **options: Any
) -> dict[str, Any]:
  """Returns keyword arguments for a model's call, without those that it cannot take.

  Only ``train`` and ``progress`` may be left out; a model without them is called
  without. A ``flax.linen.Sequential`` hands its keywords to its first layer alone:
  it gets ``train`` if that layer takes it, and no ``progress``, which
  `training_progress` passes to all layers.

  Args:
    model: a linen model.
    method: name of the method that is called.
    **options: the arguments.
  """
  return {
    name: value
    for name, value in options.items()
    if name not in _OPTIONAL or _takes(model, method, name)
  }


def mutable_but(*names: str) -> core.DenyList:
  """Returns a filter ``mutable`` for calls inside `flax.linen.intercept_methods`.

  It makes all collections mutable but these. ``nn.jit`` keeps the program of a class or
  method for all modules with equal fields and an equal filter. An interceptor would not
  run where such a program is used again, or its values would be those of another call.
  No two uses of this filter are equal, so that every call is traced.

  Args:
    *names: names of the collections that stay as they are.
  """
  return core.DenyList(_Unequal(names))


def path(layer: str) -> tuple[str, ...]:
  """Returns the path of a module from its name with slashes; () of the model itself."""
  return tuple(filter(None, layer.split('/')))


def descend(tree: Any, path: tuple[str, ...]) -> Any:
  """Returns what a tree of dictionaries holds at a path; None if it holds nothing."""
  for name in path:
    if name not in tree:
      return None
    tree = tree[name]
  return tree


def below(
  variables: Mapping[str, Any], path: tuple[str, ...]
) -> dict[str, Any]:
  """Returns the variables of the module at a path, for a call of it alone."""
  found = {name: descend(tree, path) for name, tree in variables.items()}
  return {name: tree for name, tree in found.items() if tree is not None}


class _Unequal(tuple):
  """Names of collections, which each copy (by flax, for its key) makes unlike others."""

  __slots__ = ()

  def __iter__(self):
    yield from super().__iter__()
    yield object()


def _takes(model: Any, method: str, name: str) -> bool:
  if isinstance(model, nn.Sequential):
    return name == 'train' and any(
      _takes(layer, method, name) for layer in model.layers[:1]
    )
  call = getattr(type(model), method) if isinstance(model, nn.Module) else model
  try:
    parameters = inspect.signature(call).parameters.values()
  except (TypeError, ValueError):  # Some builtins have no signature.
    return False
  return any(
    p.kind is p.VAR_KEYWORD
    or (p.name == name and p.kind is not p.POSITIONAL_ONLY)
    for p in parameters
  )
