r"""Perturbs parameters at intervals of a training, and lets it go on from there.

The perturbation acts on what the update has reached,

.. math:: w_{t+1} = \begin{cases} m(w_t + u_t) & t = 0, n, 2n, \dots \\
  w_t + u_t & \text{otherwise,} \end{cases}

with any map m that draws from a key: flips of signs, noise inside a budget. Between two
perturbations the optimizer has n - 1 updates of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bitjax import types
from bitjax.transforms import _leaves
from bitjax.transforms import _rounding

__all__ = ['PerturbState', 'perturb']


class PerturbState(NamedTuple):
  """State of `perturb`."""

  count: types.Array  # shape=(), int32: updates since `init`.
  key: types.Array  # uint32: the data of the key that is the root of all draws.


def perturb(
  move: Callable[..., types.PyTree],
  every: int,
  key: types.Array,
  *,
  until: types.Scalar | None = None,
  needs: Sequence[str] = (),
) -> optax.GradientTransformationExtraArgs:
  r"""Perturbs the parameters in every n-th update, the first one included.

  It comes last in a chain, as it acts on where the whole update leads::

    half = types.Budget(0.5, 'l2')
    optax.chain(
      optax.adam(1e-3),
      perturb(
        lambda key, params: optax.tree.add(
          params, descent.noise(key, params, half, 1.0)
        ),
        500,
        jax.random.key(0),
      ),
    )

  Its state holds the key and the number of updates, so that a training which is resumed draws
  the same perturbations. Vectorised over seeds (``jax.vmap``), a perturbation is computed
  only in updates in which some seed has one.

  Args:
    move: ``(key, params, **needed) -> params``: the perturbed parameters, of the same
      structure and shapes. Functions for it are `bitjax.searches.flip_signs` and
      `bitjax.descent.noise`.
    every: n >= 1, in updates, static.
    key: a random key. `bitjax.training.fit` passes one of each seed instead.
    until: no update from this number on is perturbed, so that the end can settle; None
      for no end.
    needs: names of further arguments of ``update`` that ``move`` is called with,
      pytrees of arrays: a `bitjax.scans.LayerView`, say, to compute the gains of flips
      from.

  Returns:
    A transform whose ``update`` needs ``params``. It takes an argument ``key`` in the place of
    that of its state. Updates of perturbed leaves lead to the perturbed values up
    to rounding, which never changes a sign. NaN stays.

  Raises:
    BadInput: for a ``move`` that cannot be called, ``needs`` that are no names, an
      ``every`` below 1, a negative ``until``, parameters that are not floating, an ``update`` without ``params`` or what ``needs`` names, or a
      ``move`` that returns another structure or shape.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import optax
    >>> from bitjax import transforms
    >>> mirror = lambda key, params: -params
    >>> tx = optax.chain(
    ...   optax.sgd(1.0), transforms.perturb(mirror, 2, jax.random.key(0))
    ... )
    >>> params = jnp.array([4.0])
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...   updates, state = tx.update(jnp.array([1.0]), state, params)
    ...   params = optax.apply_updates(params, updates)
    ...   print(params)
    [-3.]
    [-4.]
    [5.]
  """
  if not callable(move):
    raise types.BadInput(f'move must be a function; got {types.shown(move)}.')
  if isinstance(needs, str):
    raise types.BadInput(f'needs must be names, as in ({needs!r},).')
  every = types.check_integer('every', every, 1)
  if until is not None:
    types.check_non_negative('until', until)

  def change(due, params, key, needed):
    moved = move(key, params, **needed)
    wanted, found = (jax.tree.map(jnp.shape, tree) for tree in (params, moved))
    if wanted != found:
      raise types.BadInput(
        'move must return parameters of the same structure and shapes; got '
        f'{types.shown(found)} for {types.shown(wanted)}.'
      )
    return jax.tree.map(
      lambda old, new: jnp.where(due, jnp.asarray(new, old.dtype), old),
      params,
      moved,
    )

  run = _seldom(change)

  def init(params: optax.Params) -> PerturbState:
    _leaves.check_floating(jax.tree.leaves(params))
    data = jax.random.key_data(key)
    return PerturbState(jnp.zeros((), jnp.int32), jnp.array(data, copy=True))

  def update(
    updates: optax.Updates,
    state: Any,
    params: optax.Params | None = None,
    **extra_args: Any,
  ) -> tuple[optax.Updates, PerturbState]:
    treedef, proposed, leaves = _leaves.pair(updates, params)
    if absent := [name for name in needs if name not in extra_args]:
      raise types.BadInput(
        f'perturb needs {", ".join(absent)}: pass it to update(...) by name.'
      )
    needed = {name: extra_args[name] for name in needs}
    root = extra_args.get('key')
    if root is None:
      root = jax.random.wrap_key_data(state.key, impl=jax.random.key_impl(key))
    drawn = jax.random.fold_in(root, state.count)
    due = state.count % every == 0
    if until is not None:
      due &= state.count < until
    reached = [
      _leaves.apply(p, u) for p, u in zip(leaves, proposed, strict=True)
    ]
    moved = run(due, treedef.unflatten(reached), drawn, needed)
    found = [
      _rounding.reach(p, u, r, m, _beyond(m))
      for p, u, r, m in zip(
        leaves, proposed, reached, treedef.flatten_up_to(moved), strict=True
      )
    ]
    count = jnp.asarray(optax.safe_increment(state.count))
    return treedef.unflatten(found), PerturbState(count, state.key)

  return optax.GradientTransformationExtraArgs(init, update)


def _beyond(x):
  """Returns points farther from zero, so that rounding cannot change a sign."""
  return jnp.where(x < 0, x - 1, x + 1).astype(x.dtype)


def _seldom(change: Callable[..., types.PyTree]) -> Callable[..., types.PyTree]:
  """Returns a function that computes a change only where some lane is due.

  A ``lax.cond`` under ``vmap`` computes both branches. Here its predicate is
  whether any lane is due, and ``change(due, params, ...)`` selects by lane.
  """

  @jax.custom_batching.custom_vmap
  def run(due, params, *rest):
    return jax.lax.cond(
      jnp.any(due),
      change,
      lambda due, params, *rest: params,
      due,
      params,
      *rest,
    )

  @run.def_vmap
  def run_lanes(size, batched, due, params, *rest):
    axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, batched)
    params = jax.tree.map(
      lambda x, is_batched: (
        x if is_batched else jnp.broadcast_to(x, (size, *x.shape))
      ),
      params,
      batched[1],
    )
    axes = axes[0], jax.tree.map(lambda _: 0, params), *axes[2:]
    lanes = _seldom(jax.vmap(change, in_axes=tuple(axes), axis_size=size))
    found = lanes(due, params, *rest)
    return found, jax.tree.map(lambda _: True, found)

  return run
