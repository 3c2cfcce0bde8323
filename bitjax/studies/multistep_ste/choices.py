"""What the protocols choose: the losses there, and whether the grids were wide enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bitjax.evidence import protocols

if TYPE_CHECKING:
  import xarray

__all__ = ['losses', 'made']

# Axes along which a method may choose; the others tell trials apart.
_CHOICES = (
  'learning_rate',
  'control_rate',
  'control_draw',
  'step_size',
  'step',
)

# What is chosen along an axis, and which of its ends are the grid's alone: the largest
# rate of a single step is the edge of the ball, and step 0 is the start.
_ENDS = {
  'learning_rate': ('rate', [0]),
  'step_size': ('rate', [0, -1]),
  'step': ('step', [-1]),
}


def losses(
  results: xarray.Dataset,
  arm: str,
  *,
  protocol: str = 'deployable',
  batch: str = 'holdout',
  keep: Sequence[str] = (),
  **labels: Any,
) -> xarray.DataArray:
  """Returns the loss that an arm reaches with the setting that a protocol chooses.

  Args:
    results: what `arms.collect` returned.
    arm: name of the arm.
    protocol: ``'oracle'`` or ``'deployable'``.
    batch: ``'search'`` for A, ``'holdout'`` for B.
    keep: axes over which the protocol must not choose.
    **labels: coordinates to select, by label.

  Returns:
    The losses by seed, draw, noise and any other axis that is left.
  """
  outcomes = protocols.losses(protocols.select_arm(results, arm, **labels))
  over = [n for n in _CHOICES if n in outcomes.dims and n not in keep]
  if not over:
    return outcomes[batch]
  return protocols.select(outcomes, over, protocol)[batch]


def made(
  results: xarray.Dataset,
  arm: str,
  name: str,
  protocol: str = 'deployable',
  **labels: Any,
) -> dict[str, Any]:
  """Returns details of a verdict: what an arm chose, and how firmly.

  A choice at the edge of a grid says that a wider one might hold something better.

  Args:
    results: what `arms.collect` returned.
    arm: name of the arm.
    name: what to call it in the details.
    protocol: ``'oracle'`` or ``'deployable'``.
    **labels: coordinates to select, by label.

  Returns:
    For the rate and the step, the share of choices at the edge of the grid. Under the
    deployable protocol also the setting, which is the same for all seeds, and the share
    of resamples of the tuning seeds that choose another one.
  """
  outcomes = protocols.losses(protocols.select_arm(results, arm, **labels))
  over = [axis for axis in _ENDS if axis in outcomes.dims]
  settings = {f'at {axis}': outcomes[axis] for axis in over}
  chosen = protocols.select(outcomes.assign(settings), over, protocol)
  details: dict[str, Any] = {}
  if protocol == 'deployable':
    details[f'tuned otherwise, {name}'] = protocols.unsettled(outcomes, over)
  for axis in over:
    what, ends = _ENDS[axis]
    found = chosen[f'at {axis}']
    if protocol == 'deployable':
      details[f'tuned {what}, {name}'] = found.mean()
    edge = found.isin(outcomes[axis].values[ends])
    label = f'{what} at the edge of the grid, {name}, {protocol}'
    details[label] = edge.mean()
  return details
