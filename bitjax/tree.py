r"""Norms of parameter trees, sign changes between them, and masks of leaves.

Leaves are reduced where they lie: nothing is concatenated, sorted or gathered, so
sharded and vmapped trees need no special care.

Two things go wrong in a plain ``sqrt(sum(x ** 2))``. It overflows or underflows
at the ends of the exponent range, so `norm` first divides by a power of two
near the largest entry. And a float32 sum of 200 000 terms may be off by many
units in the last place, which a budget cannot afford, so `total` splits every term
into integers, whose sums are exact in any order, and a small rest.

A third goes wrong in a variance. The mean of equal numbers is rounded, so they differ
from it, and what should be zero is noise by which something may be divided.
`centred` subtracts one number without rounding first, and equal numbers become zero.

Counts are integers, also where they are more than the 2^24 that float32 can hold; only
a `share` is a float.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import math

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import types

__all__ = [
  'centred',
  'count',
  'deviation',
  'flips',
  'in_units',
  'label',
  'mask_by_name',
  'norm',
  'power_of_two',
  'share',
  'total',
  'whole',
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
  end = _largest(leaves)
  if kind == 'linf':
    return end
  if kind == 'l1':
    size = total([jnp.abs(leaf) for leaf in leaves], end)
  else:
    scaled, scale = in_units(leaves)
    squares = total([jnp.square(x) for x in scaled], 16.0)
    # The derivative of sqrt at zero is infinite: keep it out of the graph.
    positive = squares > 0
    root = jnp.sqrt(jnp.where(positive, squares, 1.0))
    size = jnp.where(positive, root, squares) * scale
  return jnp.where(jnp.isfinite(end), size, end)


def in_units(tree: types.PyTree) -> tuple[types.PyTree, types.Array]:
  """Returns a tree in units of a power of two near its largest magnitude, and the unit.

  No square of an entry then overflows, and that of the largest does not underflow;
  dividing by the unit rounds nothing but what becomes subnormal.
  """
  unit = power_of_two(_largest(tree))
  return jax.tree.map(lambda x: jnp.asarray(x, unit.dtype) / unit, tree), unit


def _largest(tree: types.PyTree) -> types.Array:
  """Returns the largest magnitude of a tree, float32 at least; 0 if it is empty."""
  leaves = jax.tree.leaves(tree)
  end = jnp.zeros((), types.promoted(jnp.float32, *leaves))
  for leaf in leaves:
    magnitudes = jnp.abs(jnp.asarray(leaf, end.dtype))
    end = jnp.maximum(end, jnp.max(magnitudes, initial=0))
  return end


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
  """Returns the number of True entries in a tree of bools, as int32.

  Raises:
    BadInput: for 2^31 entries or more, which an int32 cannot count.
  """
  leaves = jax.tree.leaves(mask)
  num_entries = sum(leaf.size for leaf in leaves)
  if num_entries > jnp.iinfo(jnp.int32).max:
    raise types.BadInput(
      f'entries must be fewer than 2^31 to be counted; got {num_entries}. Count '
      'parts of them.'
    )
  number = jnp.zeros((), jnp.int32)
  for leaf in leaves:
    # On a CPU, XLA adds floats several times faster than integers.
    dtype = jnp.float32 if leaf.size < 2**24 else jnp.int32
    number += jnp.sum(leaf, dtype=dtype).astype(jnp.int32)
  return number


def share(mask: types.PyTree) -> types.Array:
  """Returns the share of True entries in a tree of bools, as float32; 0 if it is empty.

  It is the exact count, rounded once and divided last.
  """
  num_entries = sum(leaf.size for leaf in jax.tree.leaves(mask))
  return count(mask).astype(jnp.float32) / max(num_entries, 1)


def whole(number: types.Scalar, largest: types.Scalar) -> types.Array:
  """Returns ``number`` as int32, rounded down, in [0, largest]; 0 for NaN.

  Args:
    number: a scalar, which may be infinite.
    largest: an integer that an int32 holds, though float32 may not.
  """
  if isinstance(number, (int, np.integer)):  # It may be wider than an int32.
    number = max(0, min(int(number), jnp.iinfo(jnp.int32).max))
  number = jnp.asarray(number)
  largest = jnp.asarray(largest, jnp.int32)
  if not jnp.issubdtype(number.dtype, jnp.integer):
    number = jnp.floor(jnp.where(number > 0, number, 0))
    huge = number > largest.astype(number.dtype)
    number = jnp.where(huge, largest, number.astype(jnp.int32))
  return jnp.clip(number, 0, largest).astype(jnp.int32)


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


def centred(
  x: types.Array, axis: int | tuple[int, ...] | None = None
) -> tuple[types.Array, types.Array]:
  """Returns ``(x - middle) / scale`` and the scale, for variances and correlations.

  The middle of the range is a number near every entry of an ``x`` that hardly varies,
  so that the difference is exact: where entries are equal it is exactly 0, and
  where they differ in their last bit they still do. With the scale, a power of two
  near the largest magnitude, no square overflows, and the square of the
  largest difference does not underflow. ``jnp.var(centred) * scale**2`` is a variance;
  a mean has still to be subtracted where one is needed.

  The derivative is that of ``x / scale`` with a constant scale, which is right for
  whatever depends neither on the middle nor, as correlations do not, on the scale.

  Args:
    x: floating array.
    axis: the axes along which a middle and a scale are shared; None for all.

  Returns:
    The centred ``x``, in [-4, 4], NaN if an entry that shares its middle is NaN, and NaN
    or infinite if one is infinite; and the scale, with axes kept.
  """
  fixed = jax.lax.stop_gradient(x)
  low = jnp.min(fixed, axis, keepdims=True, initial=jnp.inf)
  high = jnp.max(fixed, axis, keepdims=True, initial=-jnp.inf)
  scale = power_of_two(jnp.maximum(jnp.abs(low), jnp.abs(high)))
  middle = 0.5 * (low / scale) + 0.5 * (high / scale)
  # A select, which is always x, keeps a compiler from fusing a product that x may be
  # with the difference: the product would not be rounded, as the middle is.
  rounded = jnp.where(x <= high, x, high)
  return rounded / scale - middle, scale


def deviation(
  x: types.Array,
  axis: int | tuple[int, ...] | None = None,
  ddof: int = 0,
) -> types.Array:
  """Returns the standard deviation, exactly 0 for equal numbers; see `centred`.

  Args:
    x: floating array.
    axis: the axes that are reduced; None for all.
    ddof: what is subtracted from the number of entries that the sum is divided by.
  """
  x, scale = centred(x, axis)
  return jnp.std(x, axis, ddof=ddof) * jnp.squeeze(scale, axis)


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

  Returns:
    The tree of bools; for a callable tree (a model of Equinox), a function that returns
    it, because optax would call the tree.

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
  return _uncalled(jax.tree.map(lambda name: name in wanted, found))


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

  Returns:
    The tree of labels; for a callable tree (a model of Equinox), a function that returns
    it, because optax would call the tree.

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
  return _uncalled(labels)


def _uncalled(tree: types.PyTree) -> types.PyTree:
  return (lambda _: tree) if callable(tree) else tree
