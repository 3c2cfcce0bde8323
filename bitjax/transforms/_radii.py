"""One ball or several: which leaves a radius covers, and how large it is at an update.

A tree of radii is a *prefix* of the tree of parameters: each radius belongs to one ball,
which spans all leaves below it. So a number is a ball around everything, a radius for each
layer a ball around each layer, and a radius for each leaf a ball around each leaf. With
labels, as of `optax.partition`, leaves of one label share a ball.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bitjax import types

__all__ = ['Ball', 'Radius', 'balls', 'below', 'check']

Radius = types.Scalar | Callable[[types.Array], types.Scalar] | None


class Ball(NamedTuple):
  """A radius, and the leaves that share it.

  Attributes:
    radius: a number, a schedule ``number of updates so far -> number``, or None for
      leaves that are free.
    leaves: indices of the leaves, in the order of flattening.
  """

  radius: Any
  leaves: list[int]

  def pick(self, values: list) -> list:
    """Returns the values that belong to the ball's leaves, of one for each leaf."""
    return [values[i] for i in self.leaves]

  def at(
    self, count: types.Array, norm: types.Norm, unit: types.Scalar | None
  ) -> types.Budget:
    """Returns the ball at an update.

    Args:
      count: number of updates so far, int32.
      norm: the norm.
      unit: what the radius is a multiple of; None for 1.
    """
    radius = self.radius(count) if _is_schedule(self.radius) else self.radius
    if hasattr(unit, 'dtype'):
      radius = jnp.asarray(radius, unit.dtype)
    return types.Budget(radius if unit is None else radius * unit, norm)


def check(radius: Any, labels: Any) -> None:
  """Raises `BadInput` for radii that are no numbers >= 0 and no schedules."""
  if radius is None:
    raise types.BadInput('radius must be a number; got None.')
  if labels is not None and not isinstance(radius, Mapping):
    raise types.BadInput(
      'radius must be a dictionary, label -> radius, if labels are given; got '
      f'{radius!r}.'
    )
  for path, one in _leaves(radius)[0]:
    name = f'radius{jax.tree_util.keystr(path)}'
    if one is not None and not _is_schedule(one):
      types.check_non_negative(name, one)


def balls(radius: Any, labels: Any, params: optax.Params) -> list[Ball]:
  """Returns the balls of a tree of parameters.

  Raises:
    BadInput: if the radii or labels do not fit the parameters.
  """
  if labels is not None:
    return _labelled(radius, labels, params)
  return [
    Ball(one, indices)
    for one, indices in below('radius', radius, params)
    if one is not None and indices
  ]


def _labelled(radius, labels, params):
  if callable(labels):
    labels = labels(params)
  found: dict[str, list[int]] = {}
  for label, indices in below('labels', labels, params):
    found.setdefault(label, []).extend(indices)
  found = {label: indices for label, indices in found.items() if indices}
  lacking = [repr(label) for label in found if label not in radius]
  if lacking:
    raise types.BadInput(
      f'radius lacks the labels {", ".join(lacking)}; it has '
      f'{", ".join(map(repr, radius)) or "none"}.'
    )
  unused = [repr(label) for label in radius if label not in found]
  if unused:
    raise types.BadInput(
      f'radius has {", ".join(unused)}, but no leaf has that label; the labels are '
      f'{", ".join(map(repr, found))}.'
    )
  return [
    Ball(radius[label], indices)
    for label, indices in found.items()
    if radius[label] is not None
  ]


def below(
  name: str, prefix: Any, params: optax.Params
) -> list[tuple[Any, list[int]]]:
  """Returns each leaf of a prefix, with the indices of the parameters below it.

  Args:
    name: what the prefix is called, for the error message.
    prefix: a prefix of the tree of parameters, whose leaves may be None or schedules.
    params: the parameters.

  Raises:
    BadInput: for a tree that is no prefix.
  """
  leaves, treedef = _leaves(prefix)
  try:
    subtrees = treedef.flatten_up_to(params)
  except ValueError as error:
    raise types.BadInput(
      f'{name} must be a prefix of the tree of parameters: '
      f'{types.one_line(error)}'
    ) from None
  start, found = 0, []
  for (_, leaf), subtree in zip(leaves, subtrees, strict=True):
    stop = start + len(jax.tree.leaves(subtree))
    found.append((leaf, list(range(start, stop))))
    start = stop
  return found


def _leaves(radius):
  return jax.tree_util.tree_flatten_with_path(
    radius, is_leaf=lambda x: x is None or isinstance(x, jax.tree_util.Partial)
  )


def _is_schedule(radius: Any) -> bool:
  # A model whose leaves are radii may be callable too, but it is a tree.
  return callable(radius) and not isinstance(radius, jax.Array)
