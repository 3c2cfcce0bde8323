r"""The loss along a line: every learning rate of one step.

For a step along a direction d, ``line_scan`` answers: what is the loss of
``W - eta * d`` for each of many learning rates ``eta``?
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import jax
import jax.numpy as jnp

from bitjax import lanes
from bitjax import types
from bitjax.scans import _view

__all__ = ['PATHS', 'LineScan', 'line_scan']

PATHS = ('auto', 'brute_force')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LineScan:
  """The losses along a line.

  Attributes:
    learning_rates: the scanned rates, [rates], in the order given.
    losses: mean loss at each rate, [rates], in nats.
    path: which path computed them.
  """

  learning_rates: types.Array
  losses: types.Array
  path: str = dataclasses.field(metadata={'static': True})

  def best(self) -> tuple[types.Array, types.Array, types.Array]:
    """Index, learning rate and loss of the lowest loss; NaN never wins."""
    losses = jnp.where(jnp.isnan(self.losses), jnp.inf, self.losses)
    index = jnp.argmin(losses)
    return index, self.learning_rates[index], self.losses[index]


def line_scan(
  view: _view.LayerView,
  direction: types.Array,
  learning_rates: types.Array,
  *,
  constrain: Callable[[types.Array], types.Array] | None = None,
  path: str = 'auto',
  width: int | None = None,
) -> LineScan:
  r"""Returns the mean loss of ``kernel - eta * direction`` for each ``eta``.

  .. math:: L(\eta) = \frac1B \sum_b \ell_b(q(W - \eta d))

  Args:
    view: the layer; the line starts at its latent kernel.
    direction: d, of the kernel's shape.
    learning_rates: the values of eta, [rates], any order and sign.
    constrain: applied to every candidate kernel before it is evaluated, such as
      the projection onto a budget; None for the line as it is.
    path: ``'brute_force'`` evaluates the network at every rate; ``'auto'``
      takes the fastest path that is exact for this view.
    width: rates that are vectorised at a time: memory is bounded by it; None
      for `lanes.default_width`.

  Returns:
    A `LineScan`, which also names the path taken.

  Raises:
    ValueError: for a direction of another shape, rates that are not a non-empty
      vector, rates that are concrete and not finite, or an unknown path.
  """
  types.check_choice('path', path, PATHS)
  learning_rates = jnp.asarray(learning_rates)
  if learning_rates.ndim != 1 or learning_rates.size == 0:
    raise ValueError(
      'learning_rates must be a non-empty vector; got shape '
      f'{learning_rates.shape}.'
    )
  types.check_finite('learning_rates', learning_rates)
  if direction.shape != view.kernel.shape:
    raise ValueError(
      f'direction must have the shape of the kernel, {view.kernel.shape}; got '
      f'{direction.shape}.'
    )
  losses = _brute_force(view, direction, learning_rates, constrain, width)
  return LineScan(learning_rates, losses, 'brute_force')


def _brute_force(view, direction, learning_rates, constrain, width):
  def loss(learning_rate):
    kernel = view.kernel - learning_rate * direction
    return view.loss(kernel if constrain is None else constrain(kernel))

  return lanes.each(loss, {'learning_rate': learning_rates}, width=width)
