r"""What moves cost under a budget, and which of a ranked list it can pay.

The *cost* of a move is how far it takes its weight from the original point, in
the units of the latent weights. A budget of radius r charges its share of it:

=========  =========================  ====================================
norm       a move's charge            what a round may spend
=========  =========================  ====================================
``l2``     ``(cost / r) ** 2``        1
``l1``     ``cost / r``               1
``linf``   0, or more than all        any number of moves with cost <= r
``flips``  one                        ``floor(r)`` moves
=========  =========================  ====================================

A weight that moved before pays the rest of the way if it goes on in the same
direction. If it turns round it pays a whole distance again, the longer one of where
it is and where it goes: else flipping back would be free, and steps would chatter.
So charges are never less than the ball's own measure, and who can pay stays in it.

Charges are rounded up to integers, in units of 1 / `UNITS` of the budget. Their sums
do not depend on the order of addition, and cannot exceed the budget by rounding.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bitjax import types

__all__ = [
  'OVERFLOWS',
  'SPLITS',
  'UNITS',
  'allowance',
  'charges',
  'costs',
  'fitting',
  'size',
  'take',
]

OVERFLOWS = ('stop', 'skip')
SPLITS = ('even', 'cumulative')

UNITS = 2**29
_TOO_MUCH = UNITS + 1  # Sums up to the first refusal stay below 2^31.

_POWERS = {'l2': 2, 'l1': 1}


def costs(here: types.Array, there: types.Array) -> types.Array:
  """Distances that moves are ranked by and pay for.

  Args:
    here: displacement of each weight from the original point, [...].
    there: the same after the move, [moves, ...].
  """
  return jnp.maximum(jnp.abs(there), jnp.abs(here)[None])


def allowance(
  budget: types.Budget, split: str, num_steps: int, step: types.Array | int
) -> tuple[types.Array, types.Array]:
  r"""The radius that charges refer to in a round, and the units it may spend.

  ``'even'`` gives every round a ball of radius r / K of its own; what it leaves
  unspent is lost. ``'cumulative'`` gives all rounds up to the k-th together the
  ball of radius r k / K.

  Args:
    budget: the ball.
    split: one of `SPLITS`.
    num_steps: K, rounds.
    step: k, from 1 to K.

  Returns:
    The radius, and the room: of the round (``'even'``), or of it and all rounds
    before (``'cumulative'``), int32.
  """
  dtype = jnp.result_type(float)
  radius = jnp.asarray(budget.radius, dtype)
  part = jnp.asarray(step, dtype) / num_steps
  if budget.norm == 'flips':
    whole = jnp.minimum(radius, UNITS)
    room = jnp.floor(whole * step / num_steps).astype(jnp.int32)
    if split == 'even':
      room -= jnp.floor(whole * (step - 1) / num_steps).astype(jnp.int32)
    return radius, room
  if split == 'even':
    return radius / num_steps, jnp.asarray(UNITS, jnp.int32)
  if budget.norm == 'linf':
    return radius * part, jnp.asarray(UNITS, jnp.int32)
  room = jnp.floor(UNITS * part ** _POWERS[budget.norm])
  return radius, room.astype(jnp.int32)


def charges(
  norm: types.Norm,
  split: str,
  radius: types.Array,
  cost: types.Array,
  here: types.Array,
  onward: types.Array,
) -> types.Array:
  """Units that each move is charged, int32 [moves, ...]; what is NaN, too much.

  Args:
    norm: of the ball.
    split: one of `SPLITS`: whether a round's own steps are measured, or the
      distance from the original point.
    radius: from `allowance`.
    cost: from `costs`, [moves, ...].
    here: displacements before the move, [...].
    onward: whether the move goes on where the weight's last one went, [moves,
      ...]; of no effect for weights that have not moved.
  """
  if norm == 'flips':
    return jnp.ones(cost.shape, jnp.int32)
  paid = jnp.where(onward, jnp.abs(here)[None], 0.0)
  if norm == 'linf':
    fits = (cost - paid if split == 'even' else cost) <= radius
    return jnp.where(fits, 0, _TOO_MUCH).astype(jnp.int32)
  power = _POWERS[norm]
  if split == 'even':
    share = ((cost - paid) / radius) ** power
  else:
    share = (cost / radius) ** power - (paid / radius) ** power
  units = jnp.ceil(share * UNITS)
  fits = units <= UNITS
  # An integer first: as a float32 what is too much would not be.
  units = jnp.where(fits, units, 0.0).astype(jnp.int32)
  return jnp.where(fits, units, _TOO_MUCH)


def take(
  score: types.Array, charge: types.Array, room: types.Array, overflow: str
) -> tuple[types.Array, types.Array]:
  """Takes moves from the highest score down until the room is used up.

  Args:
    score: [size], positive; minus infinity for what is no candidate. At ties the
      first goes first.
    charge: int32, [size].
    room: int32, what may be charged in all.
    overflow: ``'stop'`` at the first candidate that does not fit, or ``'skip'``
      it and go on.

  Returns:
    What is taken, [size], and how many are taken before it, int32 [size]; -1 for
    what is not taken.
  """
  order = jnp.argsort(-score)
  if overflow == 'stop':
    fits = fitting(score, charge, room)[order]
  else:

    def pay(spent, charge):
      fits = charge <= room - spent
      return spent + jnp.where(fits, charge, 0), fits

    charge = jnp.where(score > -jnp.inf, charge, _TOO_MUCH)[order]
    _, fits = jax.lax.scan(pay, jnp.zeros_like(room), charge)
  before = jnp.where(fits, jnp.cumsum(fits, dtype=jnp.int32) - 1, -1)
  rank = jnp.zeros(score.shape, jnp.int32).at[order].set(before)
  return rank >= 0, rank


def fitting(
  score: types.Array, charge: types.Array, room: types.Array
) -> types.Array:
  """What `take` takes until it stops, [size], without sorting.

  The bits of a positive float, read as an integer, are ordered as the float is. So
  the score to reach is found bit by bit; among equals, the place to stop at.
  """
  key = jax.lax.bitcast_convert_type(score.astype(jnp.float32), jnp.int32)
  key = jnp.where(score > -jnp.inf, key, -1)
  # Digits of eight bits: their sums do not overflow.
  digits = [(charge >> shift) & 255 for shift in (0, 8, 16, 24)]

  def affordable(chosen):
    carry, rest = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
    for shift, digit in zip((0, 8, 16, 24), digits, strict=True):
      carry += jnp.sum(jnp.where(chosen, digit, 0), dtype=jnp.int32)
      if shift < 24:
        rest |= (carry & 255) << shift
        carry >>= 8
    limit = room >> 24
    return (carry < limit) | ((carry == limit) & (rest <= room & (2**24 - 1)))

  def smallest(choose, high):
    """The smallest number above 0 whose set is affordable; ``high``'s is."""

    def halve(ends):
      low, high = ends
      middle = low + (high - low) // 2
      fits = affordable(choose(middle))
      return jnp.where(fits, low, middle), jnp.where(fits, middle, high)

    return jax.lax.while_loop(
      lambda ends: ends[1] - ends[0] > 1,
      halve,
      (jnp.zeros((), jnp.int32), jnp.full((), high, jnp.int32)),
    )[1]

  least = smallest(lambda t: key >= t, 2**31 - 1)
  above, equal = key >= least, key == least - 1
  # Places counted from the end: a larger number makes a smaller set.
  place = score.size - jnp.arange(score.size)
  last = smallest(lambda p: above | (equal & (place >= p)), score.size + 1)
  return above | (equal & (place >= last))


def size(norm: types.Norm, displacement: types.Array) -> types.Array:
  """The norm of a displacement (for ``flips``, which count moves, that of linf)."""
  magnitudes = jnp.abs(displacement)
  if norm == 'l2':
    return jnp.sqrt(jnp.sum(magnitudes**2))
  return jnp.sum(magnitudes) if norm == 'l1' else jnp.max(magnitudes)
