"""Applies a function to many choices in one program, without needless repetition.

A study compares many estimators. Most of them differ in a number only: choices of one
*kind*, that is of one tree structure, share a trace. Some turn out to do the same:
choices and rows that are equal are computed once.
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
  """Returns the distinct choices, and for every choice its index among them.

  Args:
    choices: pytrees of concrete numbers; two are equal if they have the same
      structure and the same bits.
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
  """Returns a function that applies ``fn`` to the choice of a given number.

  Choices of one kind differ in their leaves only: they share a branch, for which
  ``fn`` is traced once.

  Args:
    fn: maps a choice to a pytree of arrays, of one structure and shape for all.
    choices: pytrees; within a kind, corresponding leaves have the same shape.

  Returns:
    A function of the number of a choice, which may be traced.
  """
  branches, branch, row = [], [0] * len(choices), [0] * len(choices)
  for number, (indices, stacked) in enumerate(_kinds(choices)):
    branches.append(
      lambda position, stacked=stacked: fn(
        jax.tree.map(lambda leaf: leaf[position], stacked)
      )
    )
    for position, index in enumerate(indices):
      branch[index], row[index] = number, position
  table = jnp.asarray([branch, row])
  return lambda number: jax.lax.switch(
    table[0][number], branches, table[1][number]
  )


def vectorised(fn: Callable[[Any], Any], choices: Sequence[Any]) -> Any:
  """Returns ``fn`` of every choice, vectorised over the choices of each kind.

  What does not depend on the choice is computed once: `jax.vmap` sees to that within
  a kind, and the compiler across kinds.

  Args:
    fn: maps a choice to a pytree of arrays, of one structure and shape for all.
    choices: pytrees; within a kind, corresponding leaves have the same shape.

  Returns:
    The pytree that ``fn`` returns, each leaf [choices, ...].
  """
  kinds = _kinds(choices)
  rows = [jax.vmap(fn, axis_size=len(i))(stacked) for i, stacked in kinds]
  order = np.argsort([index for indices, _ in kinds for index in indices])
  return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[order], *rows)


def _kinds(choices):
  """Returns, for each tree structure, the indices of its choices and these stacked."""
  kinds: dict[Any, list[int]] = {}
  for index, choice in enumerate(choices):
    kinds.setdefault(jax.tree.structure(choice), []).append(index)
  return [
    (
      indices,
      jax.tree.map(
        lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]),
        *(choices[index] for index in indices),
      ),
    )
    for indices in kinds.values()
  ]


def each_once(
  fn: Callable[[types.Array], types.PyTree], rows: types.Array
) -> types.PyTree:
  """Returns ``fn`` of every row, computed once for rows that are equal.

  Rows are computed one after another. Under a `vmap`, which computes both branches of
  every condition, nothing is saved.

  Args:
    fn: maps a row to a pytree of arrays.
    rows: [rows, ...]. Two rows are equal if all their entries are; 0 and -0 are equal,
      and NaN is equal to nothing.

  Returns:
    The pytree that ``fn`` returns, each leaf [rows, ...].
  """
  numbers = jnp.arange(rows.shape[0])

  def step(table, number):
    row = rows[number]
    alike = jnp.all(rows == row[None], axis=tuple(range(1, rows.ndim)))
    # A row with NaN is not equal to itself, so its own number is added.
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
