"""Bop: an optimizer for binary weights whose only move is a flip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bitjax import types
from bitjax.transforms import _leaves

__all__ = ['BopState', 'bop']


class BopState(NamedTuple):
  """State of `bop`."""

  count: types.Array  # shape=(), int32: number of updates since `init`.
  momentum: optax.Updates  # Shapes as params, float32 at least: the average m.


def bop(
  threshold: types.Scalar | Callable[[types.Array], types.Scalar] = 1e-8,
  gamma: types.Scalar | Callable[[types.Array], types.Scalar] = 1e-4,
) -> optax.GradientTransformationExtraArgs:
  r"""Flips a weight when its average gradient, times its sign, exceeds a threshold.

  .. math::
    m \leftarrow (1 - \gamma) \, m + \gamma \, g, \qquad
    u = \begin{cases} -2 w & \mathrm{sign}(w) \, m > \tau \\ 0 & \text{else}
    \end{cases}

  with sign(0) = +1. A flipped weight ``w + u`` is exactly ``-w``: weights of +-1 stay
  +-1 in every floating dtype, and latent weights change sign and keep their
  magnitude. A weight of 0, for which -w is no flip, becomes -1. A flip needs no
  learning rate, and no transform that scales updates may follow in the chain;
  `limit_flips` may.

  Use it only for kernels that pass through a sign, and route the rest elsewhere::

    optax.partition(
      {'binary': bop(1e-6, 1e-3), 'rest': optax.adam(1e-3)},
      tree.label(params, lambda path: path.endswith('kernel')),
    )

  Args:
    threshold: :math:`\tau \ge 0`, in the units of the gradient. A scalar, which
      may be traced, or an optax schedule: a function of the number of updates.
    gamma: :math:`\gamma` in [0, 1], the rate at which the average of gradients
      adapts; 1 uses the last gradient alone. A scalar or a schedule.

  Returns:
    A transform whose ``update`` needs ``params``. Updates have the wider of the
    dtypes of update and parameter. Averages are kept in float32 at least, since a
    bfloat16 average would lose changes of a ten-thousandth. A NaN gradient stays in
    the average, and a weight with a NaN average never flips again;
    ``optax.apply_if_finite`` around the chain keeps NaN out.

  Raises:
    BadInput: for a concrete threshold that is negative or NaN, a gamma outside
      [0, 1], parameters that are not floating, and an ``update`` without
      ``params``.

  Examples:
    >>> import jax.numpy as jnp
    >>> import optax
    >>> from bitjax import transforms
    >>> tx = transforms.bop(threshold=0.1, gamma=0.5)
    >>> params = jnp.array([1.0, 1.0, -1.0])
    >>> state = tx.init(params)
    >>> updates, state = tx.update(jnp.array([0.3, -9.0, 0.3]), state, params)
    >>> print(optax.apply_updates(params, updates))
    [-1.  1. -1.]

  References:
    Helwegen et al., Latent weights do not exist, 2019, the algorithm Bop
    (https://arxiv.org/abs/1906.02107).
  """
  if not callable(threshold):
    types.check_non_negative('threshold', threshold)
  if not callable(gamma):
    types.check_range('gamma', gamma, 0.0, 1.0)

  def init(params: optax.Params) -> BopState:
    _leaves.check_floating(jax.tree.leaves(params))
    momentum = jax.tree.map(
      lambda p: jnp.zeros_like(p, types.promoted(p, jnp.float32)), params
    )
    return BopState(count=jnp.zeros((), jnp.int32), momentum=momentum)

  def update(
    updates: optax.Updates,
    state: Any,
    params: optax.Params | None = None,
    **extra_args: Any,
  ) -> tuple[optax.Updates, BopState]:
    del extra_args
    treedef, grads, leaves = _leaves.pair(updates, params)
    tau = threshold(state.count) if callable(threshold) else threshold
    rate = gamma(state.count) if callable(gamma) else gamma
    averages, flips = [], []
    for g, w, m in zip(
      grads, leaves, treedef.flatten_up_to(state.momentum), strict=True
    ):
      average = ((1 - rate) * m + rate * g.astype(m.dtype)).astype(m.dtype)
      averages.append(average)
      flips.append(_flip(w, average, tau, types.promoted(g, w)))
    state = BopState(
      count=jnp.asarray(optax.safe_increment(state.count)),
      momentum=treedef.unflatten(averages),
    )
    return treedef.unflatten(flips), state

  return optax.GradientTransformationExtraArgs(init, update)


def _flip(weight, average, threshold, dtype):
  """Returns the update of a weight; zero where it does not flip."""
  against = jnp.where(weight < 0, -average, average) > threshold
  weight = weight.astype(dtype)
  across = jnp.where(weight == 0, -jnp.ones_like(weight), -2 * weight)
  return jnp.where(against, across, jnp.zeros_like(across))
