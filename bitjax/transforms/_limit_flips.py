"""Limits the number of weights that change sign in a single step."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bitjax import tree as tree_lib
from bitjax import types
from bitjax.transforms import _leaves
from bitjax.transforms import _project

__all__ = ['LimitFlipsState', 'limit_flips']


class LimitFlipsState(NamedTuple):
  """State of `limit_flips`."""

  spent: types.Array  # shape=(), int32: flips granted since `init`.


def limit_flips(
  max_flips: types.Scalar,
) -> optax.GradientTransformationExtraArgs:
  r"""Lets at most ``max_flips`` weights change sign in one step.

  Of all weights of the tree that would flip, those that overshoot zero the furthest
  keep their update (at a tie, the first in the order of flattening); the others do
  not move. With K the set of those weights that have the ``max_flips`` largest
  :math:`|w + u|` among all that would flip,

  .. math::
    u_i \leftarrow \begin{cases}
      0 & \mathrm{sign}(w_i + u_i) \ne \mathrm{sign}(w_i), \; i \notin K \\
      u_i & \text{else}
    \end{cases}

  where sign(0) = +1. Weights that do not flip are untouched. (The budget
  ``project_budget(k, 'flips')`` bounds all steps together.)

  It must end the chain: it reads the *final* update. In ``optax.masked`` or
  ``optax.partition`` the flips are counted over the leaves that are let through;
  ``optax.MultiSteps`` and ``optax.apply_if_finite`` go around the whole chain.

  Args:
    max_flips: the largest number of flips, >= 0, rounded down; infinite for no limit.
      May be traced, and swept by ``vmap``; a schedule goes through
      ``optax.inject_hyperparams(limit_flips)``, which rounds it to the dtype of
      the parameters.

  Returns:
    A transform whose ``update`` needs ``params``, and whose state counts the
    flips in ``spent``. Updates have the wider of the dtypes of update and
    parameter, and are otherwise returned bit for bit. Flips are counted in what
    ``optax.apply_updates`` stores. NaN passes, and does not count as a flip.

  Raises:
    BadInput: for a concrete ``max_flips`` that is negative or NaN, parameters
      that are not floating, and an ``update`` without ``params``.

  Examples:
    >>> import jax.numpy as jnp
    >>> import optax
    >>> from bitjax import transforms
    >>> tx = optax.chain(optax.sgd(1.0), transforms.limit_flips(1))
    >>> params = jnp.array([0.5, 0.5, -0.1])
    >>> state = tx.init(params)
    >>> updates, state = tx.update(jnp.array([0.75, 1.0, 0.5]), state, params)
    >>> print(optax.apply_updates(params, updates))
    [ 0.5 -0.5 -0.6]
  """
  types.check_non_negative('max_flips', max_flips)

  def init(params: optax.Params) -> LimitFlipsState:
    _leaves.check_floating(jax.tree.leaves(params))
    return LimitFlipsState(spent=jnp.zeros((), jnp.int32))

  def update(
    updates: optax.Updates,
    state: Any,
    params: optax.Params | None = None,
    **extra_args: Any,
  ) -> tuple[optax.Updates, LimitFlipsState]:
    del extra_args
    treedef, proposed, leaves = _leaves.pair(updates, params)
    parts = list(zip(leaves, proposed, strict=True))
    points = [_leaves.apply(p, u) for p, u in parts]
    flips = [
      ((x < 0) != (p < 0)) & ~jnp.isnan(x)
      for x, p in zip(points, leaves, strict=True)
    ]
    num_entries = sum(p.size for p in leaves)
    most = tree_lib.whole(max_flips, num_entries)
    kept = _project.furthest(points, flips, most)
    limited = []
    for (p, u), flip, keep in zip(parts, flips, kept, strict=True):
      u = u.astype(types.promoted(p, u))
      limited.append(jnp.where(flip & ~keep, jnp.zeros_like(u), u))
    granted = jnp.minimum(tree_lib.count(flips), most)
    room = jnp.iinfo(jnp.int32).max - state.spent
    spent = state.spent + jnp.minimum(granted, room)
    return treedef.unflatten(limited), LimitFlipsState(spent=spent)

  return optax.GradientTransformationExtraArgs(init, update)
