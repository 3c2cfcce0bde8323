r"""Computes the gains of all single moves of a layer that feeds a sign activation.

A move of weight (i, j) changes the pre-activations of unit j by
:math:`\Delta_{ij} x_{bi}`. The unit's activation either keeps its sign or takes
the other, and what the other does to example b's loss,

.. math:: d_{bj} = \ell_b(a_{bj} \to -a_{bj}) - \ell_b,

does not depend on i. So all gains need one loss for each (example, unit) that any
move can flip at all, and one comparison for each (example, weight):

.. math:: g_{ij} = -\frac1B \sum_b
  1[\mathrm{sign}_j(p_{bj} + \Delta_{ij} x_{bi}) \ne \mathrm{sign}_j(p_{bj})]
  \, d_{bj}.

Scales, biases, thresholds and running statistics between the product p and the
sign are monotone in p, rounding included. So the sign changes once, between two
neighbouring floats, which bisection finds, and a comparison with them decides exactly
as the network does.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bitjax import sizes
from bitjax import sums as sums_lib
from bitjax import types
from bitjax.scans import _report
from bitjax.scans import _split
from bitjax.scans import _stages
from bitjax.scans import _view

__all__ = [
  'crossed_sums',
  'crossing',
  'cut',
  'edge',
  'flip_changes',
  'granularity',
  'masked_sums',
  'moments',
  'obstacle',
]

apply = _stages.apply


def obstacle(view: _view.LayerView) -> str | None:
  """Returns why this path does not apply to a view, or None if it does."""
  reason = _split.obstacle(view)
  if reason is not None:
    return reason
  affines = [view.affine]
  for stage in view.tail:
    if not isinstance(stage, _stages.Affine):
      break
    affines.append(stage)
  index = len(affines) - 1
  first = view.tail[index] if index < len(view.tail) else None
  if not isinstance(first, _stages.Activation) or first.kind != 'sign':
    return 'its layer does not feed a sign activation'
  if view.coupling != 'none' and not all(map(_no_offset, affines)):
    return (
      f'its scale couples the weights ({view.coupling}) and an offset follows '
      'before the sign; use view.freeze_scale()'
    )
  return None


def _no_offset(affine):
  # This must be a static fact: an array may be zero now and not in the next call.
  return isinstance(affine.shift, (int, float)) and affine.shift == 0


def moments(
  view: _view.LayerView,
  changes: types.Array,
  chunk: int,
  count_near_ties: bool = False,
  report: Any = None,
) -> tuple[tuple[types.Array, types.Array, types.Array], types.Array | None]:
  """Returns the mean loss, and the first two moments of its decrease by each move.

  A scale that depends on the kernel, directly before the sign, is assumed to be
  positive after every move; it may be zero before (a unit of zero weights).

  Args:
    view: a layer without an `obstacle`.
    changes: changes of the quantised weights, [moves, fan_in, units].
    chunk: examples at a time.
    count_near_ties: whether to count near ties.
    report: progress; None for no report.

  Returns:
    A triple of the mean loss, and the means over the examples of the decrease of the
    loss and of its square, [moves, fan_in, units] each; and the number of examples
    that are near ties, of the same shape, or None.
  """
  parts = _split.split(view)
  changes = changes.astype(parts.inputs.dtype)
  before, behind = cut(parts.front)
  # A positive scale changes no sign, whatever its value, so its stage is left out.
  edges = edge(before[1:] if view.coupling != 'none' else before, changes)
  deltas = jnp.swapaxes(changes, 1, 2)  # fan_in, the long axis, comes last.
  reach = jnp.max(jnp.abs(deltas), axis=(0, 2))[None, :]
  group = sizes.here().sign_group
  chunk = group * -(-min(chunk, view.labels.size) // group)
  noise = _noise(parts, before, edges, reach) if count_near_ties else None

  def block(totals, batch):
    x, y, valid = batch
    p = parts.products(x)
    signs = apply(before, p)
    h, other = apply(behind, signs), apply(behind, -signs)
    side, threshold = crossing(signs, edges)
    p = side * p
    farthest = p + reach * jnp.max(jnp.abs(x), axis=1, keepdims=True)
    active = (farthest >= threshold) & valid[:, None]
    base, change = flip_changes(parts, h, other - h, y, active)
    sums = (
      jnp.sum(base * valid.astype(base.dtype)),
      *masked_sums(deltas, x, side, p, threshold, change),
    )
    if noise is not None:
      bound = jnp.where(valid[:, None], noise(x), 0.0)
      sums += (_near_ties(deltas, x, side, p, threshold, bound),)
    return jax.tree.map(jnp.add, totals, sums), None

  zeros = tuple(
    jnp.zeros(shape, parts.dtype) for shape in ((), deltas.shape, deltas.shape)
  )
  if noise is not None:
    zeros += (jnp.zeros(deltas.shape, jnp.int32),)
  valid = jnp.ones(view.labels.size, bool)
  batches = _split.batches((parts.inputs, view.labels, valid), chunk)
  (loss, first, second, *counts), _ = _report.scan(
    report, block, zeros, batches
  )
  first, second, *counts = (
    jnp.swapaxes(total, 1, 2) for total in (first, second, *counts)
  )
  size = view.labels.size
  means = loss / size, -first / size, second / size
  return means, counts[0] if counts else None


def cut(
  front: tuple[_stages.Stage, ...],
) -> tuple[tuple[_stages.Stage, ...], tuple[_stages.Stage, ...]]:
  """Returns the stages up to the sign, and those behind it."""
  end = 1 + [isinstance(stage, _stages.Activation) for stage in front].index(
    True
  )
  return front[:end], front[end:]


class _Edge(NamedTuple):
  """The two neighbouring floats between which each unit's sign changes."""

  low: types.Array  # [units]; -inf for a sign that never changes.
  high: types.Array  # [units]; +inf for a sign that never changes.
  sign_above: types.Array  # [units], +-1: the sign of p >= high.


