"""Staircases: the piecewise constant functions of the forward pass."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bitjax.quantizers import _attach

__all__ = ['sign']


def sign() -> _attach.Staircase:
  r"""The sign, two-valued: +1 where ``x >= 0``, -1 elsewhere.

  .. math:: q(x) = \begin{cases} +1 & x \ge 0 \\ -1 & x < 0 \end{cases}

  So sign(0) = sign(-0) = +1, and NaN, which is not >= 0, becomes -1. (A network
  with NaN weights still shows it where its other layers propagate NaN; training
  loops should watch the loss.)

  Returns:
    A staircase that keeps shape and dtype.

  References:
    Courbariaux et al., Binarized neural networks, 2016, eq. 1
    (https://arxiv.org/abs/1602.02830).
  """
  return jax.tree_util.Partial(_sign)


def _sign(x):
  one = jnp.ones((), x.dtype)
  return jnp.where(x >= 0, one, -one)
