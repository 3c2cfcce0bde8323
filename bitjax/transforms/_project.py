r"""Euclidean projections of a parameter tree onto a ball around an anchor.

With ``d = w - a``, the difference from the anchor, the nearest point of the ball of
radius r is ``a + p``, where ``p = d`` if ``d`` is inside the ball, and otherwise

.. math::
  \ell_2:\; p = d\, r / \|d\|_2, \qquad
  \ell_\infty:\; p_i = \min(\max(d_i, -r), r), \qquad
  \ell_1:\; p_i = \mathrm{sign}(d_i) \max(|d_i| - \theta, 0)

with the threshold :math:`\theta` at which :math:`\|p\|_1 = r`. Textbooks find
:math:`\theta` by sorting. Here Newton's method finds it, as the root of the convex,
piecewise linear :math:`f(\theta) = \sum_i \max(|d_i| - \theta, 0) - r`. Started below
the root, the method never passes it. Each step needs one sum and one count, and since
either f or the count at least halves at every step, a few dozen steps suffice for any
input.

``flips`` is a ball in the number of sign changes, and not convex. Its nearest
point keeps the flips that overshoot zero the furthest; the k-th largest
overshoot comes from at most 31 counts, one for each bit of a float.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bitjax import tree as tree_lib
from bitjax import types
from bitjax.transforms import _leaves
from bitjax.transforms import _rounding

__all__ = [
  'check_leaves',
  'furthest',
  'l1_excess',
  'project',
  'project_leaves',
]

_Leaves = list[types.Array]


def project(
  tree: types.PyTree, anchor: types.PyTree, budget: types.Budget
) -> types.PyTree:
  r"""Returns the point of the budget's ball around ``anchor`` nearest to ``tree``.

  - A point inside the ball is returned bit for bit, and so is a point that has been
    projected before.
  - ``linf``: no entry is further than ``radius`` from the anchor, in exact
    arithmetic. ``l2``, ``l1``: the norm of the exact differences is at most
    ``radius * (1 + 4 * eps)``, with the eps of the dtype; in low precision it is
    mostly less than ``radius``, as entries are rounded towards the anchor.
  - ``flips``: at most ``floor(radius)`` entries have another sign than the
    anchor's, with sign(0) = +1. Of the flipped entries, those furthest from zero
    keep their value (at a tie, the first in the order of flattening); the others
    become the nearest number that has the anchor's sign: 0, or for a negative
    anchor ``-finfo(dtype).tiny`` (XLA flushes nearer numbers to 0). Entries that
    do not flip are left alone.
  - Radius 0 returns the anchor (for ``flips``, a point without flips). A radius that
    is not 0 should be above 1e-30 in float32: XLA flushes subnormal numbers.
  - NaN stays NaN in its entry for ``linf`` and ``flips``, and makes all entries NaN
    for ``l2`` and ``l1``. Infinity is clipped by ``linf``, counts as the largest
    overshoot for ``flips``, and makes all entries NaN for ``l2`` and ``l1``, as does
    a norm that overflows.

  The backward pass is the true derivative, as if nothing were rounded. Over all
  entries of all leaves only sums, counts and maxima are taken (no sort, no gather),
  so leaves may be sharded.

  Args:
    tree: floating arrays of any shape; may be empty.
    anchor: a tree of the same structure and shapes, converted to the dtypes of
      ``tree``. It is the centre of the ball; ``budget.anchor`` is ignored.
    budget: the ball. Its radius may be traced; then a negative one counts as zero,
      and NaN gives NaN (for ``flips``, no flips). It is rounded down to float32.

  Returns:
    A tree with the structure, shapes and dtypes of ``tree``.

  Raises:
    BadInput: for leaves that are not floating, an anchor that does not match,
      or a radius that is not a scalar.

  References:
    Duchi et al., Efficient projections onto the l1-ball for learning in high
    dimensions, 2008 (the threshold by sorting). Condat, Fast projection onto
    the simplex and the l1 ball, 2016 (the history of Newton's, or Michelot's,
    method).
  """
  leaves, treedef = jax.tree.flatten(tree)
  leaves = [jnp.asarray(leaf) for leaf in leaves]
  anchors = treedef.flatten_up_to(anchor)
  check_leaves(leaves, anchors)
  anchors = [
    jnp.asarray(a, x.dtype) for x, a in zip(leaves, anchors, strict=True)
  ]
  return treedef.unflatten(project_leaves(leaves, anchors, budget))


def check_leaves(leaves: list, anchors: list) -> None:
  """Raises `BadInput` unless leaves are floating and shaped as their anchors."""
  _leaves.check_floating(leaves)
  for x, a in zip(leaves, anchors, strict=True):
    if jnp.shape(x) != jnp.shape(a):
      raise types.BadInput(
        f'parameters of shape {jnp.shape(x)} have an anchor of shape '
        f'{jnp.shape(a)}.'
      )


def project_leaves(
  leaves: _Leaves, anchors: _Leaves, budget: types.Budget
) -> _Leaves:
  """Projects leaves onto the ball around anchors of their shapes and dtypes."""
  projections: dict[str, Callable[..., _Leaves]] = {
    'l2': _project_l2,
    'linf': _project_linf,
    'l1': _project_l1,
    'flips': _project_flips,
  }
  dtype = types.promoted(jnp.float32, *leaves)
  radius = _rounding.lower_radius(budget.radius, dtype)
  return projections[budget.norm](leaves, anchors, radius)


def _differences(
  leaves: _Leaves, anchors: _Leaves, dtype: jnp.dtype
) -> _Leaves:
  return [
    x.astype(dtype) - a.astype(dtype)
    for x, a in zip(leaves, anchors, strict=True)
  ]


def _slack(radius: types.Array) -> tuple[types.Array, types.Array]:
  """Returns the radius to aim at, and the largest computed norm that counts as inside.

  A computed norm is off by up to 1.5 eps. The gap between the two makes projecting
  twice the same as projecting once; with either, the exact norm stays below
  ``radius * (1 + 4 * eps)``.
  """
  eps = jnp.finfo(radius.dtype).eps
  return radius * (1 - 2 * eps), radius * (1 + eps)


def _project_linf(leaves, anchors, radius):
  projected = []
  for x, a in zip(leaves, anchors, strict=True):
    low, high = _rounding.interval(a, radius)
    # Subnormal numbers pass only selects: XLA flushes them in products, as that of
    # `nan_where`, and in the minimum and maximum that it makes of a bare clip.
    nan = jnp.where(jnp.isnan(radius), radius.astype(x.dtype), x)
    edge = jnp.where(x > high, high, jnp.where(x < low, low, nan))
    inside = (x >= low) & (x <= high)
    projected.append(jnp.where(inside, x, edge))
  return projected


def _project_l2(leaves, anchors, radius):
  differences = _differences(leaves, anchors, radius.dtype)
  size = tree_lib.norm(differences, 'l2')
  aim, limit = _slack(radius)
  inside = size <= limit
  factor = aim / jnp.where(size > 0, size, 1.0)
  factor = types.nan_where(~jnp.isfinite(size), factor)
  return [
    jnp.where(inside, x, _rounding.move(a, d * factor))
    for x, a, d in zip(leaves, anchors, differences, strict=True)
  ]


def _project_l1(leaves, anchors, radius):
  differences = _differences(leaves, anchors, radius.dtype)
  magnitudes = [jnp.abs(d) for d in differences]
  largest = tree_lib.norm(magnitudes, 'linf')
  size = tree_lib.norm(magnitudes, 'l1')
  aim, limit = _slack(radius)
  inside = size <= limit
  # Count from the largest magnitude down: a threshold close to it, which keeps only
  # a few entries, would lose all its digits if it were counted from zero up.
  scale = tree_lib.power_of_two(largest)
  depths = [(largest - magnitude) / scale for magnitude in magnitudes]
  depth = _l1_depth(depths, radius / scale)
  kept = [jnp.maximum(depth - below, 0.0) for below in depths]
  # Rescale, since rounding leaves the norm of what is kept a little off the radius.
  kept_size = tree_lib.total(kept, jnp.minimum(depth, 4.0))
  factor = aim / jnp.where(kept_size > 0, kept_size, 1.0)
  factor = types.nan_where(~jnp.isfinite(size), factor)
  return [
    jnp.where(inside, x, _rounding.move(a, jnp.sign(d) * k * factor))
    for x, a, d, k in zip(leaves, anchors, differences, kept, strict=True)
  ]


def l1_excess(
  leaves: _Leaves, anchors: _Leaves, budget: types.Budget
) -> types.Array:
  """Returns how far outside of an l1 ball leaves are; 0 if they count as inside."""
  dtype = types.promoted(jnp.float32, *leaves)
  radius = _rounding.lower_radius(budget.radius, dtype)
  size = tree_lib.norm(_differences(leaves, anchors, dtype), 'l1')
  _, limit = _slack(radius)
  return jnp.where(size > limit, size - radius, 0)


def _l1_depth(depths: _Leaves, radius: types.Array) -> types.Array:
  """Returns t with ``sum_i max(t - depth_i, 0) == radius``; depths are >= 0.

  Newton's method finds t from above. It starts at the radius: ``t <= radius``, since
  one of the depths is 0.
  """
  fixed, fixed_radius = jax.lax.stop_gradient((depths, radius))

  def rough_total(leaves: _Leaves) -> types.Array:
    return sum((jnp.sum(leaf) for leaf in leaves), jnp.zeros_like(radius))

  def shrank(carry):
    _, count, previous_count = carry
    return count < previous_count

  def newton_step(carry):
    depth, previous_count, _ = carry
    count = tree_lib.count([d < depth for d in fixed])
    # Wait for the count: XLA would fuse both sums into a loop four times slower.
    limit = jnp.where(count < 0, 0, depth)
    active = [d < limit for d in fixed]
    active_total = rough_total(_select(active, fixed))
    depth = (fixed_radius + active_total) / _at_least_one(count, depth)
    return depth, count, previous_count

  num_entries = sum(depth.size for depth in depths)
  start = (fixed_radius, jnp.int32(num_entries + 1), jnp.int32(num_entries + 2))
  depth, _, _ = jax.lax.while_loop(shrank, newton_step, start)
  active = [d < depth for d in fixed]
  active_total = tree_lib.total(_select(active, depths), 4.0)
  return (radius + active_total) / _at_least_one(tree_lib.count(active), depth)


def _at_least_one(count: types.Array, like: types.Array) -> types.Array:
  return jnp.maximum(count, 1).astype(like.dtype)


def _select(masks: _Leaves, leaves: _Leaves) -> _Leaves:
  return [jnp.where(m, x, 0) for m, x in zip(masks, leaves, strict=True)]


def _project_flips(leaves, anchors, radius):
  num_entries = sum(x.size for x in leaves)
  max_flips = tree_lib.whole(radius, num_entries)
  flipped = [(x < 0) != (a < 0) for x, a in zip(leaves, anchors, strict=True)]
  flipped = [f & ~jnp.isnan(x) for f, x in zip(flipped, leaves, strict=True)]
  kept = furthest(leaves, flipped, max_flips)
  projected = []
  for x, a, f, k in zip(leaves, anchors, flipped, kept, strict=True):
    tiny = jnp.finfo(x.dtype).tiny
    nearest = jnp.where(a < 0, -tiny, 0).astype(x.dtype)
    projected.append(jnp.where(f & ~k, nearest, x))
  return projected


def furthest(
  leaves: _Leaves, candidates: _Leaves, max_kept: types.Array
) -> _Leaves:
  """Marks the ``max_kept`` candidates of largest magnitude; at a tie, the first ones.

  The bits of positive floats, read as integers, are ordered as the floats are.
  Entries that tie at the smallest magnitude to keep are cut again, by position.
  """
  dtype = types.promoted(jnp.float32, *leaves)
  integer = jnp.int64 if dtype == jnp.float64 else jnp.int32
  keys = []
  for x, candidate in zip(leaves, candidates, strict=True):
    magnitude = jnp.abs(jax.lax.stop_gradient(x)).astype(dtype)
    key = jax.lax.bitcast_convert_type(magnitude, integer)
    keys.append(jnp.where(candidate, key, -1))
  threshold = _cut(keys, max_kept, jnp.iinfo(integer).bits - 1)

  num_entries = sum(x.size for x in leaves)
  ranks, first = [], num_entries  # The first entry has the highest rank.
  for key in keys:
    rank = jnp.arange(first, first - key.size, -1, dtype=jnp.int32)
    rank = jnp.where(key == threshold, rank.reshape(key.shape), -1)
    ranks.append(jnp.where(key > threshold, num_entries, rank))
    first -= key.size
  last = _cut(ranks, max_kept, num_entries.bit_length())
  return [rank >= last for rank in ranks]


def _cut(keys: _Leaves, max_kept: types.Array, num_bits: int) -> types.Array:
  """Returns a threshold that ``max_kept`` keys reach, more only if they tie.

  The threshold is found bit by bit, from the highest bit down, until exactly
  ``max_kept`` keys reach it or no bits are left; in the second case keys tie, and
  more of them reach it. Negative keys never reach it.

  Args:
    keys: integer leaves.
    max_kept: int32, how many keys should reach the threshold.
    num_bits: a number of bits in which all keys fit.
  """
  dtype = keys[0].dtype if keys else jnp.dtype(jnp.int32)

  def undecided(carry):
    bit, _, kept = carry
    return (bit >= 0) & (kept > max_kept)

  def set_bit(carry):
    bit, cut, kept = carry
    trial = cut | jnp.left_shift(jnp.ones((), dtype), bit)
    trial_kept = tree_lib.count([key >= trial for key in keys])
    enough = trial_kept >= max_kept
    cut = jnp.where(enough, trial, cut)
    return bit - 1, cut, jnp.where(enough, trial_kept, kept)

  start = jnp.asarray(num_bits - 1, dtype), jnp.zeros((), dtype)
  kept = tree_lib.count([key >= 0 for key in keys])
  return jax.lax.while_loop(undecided, set_bit, (*start, kept))[1]
