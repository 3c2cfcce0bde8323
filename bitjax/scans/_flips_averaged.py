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
from bitjax import types
from bitjax.scans import _flips_factorial
from bitjax.scans import _flips_moves
from bitjax.scans import _flips_sign
from bitjax.scans import _smoothed
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
  there = _stages.Dense(
    _flips_moves.moves(view).destinations[0], view.quantizer
  ).quantized
  rate = jnp.asarray(rate, jnp.float32)  # The same draws in every mode.
  flipped = jax.vmap(
    lambda key: jax.random.bernoulli(key, rate, view.kernel.shape)
  )(lanes.keys(key, jnp.arange(draws)))

  def effects(parts, cut, block):
    before, behind = cut

    def worth(flipped):
      weights = jnp.where(flipped, there, parts.weights)
      drawn = _stages.apply(before, parts.products(block.x, weights))
      h, other = (_stages.apply(behind, s) for s in (drawn, -drawn))
      base, change = _flips_sign.flip_changes(
        parts, h, other - h, block.y, block.needed
      )
      loss = jnp.sum(base * block.valid.astype(base.dtype))
      return loss, change * drawn.astype(base.dtype)

    losses, worths = jax.lax.map(worth, flipped)
    effect = jnp.mean(worths, axis=0) * block.signs.astype(worths.dtype)
    return jnp.mean(losses), [effect], [block.slope(effect)]

  loss, true, smoothed = _flips_factorial.crossings(view, effects)
  return loss, AveragedFactorial(*true, *smoothed)
