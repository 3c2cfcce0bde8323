"""Evaluates one function at every point of a grid of named axes, the lanes.

A *lane* is one point of the product of the axes: one seed with one learning rate
and one noise amplitude, say. All lanes of a grid run the same compiled program.
``width`` of them are vectorised at a time, so memory is bounded by the width and
not by the size of the grid; the groups follow one another inside the program.
On a CPU a width of 1 is often fastest, because one lane's matrix products already
fill the cores and its intermediates stay in cache; on a GPU or TPU a larger width
fills the device.

On a ``mesh`` every device runs that program on lanes of its own. Lanes are
independent, so the devices never communicate, and a lane's result depends on how many
lanes its device has, not on how many devices there are. The random numbers of a lane
should depend on that lane alone: `keys` derives its key from its number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import types

__all__ = ['default_width', 'each', 'grid', 'keys', 'product']

Lanes = Mapping[str, types.Array]
_AXIS = 'lanes'


def grid(
  fn: Callable[..., types.PyTree],
  axes: Lanes,
  *,
  width: int | None = None,
  shared: Mapping[str, Any] | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> types.PyTree:
  """Returns ``fn(**lane, **shared)`` for every lane of the product of ``axes``.

  It is pure, so it can be jitted, differentiated and nested. ``fn`` is traced once.

  Args:
    fn: function of keyword arguments, one for each axis and shared input.
    axes: values of each named axis, each an array of shape [size, ...]; a lane
      takes one entry of each. The axes of the result have the order of this mapping;
      a dict that was an argument of a jitted function is sorted by name.
    width: number of lanes vectorised at a time; None for `default_width`.
    shared: inputs that all lanes have in common; never copied.
    mesh: devices to use; see `each`.

  Returns:
    The pytree of ``fn``'s outputs, each leaf of shape ``[*axis sizes, ...]``.

  Raises:
    BadInput: without axes, for an empty axis, a width below 1, or a mesh
      without an axis 'lanes'.
  """
  lanes, shape = product(axes)
  outputs = each(fn, lanes, width=width, shared=shared, mesh=mesh)
  return jax.tree.map(
    lambda leaf: leaf.reshape(shape + leaf.shape[1:]), outputs
  )


def product(axes: Lanes) -> tuple[dict[str, types.Array], tuple[int, ...]]:
  """Lists the lanes of a grid.

  Args:
    axes: values of each named axis, each of shape [size, ...].

  Returns:
    The values of each axis lane by lane, of shape [lanes, ...], with the last axis
    running fastest; and the shape of the grid.

  Raises:
    BadInput: without axes or for an empty axis.
  """
  values = {name: jnp.asarray(value) for name, value in axes.items()}
  if not values:
    raise types.BadInput('A grid needs at least one axis; got none.')
  for name, value in values.items():
    if value.ndim < 1 or value.shape[0] < 1:
      raise types.BadInput(
        f'Axis {name!r} needs at least one value; got shape {value.shape}.'
      )
  shape = tuple(value.shape[0] for value in values.values())
  indices = jnp.unravel_index(jnp.arange(math.prod(shape)), shape)
  lanes = {
    name: value[index]
    for (name, value), index in zip(values.items(), indices, strict=True)
  }
  return lanes, shape


def each(
  fn: Callable[..., types.PyTree],
  lanes: Lanes,
  *,
  width: int | None = None,
  shared: Mapping[str, Any] | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> types.PyTree:
  """Returns ``fn(**lane, **shared)`` for every lane of a list.

  Args:
    fn: function of keyword arguments.
    lanes: each lane's arguments, arrays of shape [lanes, ...].
    width: number of lanes vectorised at a time on each device; None for
      `default_width`. If the width does not divide the number of lanes, the last lane
      is repeated and the copies are dropped again, so that ``fn`` is traced once.
    shared: inputs that all lanes have in common. On a mesh, arrays that ``fn`` uses
      must be passed here, not closed over. They are replicated over the mesh's axis
      'lanes', and keep the sharding that they have over other axes: a batch that is
      split there is computed with data parallelism, which reorders sums over examples.
    mesh: devices to use: the lanes are split evenly over its axis 'lanes' (with
      the last lane repeated if their number does not divide); None for one device.

  Returns:
    The pytree of ``fn``'s outputs, each leaf of shape [lanes, ...].

  Raises:
    BadInput: for no lanes, arguments of different lengths, a width below 1, or a
      mesh without an axis 'lanes'.
  """
  lanes = {name: jnp.asarray(lane) for name, lane in lanes.items()}
  sizes = {name: lane.shape[0] for name, lane in lanes.items()}
  if len(set(sizes.values())) != 1:
    raise types.BadInput(
      f'All arguments need the same number of lanes; got {sizes}.'
    )
  num_lanes = min(sizes.values())
  if min(num_lanes if width is None else width, num_lanes) < 1:
    raise types.BadInput(
      'width and the number of lanes must be >= 1; got '
      f'{width} and {num_lanes}.'
    )
  run = functools.partial(_one_device, fn, width)
  if mesh is None:
    return run(lanes, dict(shared or {}))
  if _AXIS not in mesh.shape:
    raise types.BadInput(
      f'mesh needs an axis {_AXIS!r}; got the axes {tuple(mesh.shape)}.'
    )
  copies = -num_lanes % mesh.shape[_AXIS]
  by_lane = jax.P(_AXIS)
  run = jax.shard_map(
    run,
    mesh=_without_types(mesh),
    in_specs=(by_lane, jax.P()),
    out_specs=by_lane,
    # Along the axes that are not named here, XLA may split what a lane computes.
    axis_names={name for name, n in mesh.shape.items() if n == 1} | {_AXIS},
    # Loops whose carry starts as a constant would fail the check.
    check_vma=False,
  )
  outputs = jax.jit(run)(_repeat_last(lanes, copies), dict(shared or {}))
  if not copies:
    return outputs
  return jax.tree.map(lambda leaf: leaf[:num_lanes], outputs)


def _without_types(mesh: jax.sharding.Mesh) -> jax.sharding.Mesh:
  """Returns the mesh without explicit shardings, which `jax.make_mesh` turns on."""
  return jax.sharding.Mesh(mesh.devices, mesh.axis_names)


def _one_device(fn, width, lanes, shared):
  """Computes `each` on one device."""
  num_lanes = next(iter(lanes.values())).shape[0]
  width = default_width(num_lanes) if width is None else min(width, num_lanes)

  def run(lane):
    return fn(**lane, **shared)

  if width == num_lanes and width > 1:
    return jax.vmap(run)(lanes)
  if width == 1:
    return jax.lax.map(run, lanes)
  padded = _repeat_last(lanes, -num_lanes % width)
  groups = {
    name: lane.reshape((-1, width, *lane.shape[1:]))
    for name, lane in padded.items()
  }
  outputs = jax.lax.map(jax.vmap(run), groups)
  return jax.tree.map(
    lambda leaf: leaf.reshape((-1, *leaf.shape[2:]))[:num_lanes], outputs
  )


def _repeat_last(lanes, copies):
  if not copies:
    return lanes
  num_lanes = next(iter(lanes.values())).shape[0]
  indices = jnp.minimum(jnp.arange(num_lanes + copies), num_lanes - 1)
  return {name: lane[indices] for name, lane in lanes.items()}


def keys(key: types.Array, lanes: types.Array) -> types.Array:
  """Derives a key for each lane: ``fold_in(key, lane)``.

  A lane then draws the same numbers, whichever lanes run with it, before it, or on
  the same device. (Sweeps use the seed of a lane instead: ``jax.random.key(seed)``.)

  Args:
    key: the root key, a typed key.
    lanes: numbers of the lanes, integers of shape [lanes].

  Returns:
    Keys of shape [lanes], for use as an axis of `grid` or an argument of `each`.
  """
  return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.asarray(lanes))


def default_width(num_lanes: int) -> int:
  """Returns how many lanes to vectorise: 1 on a CPU, all on an accelerator."""
  return 1 if jax.default_backend() == 'cpu' else num_lanes
