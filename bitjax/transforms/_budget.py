"""A budget as an optax transform: the last link of a chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bitjax import tree
from bitjax import types
from bitjax.transforms import _leaves
from bitjax.transforms import _project
from bitjax.transforms import _radii
from bitjax.transforms import _rounding

__all__ = ['ProjectBudgetState', 'project_budget']


class ProjectBudgetState(NamedTuple):
  """State of `project_budget`."""

  anchor: optax.Params  # Structure, shapes and dtypes as params: the centre.
  count: (
    types.Array
  )  # shape=(), int32: number of updates so far, for schedules.
  # The norm of each ball's centre, shape=(); none unless radii are relative to them.
  sizes: tuple[types.Array, ...] = ()


def project_budget(
  radius: _radii.Radius | types.PyTree,
  norm: types.Norm = 'l2',
  *,
  anchor: optax.Params | None = None,
  relative: bool = False,
  labels: types.PyTree | Callable[[optax.Params], types.PyTree] | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""Keeps the parameters in a ball around those that ``init`` was given.

  An update that would leave the ball is replaced by the one that leads to the
  nearest point of the ball (see `bitjax.transforms.project`). With a single radius the
  ball spans the whole tree; with a tree of radii there is one ball for each:

  .. math:: u \leftarrow P(w + u) - w.

  The guarantee is about what ``optax.apply_updates`` stores, in the dtype of the
  parameters, rounding included: ``linf`` is never exceeded, not even by one unit in
  the last place; ``l2`` and ``l1`` are at most ``radius * (1 + 4 * eps)``; at most
  ``radius`` signs differ from the anchor's. It presumes that the parameters passed
  to ``update`` are themselves in the ball, as they are after ``init`` and after every
  update. From far outside, one addition may not reach the ball in floating point
  (100 + u takes few values near 0.1); the next update does.

  Updates that need no change are returned bit for bit: all of them if the point
  is inside the ball, and for ``linf`` and ``flips`` also single entries.

  **Order.** It must end the chain: it reads the *final* update, and a transform
  that changes the update after it (a learning rate, momentum, weight decay) breaks
  the budget. Wrappers go around the whole chain: ``optax.MultiSteps(chain, k)``,
  ``optax.apply_if_finite(chain, n)``. In ``optax.masked`` or ``optax.partition``
  the ball spans only the leaves that are let through. Momentum in front of it does
  not see the projection: it keeps pushing against the surface of the ball.

  **Low precision.** A bfloat16 weight has 8 bits: a move smaller than half a
  unit in its last place is lost (a weight of 1 does not move by less than
  0.004), whatever the dtype of the update, so a small ball around large weights
  may hold no other point at all. Keep float32 parameters where that matters.
  Where several steps are unrolled in one ``jit``, XLA may also pass a bfloat16
  parameter from one step to the next in float32, while other uses of it see the
  rounded value; then the guarantee is off by an ulp of every weight, which in l1 add
  up (2.9 % were seen, with 200 weights). Steps in a ``scan``, or one
  jitted step in a loop, store their parameters and keep the guarantee.

  Args:
    radius: radius of the ball, in the units of the parameters; for ``flips`` a
      number of sign changes, rounded down. May be traced, and swept by ``vmap``.

      A *schedule*, a function of the number of updates so far, gives each update its
      own radius. If a shrinking radius leaves the parameters outside the ball, the
      guarantee is that for parameters outside.

      A *tree* of radii, a prefix of the parameters, gives a ball to each of its
      leaves: ``{'Dense_0': 0.1, 'Dense_1': 0.5}`` has one for each of two layers, a
      tree like the parameters one for each leaf, and None leaves what is below it
      free. With ``labels`` it is a dictionary, label -> radius.
    norm: ``'l2'``, ``'linf'``, ``'l1'`` or ``'flips'``.
    anchor: the centre, if it is not what ``init`` sees (say the original
      parameters, where training starts from noised ones). Leaves are found by
      their path and converted to the parameters' dtype, so inside
      ``optax.masked`` a tree of all parameters works as well.
    relative: whether a radius is a multiple of the norm of the ball's centre (of the
      anchor's leaves in that ball); for ``flips``, of the number of entries. A
      centre of zeros then allows no move.
    labels: a tree of labels, as of `bitjax.tree.label`, or a function ``params ->
      labels``; leaves of one label share a ball.

  Returns:
    A transform whose ``update`` needs ``params``. An update keeps its dtype, or has
    that of the parameters if that is wider. NaN and infinite updates are treated as
    `project` says, and NaN reaches the parameters.

  Raises:
    BadInput: for an unknown norm, for a radius that is no number or is concrete and
      negative or NaN, for radii or labels that do not fit the parameters, for parameters
      that are not floating, an anchor that lacks a leaf or has one of another shape, and
      for an ``update`` without ``params``.

  Examples:
    >>> import jax.numpy as jnp
    >>> import optax
    >>> from bitjax import transforms
    >>> budget = transforms.project_budget(0.5, 'linf')
    >>> tx = optax.chain(optax.sgd(1.0), budget)
    >>> params = jnp.array([1.0, 2.0])
    >>> state = tx.init(params)
    >>> updates, state = tx.update(jnp.array([-3.0, 0.25]), state, params)
    >>> print(optax.apply_updates(params, updates))
    [1.5  1.75]

    A tenth of each layer's norm:

    >>> params = {'a': jnp.array([3.0, 4.0]), 'b': jnp.array([1.0])}
    >>> tx = transforms.project_budget({'a': 0.1, 'b': 0.1}, relative=True)
    >>> updates, _ = tx.update({'a': -params['a'], 'b': params['b']}, tx.init(params), params)
    >>> print(updates['a'].round(3), updates['b'].round(3))
    [-0.3 -0.4] [0.1]

  References:
    Levitin and Polyak, Constrained minimization methods, 1966 (projected
    gradients).
  """
  types.check_choice('norm', norm, types.NORMS)
  _radii.check(radius, labels)

  def init(params: optax.Params) -> ProjectBudgetState:
    leaves, treedef = jax.tree.flatten(params)
    centres = leaves if anchor is None else _pick(anchor, params)
    _project.check_leaves(leaves, centres)
    balls = _radii.balls(radius, labels, params)
    # Copy the leaves: a caller may donate both the parameters and this state.
    copies = [
      jnp.array(centre, jnp.result_type(leaf), copy=True)
      for leaf, centre in zip(leaves, centres, strict=True)
    ]
    sizes = ()
    if relative and norm != 'flips':
      sizes = tuple(tree.norm(ball.pick(copies), norm) for ball in balls)
    return ProjectBudgetState(treedef.unflatten(copies), jnp.int32(0), sizes)

  def update(
    updates: optax.Updates,
    state: Any,
    params: optax.Params | None = None,
    **extra_args: Any,
  ) -> tuple[optax.Updates, ProjectBudgetState]:
    del extra_args
    treedef, proposed, leaves = _leaves.pair(updates, params)
    centres = treedef.flatten_up_to(state.anchor)
    _project.check_leaves(leaves, centres)
    # Leaves that are in no ball are free.
    limited = [
      u.astype(types.promoted(p, u))
      for p, u in zip(leaves, proposed, strict=True)
    ]
    balls = _radii.balls(radius, labels, state.anchor)
    for index, ball in enumerate(balls):
      around = ball.pick(centres)
      unit = None
      if relative and norm == 'flips':
        unit = float(sum(centre.size for centre in around))
      elif relative:
        unit = state.sizes[index]
      budget = ball.at(state.count, norm, unit)
      inside = _limit(ball.pick(leaves), ball.pick(proposed), around, budget)
      for i, update in zip(ball.leaves, inside, strict=True):
        limited[i] = update
    count = jnp.asarray(optax.safe_increment(state.count))
    return treedef.unflatten(limited), state._replace(count=count)

  return optax.GradientTransformationExtraArgs(init, update)


