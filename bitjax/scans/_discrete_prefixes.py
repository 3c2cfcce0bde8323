r"""Measures how many of the moves of a discrete gradient are worth making.

A discrete gradient takes its moves in an order. Here the loss is computed after the
first m of them, for each of many m, to show where it begins to rise again, on the
batch that was searched and on another.

From one m to the next only the moves in between are made (`_prefix_losses`). For a
kernel of signs the prefixes are also points on a line, so that `line_scan` applies,
which only pays for changes. With the r-th move's weight (r = 0, 1, ...) at
:math:`v = \pm 1` and :math:`d = v / (r + 1/2)`, the sign of :math:`v - m d` has changed
for exactly the first m moves.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import types
from bitjax.scans import _discrete
from bitjax.scans import _flips_moves
from bitjax.scans import _line
from bitjax.scans import _paths
from bitjax.scans import _prefix_losses
from bitjax.scans import _report
from bitjax.scans import _text
from bitjax.scans import _view

__all__ = ['PATHS', 'PrefixScan', 'prefix_scan']

PATHS = ('auto', 'steps', 'incremental', 'brute_force')

# For more prefixes than this, following every change (``'steps'``) costs less than an
# evaluation for each prefix.
_FEW = 64


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PrefixScan:
  """The losses after the first m moves of a `DiscreteStep`, for each of many m.

  Attributes:
    num_moves: number of moves made, int32 [prefixes].
    search: loss on the search batch in nats, [prefixes].
    holdout: the same on the held-out batch; None without one.
    best: index of the lowest loss on the search batch, int32.
    path: which path computed them.
  """

  num_moves: types.Array
  search: types.Array
  holdout: types.Array | None
  best: types.Array
  path: str = dataclasses.field(metadata={'static': True})

  def __repr__(self) -> str:
    return _text.describe(
      self,
      path=self.path,
      prefixes=self.num_moves,
      best=_text.reduce(np.fmin, self.search),
    )

  def decreases(self) -> tuple[types.Array, types.Array | None]:
    """Returns how far the best prefix lowers both losses below those of no move.

    The first prefix must be 0, as it is by default.
    """
    search = self.search[0] - self.search[self.best]
    if self.holdout is None:
      return search, None
    return search, self.holdout[0] - self.holdout[self.best]


@_report.reports
def prefix_scan(
  view: _view.LayerView,
  step: _discrete.DiscreteStep,
  prefixes: Sequence[int] | None = None,
  *,
  holdout: _view.LayerView | None = None,
  path: str = 'auto',
  report: _report.Report | None = None,
) -> PrefixScan:
  r"""Returns the losses after the first m moves, for each of many m.

  .. math:: L_m = L\Bigl(W + \sum_{k:\ \mathrm{rank}_k < m} \Delta_k e_k\Bigr)

  Args:
    view: the layer that the step was taken from.
    step: the moves and their order.
    prefixes: numbers of moves, static; a number that exceeds the moves made stands
      for all of them. None for 0, 1, 2, 4, ... up to all weights.
    holdout: the same layer on another batch; None for none.
    path: ``'steps'`` pays only for what the moves change, so that ``range(n)`` is
      affordable (kernels of signs; see `line_scan`). ``'incremental'`` pays for the
      moves and, for each prefix, for the network behind the layer (views of known
      stages that couple neither weights nor examples), packed behind a convolution. ``'brute_force'`` pays for a
      forward pass for each prefix that differs from the one before. ``'auto'`` takes
      the first that applies, but ``'steps'`` only for more than 64 prefixes.
    report: as for `flip_gains`; shares are of the prefixes (on the path
      ``'steps'``, of the moves).

  Returns:
    A `PrefixScan`, which also names the path taken; of equal losses the first
    prefix is the best.

  Raises:
    BadInput: for no or for negative prefixes, an empty batch or kernel, an unknown
      path, one that does not apply, or a convolution's loss that is not finite.
  """
  types.check_choice('path', path, PATHS)
  if prefixes is None:
    doublings = range(step.rank.size.bit_length() + 1)
    prefixes = [0, *(2**power for power in doublings)]
  if len(prefixes) == 0:
    raise types.BadInput(
      f'prefixes must be integers >= 0, at least one; got {prefixes}.'
    )
  for number in prefixes:
    types.check_integer('prefixes', number, 0)
  views = [view] if holdout is None else [view, holdout]
  _view.check_filled(*views)
  path = choose(path, views, len(prefixes)).path
  counts = jnp.minimum(jnp.asarray(prefixes, jnp.int32), step.num_moves)
  if path == 'steps':
    losses = _along_a_line(views, step, counts, report)
  else:
    _view.check_loss(*views)
    order = np.argsort(prefixes, kind='stable')
    scan = _prefix_losses.forward_passes
    if path == 'incremental':
      scan = _prefix_losses.incremental
    losses = jnp.stack(
      [
        scan(
          dataclasses.replace(each, kernel=view.kernel),
          step.displacement,
          step.rank,
          counts[order],
          _report.part(report, number, len(views)),
        )
        for number, each in enumerate(views)
      ]
    )[:, np.argsort(order, kind='stable')]
  best, _ = _line.lowest(losses[0])
  return PrefixScan(
    counts, losses[0], None if holdout is None else losses[1], best, path
  )


def choose(
  path: str, views: list[_view.LayerView], num_prefixes: int
) -> _paths.Choice:
  """Returns the path to take, and raises if a requested one does not apply."""
  obstacle = next(filter(None, map(_prefix_losses.obstacle, views)), None)
  steps = _line.steps_obstacle(views)
  if not _flips_moves.is_sign(views[0]):
    steps = 'its kernel is not one of signs'
  obstacles = {'steps': steps, 'incremental': obstacle, 'brute_force': None}
  unwise = {}
  if num_prefixes <= _FEW:
    unwise['steps'] = f'there are no more than {_FEW} prefixes'
  if reason := next(filter(None, map(_prefix_losses.unwise, views)), None):
    unwise |= {'steps': reason, 'incremental': reason}
  return _paths.choose(path, obstacles, unwise)


def _along_a_line(views, step, counts, report):
  dtype = types.promoted(jnp.float32, views[0].kernel)
  signs = jnp.where(views[0].kernel >= 0, 1, -1).astype(dtype)
  taken = step.rank >= 0
  direction = jnp.where(taken, signs / (step.rank.astype(dtype) + 0.5), 0.0)
  views = [dataclasses.replace(view, kernel=signs) for view in views]
  rates = counts.astype(signs.dtype)
  return _line.line_scan(
    views, direction, rates, path='steps', report=report
  ).losses
