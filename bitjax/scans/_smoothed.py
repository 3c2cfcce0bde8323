r"""Computes smoothed gains: what a flip is worth while other weights flip at random.

Let each weight of a layer be flipped with probability r, independently. The loss of
this stochastic layer is a polynomial in the probabilities :math:`r_k` of the single
flips, linear in each, so its partial derivative is a difference:

.. math::
  \bar L(r) = \mathbb E_m \, L(W \text{ with flips } m), \qquad
  -\frac{\partial \bar L}{\partial r_k} =
  \mathbb E_m \left[ L(m, m_k = 0) - L(m, m_k = 1) \right],

the expected gain of flip k. In a draw m, the gain of flipping weight k *from where
the draw left it* is that difference if :math:`m_k = 0`, and its negative if
:math:`m_k = 1`; the other weights do not know :math:`m_k`. So one draw has an unbiased
value for every weight,

.. math:: (1 - 2 m_k) \, g_k(W \text{ with flips } m),

with g the gains of `flip_gains`. No derivative and no estimator is used anywhere.

A derivative with respect to a random bit as a difference that is computed in closed form,
the others being drawn, is a local expectation gradient (Titsias and Lázaro-Gredilla),
here of the weights, carried to the loss exactly. The path sample-analytic estimator (PSA)
of Shekhovtsov, Yanush and Flach is for random activations behind real weights: it combines
sampling with an analytic approximation, and one further linearisation of it is a deep
straight-through estimator. Shekhovtsov and Yanush derive straight-through estimators of
random binary weights too.

*Factors.* If unit j hands on a sign, a draw of its own weights decides which flips turn
it, :math:`\kappa_{bij} \in \{-1, 0, 1\}`, and a draw of the other units' weights what
its sign is worth, :math:`D_{bj} = \ell_b(a_j = -1) - \ell_b(a_j = 1)`. These are
independent, so :math:`\mathbb E[\kappa D] = \mathbb E[\kappa] \, \mathbb E[D]`, and the
product of their means over a group of draws is an unbiased value as well, which combines
each draw of one with each of the other. Smoothed crossings times smoothed effects behind
are the form of the straight-through estimator's prediction
(see `_flips_factorial`), whose window is then the density of the pre-activation at
the threshold.

References:
  Titsias and Lázaro-Gredilla, Local expectation gradients for black box variational
  inference, 2015; Shekhovtsov, Yanush and Flach, Path sample-analytic gradient estimators
  for stochastic binary networks, 2020 (https://arxiv.org/abs/2006.03143); Shekhovtsov and
  Yanush, Reintroducing straight-through estimators as principled methods for stochastic
  binary networks, 2021 (https://arxiv.org/abs/2006.06880).
"""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import lanes
from bitjax import tree
from bitjax import types
from bitjax.scans import _flips
from bitjax.scans import _flips_moves
from bitjax.scans import _flips_sign
from bitjax.scans import _paths
from bitjax.scans import _report
from bitjax.scans import _smoothed_factors
from bitjax.scans import _text
from bitjax.scans import _view

__all__ = ['PATHS', 'SmoothedGains', 'smoothed_gains']

PATHS = ('auto', 'factors', 'gains')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SmoothedGains:
  """The expected gains of single flips, while other weights flip at random.

  Attributes:
    gains: expected decrease of the mean loss by each flip, in nats, ``kernel.shape``;
      positive is better.
    standard_errors: standard error of each gain over the draws, in nats, of the same
      shape; the examples are given. Infinite if there is a single group.
    loss: expected mean loss of the layer whose weights flip at random, in nats.
    draws: number of draws.
    together: number of draws in a group.
    path: which path computed them.
  """

  gains: types.Array
  standard_errors: types.Array
  loss: types.Array
  draws: int = dataclasses.field(metadata={'static': True})
  together: int = dataclasses.field(metadata={'static': True})
  path: str = dataclasses.field(metadata={'static': True})

  def __repr__(self) -> str:
    return _text.describe(
      self,
      path=self.path,
      flips=self.gains,
      draws=self.draws,
      together=self.together,
      loss=self.loss,
      best=_text.reduce(np.maximum, self.gains),
    )


