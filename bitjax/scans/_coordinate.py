r"""The coordinate discrete gradient: one move after another, kept if it helps.

Moves are tried in an order. Each is scored from where the weights then stand, and
made only if the loss really falls and the budget pays for it:

.. math:: w \leftarrow w + \Delta_k e_k \quad \text{if} \quad
  L(w + \Delta_k e_k) < L(w).

So what it predicts is what it gets, at the price of one loss for each candidate. A
candidate costs only what depends on it (see `_split`): one unit's column of the
product, a rank-one update of the next product, and the rest of the network, for
those examples whose activation changes at all.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.scans import _coordinate_losses
from bitjax.scans import _discrete_costs
from bitjax.scans import _discrete_round
from bitjax.scans import _view

__all__ = ['CoordinateDescent', 'coordinate_discrete_gradient']


class CoordinateDescent(NamedTuple):
  """What `coordinate_discrete_gradient` found.

  Attributes:
    displacement: to be added to the kernel, of its shape.
    num_moves: moves made, int32.
    used: the displacement's size in the budget's norm; for ``flips`` the moves.
    predicted: sum of the decreases that moves were accepted for, in nats; equal to
      ``decrease_search`` but for rounding.
    loss: on the search batch before any move, in nats.
    decrease_search: how much the loss falls on the search batch.
    decrease_holdout: the same on the held-out batch; None without one.
    accepted: of each candidate, in the order of trial, bool [candidates].
    loss_evaluations: losses computed, int32: one for each candidate that the
      budget could pay, those of the signal, and two.
    gradient_evaluations: gradients computed, int32.
  """

  displacement: types.Array
  num_moves: types.Array
  used: types.Array
  predicted: types.Array
  loss: types.Array
  decrease_search: types.Array
  decrease_holdout: types.Array | None
  accepted: types.Array
  loss_evaluations: types.Array
  gradient_evaluations: types.Array
