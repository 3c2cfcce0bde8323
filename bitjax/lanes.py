"""Evaluates one function at every point of a grid of named axes, the lanes.

A *lane* is one point of the product of the axes: one seed with one learning rate
and one noise amplitude, say. All lanes of a grid run the same compiled program.
``width`` of them are vectorised at a time, so memory is bounded by the width and
not by the size of the grid; the groups follow one another inside the program.
On a CPU the default is a width of 1, which is often fastest, because one lane's matrix
products already fill the cores and its intermediates stay in cache. On a GPU or TPU a
larger width fills the device, and the default is as many lanes as its memory holds
(`fitting`, by the budget of `bitjax.memory`).

On a ``mesh`` every device runs that program on lanes of its own. Lanes are
independent, so the devices never communicate, and a lane's result depends on how many
lanes its device has, not on how many devices there are. The random numbers of a lane
should depend on that lane alone: `keys` derives its key from its number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import functools
import hashlib
import math
from typing import Any

import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np

from bitjax import memory
from bitjax import types

__all__ = ['each', 'fitting', 'grid', 'keys', 'product']

Lanes = Mapping[str, types.Array]
_AXIS = 'lanes'
# The part of the memory budget that the lanes of one `each` take by default. The rest is
# for what surrounds it: a sweep, say, whose lanes scan many candidates each.
SHARE = 1 / 4
# What a compiler may need besides what a program computes, as a factor.
_SLACK = 2


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
    width: number of lanes vectorised at a time; None for the default of `each`.
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
    width: number of lanes vectorised at a time on each device; None for 1 on a CPU,
      and for what is `fitting` on an accelerator. If the width does not divide the
      number of lanes, the last lane is repeated and the copies are dropped again, so
      that ``fn`` is traced once.
    shared: inputs that all lanes have in common. On a mesh, arrays that ``fn`` uses
      must be passed here, not closed over. They are replicated over the mesh's axis
      'lanes', and keep the sharding that they have over other axes: a batch that is
      split there is computed with data parallelism, which reorders sums over examples.
    mesh: devices to use: the lanes are split evenly over its axis 'lanes' (with
      the last lane repeated if their number does not divide); None for one device.

  Returns:
    The pytree of ``fn``'s outputs, each leaf of shape [lanes, ...].

  Raises:
    BadInput: for no lanes, arguments of different lengths, a width below 1, a mesh
      without an axis 'lanes', or (by default, on an accelerator) a lane that alone
      exceeds the memory budget.
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

  def run(lane):
    return fn(**lane, **shared)

  if width is None and (jax.default_backend() == 'cpu' or num_lanes == 1):
    width = 1
  if width is None:
    run = _Lane(run, lanes)
    width = run.fitting(num_lanes, num_lanes, SHARE)
  width = min(width, num_lanes)
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


def fitting(
  fn: Callable[..., types.PyTree],
  lanes: Mapping[str, Any],
  *,
  shared: Mapping[str, Any] | None = None,
  most: int | None = None,
  share: float = SHARE,
) -> int:
  """Returns how many lanes may be vectorised at a time within the memory budget.

  One lane is traced, and compiled unless the sizes of all that it computes already say
  that every lane fits. As many lanes fit as a power of two of what it takes; if these are
  not all, the number is lowered to what makes groups of equal size.

  Args:
    fn: as for `each`; it may close over traced values.
    lanes: each lane's arguments, arrays of shape [lanes, ...].
    shared: inputs that all lanes have in common, arrays or their shapes.
    most: the most lanes at a time; None for all.
    share: the part of the budget that they may take. They are also bounded by what
      the shared inputs leave.

  Returns:
    The number of lanes, at least 1; 1 if the compiler does not say what a lane takes.

  Raises:
    memory.Exceeded: if one lane and the shared inputs exceed the whole budget.
  """
  num_lanes = next(iter(lanes.values())).shape[0]
  most = num_lanes if most is None else min(most, num_lanes)

  def run(lane, shared):
    return fn(**lane, **shared)

  return _Lane(run, lanes, dict(shared or {})).fitting(num_lanes, most, share)


class _Lane:
  """One lane, traced: a function of its arguments, and what it takes of memory.

  Args:
    run: function of a lane, and of whatever else.
    lanes: all lanes' arguments.
    *others: further arguments of ``run``, arrays or their shapes.
  """

  def __init__(
    self, run: Callable[..., Any], lanes: Mapping[str, Any], *others: Any
  ):
    lane = {
      name: jax.ShapeDtypeStruct(values.shape[1:], values.dtype)
      for name, values in lanes.items()
    }
    self._inputs = [
      _abstract(leaf) for leaf in jax.tree.leaves((lane, *others))
    ]
    self._own = sum(map(_bytes, jax.tree.leaves(lane)))
    self._traced, shapes = jax.make_jaxpr(run, return_shape=True)(
      lane, *jax.tree.map(_abstract, others)
    )
    self._structure = jax.tree.structure(shapes)

  def __call__(self, *args: Any) -> Any:
    """Computes what was traced, for which nothing is traced again."""
    outputs = core.jaxpr_as_fun(self._traced)(*jax.tree.leaves(args))
    return jax.tree.unflatten(self._structure, outputs)

  def fitting(self, num_lanes: int, most: int, share: float) -> int:
    """Returns how many lanes fit: of so many, at most ``most``, in a share of memory."""
    room = share * memory.budget()
    if _SLACK * most * (self._own + _computed(self._traced.jaxpr)) <= room:
      return most
    taken = self._compiled()
    if taken is None:
      return 1
    memory.check(f'one lane of {num_lanes}', taken.total)
    common = taken.arguments - self._own
    each = taken.total - common
    fits = int(min(room, memory.budget() - common) // max(each, 1))
    if fits >= most:
      return most
    fits = 1 << (max(fits, 1).bit_length() - 1)
    return -(-num_lanes // -(-num_lanes // fits))

  def _compiled(self) -> memory.Taken | None:
    """Returns what the program of one lane takes, as a function of its constants too."""
    constants = self._traced.consts

    def program(constants, inputs):
      closed = core.ClosedJaxpr(self._traced.jaxpr, constants)
      return core.jaxpr_as_fun(closed)(*inputs)

    # Collectives find the axes around the lane, of a mesh or a vmap, on one device.
    # How values vary over them was checked when the lane was traced.
    effects = (getattr(effect, 'name', None) for effect in self._traced.effects)
    named = {*filter(None, effects)}
    named |= {*jax.sharding.get_abstract_mesh().manual_axes}
    if named:
      device = np.array(jax.local_devices()[:1])
      mesh = jax.sharding.Mesh(device.reshape([1] * len(named)), sorted(named))
      program = jax.shard_map(
        program, mesh=mesh, in_specs=jax.P(), out_specs=jax.P(), check_vma=False
      )
    alone = jax.sharding.AbstractMesh((), ())
    with jax.sharding.use_abstract_mesh(alone):
      lowered = jax.jit(program, keep_unused=True).lower(
        [_abstract(constant) for constant in constants], self._inputs
      )
      key = hashlib.sha256(lowered.as_text().encode()).hexdigest()
      if key not in _TAKEN:
        _TAKEN[key] = memory.of(lowered.compile())
    return _TAKEN[key]


_TAKEN: dict[str, memory.Taken | None] = {}  # By the digest of the program.


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
  """Returns the shape and dtype of an array, wherever it is."""
  found = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf)
  return jax.ShapeDtypeStruct(
    found.shape, found.dtype, weak_type=getattr(found, 'weak_type', False)
  )


def _bytes(leaf: Any) -> int:
  """Returns the bytes of an array or a shape, at 8 for a key's numbers."""
  return math.prod(leaf.shape) * getattr(leaf.dtype, 'itemsize', 8)


def _computed(jaxpr: Any) -> int:
  """Returns the bytes of all that a traced function computes, each loop's body once."""
  total = 0
  for equation in jaxpr.eqns:
    total += sum(
      _bytes(variable.aval)
      for variable in equation.outvars
      if hasattr(variable.aval, 'dtype')
    )
    for value in jax.tree.leaves(
      list(equation.params.values()), is_leaf=_is_traced
    ):
      if _is_traced(value):
        total += _computed(getattr(value, 'jaxpr', value))
  return total


def _is_traced(value: Any) -> bool:
  return isinstance(value, (core.ClosedJaxpr, core.Jaxpr))
