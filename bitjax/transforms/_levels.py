r"""Projections onto the multiples of a set of levels.

Of all tensors :math:`\alpha Q` with a common scale :math:`\alpha \ge 0` and entries of Q
among the levels :math:`l_1 < \dots < l_L`, the one nearest to V is

.. math:: \min_{\alpha, Q} \|V - \alpha Q\|^2, \qquad
  \alpha = \frac{\max(V \cdot Q, 0)}{Q \cdot Q} \text{ for a given } Q, \qquad
  Q_i = \text{the level nearest to } V_i / \alpha \text{ for a given } \alpha.

For the levels -1 and +1 the answer is :math:`Q = \mathrm{sign}(V)` and
:math:`\alpha = \mathrm{mean}|V|`. For others the paper alternates between the two
conditions, which ends where neither alone helps. The exact method is ours: as
:math:`\alpha` grows from 0, Q changes only where some :math:`V_i / \alpha` meets a midpoint
of two levels. There are at most :math:`n (L - 1)` such :math:`\alpha`; sorted, they give all
Q that can be optimal, and running sums give the error of each.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import types

__all__ = ['METHODS', 'ScaledLevels', 'check_levels', 'project_levels']

METHODS = ('exact', 'alternate')
_ROUNDS = 5  # Of the alternation; the paper found that fewer suffice.
_UNROLLED = 16  # Levels up to which listing them needs no compiled loop.


class ScaledLevels(NamedTuple):
  """A tensor of scaled levels.

  Attributes:
    values: the scale times the levels, shape and dtype of what was projected.
    scale: the common scale, >= 0, scalar or [channels], float32 at least.
  """

  values: types.Array
  scale: types.Array


def project_levels(
  x: types.Array,
  levels: Any,
  *,
  scale: types.Scalar | None = None,
  channel_axis: int | None = None,
  method: str = 'exact',
) -> ScaledLevels:
  r"""Returns the nearest tensor whose entries are a common scale times levels.

  .. math:: \min_{\alpha \ge 0,\ Q_i \in \text{levels}} \|x - \alpha Q\|_2

  Args:
    x: floating, any shape.
    levels: a staircase that declares its levels, such as ``quantizers.sign()``,
      ``quantizers.ternary(0.5)`` or ``quantizers.uniform(2, step=1.0)``, or the numbers
      themselves, such as ``(-2, -1, 0, 1, 2)``. Only the levels count, not where the
      staircase steps.
    scale: a fixed :math:`\alpha > 0`, with which every entry goes to its nearest
      level; None to fit it.
    channel_axis: the axis of ``x`` with a scale for each entry; None for one scale.
    method: ``'exact'`` for the global optimum, which sorts ``x.size * (levels - 1)``
      numbers (none for -1 and +1); ``'alternate'`` for the paper's alternation, five
      rounds of one pass each, which may end elsewhere.

  Returns:
    `ScaledLevels`. Of two levels equally near the upper one is taken, so that the sign of
    0 is +1. With the scale 0, which is that of zeros, all values are 0. NaN and infinite
    entries make all values NaN that share a fitted scale with them; with a fixed one
    NaN stays NaN. Sums are taken in float32 at least, so for large ``x`` the optimum is
    exact to their rounding. It is a constant of differentiation.

  Raises:
    BadInput: for an ``x`` that is not floating, fewer than two levels, a staircase that
      does not declare its levels or has others for each channel, a scale that is not
      positive, an unknown method, or a ``channel_axis`` that ``x`` does not have.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bitjax import quantizers
    >>> from bitjax import transforms
    >>> found = transforms.project_levels(jnp.array([3.0, -1.0, 0.5]), quantizers.sign())
    >>> print(found.values, found.scale)
    [ 1.5 -1.5  1.5] 1.5
    >>> print(transforms.project_levels(jnp.array([3.0, -1.0, 0.5]), (-1, 0, 1)).values)
    [3. 0. 0.]

  References:
    Leng et al., Extremely low bit neural network: squeeze the last bit out with ADMM,
    2018, the projection and its alternation (https://arxiv.org/abs/1707.09870).
  """
  types.check_choice('method', method, METHODS)
  check_levels(levels, scale)
  axis = types.check_axis('channel_axis', channel_axis)
  x = jnp.asarray(x)
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise types.BadInput(f'x must be floating; got {x.dtype}.')
  if axis is not None and not -x.ndim <= axis < x.ndim:
    raise types.BadInput(
      f'channel_axis must be an axis of x of shape {x.shape}; got {axis}.'
    )
  wide = jax.lax.stop_gradient(types.widened(x))
  table = _table(levels, wide)
  if scale is not None:
    alpha = jnp.asarray(scale, wide.dtype)
    values = alpha * _nearest(wide, alpha, table)
    values = types.nan_where(jnp.isnan(wide), values)
    return ScaledLevels(values.astype(x.dtype), alpha)
  fit = functools.partial(_fit, table=table, method=method)
  if axis is None:
    values, alpha = fit(wide.reshape(-1))
    return ScaledLevels(values.reshape(x.shape).astype(x.dtype), alpha)
  rows = jnp.moveaxis(wide, axis, 0)
  values, alpha = jax.vmap(fit)(rows.reshape(rows.shape[0], -1))
  values = jnp.moveaxis(values.reshape(rows.shape), 0, axis)
  return ScaledLevels(values.astype(x.dtype), alpha)


def check_levels(levels: Any, scale: types.Scalar | None) -> None:
  """Raises `BadInput` for what are no levels, or a scale that is not positive."""
  if scale is not None:
    types.check_positive('scale', scale, finite=True)
  if hasattr(levels, 'neighbours'):
    if not levels.uniform:
      raise types.BadInput(
        'levels must be the same for all weights; give the staircase one number '
        'as its step, since scales are fitted.'
      )
    return
  wanted = (
    'levels must be two or more distinct, finite numbers, or a staircase that '
    'declares its levels, such as quantizers.sign() (of a quantizer from attach, '
    'quantizers.staircase(quantizer))'
  )
  is_list = isinstance(levels, (Sequence, np.ndarray, jax.Array))
  if not is_list or isinstance(levels, (str, bytes)):
    raise types.BadInput(f'{wanted}; got {types.shown(levels)}.')
  for level in levels:
    types.check_finite('levels', level)
  if len({float(level) for level in levels}) < max(2, len(levels)):
    raise types.BadInput(f'{wanted}; got {types.shown(levels)}.')


def _table(levels, x):
  """Returns the levels in ascending order, NumPy's if they are no tracers."""
  if not hasattr(levels, 'neighbours'):
    return np.sort(np.asarray(levels, x.dtype))
  shape = [1] * x.ndim
  axis = getattr(levels, 'channel_axis', None)
  if axis is not None:
    shape[axis] = x.shape[axis]

  def climb(here, _):
    return levels.neighbours(here)[0], levels(here).reshape(-1)[0]

  with jax.ensure_compile_time_eval():
    # Far below every threshold, but not so far that a step's multiple overflows.
    here = jnp.full(shape, jnp.finfo(x.dtype).min / 4, x.dtype)
    if levels.num_levels > _UNROLLED:
      _, table = jax.lax.scan(climb, here, length=levels.num_levels)
    else:
      found = []
      for _ in range(levels.num_levels):
        here, level = climb(here, None)
        found.append(level)
      table = jnp.stack(found)
  return table if isinstance(table, jax.core.Tracer) else np.asarray(table)


def _nearest(v, alpha, table):
  """Returns the level nearest to v / alpha, the upper one at a tie."""
  xp = np if isinstance(table, np.ndarray) else jnp
  midpoints = xp.asarray((table[1:] + table[:-1]) / 2)
  positive = alpha > 0
  ratio = v / jnp.where(positive, alpha, 1)
  # -0.0 sorts below 0.0, but it is no lower.
  ratio = jnp.where(ratio == 0, jnp.zeros_like(ratio), ratio)
  index = jnp.searchsorted(jnp.asarray(midpoints), ratio, side='right')
  return jnp.asarray(table)[jnp.minimum(index, len(table) - 1)]


def _fit(v, table, method):
  """Returns the scaled levels nearest to ``v``, [n], and the scale."""
  if method == 'exact':
    alpha = _best_scale(v, table)
  else:
    size = jnp.sum(jnp.abs(v)) / max(v.size, 1)
    alpha = size / jnp.mean(jnp.abs(jnp.asarray(table)))
    for _ in range(_ROUNDS - 1):
      alpha = _scale_of(v, _nearest(v, alpha, table))
  q = _nearest(v, alpha, table)
  alpha = _scale_of(v, q)
  sound = jnp.isfinite(jnp.sum(jnp.abs(v)))
  alpha = types.nan_where(~sound, alpha)
  return alpha * q, alpha


def _scale_of(v, q):
  return _ratio(jnp.maximum(jnp.sum(v * q), 0), jnp.sum(q * q))


def _ratio(a, b):
  return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)


