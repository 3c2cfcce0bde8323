r"""Computes flip gains with the crossing smoothed, with what lies behind linearised.

The straight-through estimator predicts the gain of a move as minus the gradient times
the change of the quantised weight. Before a sign, this departs from the exact gain in
two ways. With :math:`\Delta_{ij}` the change of weight (i, j), h the output of a unit
(what its layer hands to the next product), and :math:`\tau_{bj}` what h changes by where
the sign becomes the other one:

* *crossing*: how far h moves. In truth by :math:`\tau` for the examples whose sign really
  changes, and not at all for the others; *smoothed*, for each example a little, by the
  estimator's derivative times the change of the pre-activation,

  .. math:: \delta_{bij} = \tau_{bj} \, 1[\text{the sign changes}]
    \quad \text{or} \quad
    \tilde\delta_{bij} = h'(p_{bj}) \, x_{bi} \, q'(w_{ij}) \, \Delta_{ij};

* *behind*: what a change of h does to the loss, for each unit of change. Exactly, it is the
  slope between the only two values that h can take; *linearised*, it is the gradient,

  .. math:: S_{bj} = \frac{\ell_b(h_j + \tau_{bj}) - \ell_b(h_j)}{\tau_{bj}}
    \quad \text{or} \quad G_{bj} = \frac{\partial \ell_b}{\partial h_{bj}}.

Each of the four products :math:`-\frac1B \sum_b \delta_{bij} S_{bj}` is a signal. True and
exact, it is the gain; smoothed and linear, STE's prediction, to the last term of the chain
rule. Smoothed and exact interpolates the loss between both signs, by the share of the way
that h goes: a network of signs has no other loss to ask for, as in between all further
signs would stay as they are. The share may be negative (h leads away from the threshold).
All derivatives are those of the view's estimators, also of the signs behind.

A true crossing needs one comparison for each (example, weight), as on the path ``sign`` of
`flip_gains`; a smoothed one is a product of matrices. All need one loss for each
(example, unit) that a move can flip, or that the estimator lets pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bitjax import sizes
from bitjax import types
from bitjax.scans import _flips_moves
from bitjax.scans import _flips_sign
from bitjax.scans import _split
from bitjax.scans import _stages
from bitjax.scans import _view

__all__ = ['Block', 'FlipFactorial', 'crossings', 'flip_factorial']


class FlipFactorial(NamedTuple):
  """What each move promises, in nats: [fan_in, units], or [2, fan_in, units].

  The shapes are those of ``FlipGains.gains``; positive is better.

  Attributes:
    exact: true crossings, the exact effect behind: the gain.
    true_linear: true crossings, the effect behind linearised.
    smoothed_exact: smoothed crossings, the exact effect behind.
    linear: smoothed crossings, the effect behind linearised: the straight-through
      estimator's prediction.
  """

  exact: types.Array
  true_linear: types.Array
  smoothed_exact: types.Array
  linear: types.Array


def flip_factorial(view: _view.LayerView) -> FlipFactorial:
  r"""Returns what all single moves of a layer promise, by crossing and effect behind.

  It splits the difference between `flip_gains` and the straight-through estimator's
  prediction :math:`-g_{ij} \Delta q_{ij}` into two factors: whether a unit's sign really
  changes, or its output is taken to move a little for every example in the estimator's
  window; and whether what that does to the loss is computed, or linearised.

  Args:
    view: a layer with a quantised kernel that feeds a sign activation.

  Returns:
    A `FlipFactorial`, NaN under ``jit`` if the loss is not finite.

  Raises:
    BadInput: for a view that the path ``'sign'`` of `flip_gains` does not apply to,
      a scale that couples the weights, an empty batch or kernel, what `moves` objects
      to, or a loss that is concrete and not finite.
  """
  _view.check_filled(view)
  reason = _flips_sign.obstacle(view)
  if reason is None and view.coupling != 'none':
    reason = (
      f'its scale couples the weights ({view.coupling}); use '
      'view.freeze_scale()'
    )
  if reason is not None:
    raise types.BadInput(f'view has no crossings to smooth: {reason}.')
  loss, found = _factorial(view)
  types.check_finite('The loss', loss)
  return found


class Block(NamedTuple):
  """Some examples in front of the next product, whose effects are asked for.

  Attributes:
    x: inputs, [examples, fan_in].
    y: labels, [examples].
    valid: which examples are no padding, [examples].
    signs: signs of all units, [examples, units].
    h: outputs of all units.
    tau: what the other sign would change of them.
    needed: which effects are asked for.
  """

  x: types.Array
  y: types.Array
  valid: types.Array
  signs: types.Array
  h: types.Array
  tau: types.Array
  needed: types.Array

  def slope(self, effect: types.Array) -> types.Array:
    """Returns the effect of the other sign for each unit of change of an output."""
    return effect / jnp.where(self.tau == 0, 1.0, self.tau)


def crossings(
  view: _view.LayerView,
  effects: Callable[
    ..., tuple[types.Array, list[types.Array], list[types.Array]]
  ],
) -> tuple[types.Array, list[types.Array], list[types.Array]]:
  """Returns what flips promise, with true and with smoothed crossings.

  Args:
    view: a layer that feeds a sign.
    effects: from (the view's parts, the stages from the products to the signs and those
      behind them, a `Block`) to the sum of the valid examples' losses; what the other
      sign of each unit would change of the loss, [examples, units], 0 where it is not
      needed, for each way to compute that; and as much for each unit of change.

  Returns:
    The mean loss, and the promises with true and with smoothed crossings, for each of
    the effects; NaN if the loss is not finite.
  """
  parts, moves = _split.split(view), _flips_moves.moves(view)
  changes = moves.changes.astype(parts.inputs.dtype)
  cut = before, behind = _flips_sign.cut(parts.front)
  edges = _flips_sign.edge(before, changes)
  deltas = jnp.swapaxes(changes, 1, 2)  # fan_in, the long axis, comes last.
  reach = jnp.max(jnp.abs(deltas), axis=(0, 2))[None, :]

  def sums(x, y, valid):
    p = parts.products(x)
    signs = _stages.apply(before, p)
    h, other = (_stages.apply(behind, s) for s in (signs, -signs))
    tau = other - h
    # Stages before the next product act on each unit alone.
    passed = _derivative(lambda p: _stages.apply(parts.front, p), p)
    side, threshold = _flips_sign.crossing(signs, edges)
    p = side * p
    farthest = p + reach * jnp.max(jnp.abs(x), axis=1, keepdims=True)
    needed = (farthest >= threshold) | ((passed != 0) & (tau != 0))
    needed = needed & valid[:, None]
    asked = Block(x, y, valid, signs, h, tau, needed)
    loss, found, slopes = effects(parts, cut, asked)
    return (
      loss,
      _flips_sign.crossed_sums(deltas, x, side, p, threshold, *found),
      tuple(_split.product(x.T, passed * slope) for slope in slopes),
    )

  def block(totals, batch):
    return jax.tree.map(jnp.add, totals, sums(*batch)), None

  size = view.labels.size
  group = sizes.here().sign_group
  chunk = group * -(-min(sizes.here().sign_examples, size) // group)
  valid = jnp.ones(size, bool)
  batches = _split.batches((parts.inputs, view.labels, valid), chunk)
  shapes = jax.eval_shape(sums, *jax.tree.map(lambda leaf: leaf[0], batches))
  start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  (loss, true, smoothed), _ = jax.lax.scan(block, start, batches)
  quantize: Any = view.quantizer
  _, pull = jax.vjp(quantize, view.kernel)
  smoothed = [
    pull(total.astype(view.kernel.dtype))[0][None] * moves.changes
    for total in smoothed
  ]
  true = [jnp.swapaxes(total, 1, 2) for total in true]
  loss = loss / size
  true, smoothed = (
    [
      types.nan_where(~jnp.isfinite(loss), moves.per_weight(-total / size))
      for total in totals
    ]
    for totals in (true, smoothed)
  )
  return loss, true, smoothed


@jax.jit
def _factorial(view):
  def effects(parts, cut, block):
    del cut
    base, exact = _flips_sign.flip_changes(
      parts, block.h, block.tau, block.y, block.needed
    )
    gradient = _derivative(
      lambda h: parts.losses(parts.next_products(h), block.y), block.h
    )
    gradient = jnp.where(block.valid[:, None], gradient, 0.0)
    loss = jnp.sum(base * block.valid.astype(base.dtype))
    return loss, [exact, block.tau * gradient], [block.slope(exact), gradient]

  loss, true, smoothed = crossings(view, effects)
  return loss, FlipFactorial(*true, *smoothed)


def _derivative(fn, x):
  """Returns the gradient of the sum of ``fn(x)``, by the view's estimators."""
  value, pull = jax.vjp(fn, x)
  return pull(jnp.ones_like(value))[0]
