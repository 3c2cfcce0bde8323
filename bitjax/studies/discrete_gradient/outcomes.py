"""Selects the losses that findings about discrete gradients compare.

*All moves* means that an arm spends its whole budget; otherwise the protocol chooses
the number of moves, rounds or steps, or the learning rate. Contrasts are logs of loss
ratios, paired by seed; above 0, the arm that the claim names first is better.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import TYPE_CHECKING, Any

from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import protocols
from bitjax.evidence import verdicts
from bitjax.studies.toy import outcomes as toy_outcomes
from bitjax.studies.toy import searches

if TYPE_CHECKING:
  import xarray

__all__ = [
  'CORRELATION',
  'PER_SQUARED_COST',
  'chosen',
  'contrast',
  'decrease',
  'otherwise',
  'ranking_of_ball',
  'reached',
  'start',
  'step',
]

# The ranking that fills an l2 ball by density.
PER_SQUARED_COST = searches.RANKINGS[2]
# What verdicts about correlations between the signals of A and B have in common.
CORRELATION: dict[str, Any] = {
  'protocol': 'A, B',
  'unit': 'correlation over moves',
  'smallest': toy_outcomes.SHARE,
  'bounds': (-2, 2),
}

# Axes along which arms report losses, and protocols choose a setting.
AXES = ('prefix', 'share', 'learning_rate', 'step_size', 'step', 'control_draw')


def ranking_of_ball(ball: str) -> str:
  """Returns the ranking that fills a ball by density, as its norm asks."""
  return searches.RANKING_OF_NORM[searches.ball(ball).norm]


def chosen(
  results: xarray.Dataset,
  arm: str,
  protocol: str,
  *,
  over: Sequence[str] = (),
  **labels: Any,
) -> xarray.Dataset:
  """Returns the losses that an arm reaches on both batches, by seed.

  Args:
    results: the results of `toy.arms.collect`.
    arm: the name of the arm.
    protocol: ``'oracle'``, ``'deployable'``, or ``'all'`` for the last entry of the
      arm's axis.
    over: further axes over which the protocol chooses.
    **labels: labels to select, such as the ball, the state and the arm's signal;
      those of axes that the arm lacks are ignored.
  """
  outcomes, axes = _outcomes(results, arm, labels)
  if protocol == 'all':
    return outcomes.isel(dict.fromkeys(axes, -1))
  axes += over
  return protocols.select(outcomes, axes, protocol) if axes else outcomes


def reached(
  results: xarray.Dataset, arm: str, protocol: str, batch: str, **options: Any
) -> xarray.DataArray:
  """Returns `chosen` on one batch: ``'search'`` for A, ``'holdout'`` for B."""
  return chosen(results, arm, protocol, **options)[batch]


def _outcomes(results, arm, labels):
  """Returns an arm's losses at some labels, and the axes along which they lie."""
  outcomes = protocols.losses(protocols.select_arm(results, arm))
  outcomes = outcomes.sel(
    {name: label for name, label in labels.items() if name in outcomes.dims}
  )
  return outcomes, [axis for axis in AXES if axis in outcomes.dims]


def otherwise(
  results: xarray.Dataset,
  arm: str,
  batch: str,
  name: str,
  *,
  over: Sequence[str] = (),
  **labels: Any,
) -> dict[str, Any]:
  """Returns, for details, how often resampled tuning seeds would choose otherwise.

  It is empty on A, where nothing is tuned on other seeds.

  Args:
    results: the results of `toy.arms.collect`.
    arm: the name of the arm.
    batch: ``'search'`` for A, ``'holdout'`` for B.
    name: what the details call the arm.
    over: as for `chosen`.
    **labels: as for `chosen`.
  """
  if toy_outcomes.PROTOCOLS[batch] != 'deployable':
    return {}
  outcomes, axes = _outcomes(results, arm, labels)
  axes += over
  share = protocols.unsettled(outcomes, axes) if axes else 0.0
  return {f'tuned otherwise, {name}': share}


def step(
  results: xarray.Dataset,
  protocol: str,
  batch: str,
  cell: dict[str, Any],
  signal: str,
  ranking: str,
) -> xarray.DataArray:
  """Returns the losses that one discrete gradient reaches, by seed; see `reached`."""
  options = {'signal': signal, 'ranking': ranking}
  return reached(results, 'discrete', protocol, batch, **cell, **options)


def decrease(
  results: xarray.Dataset, batch: str, cell: dict[str, Any], loss: Any
) -> Any:
  """Returns how far a loss lies below that before any move, by seed, in nats."""
  return start(results, **cell)[batch] - loss


def start(results: xarray.Dataset, **cell: Any) -> xarray.Dataset:
  """Returns the losses on A and on B before any move, by seed."""
  found = protocols.losses(protocols.select_arm(results, 'discrete', **cell))
  return found.isel(prefix=0, signal=0, ranking=0, drop=True)


def contrast(
  finding: str,
  claim: str,
  cell: dict[str, Any],
  above: Any,
  below: Any,
  *,
  batch: str = 'A',
  protocol: str = 'all moves',
  **info: Any,
) -> verdicts.Verdict:
  """Judges the claim that the losses ``below`` are lower; inert if all are equal.

  Args:
    finding: label of the finding.
    claim: the claim, without the words of `describe` that go in front of it.
    cell: labels of ball, layers and state.
    above: losses by seed, claimed to be the higher ones.
    below: losses by seed, claimed to be the lower ones.
    batch: ``'A'`` or ``'B'``.
    protocol: how settings were chosen.
    **info: further fields of `Verdict`.
  """
  samples = contrasts.log_ratio(above, below)
  verdict = contrasts.difference(
    finding,
    f'{toy_outcomes.describe(cell)}: {claim}',
    samples,
    smallest=toy_outcomes.LOG_RATIO,
    protocol=f'{protocol}, {batch}',
    unit='log loss ratio',
    **info,
  )
  known = samples.notnull()
  same = bool(((samples == 0) | ~known).all() & known.any())
  if same and verdict.verdict != divergence.DIVERGED:
    verdict = dataclasses.replace(verdict, verdict='inert')
  return verdict
