r"""A genetic algorithm over the signs of a layer.

An individual is a set of flips of one kernel, that of a checkpoint say, kept as a mask. A
child takes its first parent's signs, some of the signs in which its second parent
differs (crossover), and some random flips (mutation). It differs from its first parent by
few flips, so its loss costs far less than a forward pass (`bitjax.scans.set_gains`). The
best of parents and children are the next parents, so the best is never lost (elitism).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bitjax import lanes
from bitjax import memory
from bitjax import scans
from bitjax import types

__all__ = ['GeneticState', 'evolve', 'genetic_start']


class GeneticState(NamedTuple):
  """A population.

  Attributes:
    key: the root of all its random numbers.
    generation: number of generations so far, int32.
    masks: which weights of the view's kernel each parent flips, the best parent first,
      bool [parents, weights].
    losses: mean loss of each parent, in nats, [parents], in ascending order.
  """

  key: types.Array
  generation: types.Array
  masks: types.Array
  losses: types.Array

  def kernel(self, view: scans.LayerView) -> types.Array:
    """Returns the best parent as a latent kernel of the view that it began with."""
    return _kernel(view, self.masks[0])


def genetic_start(
  view: scans.LayerView,
  key: types.Array,
  num_parents: int,
  *,
  num_flips: int = 1,
) -> GeneticState:
  """Returns a population around the view's kernel, which is one of its parents.

  Args:
    view: a layer with a kernel of two levels, such as one that STE has trained.
    key: a random key.
    num_parents: how many parents there are, static.
    num_flips: at most how many random flips each other parent begins with, static.

  Raises:
    BadInput: for no parents, negative flips, a kernel that is not binary, an empty batch
      or kernel, or a population that the memory budget cannot hold, with the largest
      that it can.
  """
  num_parents = types.check_integer('num_parents', num_parents, 1)
  num_flips = types.check_integer('num_flips', num_flips, 0)
  scans.flip_walk(view)  # Which says what is wrong with a view.
  size = view.kernel.size
  # Masks of parents before and after, and running counts of differences of one child.
  most = int(min((memory.budget() - 8 * size) // (2 * size), 1 << 30))
  if num_parents > most:
    raise types.BadInput(
      f'num_parents must be at most {max(most, 0)} for {size} weights, as one '
      f'program may take {memory.shown(memory.budget())}; got {num_parents}.'
    )
  return _start(view, key, num_parents, num_flips)


@functools.partial(jax.jit, static_argnames=('num_parents', 'num_flips'))
def _start(view, key, num_parents, num_flips):
  root, first = jax.random.split(key)
  size = view.kernel.size
  masks = jnp.zeros((num_parents, size), bool)
  if num_flips and num_parents > 1:
    shape = num_parents - 1, num_flips
    places = jax.random.randint(first, shape, 0, size, jnp.int32)
    rows = jnp.arange(1, num_parents)[:, None]
    masks = masks.at[rows, places].set(True)
  losses = jax.lax.map(lambda mask: view.loss(_kernel(view, mask)), masks)
  order = jnp.argsort(losses)
  return GeneticState(root, jnp.int32(0), masks[order], losses[order])


def evolve(
  view: scans.LayerView,
  state: GeneticState,
  num_generations: int,
  *,
  num_children: int,
  mutations: int = 1,
  crossovers: int = 4,
  path: str = 'auto',
  width: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> tuple[GeneticState, types.Array]:
  r"""Breeds generation after generation.

  In each, every parent has equally many children, all with one second parent, which is
  drawn among the others. For each child, of the signs in which the two differ, ``crossovers`` are drawn and
  taken from the second; of all n signs, ``mutations`` are drawn and flipped, so
  that the rate is ``mutations / n``. Both draw with replacement, and what is drawn twice
  counts once. The best of parents and children survive; at a tie, the older.

  (A textbook's uniform crossover takes half of the differing signs. With few draws
  children stay near a parent, which is what makes them cheap.)

  Args:
    view: the view that `genetic_start` was given.
    state: from `genetic_start`, or an earlier call.
    num_generations: how many generations, static.
    num_children: how many children a generation has, a multiple of the number of
      parents, static. A generation costs a forward pass for each parent, and `set_gains`
      of all children.
    mutations: signs drawn to be flipped, >= 1, static.
    crossovers: signs drawn from the second parent, >= 0, static.
    path: that of `set_gains`.
    width: children evaluated at a time; None for a good number.
    mesh: devices with an axis 'lanes' (see `bitjax.lanes.each`), over which the parents are
      split, each with its children; None for one device. Numbers do not depend on it, but
      for the rounding of sums.

  Returns:
    The state after these generations, and the lowest loss after each,
    [num_generations], which never rises (but by rounding, where the loss of a parent
    is computed anew).

  Raises:
    BadInput: for numbers out of range, a state of another kernel, or what `set_gains`
      objects to.
  """
  counts = {
    'num_generations': (num_generations, 1),
    'num_children': (num_children, 1),
    'mutations': (mutations, 1),
    'crossovers': (crossovers, 0),
  }
  for name, (value, least) in counts.items():
    types.check_integer(name, value, least)
  if width is not None:
    types.check_integer('width', width, 1)
  if not isinstance(state, GeneticState):
    raise types.BadInput(
      f'state must be from genetic_start; got {types.shown(state)}.'
    )
  num_parents, size = state.masks.shape
  if size != view.kernel.size:
    raise types.BadInput(
      f'state must be of a kernel of {view.kernel.size} weights; got {size}.'
    )
  if num_children % num_parents:
    raise types.BadInput(
      f'num_children must be a multiple of {num_parents}, the number of parents; '
      f'got {num_children}.'
    )
  each = num_children // num_parents
  options = (num_generations, each, mutations, crossovers, path, width, mesh)
  return _evolve(view, state, *options)


@functools.partial(jax.jit, static_argnums=range(2, 9))
def _evolve(
  view, state, num_generations, each, mutations, crossovers, path, width, mesh
):
  num_parents, size = state.masks.shape

  def draw(key, differing):
    """Returns the flips by which one child differs from its first parent."""
    mutating, crossing = jax.random.split(key)
    places = jax.random.randint(mutating, (mutations,), 0, size, jnp.int32)
    if not crossovers:
      return places
    taken = _true_places(differing, crossing, crossovers)
    return jnp.concatenate([places, taken])

  def breed(view, masks, key, parent):
    """Returns a parent's loss, and its children's flips and losses."""
    mating, drawing = jax.random.split(key)
    other = jax.random.randint(mating, (), 1, max(num_parents, 2), jnp.int32)
    mate = masks[(parent + other) % num_parents]
    differing = _counted(masks[parent] ^ mate)
    keys = jax.random.split(drawing, each)
    sets = jax.vmap(lambda key: draw(key, differing))(keys)
    moved = dataclasses.replace(view, kernel=_kernel(view, masks[parent]))
    found = scans.set_gains(moved, sets, path=path, width=width)
    return found.loss, sets, found.loss - found.gains

  def generation(state, _):
    key = jax.random.fold_in(state.key, state.generation)
    keys = jax.random.split(key, num_parents)
    parents = jnp.arange(num_parents)
    if mesh is None:
      losses, sets, children = jax.lax.map(
        lambda given: breed(view, state.masks, *given), (keys, parents)
      )
    else:
      losses, sets, children = lanes.each(
        breed,
        {'key': keys, 'parent': parents},
        shared={'view': view, 'masks': state.masks},
        mesh=mesh,
      )
    everyone = jnp.concatenate([losses, children.reshape(-1)])
    best = jnp.argsort(everyone)[:num_parents]
    child = jnp.maximum(best - num_parents, 0)
    flips = sets.reshape(-1, sets.shape[-1])[child]
    flips = jnp.where((best >= num_parents)[:, None], flips, -1)
    masks = state.masks[jnp.where(best < num_parents, best, child // each)]
    places = jnp.where(flips >= 0, flips, size)
    rows = parents[:, None]
    turned = ~masks.at[rows, places].get(mode='fill', fill_value=False)
    masks = masks.at[rows, places].set(turned, mode='drop')
    state = GeneticState(state.key, state.generation + 1, masks, everyone[best])
    return state, everyone[best[0]]

  return jax.lax.scan(generation, state, length=num_generations)


def _counted(mask):
  """Returns a mask in rows, and how often it is true up to each row's end."""
  width = math.isqrt(mask.size - 1) + 1
  rows = jnp.pad(mask, (0, -mask.size % width)).reshape(-1, width)
  return rows, jnp.cumsum(jnp.sum(rows, axis=1, dtype=jnp.int32))


def _true_places(counted, key, number):
  """Draws places where a mask is true, with replacement; -1 if there are none."""
  rows, counts = counted
  total = counts[-1]
  shape = (number,)
  drawn = jax.random.randint(key, shape, 0, jnp.maximum(total, 1), jnp.int32)
  row = jnp.minimum(
    jnp.searchsorted(counts, drawn, side='right'), counts.size - 1
  )
  within = jnp.cumsum(rows[row], axis=1, dtype=jnp.int32)
  drawn -= counts[row] - within[:, -1]
  column = jnp.sum(within <= drawn[:, None], axis=1, dtype=jnp.int32)
  places = row.astype(jnp.int32) * rows.shape[1] + column
  return jnp.where(total > 0, places, -1)


def _kernel(view, mask):
  there = scans.moves(view).destinations[0]
  return jnp.where(mask.reshape(view.kernel.shape), there, view.kernel)
