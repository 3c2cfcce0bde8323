"""Differentiable soft quantization (DSQ) with a learned range and softness."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _callables
from bitjax.quantizers import _channels
from bitjax.quantizers import _domains
from bitjax.quantizers import _estimators
from bitjax.quantizers import _learned
from bitjax.quantizers import _maths
from bitjax.quantizers import _soft
from bitjax.quantizers import _staircases
from bitjax.quantizers import _written

__all__ = ['DSQ_LEVELS', 'learned_dsq']

DSQ_LEVELS = ('soft', 'hard')


def learned_dsq(
  bits: int,
  *,
  alpha: types.Scalar = 0.2,
  alpha_end: types.Scalar | None = None,
  step: str | _attach.Estimator = 'tanh',
  level: str = 'soft',
) -> _learned.Quantizer:
  r"""Returns DSQ with learned range and softness: hard steps forward, soft backward.

  The range [l, u] has :math:`n = 2^b - 1` intervals of width
  :math:`\Delta = (u - l) / n`. In interval i, with midpoint :math:`m_i`,

  .. math::
    \varphi = s \tanh(k (x - m_i)), \qquad s = \frac{1}{1 - \alpha}, \qquad
    k = \frac1\Delta \ln\left(\frac2\alpha - 1\right), \qquad
    y = l + \Delta \left(i + \frac{\mathrm{sgn}(\varphi) + 1}{2}\right),

  and y = l below l, y = u above u. The gradients are those of the soft staircase, which
  has :math:`\varphi` in the place of its sign. With
  :math:`\tau = \tanh(k (x - m_i))`, :math:`v = (x - l) / \Delta` and the soft level
  :math:`c = i + (\varphi + 1) / 2`, they are in [l, u], ends included,

  .. math::
    \frac{\partial y}{\partial x} = p = \tfrac12 s k \Delta (1 - \tau^2), \quad
    \frac{\partial y}{\partial u} = \frac{c - p v}{n}, \quad
    \frac{\partial y}{\partial l} = 1 - p - \frac{c - p v}{n}, \quad
    \frac{\partial y}{\partial \alpha} = \frac\Delta2 \left( s^2 \tau
    - \frac{2 s (1 - \tau^2) (x - m_i)}{\Delta \, \alpha (2 - \alpha)} \right);

  below the range only :math:`\partial y / \partial l = 1` is not 0, above it only
  :math:`\partial y / \partial u = 1`. With ``level='hard'`` only the sign passes its
  gradient unchanged, so that c is the index of the hard level y: what automatic
  differentiation of code for the forward pass gives.

  The range is initialised to the smallest and the largest value of x, which have a
  gradient too. It stays a range: l is the smaller and u the larger of what is stored.
  Where training moves alpha out of (0, 1), it is reflected at 0 or 1, and it keeps a
  distance of 1e-3 from both.

  With ``step='hardtanh'`` the soft step is piecewise linear, :math:`\varphi =
  \min(\max(s k (x - m_i), -1), 1)`, as in `dsq`: the gradient passes in a window that
  shrinks with alpha.

  Args:
    bits: b, in [1, 16].
    alpha: the initial alpha, in (0, 1); smaller is harder.
    alpha_end: if given, alpha is not learned: it goes from ``alpha`` to
      ``alpha_end`` by equal factors as progress goes from 0 to 1. If both are
      equal, alpha is fixed.
    step: ``'tanh'``, as in the paper, or ``'hardtanh'``; or an estimator, which is
      told where in its interval x is, from -1 to 1, and stands for the sign's
      derivative there: ``window()`` gives the clipped identity. Then there is no
      alpha, and ``alpha`` is ignored.
    level: the level in the gradients of l and u, ``'soft'``, as in the paper, or
      ``'hard'``; that of an estimator is always the hard one.

  Returns:
    A `Quantizer` with the parameters ``'lower'`` (l) and ``'upper'`` (u), [], and
    ``'alpha'``, [], if that is learned. Infinite values become l and u, NaN stays
    NaN.

  Raises:
    BadInput: for bits out of range, an alpha outside (0, 1), an ``alpha_end`` with an
      estimator, or an unknown step or level.

  References:
    Gong et al., Differentiable soft quantization, 2019, the DSQ function, and how
    its range and alpha are learned (https://arxiv.org/abs/1908.05033).
  """
  bits = _channels.check_bits(bits)
  types.check_open_interval('alpha', alpha, 0.0, 1.0)
  if alpha_end is not None:
    types.check_open_interval('alpha_end', alpha_end, 0.0, 1.0)
  types.check_choice('level', level, DSQ_LEVELS)
  if callable(step):
    step = _callables.as_pytree('step', step, ('g', 'x', 'x_q', 'progress'))
    if alpha_end is not None:
      raise types.BadInput(
        'alpha_end must be None for steps of an estimator, which have no alpha; '
        f'got {alpha_end}.'
      )
    rule = _DSQ(alpha, alpha, 2**bits - 1, None, 'hard', step)
    return _learned.from_rule(rule, bits)
  types.check_choice('step', step, _soft.SOFT_STEPS)
  rule = _DSQ(alpha, alpha_end, 2**bits - 1, step, level, None)
  return _learned.from_rule(rule, bits)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _DSQ:
  alpha: types.Scalar
  alpha_end: types.Scalar | None
  intervals: int = dataclasses.field(metadata={'static': True})
  step: str | None = dataclasses.field(metadata={'static': True})
  level: str = dataclasses.field(metadata={'static': True})
  estimator: Any  # In the place of the soft step; None for ``step``.

  def init(self, x):
    x = types.widened(x)
    lower = jnp.min(x, initial=jnp.inf)
    upper = jnp.max(x, initial=-jnp.inf)
    some = lower < upper
    middle = jnp.where(jnp.isfinite(lower), lower, 0)
    learned = {'alpha': jnp.asarray(self.alpha, x.dtype)}
    return (learned if self.alpha_end is None else {}) | {
      'lower': jnp.where(some, lower, middle - 1),
      'upper': jnp.where(some, upper, middle + 1),
    }

  def effective(self, qparams):
    lower, upper = _domains.ordered(qparams['lower'], qparams['upper'])
    found = {'lower': lower, 'upper': upper}
    if self.alpha_end is None:
      found['alpha'] = _domains.between_0_and_1(qparams['alpha'])
    return found

  def apply(self, qparams, x, progress):
    x = types.widened(x)
    values = dict(qparams)
    if self.alpha_end is not None:
      alpha = _maths.geometric(self.alpha, self.alpha_end, progress)
      values['alpha'] = _domains.between_0_and_1(alpha)
    # Broadcast the parameters first, so that their gradients add each element's
    # terms before they sum over all elements.
    alpha, lower, upper = (
      _channels.align(name, jnp.asarray(values[name], x.dtype), x, None)
      + jnp.zeros_like(x)
      for name in ('alpha', 'lower', 'upper')
    )
    inside = (x >= lower) & (x <= upper)
    # Outside the range x may be infinite, and 0 * inf would make gradients NaN.
    safe = jnp.where(inside, x, jax.lax.stop_gradient((lower + upper) / 2))
    width = _domains.positive(upper - lower) / self.intervals
    position = (safe - lower) / width
    interval = jnp.clip(jnp.floor(position), 0, self.intervals - 1)
    interval = jax.lax.stop_gradient(interval)
    sign, hard = self.signs(position - interval - 0.5, alpha, progress)
    backward = lower + width * (interval + (sign + 1) / 2)
    code = interval + (hard + 1) / 2
    # The highest level is u itself, not u up to rounding.
    top = code == self.intervals
    forward = jnp.where(top, upper, lower + width * code)
    forward = jax.tree_util.Partial(_first, jax.lax.stop_gradient(forward))
    y = _attach.attach(forward, _estimators.identity())(backward)
    outer = jnp.where(x > upper, upper, jnp.where(x < lower, lower, x))
    return jnp.where(inside, y, outer)

  def signs(self, position, alpha, progress):
    """Returns the sign in the backward and in the forward pass, from -1/2 to 1/2."""
    if self.estimator is not None:
      quantize = _attach.attach(_staircases.sign(), self.estimator)
      hard = quantize(2 * position, progress=progress)
      return hard, hard
    steep = jnp.log(2 / alpha - 1) * position
    if self.step == 'tanh':
      soft = jnp.tanh(steep) / (1 - alpha)
    else:
      soft = jnp.clip(steep / (1 - alpha), -1, 1)
    hard = _attach.attach(_staircases.sign(), _estimators.identity())(soft)
    return (soft if self.level == 'soft' else hard), hard

  def __repr__(self):
    given = vars(self) | {'bits': self.intervals.bit_length()}
    if self.estimator is not None:
      given |= {'alpha_end': None, 'step': self.estimator, 'level': 'soft'}
    return _written.call(learned_dsq, **given)


def _first(y, soft):
  del soft
  return y