def edge(stages, changes):
  """Finds by bisection of the floats where the sign of each unit changes, [units].

  Denormals are left out, as they may be flushed to zero.
  """
  info = jnp.finfo(types.promoted(jnp.float32, changes))
  # Bit patterns of floats: 2^64, beyond any product, and the largest denormal.
  largest = (info.maxexp - 1 + 64) << info.nmant
  denormals = (1 << info.nmant) - 1
  limit = jnp.full(changes.shape[2:], largest - denormals, f'int{info.bits}')

  def number(key):
    bits = jnp.where(key == 0, 0, jnp.abs(key) + denormals)
    magnitude = jax.lax.bitcast_convert_type(bits, info.dtype)
    return jnp.where(key < 0, -magnitude, magnitude)

  def sign(key):
    return apply(stages, number(key)[None, :])[0]

  def halve(_, ends):
    low, high = ends
    middle = (low >> 1) + (high >> 1) + (low & high & 1)
    like_low = sign(middle) != sign_above
    return jnp.where(like_low, middle, low), jnp.where(like_low, high, middle)

  sign_above = sign(limit)
  changes = sign(-limit) != sign_above
  low, high = jax.lax.fori_loop(0, info.bits, halve, (-limit, limit))
  return _Edge(
    jnp.where(changes, number(low), -jnp.inf),
    jnp.where(changes, number(high), jnp.inf),
    sign_above,
  )


def crossing(signs, edge):
  """Returns sides s and thresholds t: the sign changes where ``s p >= t``."""
  above = signs == edge.sign_above[None, :]
  side = jnp.where(above, -1.0, 1.0)
  return side, jnp.where(above, -edge.low[None, :], edge.high[None, :])


def flip_changes(parts, h, tau, labels, active):
  """Returns each example's loss, and d [examples, units] where ``active``, else 0.

  The active pairs are listed first, then evaluated some at a time until none is
  left: the cost depends on their number, but no shape does.
  """
  next_products = parts.next_products(h)
  base = parts.losses(next_products, labels)
  units, size = active.shape[1], active.size
  some = sizes.here().sign_pairs
  ((listed,), (count,)) = _split.true_indices(active.reshape(1, -1), room=some)

  def evaluate(state):
    start, changes = state
    pairs = jax.lax.dynamic_slice(listed, (start,), (some,))
    example, unit = jnp.divmod(jnp.minimum(pairs, size - 1), units)
    moved = (
      next_products[example] + tau[example, unit, None] * parts.matrix[unit]
    )
    change = parts.losses(moved, labels[example]) - base[example]
    return start + some, changes.at[pairs].set(change, mode='drop')

  _, changes = jax.lax.while_loop(
    lambda state: state[0] < count, evaluate, (0, jnp.zeros(size, base.dtype))
  )
  return base, changes.reshape(active.shape)


