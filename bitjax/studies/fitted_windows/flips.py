r"""Bop's rule, led by gradients or by gains: the arms that compare optimisers.

Bop averages a signal over updates and flips a weight once the average speaks against it. The
signal is the straight-through estimator's gradient; exact gains of flips; or gains averaged
over random flips of the layer's other weights (`training.CoFlips`), without any derivative.
Signals of a layer are divided by their root mean square, so that one threshold means
the same in all layers and for all signals. The average forgets at a rate that falls,

.. math:: m \leftarrow (1 - \gamma_t) m + \gamma_t g, \qquad
  \gamma_t = \gamma (1 - t / T), \qquad
  \text{flip if} \quad r \, \mathrm{sign}(w) \, m > \sqrt{\gamma / 2},

where the right side is the deviation of an average of independent signals at first, and r
is what is tuned as the rate.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bitjax import training
from bitjax import transforms

__all__ = ['EXACT', 'GAMMAS', 'SMOOTHED', 'STE', 'led']

STE, EXACT, SMOOTHED = (
  f'Bop by {signal}' for signal in ('STE', 'exact gains', 'smoothed gains')
)
GAMMAS = (0.003, 0.01, 0.03)


def led(
  phases: Sequence[training.Phase],
  name: str,
  gamma: float,
  flip_rate: float,
  draws: int,
) -> list[training.Phase]:
  """Returns the phases of a training with Bop's rule in the place of its optimiser.

  Args:
    phases: of a network whose only parameters are kernels that pass through a sign.
    name: `STE`, `EXACT` or `SMOOTHED`.
    gamma: the rate at which the average forgets at first.
    flip_rate: probability of the other weights' flips.
    draws: draws of an update.
  """
  signal = {
    STE: None,
    EXACT: training.CoFlips(0.0, 1),
    SMOOTHED: training.CoFlips(flip_rate, draws),
  }[name]
  schedule: Any = optax.linear_schedule(gamma, 0.0, phases[-1].until)
  tx = optax.chain(
    optax.stateless(lambda updates, params: jax.tree.map(_in_units, updates)),
    _multiplied(),
    transforms.bop(math.sqrt(gamma / 2), schedule),
  )
  return [
    dataclasses.replace(
      phase, task=dataclasses.replace(phase.task, tx=tx, signal=signal)
    )
    for phase in phases
  ]


def _in_units(update):
  """Returns an update divided by its root mean square; 0 stays 0."""
  size = jnp.sqrt(jnp.mean(jnp.square(update)))
  return update / jnp.where(size > 0, size, 1)


def _multiplied():
  """Returns a transform by the factor that differs between networks, the rate."""

  def init(params):
    del params
    return training.MultiplierState(jnp.ones((), jnp.float32))

  def update(updates, state, params=None):
    del params
    return jax.tree.map(lambda u: state.multiplier * u, updates), state

  return optax.GradientTransformation(init, update)
