"""Lanes: one function at every point of a grid of named axes.

A *lane* is one point of the product of the axes: one seed with one learning rate
and one noise amplitude, say. All lanes of a grid run the same compiled program.
``width`` of them are vectorised at a time, so memory is bounded by the width and
not by the size of the grid; the groups follow one another inside the program.
On a CPU a width of 1 is often fastest, because one lane's matrix products already
fill the cores and its intermediates stay in cache; on a GPU or TPU a larger width
fills the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import math
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import types

__all__ = ['default_width', 'each', 'grid', 'product']

Lanes = Mapping[str, types.Array]


def grid(
  fn: Callable[..., types.PyTree],
  axes: Lanes,
  *,
  width: int | None = None,
  shared: Mapping[str, Any] | None = None,
) -> types.PyTree:
  """Returns ``fn(**lane, **shared)`` for every lane of the product of ``axes``.

  Pure: it can be jitted, differentiated and nested. ``fn`` is traced once.

  Args:
    fn: function of keyword arguments, one for each axis and shared input.
    axes: values of each named axis, each an array of shape [size, ...]; lanes
      take one entry of each. The order of the axes is the order of the result;
      a dict that was an argument of a jitted function comes sorted by name.
    width: lanes that are vectorised at a time; None for `default_width`.
    shared: inputs that all lanes have in common; never copied.

  Returns:
    The pytree of ``fn``'s outputs, each leaf of shape ``[*axis sizes, ...]``.

  Raises:
    ValueError: without axes, for an empty axis, or a width below 1.
  """
  lanes, shape = product(axes)
  outputs = each(fn, lanes, width=width, shared=shared)
  return jax.tree.map(
    lambda leaf: leaf.reshape(shape + leaf.shape[1:]), outputs
  )


def product(axes: Lanes) -> tuple[dict[str, types.Array], tuple[int, ...]]:
  """Lists the lanes of a grid.

  Args:
    axes: values of each named axis, each of shape [size, ...].

  Returns:
    The axes' values lane by lane, each of shape [lanes, ...] with the last axis
    running fastest, and the shape of the grid.

  Raises:
    ValueError: without axes or for an empty axis.
  """
  values = {name: jnp.asarray(value) for name, value in axes.items()}
  if not values:
    raise ValueError('A grid needs at least one axis; got none.')
  for name, value in values.items():
    if value.ndim < 1 or value.shape[0] < 1:
      raise ValueError(
        f'Axis {name!r} needs at least one value; got shape {value.shape}.'
      )
  shape = tuple(value.shape[0] for value in values.values())
  places = jnp.unravel_index(jnp.arange(math.prod(shape)), shape)
  lanes = {
    name: value[place]
    for (name, value), place in zip(values.items(), places, strict=True)
  }
  return lanes, shape


def each(
  fn: Callable[..., types.PyTree],
  lanes: Lanes,
  *,
  width: int | None = None,
  shared: Mapping[str, Any] | None = None,
) -> types.PyTree:
  """Returns ``fn(**lane, **shared)`` for every lane of a list.

  Args:
    fn: function of keyword arguments.
    lanes: each lane's arguments, arrays of shape [lanes, ...].
    width: lanes that are vectorised at a time; None for `default_width`. If the
      width does not divide the lanes, the last lane is repeated and the copies
      are dropped again, so that `fn` is traced once.
    shared: inputs that all lanes have in common.

  Returns:
    The pytree of ``fn``'s outputs, each leaf of shape [lanes, ...].

  Raises:
    ValueError: for no lanes, lists of different lengths, or a width below 1.
  """
  lanes = {name: jnp.asarray(lane) for name, lane in lanes.items()}
  sizes = {name: lane.shape[0] for name, lane in lanes.items()}
  if len(set(sizes.values())) != 1:
    raise ValueError(
      f'All arguments need the same number of lanes; got {sizes}.'
    )
  num_lanes = min(sizes.values())
  width = default_width(num_lanes) if width is None else min(width, num_lanes)
  if min(width, num_lanes) < 1:
    raise ValueError(
      'width and the number of lanes must be >= 1; got '
      f'{width} and {num_lanes}.'
    )

  def run(lane):
    return fn(**lane, **(shared or {}))

  if width == num_lanes and width > 1:
    return jax.vmap(run)(lanes)
  if width == 1:
    return jax.lax.map(run, lanes)
  num_groups = -(-num_lanes // width)
  slots = jnp.minimum(jnp.arange(num_groups * width), num_lanes - 1)
  groups = {
    name: lane[slots].reshape((num_groups, width, *lane.shape[1:]))
    for name, lane in lanes.items()
  }
  outputs = jax.lax.map(jax.vmap(run), groups)
  return jax.tree.map(
    lambda leaf: leaf.reshape((-1, *leaf.shape[2:]))[:num_lanes], outputs
  )


def default_width(num_lanes: int) -> int:
  """One lane at a time on a CPU, all of them on an accelerator."""
  return 1 if jax.default_backend() == 'cpu' else num_lanes
