"""How long an estimator takes, beside the normal STE, in one process and in turns.

The machine may be busy, and its clock may change: so each turn runs both several times, one
after the other, and takes the minimum of each.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import quantizers
from bitjax import sweeps
from bitjax.commands.report_card import names
from bitjax.studies import toy

if TYPE_CHECKING:
  import xarray

__all__ = ['SHAPE', 'measure']

SHAPE = 1024, 1024  # Entries of the tensor whose cotangent is computed.
_REPEATS = 15


def measure(
  problems: toy.Problems,
  sweep: sweeps.Sweep,
  estimator: quantizers.Estimator,
  *,
  turns: int,
) -> xarray.Dataset:
  """Measures times in several turns.

  Args:
    problems: the toy problems, for the gradient of a whole network.
    sweep: runs the sweep.
    estimator: the estimator.
    turns: number of turns.

  Returns:
    By turn: ``entry_ns``, nanoseconds for an entry of the cotangent alone;
    ``entry_ratio`` and ``step_ratio``, the time of that and of a gradient of the network's
    loss as multiples of those of the normal STE.
  """
  normal = quantizers.named(names.canonical(names.REFERENCE))

  @functools.cache
  def programs() -> list[list[Any]]:
    pair = estimator, normal
    return [
      [_cotangent(one) for one in pair],
      [_gradient(problems, one) for one in pair],
    ]

  def turn(*, folder, report, mesh, turn):
    del folder, report, mesh
    alone, whole = (_times(pair) for pair in programs())
    rows = {
      'entry_ns': 1e9 * alone[0] / np.prod(SHAPE),
      'entry_ratio': alone[0] / alone[1],
      'step_ratio': whole[0] / whole[1],
    }
    return {name: np.full(turn.shape, row) for name, row in rows.items()}

  return sweep.hosted(
    turn, name='speed', lanes={'turn': np.arange(turns)}, chunk=1
  )


def _cotangent(estimator):
  keys = jax.random.split(jax.random.key(0))
  x, g = (jax.random.normal(key, SHAPE) for key in keys)
  rule = jax.jit(
    lambda g, x: estimator(g, x, jnp.where(x >= 0, 1.0, -1.0), 1.0)
  )
  return functools.partial(rule, g, x)


def _gradient(problems, estimator):
  model = problems.model('binary', activation_estimator=estimator)
  trial = problems.trial(problems.config.seeds[0], problems.arrays)
  batch, _ = trial.batches[max(problems.config.batch_size)]

  def loss(variables, inputs, labels):
    return toy.cross_entropy(model.apply(variables, inputs), labels)

  return functools.partial(jax.jit(jax.grad(loss)), trial.variables, *batch)


def _times(pair):
  """Returns the shortest times of two programs that take turns, in seconds."""
  for program in pair:
    jax.block_until_ready(program())  # Compiles.
  found = []
  for _ in range(_REPEATS):
    for program in pair:
      start = time.perf_counter()
      jax.block_until_ready(program())
      found.append(time.perf_counter() - start)
  return np.min(np.reshape(found, (-1, 2)), axis=0)
