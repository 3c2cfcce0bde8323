"""Methods that only evaluate losses: genetic search, annealing, random search.

Each loss of all examples that they ask for counts as a third of a gradient, also
those of parents that a generation computes again.
"""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp

from bitjax import scans
from bitjax import searches
from bitjax.studies.discrete_optimisers import methods

__all__ = ['CHILDREN', 'METHODS', 'PARENTS']

PARENTS, CHILDREN = 4, 12
_COLD = 0.01  # Of the first temperature, once the budget is spent.


def _counts(spent, before, each):
  """Returns how many rounds of ``each`` losses, after some before, a read allows."""
  return [
    max(0, int(share * spent.evaluations) - before) // each
    for share in methods.EFFORTS[1:]
  ]


def _rounds(step, state, counts, kernel):
  """Returns the kernels of a state after growing numbers of rounds."""

  def read(state, number):
    state = jax.lax.fori_loop(0, number, lambda _, s: step(s), state)
    return state, kernel(state)

  numbers = jnp.asarray(
    counts[:1] + [b - a for a, b in itertools.pairwise(counts)]
  )
  return jax.lax.scan(read, state, numbers)[1]


def _genetic(view, key, setting, spent):
  """Breeds from the kernel and three neighbours."""
  counts = _counts(spent, PARENTS, PARENTS + CHILDREN)
  start = searches.genetic_start(view, key, PARENTS)

  def search(mutations, crossovers):
    step = lambda state: searches.evolve(
      view,
      state,
      1,
      num_children=CHILDREN,
      mutations=mutations,
      crossovers=crossovers,
    )[0]
    return _rounds(step, start, counts, lambda state: state.kernel(view))

  return jax.lax.switch(
    setting['number'].astype(jnp.int32),
    [functools.partial(search, *chosen) for chosen in BREEDS],
  )


def _anneal(view, key, setting, spent):
  """Cools by a factor of 100 while the budget lasts, and goes on from there."""
  size = max(1, spent.evaluations // 8)
  counts = _counts(spent, 1, size)
  start = searches.annealing_start(view, key)
  fall = jnp.log(_COLD) / spent.evaluations
  first = setting['temperature'] * start.loss

  def step(state):
    cooled = lambda count: first * jnp.exp(fall * count)
    return searches.anneal(view, state, size, cooled)[0]

  return _rounds(step, start, counts, lambda state: state.best_kernel)


def _random(view, key, setting, spent):
  """Draws sets of as many flips each, and keeps the best so far."""
  size, most = view.kernel.size, max(SETS)
  counts = _counts(spent, 1, 1)
  number = max(1, counts[-1])
  sets = jax.random.randint(key, (number, most), 0, size, jnp.int32)
  used = jnp.arange(most) < setting['flips']
  sets = jnp.where(used[None], sets, -1)
  gains = scans.set_gains(view, sets).gains

  def read(count):
    seen = jnp.where(jnp.arange(number) < count, gains, -jnp.inf)
    best = jnp.argmax(seen)
    places = jnp.where((seen[best] > 0) & (sets[best] >= 0), sets[best], size)
    mask = jnp.zeros(size, bool).at[places].set(True, mode='drop')
    there = scans.moves(view).destinations[0]
    return jnp.where(mask.reshape(view.kernel.shape), there, view.kernel)

  return jax.lax.map(read, jnp.asarray(counts))


BREEDS = (
  (1, 4),
  (8, 4),
  (1, 0),
  (8, 0),
)  # Mutations and crossovers of a child.
SETS = (1, 4, 16, 64)

METHODS = {
  'genetic': methods.Method(
    _genetic, tuple({'number': n} for n in range(len(BREEDS)))
  ),
  'annealing': methods.Method(
    _anneal, tuple({'temperature': t} for t in (0.0, 1e-4, 1e-3, 1e-2))
  ),
  'random search': methods.Method(_random, tuple({'flips': n} for n in SETS)),
}
