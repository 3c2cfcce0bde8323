"""Lists of choices inside one program: traced once a kind, computed once a value.

A study compares many estimators, most of which differ in a number only, and some
of which turn out to do the same. Neither the compiler nor the machine should pay
for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import types

__all__ = ['distinct', 'each_once', 'switch', 'vectorised']


def distinct(choices: Sequence[Any]) -> tuple[list[Any], list[int]]:
  """Returns the distinct ones of some choices, and which one each choice is.

  Args:
    choices: pytrees of concrete numbers; equal means one structure and equal bits.
  """
  found: dict[Any, int] = {}
  first, numbers = [], []
  for choice in choices:
    leaves, kind = jax.tree.flatten(choice)
    key = kind, tuple(np.asarray(leaf).tobytes() for leaf in leaves)
    if key not in found:
      found[key] = len(first)
      first.append(choice)
    numbers.append(found[key])
  return first, numbers


def switch(
  fn: Callable[[Any], Any], choices: Sequence[Any]
) -> Callable[[types.Array | int], Any]:
  """Returns number -> ``fn`` of that choice, traced once for each *kind*.

  Choices of one tree structure differ in their leaves only: they share a branch.

  Args:
    fn: a choice -> a pytree of arrays, the same for all.
    choices: pytrees; leaves at one place have one shape.

  Returns:
    A function of the number of a choice, which may be traced.
  """
  branches, branch, row = [], [0] * len(choices), [0] * len(choices)
  for number, (places, stacked) in enumerate(_kinds(choices)):
    branches.append(
      lambda at, stacked=stacked: fn(
        jax.tree.map(lambda leaf: leaf[at], stacked)
      )
    )
    for at, place in enumerate(places):
      branch[place], row[place] = number, at
  table = jnp.asarray([branch, row])
  return lambda number: jax.lax.switch(
    table[0][number], branches, table[1][number]
  )


def vectorised(fn: Callable[[Any], Any], choices: Sequence[Any]) -> Any:
  """Returns ``fn`` of every choice, those of one *kind* at once.

  What does not depend on the choice is computed once: for a kind by `jax.vmap`,
  for all of them by the compiler.

  Args:
    fn: a choice -> a pytree of arrays, the same for all.
    choices: pytrees; leaves at one place have one shape.

  Returns:
    The pytree, each leaf [choices, ...].
  """
  kinds = _kinds(choices)
  rows = [jax.vmap(fn, axis_size=len(p))(stacked) for p, stacked in kinds]
  order = np.argsort([place for places, _ in kinds for place in places])
  return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[order], *rows)


def _kinds(choices):
  """For each tree structure the places of its choices, and their stacked leaves."""
  kinds: dict[Any, list[int]] = {}
  for place, choice in enumerate(choices):
    kinds.setdefault(jax.tree.structure(choice), []).append(place)
  return [
    (
      places,
      jax.tree.map(
        lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]),
        *(choices[place] for place in places),
      ),
    )
    for places in kinds.values()
  ]


def each_once(
  fn: Callable[[types.Array], types.PyTree], rows: types.Array
) -> types.PyTree:
  """Returns ``fn`` of every row, computed once for rows that are equal.

  One row after another; under a `vmap`, which computes both sides of every
  condition, nothing is saved.

  Args:
    fn: a row -> a pytree of arrays.
    rows: [rows, ...]; equal means equal bits, but for zeros of either sign. A row
      with NaN is equal to none.

  Returns:
    The pytree, each leaf [rows, ...].
  """
  numbers = jnp.arange(rows.shape[0])

  def step(table, number):
    row = rows[number]
    alike = jnp.all(rows == row[None], axis=tuple(range(1, rows.ndim)))
    # A row with NaN is not even equal to itself.
    first = jnp.argmax(alike | (numbers == number))
    found = jax.lax.cond(
      first < number,
      lambda: jax.tree.map(lambda leaf: leaf[first], table),
      lambda: fn(row),
    )
    put = lambda leaf, value: leaf.at[number].set(value)
    return jax.tree.map(put, table, found), None

  shapes = jax.eval_shape(fn, rows[0])
  table = jax.tree.map(
    lambda leaf: jnp.zeros((rows.shape[0], *leaf.shape), leaf.dtype), shapes
  )
  return jax.lax.scan(step, table, numbers)[0]
