r"""Norms of parameter trees, sign changes between them, and masks of leaves.

Leaves are reduced where they lie: nothing is concatenated, sorted or gathered, so
sharded and vmapped trees need no special care.

Two things go wrong in a plain ``sqrt(sum(x ** 2))``. It overflows or underflows
at the ends of the exponent range, so `norm` first divides by a power of two
near the largest entry. And a float32 sum of 200 000 terms may be off by many
units in the last place, which a budget cannot afford, so `total` splits every term
into integers, whose sums are exact in any order, and a small rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import math

import jax
import jax.numpy as jnp

from bitjax import types

__all__ = [
  'count',
  'flips',
  'label',
  'mask_by_name',
  'norm',
  'power_of_two',
  'total',
]


def norm(
  tree: types.PyTree, kind: types.Norm, anchor: types.PyTree | None = None
) -> types.Array:
  r"""Returns the norm of ``tree``, or of its difference from ``anchor``.

  With ``d = tree - anchor`` over all entries of all leaves,

  .. math:: \|d\|_2 = \sqrt{\textstyle\sum_i d_i^2}, \quad
    \|d\|_\infty = \max_i |d_i|, \quad \|d\|_1 = \textstyle\sum_i |d_i|,

  and ``flips`` is the number of entries whose sign is not the anchor's. The
  backward pass computes the derivative, which for ``l2`` at zero is taken as zero.

  Args:
    tree: arrays of any shape and real dtype; may be empty.
    kind: ``'l2'``, ``'linf'``, ``'l1'`` or ``'flips'``.
    anchor: a tree of the same structure and shapes, or None for zero.

  Returns:
    A scalar. Differences and sums are taken in float32, or in float64 if a leaf
    has it, whatever the dtype of the other leaves. The result is right to three
    units in the last place; it is NaN if an entry is NaN, else inf if one is
    infinite. Subnormal entries may count as zero. ``flips`` is an int32.

  Raises:
    BadInput: for an unknown ``kind``, for ``'flips'`` without an anchor, or
      for an anchor of another structure.
  """
  types.check_choice('kind', kind, types.NORMS)
  if kind == 'flips':
    if anchor is None:
      raise types.BadInput(
        "norm(tree, 'flips') counts against an anchor: pass one."
      )
    return flips(tree, anchor)
  dtype = types.promoted(jnp.float32, *jax.tree.leaves(tree))
  leaves = [jnp.asarray(leaf, dtype) for leaf in jax.tree.leaves(tree)]
  if anchor is not None:
    centres = jax.tree.structure(tree).flatten_up_to(anchor)
    leaves = [
      x - jnp.asarray(a, dtype) for x, a in zip(leaves, centres, strict=True)
    ]
  magnitudes = [jnp.abs(leaf) for leaf in leaves]
  largest = jnp.zeros((), dtype)
  for leaf in magnitudes:
    largest = jnp.maximum(largest, jnp.max(leaf, initial=0))
  if kind == 'linf':
    return largest
  if kind == 'l1':
    size = total(magnitudes, largest)
  else:
    scale = power_of_two(largest)
    squares = total([jnp.square(x / scale) for x in magnitudes], 16.0)
    # The derivative of sqrt at zero is infinite: keep it out of the graph.
    positive = squares > 0
    root = jnp.sqrt(jnp.where(positive, squares, 1.0))
    size = jnp.where(positive, root, squares) * scale
  return jnp.where(jnp.isfinite(largest), size, largest)


def flips(tree: types.PyTree, anchor: types.PyTree) -> types.Array:
  """Returns the number of entries whose sign differs from the anchor's, as int32.

  Zero of either sign, and NaN, count as positive: sign(0) = +1.

  Args:
    tree: arrays of any shape and real dtype.
    anchor: a tree of the same structure and shapes.

  Raises:
    BadInput: for an anchor of another structure.
  """
  return count(
    jax.tree.map(
      lambda x, a: (jnp.asarray(x) < 0) != (jnp.asarray(a) < 0), tree, anchor
    )
  )


def count(mask: types.PyTree) -> types.Array:
  """Returns the number of True entries in a tree of bools, as int32."""
  number = jnp.zeros((), jnp.int32)
  for leaf in jax.tree.leaves(mask):
    # On a CPU, XLA adds floats several times faster than integers.
    dtype = jnp.float32 if leaf.size < 2**24 else jnp.int32
    number += jnp.sum(leaf, dtype=dtype).astype(jnp.int32)
  return number


def total(tree: types.PyTree, largest: types.Scalar) -> types.Array:
  """Returns the sum of all entries, to about a unit in the last place.

  Every entry is divided by a power of two above ``largest`` and split into integers
  of few bits and a rest. The integers add up exactly in any order; the rests are
  too small for the rounding of their sum to matter.

  Args:
    tree: floating arrays without negative entries.
    largest: a scalar that no entry exceeds.

  Returns:
    A scalar, float32 or wider. NaN if an entry is NaN or infinite.
  """
  leaves = jax.tree.leaves(tree)
  dtype = types.promoted(jnp.float32, *leaves)
  num_entries = max(2, sum(leaf.size for leaf in leaves))
  integer = jnp.int64 if dtype == jnp.float64 else jnp.int32
  log_num = math.ceil(math.log2(num_entries))
  # Sums of num_entries integers of this many bits do not overflow.
  num_bits = jnp.iinfo(integer).bits - 1 - log_num
  num_digits = max(1, math.ceil((log_num + 9) / num_bits))
  scale = power_of_two(jnp.asarray(largest, dtype))
  digits = [jnp.zeros((), integer)] * num_digits
  rest_sum = jnp.zeros((), dtype)
  for leaf in leaves:
    rest = leaf.astype(dtype) / scale * 0.25  # In [0, 1).
    for i in range(num_digits):
      rest *= 2.0**num_bits
      digit = jnp.floor(rest)
      digits[i] += jnp.sum(digit.astype(integer))
      rest -= digit
    rest_sum += jnp.sum(rest)
  for digit in reversed(digits):
    rest_sum = (rest_sum + digit.astype(dtype)) * 2.0**-num_bits
  return rest_sum * 4.0 * scale


def power_of_two(x: types.Array) -> types.Array:
  """Returns a power of two in (x/4, x], by which to scale without rounding.

  It is 1 where x is zero, NaN or infinite, and the smallest normal number where x is
  subnormal.

  It is never so large that its reciprocal is subnormal: XLA turns a division by a
  scalar into a product with the reciprocal, which would be flushed to zero.
  """
  _, exponent = jnp.frexp(jax.lax.stop_gradient(x))
  info = jnp.finfo(x.dtype)
  exponent = jnp.clip(exponent - 1, info.minexp, info.maxexp - 2)
  usable = (x > 0) & jnp.isfinite(x)
  return jnp.ldexp(jnp.ones_like(x), jnp.where(usable, exponent, 0))


def mask_by_name(
  tree: types.PyTree, names: str | Sequence[str]
) -> types.PyTree:
  """Returns a tree of bools: True where the leaf's last key is one of ``names``.

  It is meant for ``optax.masked`` and ``optax.partition``::

    optax.masked(project_budget(0.1), mask_by_name(params, 'kernel'))

  Args:
    tree: a tree of dicts, dataclasses, named tuples or sequences; the last key of
      a leaf in a sequence is its index, such as ``'0'``.
    names: one name or several.

  Raises:
    BadInput: if no leaf matches.
  """
  wanted = {names} if isinstance(names, str) else set(names)
  found = jax.tree.map_with_path(
    lambda path, _: jax.tree_util.keystr(path[-1:], simple=True), tree
  )
  present = set(jax.tree.leaves(found))
  if not wanted & present:
    raise types.BadInput(
      f'no leaf is named {", ".join(sorted(wanted))}; '
      f'the tree has {", ".join(sorted(present)) or "no leaves"}.'
    )
  return jax.tree.map(lambda name: name in wanted, found)


def label(
  tree: types.PyTree,
  predicate: Callable[[str], bool],
  match: str = 'binary',
  rest: str = 'rest',
) -> types.PyTree:
  """Returns a tree of labels: ``match`` where a leaf's path satisfies ``predicate``.

  It is meant for ``optax.partition``::

    optax.partition(
      {'binary': bop(), 'rest': optax.adam(1e-3)},
      label(params, lambda path: path.endswith('kernel')),
    )

  Args:
    tree: a tree of dicts, dataclasses, named tuples or sequences.
    predicate: function of a leaf's path, which is its keys joined by slashes, as in
      ``'Dense_0/kernel'``.
    match: the label of leaves that satisfy the predicate.
    rest: the label of the others.

  Raises:
    BadInput: if no leaf satisfies the predicate.
  """
  paths = jax.tree.map_with_path(
    lambda path, _: jax.tree_util.keystr(path, simple=True, separator='/'), tree
  )
  labels = jax.tree.map(lambda path: match if predicate(path) else rest, paths)
  if match not in jax.tree.leaves(labels):
    present = ', '.join(jax.tree.leaves(paths)) or 'no leaves'
    raise types.BadInput(
      f'no leaf satisfies the predicate for {match!r}; the tree has {present}.'
    )
  return labels
