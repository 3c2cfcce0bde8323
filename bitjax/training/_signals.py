r"""Signals that take the place of a gradient, for optimizers whose moves are flips.

An optimizer such as `bitjax.transforms.bop` asks of a gradient only what a flip is worth. The
straight-through estimator predicts that; exact gains, averaged over random flips of the
layer's other weights, say it without any derivative:

.. math:: \hat g_k = -\frac{\bar g_k}{\Delta_k}, \qquad
  \bar g_k = \mathbb E_m \left[ L(m, m_k = 0) - L(m, m_k = 1) \right],

with :math:`\Delta_k` the change of the quantised weight by flip k. It is in the units of a
gradient: the linear prediction :math:`-\hat g_k \Delta_k` of the flip's gain is the
smoothed gain itself.

References:
  Helwegen et al., Latent weights do not exist, 2019 (https://arxiv.org/abs/1906.02107),
  for flips that follow an average of gradients.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from bitjax import nn
from bitjax import scans
from bitjax import types
from bitjax.training import _state

__all__ = ['CoFlips', 'Signal']


class Signal(Protocol):
  """What takes the place of a gradient: static, with equal ones sharing a program."""

  def __call__(
    self,
    gradient: types.PyTree,
    model: Any,
    variables: types.PyTree,
    images: types.Array,
    labels: types.Array,
    key: types.Array,
    progress: types.Scalar,
    /,
  ) -> types.PyTree:
    """Returns the gradient, or others in the place of some of its leaves."""
    ...


@dataclasses.dataclass(frozen=True)
class CoFlips:
  r"""Puts smoothed discrete gradients in the place of those of binary kernels.

  ``signal(gradient, model, variables, images, labels, key, progress=1.0)`` returns
  ``gradient``, a tree like ``variables['params']``, with

  .. math:: \hat g_k = -\bar g_k / \Delta_k

  for the kernels of all layers that have two levels: the gains of `scans.smoothed_gains`
  in nats, divided by the changes of the quantised weights. Other leaves are as they are.
  A layer is seen as in evaluation (`nn.layer_view`, ``train=False``), so normalisations use
  their running statistics, and a scale that depends on the latent weights is held fixed, as a
  flip that keeps magnitudes leaves it. Each layer's draws come from ``key`` and its place.

  It is the ``signal`` of a `Task`, or a part of a loop of one's own::

    signal = training.CoFlips(flip_rate=0.05, draws=8)
    zeros = jax.tree.map(jnp.zeros_like, variables['params'])
    signs = signal(zeros, model, variables, images, labels, key)
    updates, state = bop.update(signs, state, variables['params'])

  A flip-based optimizer that averages over updates averages over draws as well, so few
  draws an update suffice. Each costs about 6 forward passes of a layer that feeds a sign
  (``docs/scans.md``), otherwise those of `scans.flip_gains`.

  Attributes:
    flip_rate: r in [0, 1], the probability that one of the layer's other weights is
      flipped in a draw; 0, with one draw, for exact gains of single flips.
    draws: draws of an update, from 1.

  Raises:
    BadInput: for numbers out of range; when called, for a model without a kernel of two
      levels, and what `nn.layer_view` and `scans.smoothed_gains` object to.
  """

  flip_rate: float = 0.05
  draws: int = 8

  def __post_init__(self):
    types.check_range('flip_rate', self.flip_rate, 0, 1)
    types.check_integer('draws', self.draws, 1)

  def __call__(
    self,
    gradient: types.PyTree,
    model: Any,
    variables: types.PyTree,
    images: types.Array,
    labels: types.Array,
    key: types.Array,
    progress: types.Scalar = 1.0,
  ) -> types.PyTree:
    """Returns the gradient with the smoothed ones of all binary kernels."""
    found = {}
    for number, layer in enumerate(_state.kernels(variables['params'])):
      view = nn.layer_view(
        model, variables, images, labels, layer, train=False, progress=progress
      )
      if view.quantizer is None:
        continue
      view = view if view.coupling == 'none' else view.freeze_scale()
      moves = scans.moves(view)
      if len(moves.changes) > 1:
        continue  # More than two levels.
      smoothed = scans.smoothed_gains(
        view, jax.random.fold_in(key, number), self.flip_rate, self.draws
      )
      change = moves.changes[0]
      still = change == 0
      found[layer] = jnp.where(
        still, 0, -smoothed.gains / jnp.where(still, 1, change)
      )
    if not found:
      raise types.BadInput(
        'CoFlips needs a layer with weights of two levels, such as '
        'kernel_quantizer=attach(sign(), identity()); the model has none.'
      )

    def put(path, leaf):
      names = [str(getattr(entry, 'key', entry)) for entry in path]
      own = found.get('/'.join(names[:-1])) if names[-1] == 'kernel' else None
      return leaf if own is None else own.reshape(leaf.shape).astype(leaf.dtype)

    return jax.tree.map_with_path(put, gradient)
