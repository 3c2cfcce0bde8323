r"""How many of the chosen moves are worth making.

A discrete gradient takes its moves in an order. Here the first m of them are made,
for each of many m: where does the loss begin to rise again, on the batch that was
searched and on another?

For a binary kernel the prefixes are points on a line, so that `line_scan` applies.
With the r-th move's weight (r = 0, 1, ...) at :math:`v = \pm 1` and
:math:`d = v / (r + 1/2)`, the sign of :math:`v - m d` has changed for exactly the
first m moves.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from bitjax import lanes
from bitjax import types
from bitjax.scans import _discrete
from bitjax.scans import _flips_moves
from bitjax.scans import _line
from bitjax.scans import _view

__all__ = ['PrefixScan', 'prefix_scan']


_FEW = 64


class PrefixScan(NamedTuple):
  """Losses after the first moves of a `DiscreteStep`.

  Attributes:
    num_moves: moves made, int32 [prefixes].
    search: loss on the search batch in nats, [prefixes].
    holdout: the same on the held-out batch; None without one.
    best: index of the lowest loss on the search batch, int32.
  """

  num_moves: types.Array
  search: types.Array
  holdout: types.Array | None
  best: types.Array

  def decreases(self) -> tuple[types.Array, types.Array | None]:
    """How much the losses fall, with the best prefix, from that of no move.

    The first prefix must be 0, as it is by default.
    """
    search = self.search[0] - self.search[self.best]
    if self.holdout is None:
      return search, None
    return search, self.holdout[0] - self.holdout[self.best]


def prefix_scan(
  view: _view.LayerView,
  step: _discrete.DiscreteStep,
  prefixes: Sequence[int] | None = None,
  *,
  holdout: _view.LayerView | None = None,
) -> PrefixScan:
  r"""Returns the losses after the first m moves, for each of many m.

  .. math:: L_m = L\Bigl(W + \sum_{k:\ \mathrm{rank}_k < m} \Delta_k e_k\Bigr)

  For more than 64 prefixes, binary kernels whose scale does not depend on the weights
  pay for what the moves change (`line_scan`), so that ``range(n)`` is affordable;
  otherwise each prefix costs one forward pass.

  Args:
    view: the layer that the step was taken from.
    step: the moves and their order.
    prefixes: numbers of moves, static; what exceeds the moves made counts as all
      of them. None for 0, 1, 2, 4, ... up to all weights.
    holdout: the same layer on another batch; None for none.

  Returns:
    A `PrefixScan`; of equal losses the first prefix is the best.

  Raises:
    ValueError: for no or for negative prefixes.
  """
  if prefixes is None:
    doublings = range(step.rank.size.bit_length() + 1)
    prefixes = [0, *(2**power for power in doublings)]
  if len(prefixes) == 0 or min(prefixes) < 0:
    raise ValueError(
      f'prefixes must be numbers >= 0, at least one; got {prefixes}.'
    )
  counts = jnp.minimum(jnp.asarray(prefixes, jnp.int32), step.num_moves)
  views = [view] if holdout is None else [view, holdout]
  if view.scaling is None and _flips_moves.is_sign(view):
    losses = _along_a_line(views, step, counts)
  else:
    losses = _one_by_one(views, step, counts)
  best, _ = _line.lowest(losses[0])
  return PrefixScan(
    counts, losses[0], None if holdout is None else losses[1], best
  )


def _along_a_line(views, step, counts):
  signs = jnp.where(views[0].kernel >= 0, 1.0, -1.0)
  taken = step.rank >= 0
  direction = jnp.where(taken, signs / (step.rank + 0.5), 0.0)
  views = [dataclasses.replace(view, kernel=signs) for view in views]
  rates = counts.astype(signs.dtype)
  # Steps cost what there are moves; brute force, what there are prefixes.
  path = 'auto' if counts.size > _FEW else 'brute_force'
  return _line.line_scan(views, direction, rates, path=path).losses


def _one_by_one(views, step, counts):
  kernel = views[0].kernel

  def losses(count):
    made = (step.rank >= 0) & (step.rank < count)
    moved = kernel + jnp.where(made, step.displacement, 0.0)
    return jnp.stack([view.loss(moved) for view in views])

  return lanes.each(losses, {'count': counts}).T
