r"""Simulated annealing over the flips of a layer.

A weight is drawn; it flips if the loss falls, or with the probability
:math:`e^{-\Delta / T}` if it rises by :math:`\Delta`. The loss is exact, and computed
incrementally where the view allows it (`bitjax.scans.flip_walk`).
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bitjax import scans
from bitjax import types

__all__ = ['AnnealingState', 'anneal', 'annealing_start']


class AnnealingState(NamedTuple):
  """Where an annealing is.

  Attributes:
    key: the root of all its random numbers.
    count: how many flips were tried so far, int32.
    kernel: the current latent kernel.
    loss: its mean loss, in nats.
    best_kernel: the kernel of the lowest loss that was met.
    best_loss: its loss, in nats.
  """

  key: types.Array
  count: types.Array
  kernel: types.Array
  loss: types.Array
  best_kernel: types.Array
  best_loss: types.Array


def annealing_start(view: scans.LayerView, key: types.Array) -> AnnealingState:
  """Returns the state of an annealing that starts at the view's kernel.

  Args:
    view: a layer with a kernel of two levels.
    key: a random key.

  Raises:
    BadInput: for a kernel that is not binary, or an empty batch or kernel.
  """
  scans.flip_walk(view)  # Which says what is wrong with a view.
  loss = view.loss(view.kernel)
  return AnnealingState(
    key, jnp.zeros((), jnp.int32), view.kernel, loss, view.kernel, loss
  )


def anneal(
  view: scans.LayerView,
  state: AnnealingState,
  num_steps: int,
  temperature: types.Scalar | Callable[[types.Array], types.Scalar],
) -> tuple[AnnealingState, types.Array]:
  r"""Tries one random flip after another.

  .. math:: \text{flip with the probability } \min(1, e^{(L - L') / T})

  (Metropolis). At T = 0 only flips that lower the loss are made. Sums are computed anew
  at the beginning of each call.

  Args:
    view: the layer; its kernel is only that of the start.
    state: from `annealing_start`, or an earlier call.
    num_steps: how many flips are tried, static.
    temperature: T >= 0, in nats of the mean loss; a number, or a schedule: a function
      of the number of flips tried before.

  Returns:
    The state after these steps, and the loss after each, [num_steps].

  Raises:
    BadInput: for ``num_steps`` below 1, a negative temperature, or a state of another
      kernel.

  References:
    Kirkpatrick et al., Optimization by simulated annealing, 1983.
  """
  num_steps = types.check_integer('num_steps', num_steps, 1)
  if not callable(temperature):
    types.check_non_negative('temperature', temperature)
  if not isinstance(state, AnnealingState):
    raise types.BadInput(
      f'state must be from annealing_start; got {types.shown(state)}.'
    )
  if state.kernel.shape != view.kernel.shape:
    raise types.BadInput(
      f'state must be of a kernel of shape {view.kernel.shape}; got '
      f'{state.kernel.shape}.'
    )
  counts = state.count + jnp.arange(num_steps, dtype=jnp.int32)
  if callable(temperature):
    temperatures = jax.vmap(lambda k: jnp.asarray(temperature(k)))(counts)
  else:
    temperatures = jnp.full(num_steps, temperature)
  return _anneal(view, state, counts, temperatures.astype(state.loss.dtype))


@jax.jit
def _anneal(view, state, counts, temperatures):
  view = dataclasses.replace(view, kernel=state.kernel)
  size = view.kernel.size

  def step(carry, given):
    walk, loss, best, last = carry
    number, count, temperature = given
    place, chance = jax.random.split(jax.random.fold_in(state.key, count))
    index = jax.random.randint(place, (), 0, size, jnp.int32)
    tiny = jnp.finfo(loss.dtype).tiny
    u = jax.random.uniform(chance, (), loss.dtype, minval=tiny)
    walk, decrease, made = walk.attempt(index, temperature * jnp.log(u))
    loss = loss - decrease
    better = loss < best
    best = jnp.where(better, loss, best)
    last = jnp.where(better, number, last)
    return (walk, loss, best, last), (loss, index, made)

  loss = view.loss(view.kernel)
  numbers = jnp.arange(counts.size, dtype=jnp.int32)
  start = scans.flip_walk(view), loss, state.best_loss, jnp.int32(-1)
  (walk, loss, best, last), (losses, indices, made) = jax.lax.scan(
    step, start, (numbers, counts, temperatures)
  )
  # The best kernel is the start with the flips up to that step.
  upto = (made & (numbers <= last)).astype(jnp.int32)
  flipped = jnp.zeros(size, jnp.int32).at[indices].add(upto) % 2 == 1
  there = jnp.where(flipped, walk.destinations, walk.start)
  there = jnp.where(last >= 0, there, state.best_kernel.reshape(-1))
  state = AnnealingState(
    state.key,
    state.count + counts.size,
    walk.kernel,
    loss,
    there.reshape(view.kernel.shape),
    best,
  )
  return state, losses
