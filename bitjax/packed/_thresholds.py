"""Integer thresholds: the sign of any monotone function of a sum, channel by channel.

Between two binary layers stand a scale, a bias, a BatchNorm with running statistics, an
activation, a sign: a function of one integer in each channel. If it is monotone, its
sign changes once, at an integer, which `thresholds` finds by evaluating the function
itself on every sum. So a packed network decides ties as the function does, by
construction, whatever its rounding.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from bitjax import types
from bitjax.packed import _words

__all__ = [
  'Thresholds',
  'check_thresholds',
  'spread',
  'threshold',
  'thresholds',
]

_MOST = 1 << 24  # Integers up to here are exact in float32.
_LARGEST = np.iinfo(np.int32).max
_BLOCK = 1 << 22  # Values of a function that are in memory at a time.


class Thresholds(NamedTuple):
  """A sum s becomes +1 where ``(s >= low) != flip``, in each channel."""

  low: types.Array  # shape=(features,), int32: where the sign changes.
  flip: types.Array  # shape=(features,), bool: whether the function falls.


def thresholds(
  fn: Callable[[types.Array], types.Array], low: int, high: int, features: int
) -> Thresholds:
  """Finds the integers at which the sign of a function of sums changes.

  Call it once for each layer of a trained network, whose arrays must have values:
  arguments of a function under ``jax.jit`` have none. To decide as a compiled network
  does, give it a compiled function: compilers may fuse a product and a sum, which
  rounds once instead of twice.

  Args:
    fn: takes some of the sums, float32 of shape [sums, features], and returns real numbers of
      that shape, of which those >= 0 are +1, or booleans. In each column the sign may
      change once, as it does in a function that rises or falls.
    low: the least sum that can occur: ``-length`` for a product of that length.
    high: the largest.
    features: the number of channels.

  Returns:
    For each channel the least sum that is +1 if the function rises (high + 1 if there
    is none), and if it falls the least sum that is -1, with a flip.

  Raises:
    BadInput: for an empty range, sums beyond 2^24, values of another shape, values
      that are no real numbers or NaN, or a sign that changes more than once; the last
      two name the channel.
  """
  least, most = _bound('low', low), _bound('high', high)
  if least > most:
    raise types.BadInput(f'high must be >= low = {low}; got {high}.')
  features = types.check_integer('features', features, 1)
  sums = np.arange(least, most + 1, dtype=np.int32)
  blocks = np.array_split(sums, -(-sums.size * features // _BLOCK))
  bits = np.concatenate([_signs(fn, block, features) for block in blocks])
  first, last = bits[0], bits[-1]
  changes = np.count_nonzero(bits[1:] != bits[:-1], axis=0)
  if (wrong := np.flatnonzero(changes > 1)).size:
    raise types.BadInput(
      'fn must be monotone in every channel; its sign changes '
      f'{changes[wrong[0]]} times in channel {wrong[0]} (of {wrong.size} such '
      'channels).'
    )
  flip = first & ~last
  where = np.count_nonzero(bits == flip, axis=0)  # Sums below the change.
  return Thresholds(jnp.asarray(sums[0] + where, jnp.int32), jnp.asarray(flip))


def _bound(name, value):
  number = types.integer(value)
  if number is None or abs(number) > _MOST:
    raise types.BadInput(
      f'{name} must be an integer in [-2^24, 2^24]; got {types.shown(value)}.'
    )
  return number


def _signs(fn, sums, features):
  """Returns the sign bits of a function at each sum, checked, in NumPy."""
  given = np.broadcast_to(
    sums[:, None].astype(np.float32), (sums.size, features)
  )
  with jax.ensure_compile_time_eval():
    values = fn(jnp.asarray(given))
  if isinstance(values, jax.core.Tracer):
    raise types.BadInput(
      'fn must depend on no traced values: call thresholds outside of jax.jit.'
    )
  values = np.asarray(values)
  if values.shape != given.shape:
    raise types.BadInput(
      f'fn must return the shape {given.shape} of its argument; got '
      f'{values.shape}.'
    )
  if values.dtype == bool:
    return values
  if not _words.is_real(values.dtype):
    raise types.BadInput(
      f'fn must return real numbers or booleans; got {values.dtype}.'
    )
  missing = np.isnan(values.astype(np.float32))
  if missing.any():
    row, channel = np.argwhere(missing)[0]
    raise types.BadInput(
      f'fn must not return NaN; it does for sum {sums[row]} in channel {channel}.'
    )
  return values >= np.zeros((), values.dtype)


def threshold(
  sums: types.Array,
  low: types.Array,
  flip: types.Array,
  *,
  axis: int = -1,
  word: Any = None,
) -> types.Array:
  """Returns the signs of a monotone function of sums, packed along the channels.

  Args:
    sums: integers [..., features, ...].
    low: [features], int32: see `Thresholds`.
    flip: [features], booleans.
    axis: the axis of the features: -1 for products, -2 for convolutions.
    word: as in `pack`.

  Returns:
    Words [..., words of features, ...]: bits ``(sums >= low) != flip``.

  Raises:
    BadInput: for sums that are no integers, or arrays that do not fit each other.
  """
  sums = jnp.asarray(sums)
  if not jnp.issubdtype(sums.dtype, jnp.integer):
    raise types.BadInput(f'sums must be integers; got {types.shown(sums)}.')
  axis = _words.check_axis(sums, 'sums', axis)
  features = sums.shape[axis]
  low, flip = check_thresholds(low, flip, features)
  word = _words.check_word(word, features)
  return _threshold(sums, low, flip, axis, word)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _threshold(sums, low, flip, axis, word):
  own = jnp.iinfo(sums.dtype)
  if own.max > _LARGEST:  # Sums beyond int32 must not wrap around.
    sums = jnp.clip(sums, max(own.min, -_LARGEST - 1), _LARGEST)
  sums = sums.astype(np.int32)
  words = _words.pack_bits(sums >= spread(low, sums.shape, axis), axis, word)
  # A flip of 32 channels is one operation on their word.
  return words ^ spread(_words.pack_bits(flip, 0, word), words.shape, axis)


def spread(
  values: types.Array, shape: tuple[int, ...], axis: int
) -> types.Array:
  """Broadcasts one value for each index of an axis to a shape."""
  return lax.broadcast_in_dim(values, shape, (axis,))


def check_thresholds(
  low: Any, flip: Any, features: int
) -> tuple[types.Array, types.Array]:
  """Returns the arrays of a `Thresholds` for ``features`` channels, checked."""
  low, flip = jnp.asarray(low), jnp.asarray(flip)
  for name, value, wanted in (('low', low, jnp.int32), ('flip', flip, bool)):
    if value.dtype != wanted or value.shape != (features,):
      raise types.BadInput(
        f'{name} must be {np.dtype(wanted)}[{features}], one for each feature; '
        f'got {types.shown(value)}.'
      )
  return low, flip
