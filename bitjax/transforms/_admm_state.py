"""What an ADMM remembers, and what can be read from it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bitjax import types

__all__ = ['AdmmState', 'admm_lagrangian', 'admm_weights']


class AdmmState(NamedTuple):
  """State of `admm`.

  Attributes:
    count: number of updates since ``init``, int32.
    inner: the state of the optimizer of W.
    start: W before an extragradient step, as the parameters; () without such steps.
    levels: G, shapes as the parameters, float32 at least.
    dual: lambda, as G.
    rho: that of ``dual``, a scalar, float32 at least.
    primal_residual: the l2 norm of W - G after the last round, a scalar.
    dual_residual: rho times the l2 norm of what the last round added to G, a scalar.
  """

  count: types.Array
  inner: optax.OptState
  start: optax.Params
  levels: optax.Params
  dual: optax.Params
  rho: types.Array
  primal_residual: types.Array
  dual_residual: types.Array


def admm_weights(params: optax.Params, state: Any) -> optax.Params:
  """Returns the weights to deploy: G where `admm` is at work, else the parameters.

  Args:
    params: the parameters that are trained.
    state: the state of `admm`, or of an optimizer that contains it, also in
      ``optax.masked`` and ``optax.partition``.

  Returns:
    A tree like ``params``, in its dtypes.

  Raises:
    BadInput: for a state without that of `admm`.
  """
  leaves, treedef = jax.tree.flatten(params)
  for found in _states(state):
    levels = treedef.flatten_up_to(found.levels)
    leaves = [
      w if isinstance(q, optax.MaskedNode) else q.astype(w.dtype)
      for w, q in zip(leaves, levels, strict=True)
    ]
  return treedef.unflatten(leaves)


def admm_lagrangian(
  value: types.Scalar, params: optax.Params, state: Any
) -> types.Array:
  r"""Returns the augmented Lagrangian, to watch an `admm` by.

  .. math:: L_\rho = f(W) + \frac\rho2 \|W - G + \lambda\|^2
    - \frac\rho2 \|\lambda\|^2

  Args:
    value: f(W), the loss at the parameters; NaN gives NaN.
    params: W, after a whole round.
    state: as for `admm_weights`.

  Returns:
    A scalar.

  Raises:
    BadInput: for a state without that of `admm`, or a value that is no number.
  """
  types.check_number('value', value)
  total = jnp.asarray(value)
  for found in _states(state):
    treedef = jax.tree.structure(params)
    parts = zip(
      *(treedef.flatten_up_to(x) for x in (params, found.levels, found.dual)),
      strict=True,
    )
    for w, q, d in parts:
      if not isinstance(q, optax.MaskedNode):
        gap = w.astype(q.dtype) - q
        # |gap + d|^2 - |d|^2 without its cancellation.
        total = total + 0.5 * found.rho * jnp.sum(gap * (gap + 2 * d))
  return total


def _states(state):
  found = [
    part
    for part in jax.tree.leaves(
      state, is_leaf=lambda x: isinstance(x, AdmmState)
    )
    if isinstance(part, AdmmState)
  ]
  if not found:
    raise types.BadInput('state must contain an AdmmState; got none.')
  return found
