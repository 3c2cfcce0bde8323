r"""Gradients divided by a norm, and the directions of steepest descent.

The direction of steepest descent in a norm is :math:`-\Delta`, where

.. math:: \Delta = \mathrm{arg} \, \max \{ \langle g, v \rangle : \|v\| \le 1 \}

is the unit vector of that norm along which the loss rises fastest. A step along
:math:`-\Delta` is the best first-order guess at the best point of the ball that
`project_budget` draws in the same norm. The transforms here return :math:`\Delta`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from bitjax import tree as tree_lib
from bitjax import types

__all__ = ['normalize', 'steepest']

_DUAL_NORMS = ('l2', 'linf', 'l1')


def normalize(norm: types.Norm = 'l2') -> optax.GradientTransformation:
  r"""Divides the updates by their norm over the whole tree: ``g / ||g||``.

  Zero updates stay zero. An infinite entry becomes NaN and makes all finite ones 0;
  a NaN entry makes all entries NaN.

  Args:
    norm: ``'l2'``, ``'linf'`` or ``'l1'``.

  Returns:
    A stateless transform. Updates keep their dtype; the norm is taken in
    float32 at least.

  Raises:
    BadInput: for any other norm (``flips`` is not a norm of gradients).

  Examples:
    >>> import jax.numpy as jnp
    >>> from bitjax import transforms
    >>> tx = transforms.normalize('linf')
    >>> gradient = jnp.array([1.0, -4.0])
    >>> print(tx.update(gradient, tx.init(gradient))[0])
    [ 0.25 -1.  ]
  """
  types.check_choice('norm', norm, _DUAL_NORMS)

  def divide(updates: optax.Updates) -> optax.Updates:
    size = tree_lib.norm(updates, norm)
    # Divide in two steps, since 1 / size may be subnormal.
    scale = tree_lib.power_of_two(size)
    rest = jnp.where(size == 0, 1.0, size / scale)

    def divide_leaf(u):
      return (u.astype(size.dtype) / scale / rest).astype(u.dtype)

    return jax.tree.map(divide_leaf, updates)

  return optax.stateless(lambda updates, params: divide(updates))


def steepest(norm: types.Norm = 'l2') -> optax.GradientTransformation:
  r"""Replaces gradients by the unit step of steepest descent in ``norm``.

  .. math::
    \ell_2:\; g / \|g\|_2, \qquad \ell_\infty:\; \mathrm{sign}(g), \qquad
    \ell_1:\; \mathrm{sign}(g_j)\, e_j,\quad j = \mathrm{arg} \, \max_i |g_i|

  with sign(0) = 0 and, at a tie, the first j in the order of flattening. As
  elsewhere in optax, the result has the sign of the gradient, and a negative
  learning rate turns it into descent. Put it first in the chain::

    optax.chain(
      steepest('linf'), optax.sgd(rate), project_budget(0.1, 'linf')
    )

  Zero gradients give zero. NaN gives NaN: in its entry for ``linf``, everywhere
  for ``l2`` and ``l1``.

  Args:
    norm: ``'l2'``, ``'linf'`` or ``'l1'``: the norm of the step, not its dual norm.

  Returns:
    A stateless transform. Updates keep their dtype.

  Raises:
    BadInput: for any other norm (``flips`` is not a norm of gradients).

  Examples:
    >>> import jax.numpy as jnp
    >>> from bitjax import transforms
    >>> tx = transforms.steepest('l1')
    >>> gradient = jnp.array([1.0, -4.0])
    >>> print(tx.update(gradient, tx.init(gradient))[0])
    [ 0. -1.]

  References:
    Boyd and Vandenberghe, Convex optimization, 2004, section 9.4.
  """
  types.check_choice('norm', norm, _DUAL_NORMS)
  if norm == 'l2':
    return normalize('l2')
  rule = _signs if norm == 'linf' else _largest_entry
  return optax.stateless(lambda updates, params: rule(updates))


def _signs(updates: optax.Updates) -> optax.Updates:
  return jax.tree.map(jnp.sign, updates)


def _largest_entry(updates: optax.Updates) -> optax.Updates:
  """Keeps the sign of the first entry of largest magnitude, and zeroes the rest."""
  largest = tree_lib.norm(updates, 'linf')
  leaves, treedef = jax.tree.flatten(updates)
  num_entries = sum(leaf.size for leaf in leaves)
  first, positions, offset = jnp.int32(num_entries), [], 0
  for leaf in leaves:
    position = jnp.arange(offset, offset + leaf.size, dtype=jnp.int32)
    position = position.reshape(leaf.shape)
    reaches = jnp.abs(leaf).astype(largest.dtype) == largest
    candidate = jnp.where(reaches, position, num_entries)
    first = jnp.minimum(first, jnp.min(candidate, initial=num_entries))
    positions.append(position)
    offset += leaf.size
  nan = jnp.where(jnp.isnan(largest), largest, 0)
  steps = [
    jnp.where(p == first, jnp.sign(u), 0).astype(u.dtype) + nan.astype(u.dtype)
    for u, p in zip(leaves, positions, strict=True)
  ]
  return treedef.unflatten(steps)
