r"""Computes the gain of each of many sets of flips.

A set of few flips changes few columns of the product. With :math:`J` the units of a set,

.. math:: p_{bj} \mathrel{+}= \sum_{(i, j) \in S} \Delta_{ij} x_{bi}, \qquad
  u_b \mathrel{+}= \sum_{j \in J} \tau_{bj} V_{j:}, \qquad
  \tau_{bj} = \mathrm{front}_j(p_{bj} \text{ after}) - \mathrm{front}_j(p_{bj}),

so the product with all of the kernel's weights, which is most of a forward pass, is not
needed again (``'incremental'``). Any other view takes a forward pass for each set
(``'brute_force'``).
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import types
from bitjax.scans import _coordinate_losses
from bitjax.scans import _flip_walk
from bitjax.scans import _flips_rank_one
from bitjax.scans import _paths
from bitjax.scans import _report
from bitjax.scans import _split
from bitjax.scans import _stages
from bitjax.scans import _text
from bitjax.scans import _view

__all__ = ['PATHS', 'SetGains', 'set_gains']

PATHS = ('auto', 'incremental', 'brute_force')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SetGains:
  """The gains of sets of flips.

  Attributes:
    gains: decrease of the mean loss by each set, in nats, [sets].
    loss: mean loss before any flip, in nats.
    path: which path was taken.
  """

  gains: types.Array
  loss: types.Array
  path: str = dataclasses.field(metadata={'static': True})

  def __repr__(self) -> str:
    return _text.describe(
      self,
      path=self.path,
      sets=self.gains,
      loss=self.loss,
      best=_text.reduce(np.fmax, self.gains),
    )


@_report.reports
def set_gains(
  view: _view.LayerView,
  sets: types.Array,
  *,
  path: str = 'auto',
  width: int | None = None,
  report: _report.Report | None = None,
) -> SetGains:
  """Evaluates sets of flips of a binary kernel, each from the view's own kernel.

  Args:
    view: a layer with a kernel of two levels.
    sets: indices, in the flattened kernel, of the weights that each set flips,
      integers [sets, size]. A weight that is named twice flips once; indices below 0
      stand for no weight.
    path: ``'incremental'``, ``'brute_force'``, or ``'auto'`` for the first that
      applies.
    width: sets evaluated at a time; None for a good number.
    report: as for `flip_gains`.

  Returns:
    `SetGains`.

  Raises:
    BadInput: for sets that are not such an array or that are none, indices of no weight
      (under ``jit`` their gains are NaN), an unknown path, one that does not apply, a
      kernel that is not binary, an empty batch or kernel, or a loss that is concrete
      and not finite.
  """
  types.check_choice('path', path, PATHS)
  if width is not None:
    types.check_integer('width', width, 1)
  sets = jnp.asarray(sets)
  is_index = jnp.issubdtype(sets.dtype, jnp.integer)
  if sets.ndim != 2 or not is_index or not sets.size:
    raise types.BadInput(
      'sets must be integers of shape [sets, size], at least one; got '
      f'{types.shown(sets)}.'
    )
  _check_indices(sets, view.kernel.size)
  _flip_walk.check_binary(view)
  incremental = choose(view, path).path == 'incremental'
  _view.check_loss(view)
  found = _gains(view, sets, report, incremental=incremental, width=width)
  types.check_finite('The loss', found.loss)
  return found


def _check_indices(sets, size):
  if (
    not isinstance(sets, jax.core.Tracer) and (most := int(sets.max())) >= size
  ):
    raise types.BadInput(
      f'sets must be indices of weights, at most {size - 1}, or below 0 for none; '
      f'got {most}.'
    )


def choose(view: _view.LayerView, path: str = 'auto') -> _paths.Choice:
  """Returns the path to take, and raises if a requested one does not apply."""
  return _paths.choose(
    path,
    {'incremental': _flips_rank_one.obstacle(view), 'brute_force': None},
  )


@functools.partial(jax.jit, static_argnames=('incremental', 'width'))
def _gains(view, sets, report, *, incremental, width):
  begin = _incremental if incremental else _passes
  gain, loss = begin(view)

  def visit(chosen):
    chosen = jnp.sort(chosen)
    again = jnp.concatenate([jnp.zeros(1, bool), chosen[1:] == chosen[:-1]])
    found = gain(chosen, (chosen >= 0) & ~again)
    return types.nan_where(chosen[-1] >= view.kernel.size, found)

  gains = _report.each(report, visit, {'chosen': sets}, width=width)
  path = 'incremental' if incremental else 'brute_force'
  return SetGains(gains, loss, path)


def _passes(view):
  """Returns the gain of a set as a function of its indices and a mask, and the loss."""
  start = view.kernel.reshape(-1)
  destinations = _flip_walk.check_binary(view).destinations.reshape(-1)
  loss = view.loss(view.kernel)

  def gain(chosen, valid):
    places = jnp.where(valid, chosen, start.size)
    moved = start.at[places].set(
      destinations.at[places].get(mode='fill', fill_value=0), mode='drop'
    )
    return loss - view.loss(moved.reshape(view.kernel.shape))

  return gain, loss


def _incremental(view):
  """Returns what `_passes` does, for a view without an obstacle."""
  moves = _flip_walk.check_binary(view)
  changes = moves.changes.reshape(-1)
  parts = _split.split(view)
  products = parts.products(parts.inputs)
  next_products = parts.next_products(_stages.apply(parts.front, products))
  losses = parts.losses(next_products, parts.labels)
  inputs, products = parts.inputs.T, products.T

  def activation(unit, row):
    return _stages.apply(_coordinate_losses.of_unit(parts.front, unit), row)

  def gain(chosen, valid):
    safe = jnp.where(valid, chosen, 0)
    index, unit = jnp.divmod(safe, products.shape[0])
    change = jnp.where(valid, changes[safe], 0)
    shift = change[:, None].astype(inputs.dtype) * inputs[index]
    same = (unit[:, None] == unit[None, :]) & valid[:, None] & valid[None, :]
    # Each unit once, by its first flip, with the sum of the changes of all.
    first = valid & ~jnp.any(jnp.tril(same, -1), axis=1)
    total = _split.product(same.astype(shift.dtype), shift)
    before = products[unit]
    tau = jax.vmap(activation)(unit, before + total.astype(before.dtype))
    tau -= jax.vmap(activation)(unit, before)
    tau = jnp.where(first[:, None], tau, 0)
    rows = parts.matrix[unit].astype(types.promoted(tau, parts.matrix))
    moved = next_products + _split.product(tau.T, rows)
    return jnp.mean(losses - parts.losses(moved, parts.labels))

  return gain, jnp.mean(losses)
