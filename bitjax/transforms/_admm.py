r"""ADMM: full-precision weights and their levels, pulled together by a dual variable.

.. math:: \min_{W, G} f(W) \quad \text{subject to} \quad W = G, \qquad
  G \in \{\alpha Q : Q_i \in \text{levels}\}

with the augmented Lagrangian, whose multiplier is :math:`\rho \lambda`,

.. math:: L_\rho(W, G, \lambda) = f(W) + \frac\rho2 \|W - G + \lambda\|^2
  - \frac\rho2 \|\lambda\|^2.

A round is a step of W, a projection for G, and a step of :math:`\lambda`. The loss f is
always evaluated at full-precision weights; G is what is deployed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bitjax import tree as tree_lib
from bitjax import types
from bitjax.transforms import _admm_state
from bitjax.transforms import _leaves
from bitjax.transforms import _levels
from bitjax.transforms import _radii
from bitjax.transforms import _rounding

__all__ = ['admm']


class _Settings(NamedTuple):
  levels: Any
  scale: types.Scalar | None
  channel_axis: int | None
  method: str
  dual_first: bool

  def project(self, leaves):
    return [
      _levels.project_levels(
        x,
        self.levels,
        scale=self.scale,
        channel_axis=self.channel_axis,
        method=self.method,
      ).values
      for x in leaves
    ]


def admm(
  rho: types.Scalar | Callable[[types.Array], types.Scalar],
  levels: Any,
  tx: optax.GradientTransformation,
  *,
  every: int = 1,
  extragradient: bool = True,
  lookahead: types.Scalar = 1.0,
  scale: types.Scalar | None = None,
  channel_axis: int | None = None,
  method: str = 'exact',
  dual_first: bool = False,
  freeze: types.PyTree = None,
) -> optax.GradientTransformationExtraArgs:
  r"""Trains full-precision weights towards scaled levels by ADMM.

  ``init`` takes W from the parameters (those of a checkpoint, say the latent weights
  of a network that was trained with STE), G as its projection, and
  :math:`\lambda = 0`. A round is

  .. math::
    W' = W - \beta' \nabla(W), \quad W \leftarrow W - \beta \nabla(W'),
    \qquad \nabla(W) = \nabla f(W) + \rho (W - G + \lambda), \\
    G \leftarrow \mathrm{project}(W + \lambda), \qquad
    \lambda \leftarrow \lambda + W - G.

  Its extragradient step needs gradients at two points, so it takes two updates: the first
  leads to :math:`W'`, the second from there to the new W. The gradients that ``update``
  receives are of f alone, at the parameters that it is given, which are full-precision:
  a network must use them as they are, not quantize them. What is deployed is G, see
  `admm_weights`; how far W is from it, and how the Lagrangian falls, see the state
  and `admm_lagrangian`.

  The paper's are the round and its order, the extragradient step, the fitted scale
  of each layer and a fixed ``rho``. Ours are the start from latent weights, any optimizer
  for W, several steps of W in a round, the exact projection, a schedule of
  ``rho`` (with it :math:`\lambda` is rescaled, so that the multiplier
  :math:`\rho \lambda` does not jump, as Boyd et al. say), ``dual_first`` and ``freeze``
  as times of a schedule.

  **Monotone?** In the paper's order the Lagrangian may rise. It cannot with
  ``dual_first``, the steps W, :math:`\lambda`, G, an exact step of W, and
  :math:`\rho (\rho + \mu) \ge 2 L^2`, where L bounds the curvature of f in magnitude,
  and :math:`\mu` from below: then a step of W lowers it by at least :math:`\frac12 (\rho + \mu)
  \|\Delta W\|^2`, the projection does not raise it, and the dual step raises it
  by :math:`\rho \|\Delta \lambda\|^2 \le \frac1\rho L^2 \|\Delta W\|^2`, from the second
  round on. With single, small steps of W in a round, ADMM often ends in a cycle of
  projections; more of them (``every``) help.

  **Which leaves.** All that it is given; biases and normalisations go elsewhere::

    optax.partition(
      {'binary': admm(1e-3, quantizers.sign(), optax.sgd(0.1)), 'rest': optax.adam(1e-3)},
      tree.label(params, lambda path: path.endswith('kernel')),
    )

  Between the two updates of an extragradient step the other leaves move as well. It
  contains its optimizer, and no transform that changes updates may follow.

  Args:
    rho: :math:`\rho > 0`, in units of the curvature of f. A scalar, which may be
      traced and swept by ``vmap``, or a schedule: a function of the number of updates.
    levels: as for `project_levels`.
    tx: the optimizer of W, whose step size is :math:`\beta`. It is given the gradient of
      the Lagrangian's part in W; of an extragradient step it keeps only what it
      remembers of the second half.
    every: how many steps of W make a round.
    extragradient: whether a step of W is an extragradient step, of two updates.
    lookahead: :math:`\beta' / \beta \ge 0`.
    scale: a fixed scale > 0 of all leaves; None fits one for each.
    channel_axis: the axis of each leaf with a scale for each entry; None for one scale
      for each leaf.
    method: that of `project_levels`: ``'exact'``, or the paper's ``'alternate'``.
    dual_first: whether the step of :math:`\lambda` comes before that of G.
    freeze: progressive ADMM: from which update on a leaf is G and stays there,
      while the others adapt to it. A number of updates >= 0 for all leaves, a
      prefix of the tree of parameters with a number, or None for never, for what is
      below it, such as ``{'Dense_0': 500, 'Dense_1': 1000}``.

  Returns:
    A transform whose ``update`` needs ``params``, and passes on further
    arguments to ``tx``. Updates have the wider of the dtypes of update and
    parameter. G and :math:`\lambda` are float32 at least. NaN stays.

  Raises:
    BadInput: for a concrete ``rho`` that is not positive, of a schedule the first one,
      what `project_levels` objects to, an ``every`` below 1, a negative ``lookahead`` or
      time, a ``freeze`` that is no prefix, parameters that are not floating, and an
      ``update`` without ``params`` or with the state of others.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import optax
    >>> from bitjax import quantizers
    >>> from bitjax import transforms
    >>> target = jnp.array([0.9, -0.2, 0.4])
    >>> gradient = jax.grad(lambda w: jnp.sum((w - target) ** 2))
    >>> tx = transforms.admm(2.0, quantizers.sign(), optax.sgd(0.08), every=5)
    >>> @jax.jit
    ... def step(params, state):
    ...   updates, state = tx.update(gradient(params), state, params)
    ...   return optax.apply_updates(params, updates), state
    >>> params = jnp.array([0.1, 0.1, 0.1])
    >>> state = tx.init(params)
    >>> for _ in range(400):
    ...   params, state = step(params, state)
    >>> print(params.round(2), transforms.admm_weights(params, state).round(2))
    [ 0.5 -0.5  0.5] [ 0.5 -0.5  0.5]

  References:
    Leng et al., Extremely low bit neural network: squeeze the last bit out with ADMM,
    2018 (https://arxiv.org/abs/1707.09870); Lin et al., Toward extremely low bit and
    lossless accuracy in DNNs with progressive ADMM, 2019
    (https://arxiv.org/abs/1905.00789); Boyd et al., Distributed optimization
    and statistical learning via ADMM, 2011, 3.4.1 (a varying penalty); Wang et al.,
    Global convergence of ADMM in nonconvex nonsmooth optimization, 2019 (the bound).
  """
  first_rho = rho
  if callable(rho):
    with jax.ensure_compile_time_eval():
      first_rho = rho(jnp.zeros((), jnp.int32))
  types.check_positive('rho', first_rho, finite=True)
  _levels.check_levels(levels, scale)
  types.check_choice('method', method, _levels.METHODS)
  types.check_axis('channel_axis', channel_axis)
  every = types.check_integer('every', every, 1)
  types.check_non_negative('lookahead', lookahead, finite=True)
  if not hasattr(tx, 'update'):
    raise types.BadInput(
      f'tx must be an optax transform, such as optax.sgd(0.1); got {tx!r}.'
    )
  for time in jax.tree.leaves(freeze):
    types.check_non_negative('freeze', time)
  tx = optax.with_extra_args_support(tx)
  settings = _Settings(levels, scale, channel_axis, method, dual_first)
  period = 2 * every if extragradient else every

  def penalty(count, dtype):
    now = rho(count) if callable(rho) else rho
    return jnp.asarray(now, dtype)

  # One function each for all updates, so that eager ones compile them once.
  def finish(operands):
    weights, quantized, dual, _, frozen, now = operands
    return _round(settings, weights, quantized, dual, frozen, now)

  def keep(operands):
    _, quantized, dual, residuals, _, _ = operands
    return quantized, dual, residuals

  def init(params: optax.Params) -> _admm_state.AdmmState:
    leaves, treedef = jax.tree.flatten(params)
    _leaves.check_floating(leaves)
    _frozen(freeze, params, 0)
    wide = [types.widened(x) for x in leaves]
    dtype = types.promoted(jnp.float32, *wide)
    quantized = settings.project(wide)
    start: Any = ()
    if extragradient:
      start = treedef.unflatten([jnp.array(x, copy=True) for x in leaves])
    return _admm_state.AdmmState(
      count=jnp.zeros((), jnp.int32),
      inner=tx.init(params),
      start=start,
      levels=treedef.unflatten(quantized),
      dual=treedef.unflatten([jnp.zeros_like(x) for x in wide]),
      rho=penalty(jnp.zeros((), jnp.int32), dtype),
      primal_residual=tree_lib.norm(wide, 'l2', quantized),
      dual_residual=jnp.zeros((), dtype),
    )

  def update(
    updates: optax.Updates,
    state: Any,
    params: optax.Params | None = None,
    **extra_args: Any,
  ) -> tuple[optax.Updates, _admm_state.AdmmState]:
    treedef, grads, leaves = _leaves.pair(updates, params)
    levels_now = _leaves.kept('admm', treedef, state.levels, leaves)
    now = penalty(state.count, state.rho.dtype)
    dual = [
      x * (state.rho / now).astype(x.dtype)
      for x in treedef.flatten_up_to(state.dual)
    ]
    frozen = _frozen(freeze, params, state.count)
    pulled = [
      jnp.where(
        f,
        0,
        g.astype(q.dtype) + now.astype(q.dtype) * (w.astype(q.dtype) - q + d),
      ).astype(types.promoted(g, w))
      for f, g, w, q, d in zip(
        frozen, grads, leaves, levels_now, dual, strict=True
      )
    ]
    first = jnp.zeros((), bool)
    base = leaves
    if extragradient:
      first = state.count % 2 == 0
      before = treedef.flatten_up_to(state.start)
      base = [
        jnp.where(first, w, b) for w, b in zip(leaves, before, strict=True)
      ]
    steps, inner = tx.update(
      treedef.unflatten(pulled),
      state.inner,
      treedef.unflatten(base),
      **extra_args,
    )
    steps = treedef.flatten_up_to(steps)
    if extragradient:
      inner = jax.tree.map(
        lambda old, new: jnp.where(first, old, new), state.inner, inner
      )
      steps = [
        jnp.where(first, lookahead * s, s).astype(s.dtype) for s in steps
      ]
    moved = [
      _towards(w, b, s, q, f)
      for w, b, s, q, f in zip(
        leaves, base, steps, levels_now, frozen, strict=True
      )
    ]
    wide = [
      _leaves.apply(w, u).astype(q.dtype)
      for w, u, q in zip(leaves, moved, levels_now, strict=True)
    ]
    residuals = state.primal_residual, state.dual_residual
    quantized, dual, residuals = jax.lax.cond(
      (state.count + 1) % period == 0,
      finish,
      keep,
      (wide, levels_now, dual, residuals, frozen, now),
    )
    return treedef.unflatten(moved), _admm_state.AdmmState(
      jnp.asarray(optax.safe_increment(state.count)),
      inner,
      treedef.unflatten(base) if extragradient else (),
      treedef.unflatten(quantized),
      treedef.unflatten(dual),
      now,
      *residuals,
    )

  return optax.GradientTransformationExtraArgs(init, update)


def _frozen(freeze, params, count):
  """Returns for each leaf whether it is frozen at an update."""
  if freeze is None:
    return [jnp.zeros((), bool)] * len(jax.tree.leaves(params))
  frozen = {}
  for time, indices in _radii.below('freeze', freeze, params):
    now = jnp.zeros((), bool) if time is None else jnp.asarray(count >= time)
    frozen |= dict.fromkeys(indices, now)
  return [frozen[index] for index in sorted(frozen)]


def _towards(param, base, step, levels, frozen):
  """Returns the update of ``param`` that leads to ``base + step``, or to its levels."""
  dtype = types.promoted(param, step)
  goal = jnp.where(
    frozen, levels.astype(param.dtype), _leaves.apply(base, step)
  )
  solved = _rounding.solve(param, goal, goal, dtype)
  # Where it starts from the parameter itself, the step is not rounded twice.
  direct = ~frozen & (base == param)
  return jnp.where(direct, step.astype(dtype), solved)


def _round(settings, weights, levels, dual, frozen, rho):
  """Returns G, lambda and the residuals after their steps of a round."""

  def kept(old, new):
    return [
      jnp.where(f, a, b) for f, a, b in zip(frozen, old, new, strict=True)
    ]

  def projected():
    return kept(
      levels,
      settings.project([w + d for w, d in zip(weights, dual, strict=True)]),
    )

  def raised(quantized):
    return kept(
      dual,
      [d + w - q for d, w, q in zip(dual, weights, quantized, strict=True)],
    )

  if settings.dual_first:
    dual = raised(levels)
    quantized = projected()
  else:
    quantized = projected()
    dual = raised(quantized)
  primal = tree_lib.norm(weights, 'l2', quantized).astype(rho.dtype)
  change = tree_lib.norm(quantized, 'l2', levels).astype(rho.dtype)
  return quantized, dual, (primal, rho * change)
