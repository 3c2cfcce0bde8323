"""The cases of the benchmark: what is timed, against what, in turns.

Nothing here knows a target; see `experiments/benchmark.py`. Contestants take turns,
so that a machine that slows down slows all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import functools
import itertools
import math
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bitjax import descent
from bitjax import lanes
from bitjax import scans
from bitjax import transforms
from bitjax import types
from bitjax.studies import toy as toy_lib
from bitjax.studies import toy_config
from bitjax.sweeps import sweep as sweeps

__all__ = [
  'import_ratio',
  'multi_step',
  'problem',
  'projections',
  'race',
]


def problem(
  batch_size: int,
  hidden: tuple[int, ...],
  network: str,
  layer: str = 'Dense_0',
) -> tuple[scans.LayerView, int, int]:
  """One layer of a network on one synthetic batch.

  Args:
    batch_size: examples.
    hidden: units of the hidden layers.
    network: its name, as in the studies.
    layer: the layer's name.

  Returns:
    The view, and the FLOPs of a forward pass: of the first layer, and of the rest.
  """
  toy = toy_config.ToyConfig(
    dataset='synthetic', batch_size=(batch_size,), hidden=hidden
  )
  opened = toy.open(sweeps.Sweep())
  model = opened.model(network)

  @jax.jit
  def look(arrays):
    experiment = opened.experiment(0, arrays)
    posed = toy_lib.pose_problem(model, experiment, batch_size, layer=layer)
    return posed.search

  arrays = jax.tree.map(jnp.asarray, opened.arrays)
  view = look(arrays)
  sizes = (math.prod(opened.dataset.images.shape[1:]), *hidden, 10)
  first, *rest = [2 * a * b for a, b in itertools.pairwise(sizes)]
  return view, batch_size * first, batch_size * sum(rest)


def multi_step(
  batch_size: int,
  hidden: tuple[int, ...],
  gemm: int,
  turns: int,
  *,
  num_lanes: int = 2,
  num_steps: int = 5,
) -> dict[str, float]:
  """Achieved model FLOP/s of a sweep, over those of a matrix product.

  Args:
    batch_size: examples.
    hidden: units of the hidden layers.
    gemm: size of the square matrix product that stands for the peak.
    turns: of each contestant.
    num_lanes: learning rates of the sweep.
    num_steps: updates of each.
  """
  square = jnp.ones((gemm, gemm))
  contestants: dict[str, Callable[[], Any]] = {}
  flops = {'peak': 2 * gemm**3}
  multiply = jax.jit(jnp.matmul)
  contestants['peak'] = lambda: multiply(square, square)
  for network in ('full_precision', 'binary'):
    view, first, rest = problem(batch_size, hidden, network)
    name = f'multi-step, {network.replace("_", " ")}'
    # Forward; backward through the rest to the layer, and to its kernel.
    flops[name] = num_lanes * (num_steps * 2 * (first + rest) + (first + rest))
    contestants[name] = _descent(view, num_lanes, num_steps)
  seconds = race(contestants, turns)
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
  """Milliseconds to project 784 x 256 weights, one lane at a time."""
  key = jax.random.key(0)
  kernel = jax.random.uniform(key, (784, 256), minval=-0.076, maxval=0.076)
  moved = kernel + 0.05 * jax.random.normal(jax.random.key(1), kernel.shape)
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
  return {n: 1e3 * s for n, s in race(contestants, turns).items()}


def import_ratio(turns: int) -> float:
  """Time to import bitjax, over that of what it stands on."""

  def importing(modules):
    command = [sys.executable, '-c', f'import {modules}']
    return lambda: subprocess.run(command, check=True)

  contestants = {
    'bitjax': importing('bitjax.nn, bitjax.scans, bitjax.transforms'),
    'below': importing('jax, flax.linen, optax'),
  }
  seconds = race(contestants, turns)
  return seconds['bitjax'] / seconds['below']


def race(
  contestants: Mapping[str, Callable[[], Any]], turns: int
) -> dict[str, float]:
  """Median seconds of each, taking turns, after one turn that does not count.

  Args:
    contestants: name -> what is timed, until its arrays are ready.
    turns: that count.
  """
  times: dict[str, list[float]] = {name: [] for name in contestants}
  for turn in range(turns + 1):
    for name, contestant in contestants.items():
      start = time.perf_counter()
      jax.block_until_ready(contestant())
      if turn:
        times[name].append(time.perf_counter() - start)
  return {name: float(np.median(spent)) for name, spent in times.items()}
