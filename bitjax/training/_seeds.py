"""Runs a function of one network for several seeds, on one device.

There are three ways, equal up to rounding:

* ``'vmap'``: one program, vectorised. Convolutions of several kernels become grouped
  ones, for which many devices have no fast program.
* ``'map'``: one program with a loop over the seeds. Memory does not grow with them.
* ``'stream'``: the program of one seed, launched for each. It compiles fastest, and
  the host queues the launches without waiting for their results.

Which one is the default depends on the kind of device (`bitjax.sizes`); the benchmark
measures all of them. A single seed is the same program in each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
import functools
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import sizes
from bitjax import types

__all__ = ['choose', 'inside', 'streamed']


def choose(together: str | None, mesh: jax.sharding.Mesh | None = None) -> str:
  """Returns how seeds run together: as asked for, or as suits the device.

  Args:
    together: one of `sizes.SEEDS`, or None.
    mesh: devices that share the seeds; None for one device.

  Raises:
    BadInput: for another way, and for ``'stream'`` with a mesh, whose devices run one
      program.
  """
  if together is None:
    found = sizes.here().seeds
    return 'map' if found == 'stream' and mesh is not None else found
  types.check_choice('together', together, sizes.SEEDS)
  if together == 'stream' and mesh is not None:
    raise types.BadInput(
      "together must be 'vmap' or 'map' on a mesh, whose devices run one program; "
      "got 'stream'."
    )
  return together


def inside(
  fn: Callable[..., Any], num_seeds: int, together: str | None = None
) -> Callable[..., Any]:
  """Returns ``fn`` for all seeds as a part of one program.

  Args:
    fn: a function of one network.
    num_seeds: size of the leading axis of the arguments; one seed needs no vmap.
    together: ``'vmap'`` or ``'map'``, which also stands for ``'stream'``; None for
      what suits the device.
  """
  if num_seeds > 1:
    if choose(together) == 'vmap':
      return jax.vmap(fn)
    return lambda *args: jax.lax.map(lambda one: fn(*one), args)

  def alone(*args):
    # With vmap, some compilers would make a grouped convolution of one kernel.
    found = fn(*jax.tree.map(lambda leaf: leaf[0], args))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], found)

  return alone


def streamed(
  program: Callable[..., Any], num_seeds: int, seeded: Collection[int]
) -> Callable[..., Any]:
  """Returns a program of one seed for several: one launch for each.

  Args:
    program: a compiled function whose results have a leading axis of one seed.
    num_seeds: number of seeds.
    seeded: positions of the arguments that have a leading axis of seeds.
  """

  def run(*args):
    parts = _parts({at: args[at] for at in seeded}, num_seeds)
    found = [
      program(*(part.get(at, arg) for at, arg in enumerate(args)))
      for part in parts
    ]
    return _join(found)

  return run


@functools.partial(jax.jit, static_argnums=1)
def _parts(tree, num_seeds):
  return [
    jax.tree.map(lambda leaf, seed=seed: leaf[seed : seed + 1], tree)
    for seed in range(num_seeds)
  ]


@jax.jit
def _join(trees):
  return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *trees)
