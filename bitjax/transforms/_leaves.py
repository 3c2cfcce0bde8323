"""Pairs the leaves of an update with those of the parameters that it is for."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from bitjax import types
from bitjax.transforms import _rounding

__all__ = ['apply', 'check_floating', 'kept', 'pair']


def pair(
  updates: optax.Updates, params: optax.Params | None
) -> tuple[jax.tree_util.PyTreeDef, list[types.Array], list[types.Array]]:
  """Returns the structure of ``updates``, its leaves and those of ``params``.

  The update's leaves are sealed, so that the values added to the parameters are
  those that the transform has seen (see `_rounding.seal`).

  Raises:
    BadInput: without ``params``, or if they are not floating.
  """
  if params is None:
    raise types.BadInput(
      'You are using a transformation that requires the current value of '
      'parameters, but you are not passing `params` when calling `update`.'
    )
  leaves, treedef = jax.tree.flatten(updates)
  proposed = [_rounding.seal(jnp.asarray(u)) for u in leaves]
  current = [jnp.asarray(p) for p in treedef.flatten_up_to(params)]
  check_floating(current)
  return treedef, proposed, current


def kept(name: str, treedef: Any, tree: Any, leaves: list) -> list:
  """Returns what a state keeps for each parameter.

  Args:
    name: of the transform.
    treedef: structure of the parameters.
    tree: what is kept.
    leaves: the parameters.

  Raises:
    BadInput: if it is that of parameters of another structure or other shapes.
  """
  try:
    found = treedef.flatten_up_to(tree)
  except (ValueError, TypeError):
    found = []
  if [jnp.shape(x) for x in found] != [jnp.shape(x) for x in leaves]:
    raise types.BadInput(
      f'the state of {name} is that of other parameters; initialise it with those '
      'that are updated.'
    )
  return found


def check_floating(leaves: list) -> None:
  """Raises `BadInput` unless all leaves are floating."""
  for x in leaves:
    if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
      raise types.BadInput(
        'budgets, flips and limits are of floating parameters; got '
        f'{jnp.result_type(x)}. Leave such a leaf out with optax.masked.'
      )


def apply(param: types.Array, update: types.Array) -> types.Array:
  """Returns the parameter that ``optax.apply_updates`` will store."""
  dtype = types.promoted(jnp.float32, param, update)
  moved = param.astype(dtype) + update.astype(dtype)
  return _rounding.cast(moved, param.dtype)
