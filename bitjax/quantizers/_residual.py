"""Sums of scaled signs: each bit is the sign of what the earlier bits left over."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _channels
from bitjax.quantizers import _written

__all__ = ['residual_sign']


def residual_sign(
  bits: int, *, channel_axis: int | None = None
) -> _attach.Staircase:
  r"""Returns a staircase that approximates ``x`` by a sum of ``bits`` scaled signs.

  .. math:: q(x) = \sum_{k=1}^b a_k \, \mathrm{sign}(r_k), \qquad
    r_1 = x, \qquad r_{k+1} = r_k - a_k \, \mathrm{sign}(r_k), \qquad
    a_k = \mathrm{mean} |r_k|

  The sum is greedy: each scale is the best fit given those before it. One bit is
  XNOR-Net's scaled sign. A product with q(x) is a sum of binary products.

  Args:
    bits: b, in [1, 16].
    channel_axis: the axis of ``x`` with scales for each entry; None for one set of
      scales for all of ``x``.

  Returns:
    A staircase that keeps shape and dtype. An infinite or NaN value makes all values
    that share its scales infinite or NaN.

  Raises:
    BadInput: for bits out of range, and, when called, a ``channel_axis`` that
      ``x`` does not have.

  References:
    Pouransari et al., Least squares binary quantization of neural networks,
    2020, the greedy algorithm (https://arxiv.org/abs/2001.02786).
  """
  bits = _channels.check_bits(bits)
  channel_axis = types.check_axis('channel_axis', channel_axis)
  return _ResidualSign(bits, channel_axis)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _ResidualSign:
  bits: int
  channel_axis: int | None

  def __call__(self, x: types.Array) -> types.Array:
    x = _channels.check_floating(x)
    axes = _channels.reduced_axes(x, self.channel_axis)
    rest = types.widened(x)
    total = jnp.zeros_like(rest)
    for _ in range(self.bits):
      scale = jnp.mean(jnp.abs(rest), axis=axes, keepdims=True)
      part = jnp.where(rest >= 0, scale, -scale)
      total, rest = total + part, rest - part
    return total.astype(x.dtype)

  def __repr__(self):
    return _written.call(residual_sign, **vars(self))