def _best_scale(v, table):
  """Returns the scale of the best Q of all that are nearest for some scale."""
  xp = np if isinstance(table, np.ndarray) else jnp
  midpoints = (table[1:] + table[:-1]) / 2
  lower, upper = table[:-1], table[1:]
  if xp is np:  # An entry never crosses a midpoint of 0.
    crossed = midpoints != 0
    midpoints, lower, upper = (a[crossed] for a in (midpoints, lower, upper))
  midpoints, lower, upper = (
    jnp.asarray(a)[None] for a in (midpoints, lower, upper)
  )
  # Near a scale of 0 all entries are at the ends; only zeros are where zero is.
  zero = _nearest(jnp.zeros((), v.dtype), jnp.ones((), v.dtype), table)
  q = jnp.where(v > 0, table[-1], jnp.where(v < 0, table[0], zero))
  column = v[:, None]
  # As the scale grows, entries come down from above and up from below.
  falls = (column > 0) & (midpoints > 0)
  moves = falls | ((column < 0) & (midpoints < 0))
  where = column / jnp.where(midpoints == 0, 1, midpoints)
  last = jnp.finfo(v.dtype).max
  where = jnp.where(moves, where, last).reshape(-1)
  old = jnp.where(falls, upper, lower)
  new = jnp.where(falls, lower, upper)
  changes = jnp.stack(
    [
      jnp.where(moves, column * (new - old), 0).reshape(-1),
      jnp.where(moves, new * new - old * old, 0).reshape(-1),
    ]
  )
  changes = jnp.cumsum(changes[:, jnp.argsort(where)], axis=1)
  start = jnp.stack([jnp.sum(v * q), jnp.sum(q * q)])[:, None]
  dot, square = jnp.concatenate([start, start + changes], axis=1)
  dot = jnp.maximum(dot, 0)
  best = jnp.argmax(_ratio(dot * dot, square))
  return _ratio(dot[best], square[best])
