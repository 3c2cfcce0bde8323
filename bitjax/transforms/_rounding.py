r"""Rounding that never leaves a ball.

A projection is exact on paper, but what is stored is rounded; and an optimizer
returns not the point but the update that leads to it, which is rounded again when
it is added. So every result here is rounded *towards the anchor*: no component of
the difference from it grows, and so neither does any norm of that difference.

Compilers set three more traps. XLA keeps bfloat16 intermediates in float32
(`cast` rounds for good); it contracts ``p + a * b`` to a fused multiply-add,
which is not the sum of the ``a * b`` that it returns (`seal` keeps them apart);
and it flushes subnormal numbers to zero (so `nudge` never leaves zero for one).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import types

__all__ = [
  'cast',
  'interval',
  'lower_radius',
  'move',
  'nudge',
  'reach',
  'seal',
  'solve',
]


def cast(x: types.Array, dtype: np.dtype) -> types.Array:
  """Rounds ``x`` to ``dtype`` even where XLA may keep excess precision."""
  if dtype == jnp.bfloat16:
    x = jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
  return x.astype(dtype)


def seal(x: types.Array) -> types.Array:
  """Returns ``x``, behind a select that no multiply-add is fused across.

  An ``optimization_barrier`` is not enough: in jaxlib 0.10 the CPU compiler drops
  it before LLVM contracts multiplications and additions. The other branch is a NaN
  only where ``x`` is one, so that ``jax_debug_nans`` does not find it.
  """
  return jnp.where(jnp.isnan(x), -x, x)


def nudge(x: types.Array, upward: types.Array) -> types.Array:
  """Returns the float next to ``x``; next to zero, the smallest that is not flushed.

  The derivative is that of the identity.

  Args:
    x: floating, any shape; infinity is next to the largest finite float.
    upward: bool, as ``x``: towards +inf or towards -inf.
  """
  integer = {2: jnp.int16, 4: jnp.int32, 8: jnp.int64}[x.dtype.itemsize]
  fixed = jax.lax.stop_gradient(x)
  bits = jax.lax.bitcast_convert_type(fixed, integer)
  away_from_zero = (fixed > 0) == upward
  bits = bits + jnp.where(away_from_zero, 1, -1).astype(integer)
  moved = jax.lax.bitcast_convert_type(bits, x.dtype)
  # XLA computes float16 in float32, where its subnormal numbers are normal.
  info = jnp.finfo(x.dtype)
  half = x.dtype == jnp.float16
  tiny = info.smallest_subnormal if half else info.smallest_normal
  moved = jnp.where(fixed == 0, jnp.where(upward, tiny, -tiny), moved)
  zero = jnp.where(jnp.isfinite(x), x - fixed, 0)  # Its derivative is 1.
  return (moved + zero).astype(x.dtype)


def lower_radius(radius: types.Scalar, dtype: np.dtype) -> types.Array:
  """Returns ``radius`` as a ``dtype`` scalar, rounded down and not negative.

  For example, 0.1 is not a float32, and the float32 nearest to it is larger: it
  lies outside the ball.
  """
  types.check_number('radius', radius)
  if not isinstance(radius, jax.Array):
    exact = np.float64(radius)
    with np.errstate(over='ignore'):
      rounded = exact.astype(dtype)
    if rounded > exact:
      rounded = np.nextafter(rounded, np.zeros((), dtype))
    return jnp.maximum(jnp.asarray(rounded), 0)
  rounded = radius.astype(dtype)
  if jnp.finfo(dtype).bits < 64 and radius.dtype == jnp.float64:
    outside = rounded.astype(radius.dtype) > radius
    rounded = jnp.where(outside, nudge(rounded, jnp.array(False)), rounded)
  return seal(jnp.maximum(rounded, 0))


def move(anchor: types.Array, step: types.Array) -> types.Array:
  """Returns ``anchor + step`` in the anchor's dtype, rounded towards the anchor.

  It holds that ``|result - anchor| <= |step|``, up to half a unit in the last place
  of ``step`` where ``result`` is not within a factor of two of the anchor.

  Args:
    anchor: floating, any shape.
    step: shape of ``anchor``, its dtype or a wider one.
  """
  centre = anchor.astype(step.dtype)
  rounded = cast(centre + step, anchor.dtype)
  outside = jnp.abs(rounded.astype(step.dtype) - centre) > jnp.abs(step)
  rounded = jnp.where(outside, nudge(rounded, step < 0), rounded)
  return jnp.where(step == 0, anchor, rounded)


def interval(
  anchor: types.Array, radius: types.Array
) -> tuple[types.Array, types.Array]:
  """Returns the outermost floats ``low, high`` within ``radius`` of ``anchor``.

  The result is exact: ``low`` and ``high`` are in the ball, and the next floats
  beyond them are not (except for subnormal numbers, which count as zero).

  Args:
    anchor: floating, any shape.
    radius: a scalar of the anchor's dtype or a wider one.
  """
  high = _sum_downwards(anchor, radius)
  return -_sum_downwards(-anchor, radius), high


def _sum_downwards(x: types.Array, radius: types.Array) -> types.Array:
  """Returns the largest float of the dtype of ``x`` that is <= x + radius."""
  wide = x.astype(radius.dtype)
  nearest = wide + radius
  # Knuth's error of a sum: x + radius = nearest + error holds exactly.
  back = nearest - wide
  error = (wide - (nearest - back)) + (radius - back)
  overflow = jnp.isinf(nearest) & jnp.isfinite(radius)
  below = nudge(nearest, jnp.array(False))
  wide = jnp.where((error < 0) | overflow, below, nearest)
  rounded = cast(wide, x.dtype)
  outside = rounded.astype(wide.dtype) > wide
  return jnp.where(outside, nudge(rounded, jnp.array(False)), rounded)


def solve(
  params: types.Array,
  target: types.Array,
  side: types.Array,
  dtype: np.dtype,
) -> types.Array:
  r"""Returns the update that leads from ``params`` to ``target``, or just short.

  ``fl(params + fl(target - params))`` may miss ``target`` by an ulp. Let
  ``u = fl(target - params)``. Where ``u <= target - params``, the rounded sum is
  ``<= target``, since rounding is monotone. Where ``u`` is greater, the float below
  ``u`` is not. So moving ``u`` by one float is enough for not passing ``target``; and
  if ``params`` had not passed it, the result lies between the two.

  Args:
    params: floating, any shape.
    target: where to go; shape and dtype of ``params``.
    side: a point on the side of ``target`` to err on; shape of ``params``. Where
      it is ``target``, either side will do.
    dtype: dtype of the update, that of ``params`` or a wider one.
  """
  wide = types.promoted(jnp.float32, dtype)
  start, goal, side = (x.astype(wide) for x in (params, target, side))
  update = cast(goal - start, dtype)
  reached = start + update.astype(wide)
  above = (goal > side) & (reached > goal)
  below = (goal < side) & (reached < goal)
  return jnp.where(above | below, nudge(update, below), update)


def reach(
  params: types.Array,
  update: types.Array,
  point: types.Array,
  target: types.Array,
  side: types.Array,
) -> types.Array:
  """Returns the update that leads to ``target``: ``update`` itself if it does.

  Args:
    params: floating, any shape.
    update: the proposed update, same shape.
    point: where ``update`` leads.
    target: where to go; shape and dtype of ``params``.
    side: see `solve`.
  """
  dtype = types.promoted(params, update)
  solved = solve(params, target, side, dtype)
  return jnp.where(target == point, update.astype(dtype), solved)
