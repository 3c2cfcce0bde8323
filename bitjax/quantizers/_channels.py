"""Helpers for parameters with one value per channel, and checks of arguments."""

from __future__ import annotations

import math

import jax.numpy as jnp

from bitjax import types

__all__ = [
  'MAX_BITS',
  'align',
  'check_bits',
  'check_floating',
  'num_per_channel',
  'reduced_axes',
  'shape_of_channels',
]

MAX_BITS = 16  # Codes of more bits are not all distinct after float32 division.


def reduced_axes(
  x: types.Array, channel_axis: int | None
) -> tuple[int, ...] | None:
  """Returns all axes but the channel axis; None, for all axes, if there is none."""
  if channel_axis is None:
    return None
  if not -x.ndim <= channel_axis < x.ndim:
    raise types.BadInput(
      f'channel_axis must be in [{-x.ndim}, {x.ndim}), an axis of x of shape '
      f'{x.shape}; got {channel_axis}.'
    )
  return tuple(a for a in range(x.ndim) if a != channel_axis % x.ndim)


def shape_of_channels(
  x: types.Array, channel_axis: int | None
) -> tuple[int, ...]:
  """Returns the shape of a parameter of ``x``: [channels], or [] without channels."""
  axes = reduced_axes(x, channel_axis)
  if axes is None:
    return ()
  return tuple(n for a, n in enumerate(x.shape) if a not in axes)


def align(
  name: str,
  value: types.Scalar,
  x: types.Array,
  channel_axis: int | None,
) -> types.Array:
  """Returns a parameter as an array that broadcasts against ``x``.

  Args:
    name: the parameter's name, for the error message.
    value: the parameter, scalar or [channels].
    x: the array that the parameter is for.
    channel_axis: the channels' axis in ``x``; None for a scalar parameter.

  Raises:
    BadInput: for a parameter that is neither scalar nor [channels].
  """
  value = jnp.asarray(value)
  if value.ndim == 0:
    return value
  wanted = shape_of_channels(x, channel_axis)
  if value.shape != wanted:
    raise types.BadInput(
      f'{name} must have shape {wanted} for x of shape {x.shape} with '
      f'channel_axis {channel_axis}; got {value.shape}.'
    )
  return jnp.expand_dims(value, reduced_axes(x, channel_axis) or ())


def num_per_channel(
  x: types.Array, channel_axis: int | None, batch_axes: int = 0
) -> int:
  """Returns how many elements of one example share a parameter."""
  channels = math.prod(shape_of_channels(x, channel_axis))
  return math.prod(x.shape[batch_axes:]) // max(channels, 1)


def check_bits(bits: int, minimum: int = 1) -> int:
  """Returns ``bits``; raises `BadInput` unless an integer in [minimum, MAX_BITS]."""
  number = types.integer(bits)
  if number is None or not minimum <= number <= MAX_BITS:
    raise types.BadInput(
      f'bits must be an integer in [{minimum}, {MAX_BITS}]; got '
      f'{types.shown(bits)}.'
    )
  return number


def check_floating(x: types.Array) -> types.Array:
  """Returns ``x`` as an array; raises `BadInput` if it is not floating."""
  x = jnp.asarray(x)
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise types.BadInput(
      f'A quantizer needs a floating x; got dtype {x.dtype}.'
    )
  return x