def _limit(leaves, proposed, centres, budget):
  """Returns the updates that keep leaves in one ball."""
  points = [_leaves.apply(p, u) for p, u in zip(leaves, proposed, strict=True)]
  sides = centres
  if budget.norm == 'flips':  # Rounding may pass the target, but never zero.
    largest = [jnp.finfo(a.dtype).max for a in centres]
    sides = [
      jnp.where(a < 0, -most, most).astype(a.dtype)
      for a, most in zip(centres, largest, strict=True)
    ]

  def limit(budget):
    targets = _project.project_leaves(points, centres, budget)
    parts = zip(leaves, proposed, points, targets, sides, strict=True)
    return [_rounding.reach(*part) for part in parts]

  limited = limit(budget)
  narrow = any(jnp.finfo(leaf.dtype).bits < 32 for leaf in leaves)
  if budget.norm == 'l1' and narrow:
    limited = _stay_inside(leaves, centres, budget, limited, limit)
  return limited


def _stay_inside(leaves, centres, budget, limited, limit):
  """Corrects updates of low precision, whose rounding may leave an l1 ball.

  The projection puts many entries on the centre, which an update of few digits may
  miss on either side. Then the others are moved farther inwards; where that is not
  enough, nothing moves.
  """

  def excess(updates):
    moved = [_leaves.apply(p, u) for p, u in zip(leaves, updates, strict=True)]
    return jax.lax.stop_gradient(_project.l1_excess(moved, centres, budget))

  over = excess(limited)
  smaller = types.Budget(jnp.maximum(budget.radius - 2 * over, 0), budget.norm)
  limited = jax.lax.cond(over > 0, lambda: limit(smaller), lambda: limited)
  nothing = [jnp.zeros_like(update) for update in limited]
  stay = (excess(limited) > 0) & (excess(nothing) == 0)
  return [
    jnp.where(stay, zeros, update)
    for zeros, update in zip(nothing, limited, strict=True)
  ]


def _pick(anchor: optax.Params, params: optax.Params) -> list:
  """Returns the leaves of ``anchor`` at the paths of the leaves of ``params``."""
  centres = dict(jax.tree.leaves_with_path(anchor))
  paths = [path for path, _ in jax.tree.leaves_with_path(params)]
  missing = [jax.tree_util.keystr(p) for p in paths if p not in centres]
  if missing:
    raise types.BadInput(
      f'the anchor lacks the leaves {", ".join(missing)}: it must have all '
      'leaves of the parameters, at the same paths.'
    )
  return [centres[path] for path in paths]
