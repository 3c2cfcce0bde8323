"""Uniform grids: integer codes times a step.

With one bit an unsigned grid is {0, 1}; a signed grid needs two bits (one signed bit
is the +-1 of `sign`, which has no zero). Ties round to the even code, as in IEEE 754.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _channels
from bitjax.quantizers import _written

__all__ = ['UNIT', 'Grid', 'arguments', 'code_range', 'codes', 'uniform']

UNIT = 'unit'  # The step that makes the largest level 1.


def code_range(
  bits: int, *, signed: bool = True, narrow: bool = False
) -> tuple[int, int]:
  """Returns the smallest and the largest code of a grid.

  Args:
    bits: b >= 1; >= 2 if signed.
    signed: whether there are negative codes.
    narrow: whether to leave out the smallest code, so that the grid is
      symmetric.

  Raises:
    BadInput: for bits out of range, or a narrow grid that is not signed.
  """
  bits = _channels.check_bits(bits, 2 if signed else 1)
  if not signed:
    if narrow:
      raise types.BadInput(
        'narrow must be False for an unsigned grid; got True.'
      )
    return 0, 2**bits - 1
  high = 2 ** (bits - 1) - 1
  return -high if narrow else -high - 1, high


def uniform(
  bits: int,
  *,
  signed: bool = True,
  narrow: bool = False,
  step: types.Scalar | str | None = None,
  channel_axis: int | None = None,
) -> Grid:
  r"""Rounds to a uniform grid of ``bits`` bits, and clips to its ends.

  .. math:: q(x) = s \, \mathrm{clip}(\mathrm{round}(x / s), Q_n, Q_p)

  The codes run from :math:`Q_n` to :math:`Q_p`; ties round to the even code.

  =======================  ==========================  =================
  grid                     codes                       2 bits
  =======================  ==========================  =================
  ``signed=False``         0 ... 2^b - 1               0, 1, 2, 3
  signed                   -2^(b-1) ... 2^(b-1) - 1    -2, -1, 0, 1
  signed and ``narrow``    the same without the first  -1, 0, 1
  =======================  ==========================  =================

  A signed grid needs a step that fits ``x``: a kernel of fan-in n has weights near
  :math:`1 / \sqrt n`, which a grid on [-1, 1] of few bits rounds to 0, all of them.
  `calibrated` takes the step from the weights, `lsq` learns it. An unsigned grid
  without a step is DoReFa's :math:`\mathrm{round}(x n) / n` on [0, 1].

  Args:
    bits: b, in [1, 16]; at least 2 if signed (one signed bit is `sign`).
    signed: whether there are negative levels.
    narrow: whether to leave out the lowest level, which has no counterpart.
    step: s > 0, in the units of ``x``: a scalar, or [channels]; or ``'unit'`` for
      :math:`1 / Q_p`, with which the largest level is 1. None, for an unsigned grid,
      is ``'unit'``.
    channel_axis: the axis of ``x`` with a step for each entry; None for one step.

  Returns:
    A staircase that keeps shape and dtype and computes in float32 or wider.
    Infinite values become the ends of the grid, NaN stays NaN.

  Raises:
    BadInput: for bits out of range, a narrow unsigned grid, a signed grid without a
      step, a step that is not positive, and, when called, for a number of steps that
      is not that of the channels.
  """
  low, high = code_range(bits, signed=signed, narrow=narrow)
  channel_axis = types.check_axis('channel_axis', channel_axis)
  if step is None and signed:
    raise types.BadInput(
      'step must be a number in the units of x for a signed grid; got None. '
      "calibrated(attach(uniform(bits, narrow=True, step='unit'), identity()), "
      'max_abs()) takes it from the weights, and lsq learns it.'
    )
  if isinstance(step, str):
    if step != UNIT:
      raise types.BadInput(f'step must be a number or {UNIT!r}; got {step!r}.')
    step = None
  if step is not None:
    types.check_positive('step', step, finite=True, arrays=True)
  return Grid(step, low, high, channel_axis)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Grid:
  """The staircase that `uniform` returns.

  Attributes:
    step: s, scalar or [channels]; None for ``1 / high``.
    low: smallest code.
    high: largest code.
    channel_axis: the axis of ``x`` with a step for each entry; None for one step.
  """

  step: types.Scalar | None
  low: int = dataclasses.field(metadata={'static': True})
  high: int = dataclasses.field(metadata={'static': True})
  channel_axis: int | None = dataclasses.field(metadata={'static': True})

  @property
  def num_levels(self) -> int:
    """How many levels there are."""
    return self.high - self.low + 1

  @property
  def uniform(self) -> bool:
    """Whether all weights have the same step."""
    return self.step is None or jnp.ndim(self.step) == 0

  def __call__(self, x: types.Array) -> types.Array:
    """Returns the levels nearest to ``x``."""
    x = _channels.check_floating(x)
    return self.values(jnp.round(self.scaled(x)), x)

  def scaled(self, x: types.Array) -> types.Array:
    """Returns ``x`` in units of the step, clipped, not rounded; at least float32."""
    wide = types.widened(x)
    if self.step is None:
      wide = wide * self.high
    else:
      wide = wide / _channels.align('step', self.step, x, self.channel_axis)
    return jnp.clip(wide, self.low, self.high)

  def values(self, codes: types.Array, x: types.Array) -> types.Array:
    """Returns the levels of ``codes``, in the dtype of ``x``."""
    if self.step is None:
      return (codes / self.high).astype(x.dtype)
    step = _channels.align('step', self.step, x, self.channel_axis)
    return (codes * step).astype(x.dtype)

  def neighbours(self, x: types.Array) -> tuple[types.Array, types.Array]:
    """Returns the next levels up and down themselves; ``x`` beyond the ends."""
    codes = jnp.round(self.scaled(x))
    up = jnp.where(codes < self.high, self.values(codes + 1, x), x)
    down = jnp.where(codes > self.low, self.values(codes - 1, x), x)
    return up, down

  def __repr__(self) -> str:
    return _written.call(uniform, **arguments(self))


def codes(grid: Any) -> dict[str, Any]:
  """Returns the arguments of `code_range` that give a grid its codes."""
  signed = grid.low < 0
  return {
    'bits': (grid.high - grid.low).bit_length(),
    'signed': signed,
    'narrow': signed and grid.low == -grid.high,
  }


def arguments(grid: Grid) -> dict[str, Any]:
  """Returns the arguments of `uniform` that make a grid."""
  found = vars(grid) | codes(grid)
  if grid.step is None and grid.low < 0:
    found['step'] = UNIT
  return found
