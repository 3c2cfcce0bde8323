r"""Computes smoothed gains of a layer that feeds a sign, for a group of draws.

In draw d, a flip of weight (i, j) turns the sign of unit j for some examples, which depends
on the draws of unit j's own weights; and what the sign is worth,

.. math:: D_{dbj} = \ell_b(a_j = -1) - \ell_b(a_j = 1),

depends on those of the other units. So each may be averaged over the draws of the group
before they are multiplied (see `_smoothed`):

.. math:: \bar g_{ij} = \frac1n \sum_d (1 - 2 m_{dij}) \, \frac1B \sum_b
  \kappa_{dbij} \, \frac1n \sum_{d'} D_{d'bj},

with :math:`\kappa_{dbij}` the change of :math:`1[a_{dbj} = 1]` by flipping the weight from
where draw d left it. D is computed where any draw of the group could need it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bitjax import sizes
from bitjax import types
from bitjax.scans import _flips_moves
from bitjax.scans import _flips_sign
from bitjax.scans import _split
from bitjax.scans import _stages
from bitjax.scans import _view

__all__ = ['gains']


def gains(
  view: _view.LayerView, flipped: types.Array, chunk: int | None
) -> tuple[types.Array, types.Array]:
  """Returns the mean gains of a group of draws, and the mean loss.

  Args:
    view: a binary layer without an obstacle of `_flips_sign`, whose scale does not
      couple its weights.
    flipped: which weights each draw flips, booleans [draws, fan_in, units].
    chunk: examples at a time; None for a good number.

  Returns:
    The gains of the flips of ``view``, [fan_in, units], and a scalar.
  """
  parts, moves = _split.split(view), _flips_moves.moves(view)
  there = _stages.Dense(moves.destinations[0], view.quantizer).quantized
  weights = jnp.where(flipped, there[None], parts.weights[None])
  changes = moves.changes.astype(parts.inputs.dtype)
  before, behind = _flips_sign.cut(parts.front)
  edges = _flips_sign.edge(before, changes)
  reach = jnp.max(jnp.abs(changes), axis=(0, 1))[None, :]
  # fan_in, the long axis, comes last: [draws, 1, units, fan_in].
  half = -(-flipped.shape[0] // 2)
  back = jnp.swapaxes(flipped[:half], 1, 2)[:, None]
  deltas = jnp.swapaxes(changes, 1, 2)[None]
  deltas = jnp.where(back, -deltas, deltas)

  def block(totals, batch):
    x, y, valid = batch
    farthest = reach * jnp.max(jnp.abs(x), axis=1, keepdims=True)

    def products(weights):
      p = parts.products(x, weights)
      signs = _stages.apply(before, p)
      side, threshold = _flips_sign.crossing(signs, edges)
      return signs, side, side * p, threshold

    signs, *crossings = jax.lax.map(products, weights)
    crossings = [a[:half] for a in (signs, *crossings)]
    _, _, moved, threshold = crossings
    needed = (
      jnp.any(moved + farthest[None] >= threshold, axis=0) & valid[:, None]
    )

    def worth(signs):
      h, other = (_stages.apply(behind, s) for s in (signs, -signs))
      base, change = _flips_sign.flip_changes(parts, h, other - h, y, needed)
      total = jnp.sum(base * valid.astype(base.dtype))
      return total, change * signs.astype(base.dtype)

    losses, worths = jax.lax.map(worth, signs)
    mean = jnp.mean(worths, axis=0)

    def crossed(draw):
      deltas, signs, side, moved, threshold = draw
      change = mean * signs.astype(mean.dtype)
      (total,) = _flips_sign.crossed_sums(
        deltas, x, side, moved, threshold, change
      )
      return total

    sums = jax.lax.map(crossed, (deltas, *crossings))
    return jax.tree.map(jnp.add, totals, (jnp.mean(losses), sums)), None

  size, group = view.labels.size, sizes.here().sign_group
  chunk = min(chunk or sizes.here().sign_examples, size)
  chunk = group * -(-chunk // group)
  start = tuple(jnp.zeros(shape, parts.dtype) for shape in ((), deltas.shape))
  valid = jnp.ones(size, bool)
  batches = _split.batches((parts.inputs, view.labels, valid), chunk)
  (loss, sums), _ = jax.lax.scan(block, start, batches)
  found = jnp.mean(jnp.where(back, sums, -sums), axis=0) / size
  return jnp.swapaxes(found[0], 0, 1), loss / size
