"""Measures updates inside a budget, projections, and the import of bitjax."""

from __future__ import annotations

from collections.abc import Callable
import functools
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bitjax import descent
from bitjax import lanes
from bitjax import transforms
from bitjax import types
from bitjax.studies.benchmark import peaks
from bitjax.studies.benchmark import race

__all__ = [
  'import_ratio',
  'multi_step',
  'projections',
]


def multi_step(
  batch_size: int,
  hidden: tuple[int, ...],
  gemm: int,
  turns: int,
  *,
  num_lanes: int = 2,
  num_steps: int = 5,
) -> dict[str, float]:
  """Returns the model FLOP/s that a sweep achieves, over those of a matrix product.

  Args:
    batch_size: examples in the batch.
    hidden: units of the hidden layers.
    gemm: size of the square matrix product that stands for the peak.
    turns: timed turns of each contestant.
    num_lanes: learning rates of the sweep.
    num_steps: updates of each.
  """
  contestants: dict[str, Callable[[], Any]] = {}
  flops = {'peak': 2 * gemm**3}
  contestants['peak'] = peaks.product(gemm)
  for network in ('full_precision', 'binary'):
    view, first, rest = race.problem(batch_size, hidden, network)
    name = f'multi-step, {network.replace("_", " ")}'
    # An update costs a forward pass, a backward pass through the rest, and the
    # kernel's gradient; the loss after the last update costs one more forward pass.
    flops[name] = num_lanes * (num_steps * 2 * (first + rest) + (first + rest))
    contestants[name] = _descent(view, num_lanes, num_steps)
  seconds = race.race(contestants, turns)
  speed = {name: flops[name] / seconds[name] for name in contestants}
  return {n: s / speed['peak'] for n, s in speed.items() if n != 'peak'}


def _descent(view, num_lanes, num_steps):
  budget = types.Budget(0.1)

  @jax.jit
  def sweep(rates, view):
    def lane(rate, view):
      loss = jax.value_and_grad(view.loss)
      tx = optax.chain(transforms.normalize(), optax.sgd(rate))
      return descent.descend(
        loss, tx, view.kernel, num_steps, budget=budget
      ).losses

    return lanes.grid(lane, {'rate': rates}, shared={'view': view})

  rates = jnp.linspace(0.01, 0.1, num_lanes)
  return lambda: sweep(rates, view)


def projections(turns: int = 20) -> dict[str, float]:
  """Returns the milliseconds to project one lane of 784 x 256 weights, by norm."""
  key = jax.random.key(0)
  kernel = jax.random.uniform(key, (784, 256), jnp.float32, -0.076, 0.076)
  moved = kernel + 0.05 * jax.random.normal(
    jax.random.key(1), kernel.shape, jnp.float32
  )
  radii: dict[types.Norm, float] = {
    'l2': 0.1,
    'linf': 0.01,
    'l1': 10.0,
    'flips': 200.0,
  }
  contestants = {}
  for norm, radius in radii.items():
    tx = transforms.project_budget(radius, norm)
    step = jax.jit(lambda u, s, p, tx=tx: tx.update(u, s, p)[0])
    contestants[f'project {norm}'] = functools.partial(
      step, moved - kernel, tx.init(kernel), kernel
    )
  return {n: 1e3 * s for n, s in race.race(contestants, turns).items()}


def import_ratio(turns: int) -> float:
  """Returns the time to import bitjax over that to import what it depends on."""

  def importing(modules):
    command = [sys.executable, '-c', f'import {modules}']
    return lambda: subprocess.run(command, check=True)

  contestants = {
    'bitjax': importing('bitjax.nn, bitjax.scans, bitjax.transforms'),
    'below': importing('jax, flax.linen, optax'),
  }
  seconds = race.race(contestants, turns)
  return seconds['bitjax'] / seconds['below']
