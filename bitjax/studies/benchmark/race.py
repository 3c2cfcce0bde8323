"""Times contestants that take turns, and poses a synthetic problem to them.

A machine that slows down slows all contestants, so their ratios stay the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import scans
from bitjax import sweeps
from bitjax.studies import toy

__all__ = ['MAX_BATCH', 'problem', 'race', 'weights']

MAX_BATCH = 25_000  # Two batches are all synthetic examples.
_PIXELS, _CLASSES = 28 * 28, 10


def race(
  contestants: Mapping[str, Callable[[], Any]], turns: int
) -> dict[str, float]:
  """Returns the median seconds of each contestant; they take turns.

  A first turn of each, which may compile, does not count.

  Args:
    contestants: name -> the function to time, until the arrays it returns are ready.
    turns: the turns that count.
  """
  times: dict[str, list[float]] = {name: [] for name in contestants}
  for turn in range(turns + 1):
    for name, contestant in contestants.items():
      start = time.perf_counter()
      jax.block_until_ready(contestant())
      if turn:
        times[name].append(time.perf_counter() - start)
  return {name: float(np.median(spent)) for name, spent in times.items()}


def weights(hidden: tuple[int, ...]) -> list[int]:
  """Returns the number of weights of each layer of the network of `problem`."""
  return toy.num_weights(_PIXELS, hidden, _CLASSES)


def problem(
  batch_size: int,
  hidden: tuple[int, ...],
  network: str,
  layer: str = 'Dense_0',
) -> tuple[scans.LayerView, int, int]:
  """Returns one layer of a network on one synthetic batch, and its FLOPs.

  Args:
    batch_size: examples in the batch.
    hidden: units of the hidden layers.
    network: its name, as in the studies.
    layer: the layer's name.

  Returns:
    The layer's view, and the FLOPs of a forward pass through the first layer and
    through the rest of the network.
  """
  problems = _problems(batch_size, hidden)
  model = problems.model(network)

  @jax.jit
  def look(arrays):
    trial = problems.trial(0, arrays)
    posed = toy.pose_problem(model, trial, batch_size, layer=layer)
    return posed.search

  arrays = jax.tree.map(jnp.asarray, problems.arrays)
  view = look(arrays)
  first, *rest = [2 * number for number in weights(hidden)]
  return view, batch_size * first, batch_size * sum(rest)


@functools.lru_cache(maxsize=1)
def _problems(batch_size: int, hidden: tuple[int, ...]) -> toy.Problems:
  """Draws the weights and batches that all networks of one size share."""
  config = toy.Config(
    dataset='synthetic', batch_size=(batch_size,), hidden=hidden
  )
  return config.open(sweeps.Sweep())
