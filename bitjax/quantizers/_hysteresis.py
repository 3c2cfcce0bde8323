r"""Staircases with memory, which keep weights from oscillating around a threshold.

The *state* of such a staircase is its own last output. It is an explicit argument,
``quantize(x, state=previous)``, and never hidden: the caller stores what the
quantizer returns. The layers of `bitjax.nn` do so in a collection of their own.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _channels
from bitjax.quantizers import _staircases
from bitjax.quantizers import _uniform
from bitjax.quantizers import _written

__all__ = ['hysteretic_sign', 'hysteretic_uniform', 'initial_state']


def hysteretic_sign(margin: types.Scalar) -> _attach.Staircase:
  r"""Returns a sign that changes only when ``x`` is beyond a margin around zero.

  .. math::
    q_t(x) = \begin{cases} +1 & x \ge m \\ -1 & x < -m \\
    q_{t-1} & \text{else} \end{cases}

  Args:
    margin: m >= 0, in the units of ``x``; 0 gives the sign itself.

  Returns:
    A staircase ``(x, *, state) -> x_q``, where ``state`` is its last output (see
    `initial_state`). Where ``x`` is NaN, it returns the state.

  Raises:
    BadInput: for a negative margin, and, when called, for a state whose shape is
      not that of ``x``.
  """
  types.check_non_negative('margin', margin)
  return _HystereticSign(margin)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _HystereticSign:
  margin: types.Scalar

  bits = 1

  def __call__(self, x, *, state=None):
    x, state = _checked(x, state)
    one = jnp.ones((), x.dtype)
    margin = jnp.asarray(self.margin, x.dtype)
    stays = jnp.where(x < -margin, -one, state.astype(x.dtype))
    return jnp.where(x >= margin, one, stays)

  def initial(self, x):
    """Returns the output without memory: the sign."""
    return _staircases.sign()(x)

  def __repr__(self):
    return _written.call(hysteretic_sign, **vars(self))


def hysteretic_uniform(
  bits: int,
  *,
  signed: bool = True,
  narrow: bool = False,
  step: types.Scalar | str | None = None,
  channel_axis: int | None = None,
) -> _attach.Staircase:
  r"""Returns a uniform grid whose code changes only when ``x`` reaches another level.

  With :math:`v = x / s` and c the last code,

  .. math::
    c_t = \begin{cases} \lfloor v \rfloor & v > c_{t-1} \\
    \lceil v \rceil & v \le c_{t-1} \end{cases}, \qquad
    q_t(x) = s \, \mathrm{clip}(c_t, Q_n, Q_p),

  where rounding to the nearest would change the code half a step earlier.

  Args:
    bits: as for `uniform`.
    signed: as for `uniform`.
    narrow: as for `uniform`.
    step: as for `uniform`.
    channel_axis: as for `uniform`.

  Returns:
    A staircase ``(x, *, state) -> x_q``, where ``state`` is its last output (see
    `initial_state`). NaN stays NaN.

  Raises:
    BadInput: as for `uniform`, and, when called, for a state whose shape is not
      that of ``x``.

  References:
    Lee et al., Toward efficient low-precision training: data format
    optimization and hysteresis quantization, ICLR 2022
    (https://openreview.net/forum?id=3HJOA-1hb0e).
  """
  grid = _uniform.uniform(
    bits, signed=signed, narrow=narrow, step=step, channel_axis=channel_axis
  )
  return _HystereticUniform(grid)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _HystereticUniform:
  grid: _uniform.Grid

  def __call__(self, x, *, state=None):
    x, state = _checked(x, state)
    last = jnp.round(self.grid.scaled(state))
    scaled = self.grid.scaled(x)
    codes = jnp.where(scaled > last, jnp.floor(scaled), jnp.ceil(scaled))
    return self.grid.values(codes, x)

  def initial(self, x):
    """Returns the output without memory: ``x`` rounded to the nearest level."""
    return self.grid(x)

  def __repr__(self):
    return _written.call(hysteretic_uniform, **_uniform.arguments(self.grid))


def _checked(x, state):
  x = _channels.check_floating(x)
  if state is None or jnp.shape(state) != x.shape:
    raise types.BadInput(
      f'state must have the shape of x, {x.shape}; got '
      f'{None if state is None else jnp.shape(state)}. It is what the staircase '
      'returned last; begin with initial_state(quantize, x).'
    )
  return x, jnp.asarray(state)


def initial_state(
  quantize: _attach.Quantize | None, x: types.Array
) -> types.Array | None:
  """Returns the state of a quantizer that has not seen ``x`` before.

  Args:
    quantize: the quantizer, or None.
    x: the array that it will quantize.

  Returns:
    The staircase's output without memory; None if the quantizer has no memory.
  """
  found = _attach.staircase(quantize) or quantize
  return found.initial(x) if hasattr(found, 'initial') else None
