r"""Computes what moves cost under a budget, and which of a ranked list it pays for.

The *cost* of a move is how far it takes its weight from the original point, in
the units of the latent weights. Under a budget of radius r, a move is charged a share
of the budget:

=========  =========================  ====================================
norm       a move's charge            what a round may spend
=========  =========================  ====================================
``l2``     ``(cost / r) ** 2``        1
``l1``     ``cost / r``               1
``linf``   0, or more than all        any number of moves with cost <= r
``flips``  one                        ``floor(r)`` moves
=========  =========================  ====================================

A weight that moved before pays only for the rest of the way if it goes on in the same
direction. If it reverses, it pays for a whole distance again, the larger one of its
distances before and after the move; otherwise flipping back would be free, and
weights would oscillate. So charges are never less than what the norm of the ball
measures, and moves that the budget can pay for stay in the ball.

Charges are rounded up to integers, in units of 1 / `UNITS` of the budget. Their sums
do not depend on the order of addition, and cannot exceed the budget by rounding.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import types
from bitjax.scans import _view

__all__ = [
  'OVERFLOWS',
  'SPLITS',
  'UNITS',
  'allowance',
  'charges',
  'costs',
  'dtype_of',
  'fitting',
  'size',
  'take',
]

OVERFLOWS = ('stop', 'skip')
SPLITS = ('even', 'cumulative')

UNITS = 2**29
# More than any budget. Sums up to the first charge that is refused stay below 2^31.
_TOO_MUCH = UNITS + 1

# Whose square is below 2^31, so that shares of what rounds leave do not overflow.
_MOST_ROUNDS = 46_340

_POWERS = {'l2': 2, 'l1': 1}


def costs(here: types.Array, there: types.Array) -> types.Array:
  """Returns the distances by which moves are ranked and charged, [moves, ...].

  Args:
    here: displacement of each weight from the original point, [...].
    there: displacement after each move, [moves, ...].
  """
  return jnp.maximum(jnp.abs(there), jnp.abs(here)[None])


def dtype_of(view: _view.LayerView) -> np.dtype:
  """Returns the dtype of costs and radii: the kernel's, or float32 if that is wider."""
  return types.promoted(jnp.float32, view.kernel)


