r"""Random staircases: right on average, so that small changes are not lost.

They take an explicit ``key``. A quantizer made by `attach` passes on its own.
"""

from __future__ import annotations

import dataclasses
from typing import cast

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _channels
from bitjax.quantizers import _written

__all__ = ['stochastic_round', 'stochastic_sign']


def stochastic_sign() -> _attach.Staircase:
  r"""Returns a random sign: +1 with a probability that rises with x (BinaryConnect).

  .. math:: P(q(x) = 1) = \mathrm{clip}\left(\frac{x + 1}{2}, 0, 1\right),
    \qquad \mathrm{E} \, q(x) = \mathrm{clip}(x, -1, 1)

  The paper attaches `identity` and clips the latent weights to [-1, 1].

  Returns:
    A staircase ``(x, *, key) -> x_q`` that keeps shape and dtype. NaN becomes
    -1.

  References:
    Courbariaux et al., BinaryConnect, 2015, stochastic binarization
    (https://arxiv.org/abs/1511.00363).
  """
  return cast(_attach.Staircase, _StochasticSign())


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _StochasticSign:
  bits = 1

  def __call__(self, x, *, key):
    x = _channels.check_floating(x)
    probability = (types.widened(x) + 1) / 2
    drawn = jax.random.uniform(key, x.shape, probability.dtype)
    return jnp.where(drawn < probability, 1, -1).astype(x.dtype)

  def __repr__(self):
    return _written.call(stochastic_sign)


def stochastic_round(step: types.Scalar = 1.0) -> _attach.Staircase:
  r"""Rounds up at random, with the probability that makes the mean equal to ``x``.

  .. math:: q(x) = s \left( \left\lfloor \tfrac xs \right\rfloor + b \right),
    \qquad P(b = 1) = \tfrac xs - \left\lfloor \tfrac xs \right\rfloor,
    \qquad \mathrm{E} \, q(x) = x

  Args:
    step: s > 0, the distance between levels.

  Returns:
    A staircase ``(x, *, key) -> x_q`` that keeps shape and dtype. Multiples of the
    step, infinities and NaN stay what they are.

  Raises:
    BadInput: if a concrete ``step`` is not positive.

  References:
    Gupta et al., Deep learning with limited numerical precision, 2015
    (https://arxiv.org/abs/1502.02551).
  """
  types.check_positive('step', step, finite=True)
  return _written.rule(stochastic_round, _stochastic_round, step)


def _stochastic_round(step, x, *, key):
  x = _channels.check_floating(x)
  scaled = types.widened(x) / step
  below = jnp.floor(scaled)
  drawn = jax.random.uniform(key, x.shape, scaled.dtype)
  up = (drawn < scaled - below).astype(scaled.dtype)
  return (step * (below + up)).astype(x.dtype)