@_report.reports
def smoothed_gains(
  view: _view.LayerView,
  key: types.Array,
  flip_rate: types.Scalar,
  draws: int,
  *,
  together: int | None = None,
  path: str = 'auto',
  chunk: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
  report: _report.Report | None = None,
) -> SmoothedGains:
  r"""Returns each flip's gain, averaged over random flips of the other weights.

  .. math:: \bar g_k = \mathbb E_m \left[ L(m, m_k = 0) - L(m, m_k = 1) \right], \qquad
    m_l \sim \mathrm{Bernoulli}(r)

  It is minus the partial derivative of the expected loss with respect to the
  probability of flip k. A rate of 0 gives the gains of `flip_gains`.

  Draws come in independent groups. Where the layer feeds a sign, those of a group are
  combined with one another: all of them say what signs are worth, and half of them which
  flips turn signs. Groups of 4 cost less and err less than single draws
  (``docs/scans.md`` has numbers). Larger ones err less still, cost more, and leave fewer groups
  to estimate standard errors from.

  Args:
    view: a layer with a kernel of two levels, or a network of such.
    key: random key. A group's flips depend on it and the group's number only.
    flip_rate: r in [0, 1], the probability that a weight is flipped in a draw.
    draws: how many draws, a multiple of ``together``.
    together: draws in a group; None for 4 if that makes two groups or more, else 1.
    path: ``'factors'`` for a layer that feeds a sign (see `flip_gains`, path ``'sign'``);
      ``'gains'`` averages `flip_gains` of the moved layers, for any view; ``'auto'``
      takes the first that applies.
    chunk: as for `flip_gains`.
    mesh: devices to use: groups are split evenly over its axis ``'lanes'``; None for
      one device.
    report: as for `flip_gains`.

  Returns:
    `SmoothedGains`. If a loss is not finite, gains are NaN under ``jit``; otherwise that
    is an error. Memory holds the gains of each group, beside what a group takes.

  Raises:
    BadInput: for an empty batch or kernel, a kernel that has not two levels, a scale
      that couples the weights, a rate outside [0, 1], numbers of draws below 1 or not in
      whole groups, an unknown path or one that does not apply, a chunk below 1, or a loss
      that is concrete and not finite.
  """
  types.check_choice('path', path, PATHS)
  types.check_range('flip_rate', flip_rate, 0, 1)
  draws = types.check_integer('draws', draws, 1)
  if together is None:
    together = 4 if draws % 4 == 0 and draws > 4 else 1
  together = types.check_integer('together', together, 1)
  if draws % together:
    raise types.BadInput(
      f'draws must be a multiple of together, {together}; got {draws}.'
    )
  _flips.check_options(chunk=chunk)
  _view.check_filled(view)
  _view.check_loss(view)
  path = choose(view, path).path
  gains, errors, loss = _smoothed(
    view, key, flip_rate, draws // together, together, path, chunk, mesh, report
  )
  types.check_finite('The loss', loss)
  return SmoothedGains(gains, errors, loss, draws, together, path)


def choose(view: _view.LayerView, path: str = 'auto') -> _paths.Choice:
  """Returns the requested path, which must apply, or the first that applies."""
  if not _flips_moves.is_binary(view):
    raise types.BadInput(
      'Weights flip between two levels, such as those of quantizers.sign(); the '
      f'quantizer of the view is {types.shown(view.quantizer)}.'
    )
  jax.eval_shape(_flips_moves.moves, view)  # It says what else is missing.
  if view.coupling != 'none':
    raise types.BadInput(
      f'The scale of the view couples its weights ({view.coupling}), so that a flip '
      'is not of one weight alone; use view.freeze_scale().'
    )
  obstacles = {'factors': _flips_sign.obstacle(view), 'gains': None}
  return _paths.choose(path, obstacles)


@functools.partial(
  jax.jit, static_argnames=('groups', 'together', 'path', 'chunk', 'mesh')
)
def _smoothed(view, key, rate, groups, together, path, chunk, mesh, report):
  """Returns gains, standard errors and the loss."""

  def group(number, key, view, rate, report):
    _report.tick(report, number, groups)
    rate = jnp.asarray(rate, jnp.float32)  # The same draws in every mode.
    flipped = jax.random.bernoulli(key, rate, (together, *view.kernel.shape))
    if path == 'factors':
      return _smoothed_factors.gains(view, flipped, chunk)
    return _mean_gains(view, flipped, chunk)

  numbers = jnp.arange(groups)
  gains, losses = lanes.each(
    group,
    {'number': numbers, 'key': lanes.keys(key, numbers)},
    width=1,
    shared={'view': view, 'rate': rate, 'report': report},
    mesh=mesh,
  )
  mean, loss = jnp.mean(gains, axis=0), jnp.mean(losses)
  errors = jnp.full_like(mean, jnp.inf)
  if groups > 1:
    centred, scale = tree.centred(gains, axis=0)
    errors = jnp.std(centred, axis=0, ddof=1) * scale[0] / math.sqrt(groups)
  broken = ~jnp.isfinite(loss)
  return types.nan_where(broken, mean), types.nan_where(broken, errors), loss


def _mean_gains(view, flipped, chunk):
  """Returns the mean gains of a group of draws, and the mean loss, by `flip_gains`."""
  there = _flips_moves.moves(view).destinations[0]

  def draw(flipped):
    kernel = jnp.where(flipped, there, view.kernel)
    moved = dataclasses.replace(view, kernel=kernel)
    found = _flips.flip_gains(moved, chunk=chunk)
    return jnp.where(flipped, -found.gains, found.gains), found.loss

  gains, losses = jax.lax.map(draw, flipped)
  return jnp.mean(gains, axis=0), jnp.mean(losses)
