r"""Staircases: the piecewise constant functions of the forward pass.

A staircase that is elementwise and monotone offers its levels: how many there
are, whether they are equally far apart, and latent values that have the next ones
(see `bitjax.scans.Neighbours`). A staircase whose thresholds depend on all weights
at once, such as TWN's, offers none, since moving one weight changes the others.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _channels
from bitjax.quantizers import _written

__all__ = ['Step', 'heaviside', 'is_sign', 'shifted_sign', 'sign', 'ternary']

# How far beyond a threshold a neighbour lies, as a fraction of the largest
# magnitude. A subnormal distance would not do: compiled code flushes it to zero.
_MARGIN = 1e-3

_FACTORS = {'mean_abs': 0.7, 'max_abs': 0.05}


def sign() -> _attach.Staircase:
  r"""Returns the two-valued sign: +1 where ``x >= 0``, -1 elsewhere.

  .. math:: q(x) = \begin{cases} +1 & x \ge 0 \\ -1 & x < 0 \end{cases}

  So sign(0) = sign(-0) = +1, and NaN, which is not >= 0, becomes -1. (NaN weights
  of a network still show where its other layers propagate NaN; training loops
  should watch the loss.)

  Returns:
    A staircase that keeps shape and dtype.

  References:
    Courbariaux et al., Binarized neural networks, 2016, eq. 1
    (https://arxiv.org/abs/1602.02830).
  """
  return Step(None, -1, None)


def is_sign(quantize: Callable[..., types.Array] | None) -> bool:
  """Returns whether the staircase of a quantizer is `sign`, with its step at 0; static.

  Args:
    quantize: a quantizer, or None.
  """
  found = _attach.staircase(quantize)
  return jax.tree.structure(found) == jax.tree.structure(sign())


def shifted_sign(
  threshold: types.Scalar, *, channel_axis: int | None = None
) -> _attach.Staircase:
  r"""Returns the sign around a threshold: +1 where ``x >= threshold``, else -1.

  .. math:: q(x) = \begin{cases} +1 & x \ge t \\ -1 & x < t \end{cases}

  The threshold is rounded to the dtype of ``x``. Its own gradient is zero; see
  `rsign` for learned thresholds.

  Args:
    threshold: t, in the units of ``x``: a scalar, or [channels].
    channel_axis: the axis of ``x`` with a threshold for each entry; None for a
      single threshold.

  Returns:
    A staircase that keeps shape and dtype; NaN becomes -1.

  Raises:
    BadInput: for a threshold that is NaN, and, when called, for a number of
      thresholds that is not that of the channels.
  """
  channel_axis = types.check_axis('channel_axis', channel_axis)
  types.check_range(
    'threshold', threshold, -float('inf'), float('inf'), arrays=True
  )
  return Step(threshold, -1, channel_axis)


def heaviside() -> _attach.Staircase:
  r"""Returns the two-valued unit step: 1 where ``x >= 0``, 0 elsewhere.

  .. math:: q(x) = \begin{cases} 1 & x \ge 0 \\ 0 & x < 0 \end{cases}

  It is (sign(x) + 1) / 2, so heaviside(0) = 1. (In some libraries it is 0.)

  Returns:
    A staircase that keeps shape and dtype; NaN becomes 0.
  """
  return Step(None, 0, None)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Step:
  """A staircase: 1 where ``x >= threshold``, else ``low``; None is a threshold of 0."""

  threshold: types.Scalar | None
  low: int = dataclasses.field(metadata={'static': True})
  channel_axis: int | None = dataclasses.field(metadata={'static': True})

  num_levels = 2
  uniform = True

  def __call__(self, x: types.Array) -> types.Array:
    """Returns the upper or the lower level."""
    x = _channels.check_floating(x)
    one = jnp.ones((), x.dtype)
    low = jnp.full((), self.low, x.dtype)
    return jnp.where(x >= self._threshold(x), one, low)

  def neighbours(self, x: types.Array) -> tuple[types.Array, types.Array]:
    """Returns latent values with the next level up and down; ``x`` if there is none."""
    threshold = self._threshold(x)
    margin = _margin(x, threshold)
    high = x >= threshold
    return (
      jnp.where(high, x, threshold + margin),
      jnp.where(high, threshold - margin, x),
    )

  def _threshold(self, x):
    if self.threshold is None:
      return jnp.zeros((), x.dtype)
    threshold = _channels.align(
      'threshold', self.threshold, x, self.channel_axis
    )
    return threshold.astype(x.dtype)

  def __repr__(self) -> str:
    if self.threshold is None:
      return _written.call(sign if self.low else heaviside)
    return _written.call(shifted_sign, **vars(self))


def _margin(x, threshold):
  """Returns a distance from a threshold that is small, but not subnormal."""
  largest = jnp.maximum(
    jnp.max(jnp.abs(x), initial=0), jnp.max(jnp.abs(threshold))
  )
  return _MARGIN * jnp.where(largest > 0, largest, jnp.ones_like(largest))


def ternary(
  threshold: types.Scalar | str = 'mean_abs',
  *,
  factor: types.Scalar | None = None,
  scaled: bool = False,
  channel_axis: int | None = None,
) -> _attach.Staircase:
  r"""Returns a ternary staircase: the sign where ``|x|`` exceeds a threshold, else 0.

  .. math::
    q(x) = \begin{cases} +a & x > \Delta \\ 0 & |x| \le \Delta \\
    -a & x < -\Delta \end{cases}

  ===============  =========================  ==================================
  ``threshold``    Delta                      source
  ===============  =========================  ==================================
  a number         that number
  ``'mean_abs'``   ``factor * mean|x|``, 0.7  TWN
  ``'max_abs'``    ``factor * max|x|``, 0.05  TTQ (whose scales are `ttq`'s)
  ===============  =========================  ==================================

  a is 1 or, if ``scaled``, the mean of the ``|x|`` above Delta (0 if there are none),
  with which q(x) is the best fit of x (TWN).

  Args:
    threshold: Delta >= 0, in the units of ``x``, or how to compute it.
    factor: the factor of the computed threshold; None for that of the paper.
    scaled: whether to multiply by a.
    channel_axis: the axis of ``x`` with a Delta and an a for each entry; None for
      a single pair for all of ``x``.

  Returns:
    A staircase that keeps shape and dtype. With a fixed threshold NaN becomes 0.
    With a computed one a NaN or infinite value makes all values that share its
    threshold 0. The staircase offers its levels if they do not depend on the other
    weights.

  Raises:
    BadInput: for a threshold that is negative or of an unknown name, a factor
      that is not positive or is given with a fixed threshold, and, when called, for
      a ``channel_axis`` that ``x`` does not have.

  References:
    Li et al., Ternary weight networks, 2016, the threshold-based ternary
    function (https://arxiv.org/abs/1605.04711); Zhu et al., Trained ternary
    quantization, 2017, the threshold of the largest weight
    (https://arxiv.org/abs/1612.01064).
  """
  channel_axis = types.check_axis('channel_axis', channel_axis)
  if isinstance(threshold, str):
    types.check_choice('threshold', threshold, tuple(_FACTORS))
    value, rule = factor, threshold
    value = _FACTORS[rule] if factor is None else factor
    types.check_positive('factor', value, finite=True)
    return _Ternary(value, rule, scaled, channel_axis)
  types.check_non_negative('threshold', threshold)
  if factor is not None:
    raise types.BadInput(
      f'factor must be None for a fixed threshold; got {factor}.'
    )
  if not scaled:
    return _FixedTernary(threshold)
  return _Ternary(threshold, 'fixed', scaled, channel_axis)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _FixedTernary:
  threshold: types.Scalar

  num_levels = 3
  uniform = True

  def __call__(self, x):
    return _ternary(_channels.check_floating(x), self.threshold)

  def neighbours(self, x):
    threshold = jnp.asarray(self.threshold, x.dtype)
    beyond = threshold + _margin(x, threshold)
    code, zero = self(x), jnp.zeros((), x.dtype)
    up = jnp.where(code < 0, zero, jnp.where(code > 0, x, beyond))
    down = jnp.where(code > 0, zero, jnp.where(code < 0, x, -beyond))
    return up, down

  def __repr__(self):
    return _written.call(ternary, **vars(self))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Ternary:
  """A ternary staircase whose threshold or scale depends on all of ``x``."""

  value: types.Scalar
  rule: str = dataclasses.field(metadata={'static': True})
  scaled: bool = dataclasses.field(metadata={'static': True})
  channel_axis: int | None = dataclasses.field(metadata={'static': True})

  bits = 2

  def __call__(self, x):
    x = _channels.check_floating(x)
    axes = _channels.reduced_axes(x, self.channel_axis)
    size = jnp.abs(types.widened(x))
    threshold = self.value
    if self.rule == 'mean_abs':
      threshold *= jnp.mean(size, axis=axes, keepdims=True)
    elif self.rule == 'max_abs':
      threshold *= jnp.max(size, axis=axes, keepdims=True, initial=0)
    x_q = _ternary(x, threshold)
    if self.scaled:
      x_q *= mean_where(size, x_q != 0, axes).astype(x.dtype)
    return x_q

  def __repr__(self):
    given: dict[str, Any] = {'threshold': self.value}
    if self.rule != 'fixed':
      usual = types.shown(self.value) == types.shown(_FACTORS[self.rule])
      given = {'threshold': self.rule, 'factor': None if usual else self.value}
    return _written.call(ternary, **given, **vars(self))


def _ternary(x, threshold):
  wide = types.widened(x)
  return (wide > threshold).astype(x.dtype) - (wide < -threshold).astype(
    x.dtype
  )


def mean_where(
  x: types.Array, mask: types.Array, axes: tuple[int, ...] | None
) -> types.Array:
  """Returns the mean of ``x`` where ``mask`` holds, with axes kept; 0 if nowhere."""
  count = jnp.sum(mask, axis=axes, keepdims=True).astype(x.dtype)
  total = jnp.sum(jnp.where(mask, x, 0), axis=axes, keepdims=True)
  return total / jnp.maximum(count, 1)
