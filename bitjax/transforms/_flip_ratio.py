"""Measures how many weights change their quantised value in each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bitjax import tree as tree_lib
from bitjax import types
from bitjax.transforms import _leaves

__all__ = ['FlipRatioState', 'flip_ratio']


class FlipRatioState(NamedTuple):
  """State of `flip_ratio`."""

  flip_ratio: types.Array  # shape=(), float32: of the last step.
  mean_flip_ratio: types.Array  # shape=(), float32: of all steps since `init`.
  count: types.Array  # shape=(), int32: steps since `init`.


def flip_ratio(
  quantize: Callable[[types.Array], types.Array] | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""Measures the share of weights whose quantised value a step changes.

  .. math:: \pi_t = \frac1n \sum_i 1[q(w_i + u_i) \ne q(w_i)]

  Updates pass through unchanged. Put it at the end of the chain, since it reads the
  *final* update. The ratio can be read by name from any optimizer's state::

    tx = optax.chain(optax.adam(1e-3), flip_ratio())
    ...
    optax.tree.get(state, 'flip_ratio')

  In ``optax.masked`` the ratio is that of the leaves that are let through, which
  should be the binary kernels. (``optax.monitor`` cannot do this in a scan: up to
  optax 0.2.8 its state gains its entries at the first update.)

  Args:
    quantize: an elementwise function from a leaf to its quantised values; None for
      the sign with sign(0) = +1.

  Returns:
    A transform whose ``update`` needs ``params``. Weights are compared as
    ``optax.apply_updates`` stores them. An empty tree has the ratio 0. The default
    sign takes a NaN weight as positive; where ``quantize`` returns NaN, the weight
    counts as changed.

  Raises:
    BadInput: for parameters that are not floating, and an ``update`` without
      ``params``.

  Examples:
    >>> import jax.numpy as jnp
    >>> import optax
    >>> from bitjax import transforms
    >>> tx = optax.chain(optax.sgd(1.0), transforms.flip_ratio())
    >>> params = jnp.array([0.5, 0.5, -0.5, 0.0])
    >>> state = tx.init(params)
    >>> updates, state = tx.update(jnp.array([0.75, 0.25, -0.25, 0.5]), state, params)
    >>> print(optax.tree.get(state, 'flip_ratio'))
    0.5

  References:
    Helwegen et al., Latent weights do not exist, 2019, the flip ratio
    (https://arxiv.org/abs/1906.02107).
  """

  def init(params: optax.Params) -> FlipRatioState:
    _leaves.check_floating(jax.tree.leaves(params))
    return FlipRatioState(
      flip_ratio=jnp.zeros((), jnp.float32),
      mean_flip_ratio=jnp.zeros((), jnp.float32),
      count=jnp.zeros((), jnp.int32),
    )

  def update(
    updates: optax.Updates,
    state: Any,
    params: optax.Params | None = None,
    **extra_args: Any,
  ) -> tuple[optax.Updates, FlipRatioState]:
    del extra_args
    _, proposed, leaves = _leaves.pair(updates, params)
    side = quantize or (lambda x: x < 0)
    changed = [
      side(_leaves.apply(p, u)) != side(p)
      for p, u in zip(leaves, proposed, strict=True)
    ]
    size = sum(p.size for p in leaves)
    ratio = tree_lib.count(changed).astype(jnp.float32) / max(1, size)
    count = jnp.asarray(optax.safe_increment(state.count))
    mean = state.mean_flip_ratio
    mean += (ratio - mean) / count.astype(jnp.float32)
    return updates, FlipRatioState(ratio, mean, count)

  return optax.GradientTransformationExtraArgs(init, update)