def masked_sums(deltas, x, side, p, threshold, change):
  """Returns sums of d and d^2 over the examples whose sign each move changes."""

  def add(sums, moved, threshold, change):
    first, second = sums
    d = jnp.where(moved >= threshold, change, 0.0)
    return first + d, second + d * d

  zeros = 2 * (jnp.zeros(deltas.shape, change.dtype),)
  return _over_examples(add, zeros, deltas, x, side, p, threshold, change)


def crossed_sums(deltas, x, side, p, threshold, *changes):
  """Returns the sum of each of ``changes`` over the examples that a move crosses."""

  def add(sums, moved, threshold, *changes):
    crossed = moved >= threshold
    pairs = zip(sums, changes, strict=True)
    return tuple(total + jnp.where(crossed, c, 0.0) for total, c in pairs)

  zeros = tuple(jnp.zeros(deltas.shape, c.dtype) for c in changes)
  return _over_examples(add, zeros, deltas, x, side, p, threshold, *changes)


def _near_ties(deltas, x, side, p, threshold, bound):
  """Returns how many examples each move takes within ``bound`` of the threshold."""

  def add(count, moved, threshold, bound):
    near = jnp.abs(moved - threshold) < bound
    return count + near.astype(count.dtype)

  zeros = jnp.zeros(deltas.shape, jnp.int32)
  return _over_examples(add, zeros, deltas, x, side, p, threshold, bound)


def _over_examples(add, sums, deltas, x, side, p, *columns):
  """Accumulates ``add`` over the examples, for moved products s (p + delta x)."""
  size = sizes.here().sign_group
  groups = [a.reshape(-1, size, a.shape[1]) for a in (x, side, p, *columns)]

  def group(sums, examples):
    # Unrolled, so that each sum is loaded and stored once for the whole group.
    for row, *column in zip(*examples, strict=True):
      s, q, *rest = (c[None, :, None] for c in column)
      sums = add(sums, s * (deltas * row[None, None, :]) + q, *rest)
    return sums, None

  return jax.lax.scan(group, sums, groups)[0]


def _noise(parts, stages, edge, reach):
  """Returns a function from x to distances within which rounding may decide.

  They are [examples, units]: twice the bound on the rounding of a sum, (n + 4) u sum
  |x||w|, and of its terms in a fast precision, unless all sums are exact; plus that on
  the rounding of the affine stages at the edge, as a distance in p. (A compiler may
  round these once, fused, or twice.)
  """
  value = jnp.where(jnp.isfinite(edge.high), edge.high, 0.0)[None, :]
  slope, shifts = jnp.ones_like(value), jnp.zeros_like(value)
  for stage in stages:
    if isinstance(stage, _stages.Affine):
      scaled = _stages.Affine(stage.scale)
      value, slope = scaled(value), jnp.abs(scaled(slope))
      distance = jnp.abs(value) + jnp.abs(stage(jnp.zeros_like(value)))
      shifts += distance / jnp.where(slope > 0, slope, 1.0)
      value = value + stage(jnp.zeros_like(value))
  roundoff = float(jnp.finfo(value.dtype).eps) / 2
  shifts = 2 * roundoff * shifts

  def magnitudes(x):
    total = _split.product(jnp.abs(x), jnp.abs(parts.weights))
    return total + reach * jnp.max(jnp.abs(x), axis=1, keepdims=True)

  ulp = granularity(parts.inputs) * jnp.minimum(
    granularity(parts.weights), granularity(reach)
  )
  exact = jnp.max(magnitudes(parts.inputs)) * roundoff < ulp
  factor = 2 * (parts.weights.shape[0] + 4) * roundoff
  if coarse := parts.arithmetic.roundoff:
    exact &= sums_lib.unrounded(parts.inputs, parts.weights, reach)
    factor += 4 * coarse
  factor = jnp.where(exact, 0.0, factor)
  return lambda x: factor * magnitudes(x) + shifts


def granularity(x: types.Array) -> types.Array:
  """Returns the largest power of two that divides all entries; inf if all are 0."""
  info = jnp.finfo(types.promoted(jnp.float32, x))
  bits = jax.lax.bitcast_convert_type(x.astype(info.dtype), f'int{info.bits}')
  digits, one = info.nmant, 1 << info.nmant
  mantissa = (bits & (one - 1)) | one
  lowest = (mantissa & -mantissa).astype(info.dtype)
  exponent = (bits >> digits) & ((1 << (info.bits - 1 - digits)) - 1)
  exponent = exponent.astype(jnp.int32) - (info.maxexp - 1 + digits)
  unit = jnp.ldexp(lowest, exponent)
  return jnp.min(jnp.where(x == 0, jnp.inf, unit))
