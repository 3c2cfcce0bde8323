r"""Proximal steps: an optimizer's step, then a map towards the levels.

ProxQuant, BinaryRelax and PARQ differ in the map P (see `bitjax.quantizers.proximal` and
`bitjax.quantizers.parq`), in how it grows with the progress p, and in what the
optimizer moves:

.. math::
  \text{latent: } \quad y \leftarrow y - \eta \nabla f(w), \quad w = P_p(y)
  \qquad \text{or not: } \quad w \leftarrow P_p(w - \eta \nabla f(w)).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bitjax import types
from bitjax.transforms import _leaves
from bitjax.transforms import _rounding

__all__ = ['ProximalState', 'proximal_steps']


class ProximalState(NamedTuple):
  """State of `proximal_steps`."""

  count: types.Array  # shape=(), int32: number of updates since `init`.
  inner: optax.OptState  # The optimizer's state.
  latent: optax.Params  # y: as params, float32 at least; () without.


def proximal_steps(
  rule: Callable[..., types.Array],
  progress: Callable[[types.Array], types.Scalar],
  tx: optax.GradientTransformation,
  *,
  latent: bool = True,
) -> optax.GradientTransformationExtraArgs:
  r"""Moves the weights towards their levels after each step of an optimizer.

  The gradients are those of the loss at the parameters, which are full-precision and
  become the levels themselves when the progress is 1. The published methods are

  - BinaryRelax: ``proximal(levels)``, ``latent``, on a geometric schedule;
  - PARQ: ``parq()``, ``latent``, on a sigmoid;
  - ProxQuant: ``proximal(levels, 0.0, end, distance='l1', schedule='linear')``, not
    ``latent``, on a linear schedule;

  of `bitjax.quantizers`, whose maps hold their schedules as functions of the progress.
  In ProxQuant :math:`\lambda` is the map's strength times the learning rate. With
  ``latent``, the same training results from a network that applies the map in its
  forward pass, with `bitjax.quantizers.identity` as the estimator. The papers fit scales: a
  ``levels`` with a scale is ``lambda x: project_levels(x, (-1, 1)).values``. Other
  pairs of a map and ``latent`` are ours.

  As `admm`, it contains its optimizer, acts on all leaves that it is given, and ends
  the chain.

  Args:
    rule: the map, ``(x, *, progress) -> w``, of the shape of x.
    progress: a function of the number of updates made, the present one included; its
      values are clipped to [0, 1]. ``optax.linear_schedule(0.0, 1.0, num_steps)``
      reaches the levels at the last of ``num_steps`` updates.
    tx: the optimizer.
    latent: whether the optimizer moves latent weights y, which the state keeps, and
      which begin as the parameters; else it moves the parameters, and the map acts on them.

  Returns:
    A transform whose ``update`` needs ``params``, and passes on further arguments to
    ``tx``. Updates have the wider of the dtypes of update and parameter.

  Raises:
    BadInput: for a rule or a progress that cannot be called, parameters that are not
      floating, and an ``update`` without ``params`` or with the state of others.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import optax
    >>> from bitjax import quantizers
    >>> from bitjax import transforms
    >>> gradient = jax.grad(lambda w: jnp.sum((w - jnp.array([0.9, -0.7])) ** 2))
    >>> progress = optax.linear_schedule(0.0, 1.0, 10)
    >>> tx = transforms.proximal_steps(quantizers.parq(), progress, optax.sgd(0.1))
    >>> params = jnp.array([0.1, -0.1])
    >>> state = tx.init(params)
    >>> for _ in range(10):
    ...   updates, state = tx.update(gradient(params), state, params)
    ...   params = optax.apply_updates(params, updates)
    >>> print(params)
    [ 1. -1.]

  References:
    Yin et al., BinaryRelax, 2018 (https://arxiv.org/abs/1801.06313); Bai et al.,
    ProxQuant, 2018 (https://arxiv.org/abs/1810.00861); Jin et al., PARQ, 2025
    (https://arxiv.org/abs/2503.15748).
  """
  for name, function in (('rule', rule), ('progress', progress)):
    if not callable(function):
      raise types.BadInput(
        f'{name} must be a function; got {types.shown(function)}.'
      )
  if not hasattr(tx, 'update'):
    raise types.BadInput(
      f'tx must be an optax transform, such as optax.sgd(0.1); got {tx!r}.'
    )
  tx = optax.with_extra_args_support(tx)

  def init(params: optax.Params) -> ProximalState:
    _leaves.check_floating(jax.tree.leaves(params))
    kept: Any = ()
    if latent:
      kept = jax.tree.map(
        lambda p: jnp.array(p, types.promoted(p, jnp.float32), copy=True),
        params,
      )
    inner = tx.init(kept if latent else params)
    return ProximalState(jnp.zeros((), jnp.int32), inner, kept)

  def update(
    updates: optax.Updates,
    state: Any,
    params: optax.Params | None = None,
    **extra_args: Any,
  ) -> tuple[optax.Updates, ProximalState]:
    treedef, grads, leaves = _leaves.pair(updates, params)
    dtypes = [types.promoted(w, g) for w, g in zip(leaves, grads, strict=True)]
    centres = leaves
    if latent:  # What is kept in float32 is moved in float32.
      centres = _leaves.kept('proximal_steps', treedef, state.latent, leaves)
      grads = [g.astype(y.dtype) for g, y in zip(grads, centres, strict=True)]
    steps, inner = tx.update(
      treedef.unflatten(grads),
      state.inner,
      treedef.unflatten(centres),
      **extra_args,
    )
    count = jnp.asarray(optax.safe_increment(state.count))
    now = jnp.clip(progress(count), 0, 1)
    steps = treedef.flatten_up_to(steps)
    moved = [_leaves.apply(y, s) for y, s in zip(centres, steps, strict=True)]
    points = [
      rule(y, progress=now).astype(w.dtype)
      for y, w in zip(moved, leaves, strict=True)
    ]
    found = [
      _rounding.solve(w, p, p, dtype)
      for w, p, dtype in zip(leaves, points, dtypes, strict=True)
    ]
    kept = treedef.unflatten(moved) if latent else ()
    return treedef.unflatten(found), ProximalState(count, inner, kept)

  return optax.GradientTransformationExtraArgs(init, update)
