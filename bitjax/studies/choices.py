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

from bitjax import types

__all__ = ['each_once', 'switch']


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
  kinds: dict[Any, list[int]] = {}
  for place, choice in enumerate(choices):
    kinds.setdefault(jax.tree.structure(choice), []).append(place)
  branches, branch, row = [], [0] * len(choices), [0] * len(choices)
  for number, places in enumerate(kinds.values()):
    stacked = jax.tree.map(
      lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]),
      *(choices[place] for place in places),
    )
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