def allowance(
  budget: types.Budget,
  dtype: np.dtype,
  split: str = 'cumulative',
  num_rounds: int = 1,
  step: types.Array | int = 1,
) -> tuple[types.Array, types.Array]:
  r"""Returns the radius that a round's charges refer to, and the units it may spend.

  ``'even'`` gives every round a ball of radius r / K of its own; what a round leaves
  unspent is lost. ``'cumulative'`` gives all rounds up to the k-th together the
  ball of radius r k / K.

  Args:
    budget: the ball.
    dtype: dtype of the radius, that of the kernel, or float32 if that is wider.
    split: one of `SPLITS`.
    num_rounds: K, the number of rounds.
    step: k, the number of the round, from 1 to K.

  Returns:
    The radius, and the units that may be spent, int32: in the round (``'even'``), or
    in all rounds up to and including it (``'cumulative'``).

  Raises:
    BadInput: for more rounds than `_MOST_ROUNDS` that share a number of flips.
  """
  radius = jnp.asarray(budget.radius, dtype)
  if budget.norm == 'flips':
    if num_rounds > _MOST_ROUNDS:
      raise types.BadInput(
        f'num_rounds must be at most {_MOST_ROUNDS} under a budget of flips; got '
        f'{num_rounds}.'
      )
    # floor(k / K) of the moves, without a product that could overflow.
    whole = jnp.floor(jnp.minimum(radius, UNITS)).astype(jnp.int32)
    each, rest = whole // num_rounds, whole % num_rounds
    room = each * step + rest * step // num_rounds
    if split == 'even':
      room -= each * (step - 1) + rest * (step - 1) // num_rounds
    return radius, room
  everything = jnp.asarray(UNITS, jnp.int32)
  if split == 'even':
    return radius / num_rounds, everything
  # Shares are constants of the program: a share that is divided when it runs may be
  # rounded up, in the last round to more than the budget.
  rounds = range(num_rounds + 1)
  if budget.norm == 'linf':
    share = jnp.asarray([k / num_rounds for k in rounds], dtype)[step]
    return radius * share, everything
  power = _POWERS[budget.norm]
  rooms = [UNITS * k**power // num_rounds**power for k in rounds]
  return radius, jnp.asarray(rooms, jnp.int32)[step]


def charges(
  norm: types.Norm,
  split: str,
  radius: types.Array,
  cost: types.Array,
  here: types.Array,
  onward: types.Array,
) -> types.Array:
  """Returns the units that each move is charged, int32 [moves, ...].

  A move that costs more than the whole budget, or NaN, is charged too much to be paid
  (under ``flips`` every move costs one).

  Args:
    norm: norm of the ball.
    split: one of `SPLITS`; ``'even'`` measures a round's own steps, ``'cumulative'``
      the distance from the original point.
    radius: from `allowance`.
    cost: from `costs`, [moves, ...].
    here: displacements before the move, [...].
    onward: whether the move has the direction of the weight's last one, [moves,
      ...]; it has no effect for weights that have not moved.
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
  # _TOO_MUCH is filled in after the conversion: float32 would round it to UNITS.
  units = jnp.where(fits, units, 0.0).astype(jnp.int32)
  return jnp.where(fits, units, _TOO_MUCH)


def take(
  score: types.Array, charge: types.Array, room: types.Array, overflow: str
) -> tuple[types.Array, types.Array]:
  """Takes moves from the highest score down until the room is used up.

  Args:
    score: positive score of each move, [size]; minus infinity for moves that are no
      candidates. Of equal scores the first comes first.
    charge: units that each move is charged, int32 [size].
    room: units that may be charged in all, int32.
    overflow: ``'stop'`` at the first candidate that does not fit, or ``'skip'``
      it and go on.

  Returns:
    Whether each move is taken, [size], and how many moves are taken before it, int32
    [size]; -1 for moves that are not taken.
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
  """Returns whether `take` with ``'stop'`` takes each move, [size], without sorting.

  The bits of positive floats, read as integers, are in the order of the floats. So
  bisection over integers finds the lowest score down to which all moves fit; a second
  bisection finds where to stop among the moves of the next lower score.
  """
  dtype = types.promoted(jnp.float32, score)
  integer = jnp.dtype(f'int{jnp.finfo(dtype).bits}')
  key = jax.lax.bitcast_convert_type(score.astype(dtype), integer)
  key = jnp.where(score > -jnp.inf, key, -1)
  # Charges are summed by digits of eight bits, so that no sum overflows.
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
    """Returns the smallest positive number whose set is affordable.

    The set of ``high`` must be affordable.
    """

    def halve(ends):
      low, high = ends
      middle = low + (high - low) // 2
      fits = affordable(choose(middle))
      return jnp.where(fits, low, middle), jnp.where(fits, middle, high)

    return jax.lax.while_loop(
      lambda ends: ends[1] - ends[0] > 1,
      halve,
      (jnp.zeros((), integer), jnp.full((), high, integer)),
    )[1]

  least = smallest(lambda t: key >= t, jnp.iinfo(integer).max)
  above, equal = key >= least, key == least - 1
  # Positions are counted from the end, so that a larger number means a smaller set.
  position = score.size - jnp.arange(score.size, dtype=integer)
  last = smallest(lambda p: above | (equal & (position >= p)), score.size + 1)
  return above | (equal & (position >= last))


def size(norm: types.Norm, displacement: types.Array) -> types.Array:
  """Returns the norm of a displacement; for ``flips``, which count moves, linf's."""
  magnitudes = jnp.abs(displacement)
  if norm == 'l2':
    return jnp.sqrt(jnp.sum(magnitudes**2))
  return jnp.sum(magnitudes) if norm == 'l1' else jnp.max(magnitudes)
