"""Keeps latent weights in the window in which gradients reach them."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax

from bitjax import types
from bitjax.transforms import _leaves
from bitjax.transforms import _project
from bitjax.transforms import _rounding

__all__ = ['clip_latent']


def clip_latent(
  limit: types.Scalar = 1.0,
) -> optax.GradientTransformationExtraArgs:
  r"""Keeps every weight within ``[-limit, limit]``.

  .. math:: u \leftarrow \min(\max(w + u, -c), c) - w

  A latent weight far from zero would need many steps to flip, and outside an
  estimator's window it gets no gradient to do so; therefore BinaryConnect clips. What
  ``optax.apply_updates`` stores, in the dtype of the parameters, never exceeds the
  limit, not even by one unit in the last place, provided that the weights did not
  exceed it before, or are at least smaller than about ``limit / eps``. Updates that
  need no change are returned bit for bit.

  It must end the chain: it reads the *final* update. Biases and the parameters of
  normalisations are not latent weights; leave them out with ``optax.masked``::

    optax.masked(clip_latent(), tree.mask_by_name(params, 'kernel'))

  Args:
    limit: c > 0, in the units of the weights. May be traced, and swept by
      ``vmap``; a schedule goes through
      ``optax.inject_hyperparams(clip_latent)``.

  Returns:
    A stateless transform whose ``update`` needs ``params``. Updates have the wider
    of the dtypes of update and parameter. An infinite update leads to the limit;
    NaN stays NaN.

  Raises:
    BadInput: for a concrete ``limit`` that is not positive, parameters that
      are not floating, and an ``update`` without ``params``.

  Examples:
    >>> import jax.numpy as jnp
    >>> import optax
    >>> from bitjax import transforms
    >>> tx = optax.chain(optax.sgd(1.0), transforms.clip_latent())
    >>> params = jnp.array([0.5, -0.75])
    >>> state = tx.init(params)
    >>> updates, state = tx.update(jnp.array([0.25, 0.75]), state, params)
    >>> print(optax.apply_updates(params, updates))
    [ 0.25 -1.  ]

  References:
    Courbariaux et al., BinaryConnect, 2015, the clipping of weights
    (https://arxiv.org/abs/1511.00363).
  """
  types.check_positive('limit', limit)

  def init(params: optax.Params) -> optax.EmptyState:
    del params
    return optax.EmptyState()

  def update(
    updates: optax.Updates,
    state: Any,
    params: optax.Params | None = None,
    **extra_args: Any,
  ) -> tuple[optax.Updates, Any]:
    del extra_args
    treedef, proposed, leaves = _leaves.pair(updates, params)
    origin = [jnp.zeros_like(p) for p in leaves]
    points = [
      _leaves.apply(p, u) for p, u in zip(leaves, proposed, strict=True)
    ]
    targets = _project.project_leaves(
      points, origin, types.Budget(limit, 'linf')
    )
    parts = zip(leaves, proposed, points, targets, origin, strict=True)
    return treedef.unflatten([_rounding.reach(*part) for part in parts]), state

  return optax.GradientTransformationExtraArgs(init, update)
