"""PACT: activations clipped at a learned level."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _channels
from bitjax.quantizers import _domains
from bitjax.quantizers import _learned
from bitjax.quantizers import _lsq
from bitjax.quantizers import _uniform
from bitjax.quantizers import _written

__all__ = ['pact']


def pact(
  bits: int,
  *,
  alpha: types.Scalar | None = None,
  through_step: bool = False,
) -> _learned.Quantizer:
  r"""Clips activations to [0, alpha], with learned alpha, and rounds to ``bits`` bits.

  With :math:`c = \mathrm{clip}(x, 0, \alpha)`, :math:`n = 2^b - 1` and the step
  :math:`s = \alpha / n`

  .. math::
    y = s \, \mathrm{round}(c / s), \qquad
    \bar x = \bar y \, 1[0 \le x < \alpha], \qquad
    \bar \alpha = \sum \bar y \, 1[x \ge \alpha].

  Differentiation treats the step as a constant, so that values inside the range do
  not move alpha. ``through_step`` differentiates it as well, which adds to
  :math:`\bar \alpha`

  .. math:: \frac1n \sum \bar y \, (\mathrm{round}(c / s) - c / s).

  Where alpha is above every x, only a penalty moves it. The paper begins there, at 10,
  and lets an l2 penalty of alpha bring it down; here the penalty is the optimiser's
  (``quantizer_decay`` of `bitjax.training.optimizer`), and alpha begins where it has a
  gradient: at :math:`2 \sqrt n \, \mathrm{mean}(\max(x, 0))`, whose step is that of `lsq`
  (1 where no x is positive). It stays positive: alpha is the magnitude of what is
  stored, at least 2^-40.

  Args:
    bits: b, in [1, 16].
    alpha: the initial alpha, in the units of ``x``; > 0. None to compute it from x.
    through_step: whether alpha also gets the gradient through the step.

  Returns:
    A `Quantizer` with the parameter ``'alpha'``, []. +inf becomes alpha, -inf
    becomes 0, NaN stays NaN.

  Raises:
    BadInput: for bits out of range, or an alpha that is not positive or infinite.

  References:
    Choi et al., PACT, 2018, the clipping activation and the gradient of its
    level (https://arxiv.org/abs/1805.06085).
  """
  _, high = _uniform.code_range(bits, signed=False)
  if alpha is not None:
    types.check_positive('alpha', alpha, finite=True)
  return _learned.from_rule(_PACT(alpha, high, through_step), bits)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _PACT:
  alpha: types.Scalar | None
  high: int = dataclasses.field(metadata={'static': True})
  through_step: bool = dataclasses.field(metadata={'static': True})

  def init(self, x):
    x = types.widened(x)
    if self.alpha is not None:
      return {'alpha': jnp.asarray(self.alpha, x.dtype)}
    mean = jnp.sum(jnp.maximum(x, 0)) / max(x.size, 1)
    return {'alpha': jnp.where(mean > 0, 2 * math.sqrt(self.high) * mean, 1)}

  def effective(self, qparams):
    return {'alpha': _domains.positive(qparams['alpha'])}

  def apply(self, qparams, x, progress):
    alpha = _channels.align('alpha', qparams['alpha'], x, None)
    alpha = jnp.broadcast_to(alpha, x.shape)
    wide = types.widened(x)
    zero = jnp.zeros((), wide.dtype)
    clipped = jnp.where(wide >= alpha, alpha, jnp.where(wide < 0, zero, wide))
    step = alpha / self.high
    step = step if self.through_step else jax.lax.stop_gradient(step)
    return _lsq.rounded(clipped / step, progress) * step

  def levels(self, qparams):
    return _uniform.Grid(qparams['alpha'] / self.high, 0, self.high, None)

  def __repr__(self):
    return _written.call(pact, bits=self.high.bit_length(), **vars(self))
