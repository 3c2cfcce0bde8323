r"""Computes gains of single moves by brute force: one evaluation of the loss each.

This is the generic path, for any loss function of any leaf of any pytree, and the
oracle of the fast paths:

.. math:: g_k = \frac1B \sum_b \left( \ell_b(w) - \ell_b(w + (v_k - w_k) e_k)
  \right)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.scans import _report

__all__ = ['leaf_losses', 'moments']


def moments(
  losses: Callable[[types.Array], types.Array],
  array: types.Array,
  destinations: types.Array,
  coordinates: types.Array | None,
  chunk: int | None,
  report: Any = None,
) -> tuple[types.Array, types.Array, types.Array]:
  """Returns the mean loss, and the first two moments of its decrease by each move.

  Args:
    losses: function of an array like ``array`` that returns each example's loss, or
      one loss.
    array: values from which all moves start.
    destinations: new values, ``[moves, *array.shape]`` or [moves, coordinates].
    coordinates: indices in the flattened array, [coordinates]; None for all.
    chunk: moves that are evaluated at a time; None for the default of `lanes.each`.
    report: progress; None for no report.

  Returns:
    The mean loss, and the means over the examples of the decrease of the loss
    and of its square, both of the shape of ``destinations``.
  """
  base = losses(array)
  indices = jnp.arange(array.size) if coordinates is None else coordinates

  def move(index, value):
    moved = array.reshape(-1).at[index].set(value).reshape(array.shape)
    decrease = base - losses(moved)
    return jnp.mean(decrease), jnp.mean(decrease**2)

  values = destinations.reshape(-1)
  indices = jnp.tile(indices, destinations.shape[0])
  first, second = _report.each(
    report, move, {'index': indices, 'value': values}, width=chunk
  )
  shape = destinations.shape
  return jnp.mean(base), first.reshape(shape), second.reshape(shape)


def leaf_losses(
  losses: Callable[[types.PyTree], types.Array], params: types.PyTree, leaf: str
) -> tuple[Callable[[types.Array], types.Array], types.Array]:
  """Returns ``losses`` as a function of one leaf, and that leaf.

  Raises:
    BadInput: if no leaf has that name.
  """
  paths, treedef = jax.tree.flatten_with_path(params)
  names = [
    jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in paths
  ]
  if leaf not in names:
    raise types.BadInput(
      f'leaf must be one of {", ".join(map(repr, names))}; got {leaf!r}.'
    )
  index = names.index(leaf)
  leaves = [value for _, value in paths]

  def of_leaf(value):
    moved = [*leaves[:index], value, *leaves[index + 1 :]]
    return losses(jax.tree.unflatten(treedef, moved))

  return of_leaf, jnp.asarray(leaves[index])
