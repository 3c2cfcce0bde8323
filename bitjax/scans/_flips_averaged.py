r"""Computes flip gains whose effect behind is averaged over random flips of the layer.

`flip_factorial` linearises what a changed sign does behind a unit, or computes it for the
network as it is. A third way is to average it: with D the worth of a sign,

.. math:: D_{bj} = \ell_b(a_j = -1) - \ell_b(a_j = 1), \qquad
  \bar D_{bj} = \mathbb E_m \, D_{bj}(W \text{ with flips } m),

where each weight of the layer is flipped with probability r, so that the other units are
not all as they are. The effect behind is then :math:`\bar D`, with the sign that the unit
has; crossings are true or smoothed by the estimator, as in `flip_factorial`. (In
`smoothed_gains` crossings are averaged over the same flips.)
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bitjax import lanes
from bitjax import sizes
from bitjax import types
from bitjax.scans import _flips_factorial
from bitjax.scans import _flips_moves
from bitjax.scans import _flips_sign
from bitjax.scans import _smoothed
from bitjax.scans import _split
from bitjax.scans import _stages
from bitjax.scans import _view

__all__ = ['AveragedFactorial', 'averaged_factorial']


class AveragedFactorial(NamedTuple):
  """What each flip promises with an averaged effect behind, in nats, [fan_in, units].

  Attributes:
    true_averaged: true crossings.
    smoothed_averaged: crossings smoothed by the estimator.
  """

  true_averaged: types.Array
  smoothed_averaged: types.Array


def averaged_factorial(
  view: _view.LayerView,
  key: types.Array,
  flip_rate: types.Scalar,
  draws: int,
) -> AveragedFactorial:
  r"""Returns what all flips of a layer promise if effects behind are averaged.

  .. math:: -\frac1B \sum_b \delta_{bij} \, \frac{s_{bj} \bar D_{bj}}{\tau_{bj}},

  with :math:`s` the sign that the unit has, and :math:`\delta, \tau` as in
  `flip_factorial`. With a rate of 0 these are its ``exact`` and ``smoothed_exact``.

  Args:
    view: a layer with a kernel of two levels that feeds a sign activation.
    key: random key.
    flip_rate: r in [0, 1], the probability that a weight is flipped in a draw.
    draws: number of draws over which effects are averaged, at least 1; static.

  Returns:
    An `AveragedFactorial`, NaN under ``jit`` if the loss is not finite.

  Raises:
    BadInput: for a view that path ``'factors'`` of `smoothed_gains` does not apply to, a
      rate outside [0, 1], a number of draws below 1, an empty batch or kernel, or a loss
      that is concrete and not finite.
  """
  types.check_range('flip_rate', flip_rate, 0, 1)
  draws = types.check_integer('draws', draws, 1)
  _view.check_filled(view)
  _smoothed.choose(view, 'factors')
  loss, found = _averaged(view, key, flip_rate, draws)
  types.check_finite('The loss', loss)
  return found


@functools.partial(jax.jit, static_argnames='draws')
def _averaged(view, key, rate, draws):
  parts, moves = _split.split(view), _flips_moves.moves(view)
  there = _stages.Dense(moves.destinations[0], view.quantizer).quantized
  changes = moves.changes.astype(parts.inputs.dtype)
  before, behind = _flips_sign.cut(parts.front)
  edges = _flips_sign.edge(before, changes)
  deltas = jnp.swapaxes(changes, 1, 2)  # fan_in, the long axis, comes last.
  reach = jnp.max(jnp.abs(deltas), axis=(0, 2))[None, :]
  rate = jnp.asarray(rate, jnp.float32)  # The same draws in every mode.
  flipped = jax.vmap(
    lambda key: jax.random.bernoulli(key, rate, view.kernel.shape)
  )(lanes.keys(key, jnp.arange(draws)))

  def block(totals, batch):
    x, y, valid = batch
    p = parts.products(x)
    signs = _stages.apply(before, p)
    h, other = (_stages.apply(behind, s) for s in (signs, -signs))
    tau = other - h
    passed = _flips_factorial.derivative(
      lambda p: _stages.apply(parts.front, p), p
    )
    side, threshold = _flips_sign.crossing(signs, edges)
    p = side * p
    farthest = p + reach * jnp.max(jnp.abs(x), axis=1, keepdims=True)
    needed = (farthest >= threshold) | ((passed != 0) & (tau != 0))
    needed = needed & valid[:, None]

    def worth(flipped):
      weights = jnp.where(flipped, there, parts.weights)
      drawn = _stages.apply(before, parts.products(x, weights))
      h, other = (_stages.apply(behind, s) for s in (drawn, -drawn))
      base, change = _flips_sign.flip_changes(parts, h, other - h, y, needed)
      total = jnp.sum(base * valid.astype(base.dtype))
      return total, change * drawn.astype(base.dtype)

    losses, worths = jax.lax.map(worth, flipped)
    effect = jnp.mean(worths, axis=0) * signs.astype(worths.dtype)
    slope = effect / jnp.where(tau == 0, 1.0, tau)
    sums = (
      jnp.mean(losses),
      *_flips_sign.crossed_sums(deltas, x, side, p, threshold, effect),
      _split.product(x.T, passed * slope),
    )
    return jax.tree.map(jnp.add, totals, sums), None

  size, group = view.labels.size, sizes.here().sign_group
  chunk = group * -(-min(sizes.here().sign_examples, size) // group)
  start = tuple(
    jnp.zeros(shape, parts.dtype)
    for shape in ((), deltas.shape, view.kernel.shape)
  )
  valid = jnp.ones(size, bool)
  batches = _split.batches((parts.inputs, view.labels, valid), chunk)
  (loss, true, smoothed), _ = jax.lax.scan(block, start, batches)
  _, pull = jax.vjp(view.quantizer, view.kernel)
  smoothed = pull(smoothed.astype(view.kernel.dtype))[0] * moves.changes[0]
  loss = loss / size
  found = (
    types.nan_where(~jnp.isfinite(loss), -total / size)
    for total in (jnp.swapaxes(true, 1, 2)[0], smoothed)
  )
  return loss, AveragedFactorial(*found)
