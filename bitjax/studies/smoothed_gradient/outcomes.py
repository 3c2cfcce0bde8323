"""Selects the losses and correlations that findings compare.

On B the number of moves, or the share of the rounds, is chosen on tuning seeds. Contrasts
are logs of loss ratios, paired by seed; above 0, the signal that the claim names first is
better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitjax.evidence import protocols

if TYPE_CHECKING:
  import xarray

__all__ = [
  'co_flips',
  'largest',
  'nearness',
  'reached',
  'saved',
  'unsettled',
]

_AXES = {'once': 'prefix', 'factorial': 'prefix', 'rounds': 'share'}


def co_flips(results: xarray.Dataset) -> list[str]:
  """Returns the names of co-flip signals, those of the most draws last."""
  return [s for s in results.signal.values.tolist() if s.startswith('co-flip')]


def largest(results: xarray.Dataset) -> int:
  """Returns the largest batch size, which contrasts are about."""
  return max(results.batch_size.values.tolist())


def reached(
  results: xarray.Dataset, arm: str, batch: str, protocol: str, **labels: Any
) -> xarray.DataArray:
  """Returns the losses that an arm reaches on a batch, by seed.

  Args:
    results: the results of `toy.arms.collect`.
    arm: the name of the arm.
    batch: ``'search'`` for A, ``'holdout'`` for B.
    protocol: ``'oracle'``, ``'deployable'``, or ``'all'`` for the whole budget.
    **labels: labels to select; `once` also needs a ``batch_size``.
  """
  found, axis = _losses(results, arm, labels)
  if protocol == 'all':
    return found[batch].isel({axis: -1}, drop=True)
  return protocols.select(found, [axis], protocol)[batch]


def unsettled(
  results: xarray.Dataset, arm: str, name: str, **labels: Any
) -> dict[str, Any]:
  """Returns, for details, how often resampled tuning seeds would choose otherwise.

  Args:
    results: the results of `toy.arms.collect`.
    arm: the name of the arm.
    name: what the details call what is chosen for.
    **labels: as for `reached`.
  """
  found, axis = _losses(results, arm, labels)
  return {f'tuned otherwise, {name}': protocols.unsettled(found, [axis])}


def saved(
  results: xarray.Dataset, arm: str, batch: str, protocol: str, **labels: Any
) -> xarray.DataArray:
  """Returns the decrease of the loss in nats, by seed; arguments are as for `reached`."""
  found, axis = _losses(results, arm, labels)
  start = found[batch].isel({axis: 0}, drop=True)
  return start - reached(results, arm, batch, protocol, **labels)


def nearness(
  results: xarray.Dataset, other: str, signal: str, **labels: Any
) -> xarray.DataArray:
  """Returns the correlation over flips of a signal of `once` with another, by seed.

  Args:
    results: the results of `toy.arms.collect`.
    other: ``'linear'``, ``'smoothed'`` (both on A) or ``'exact'`` (on B).
    signal: the name of the signal, on A.
    **labels: of layers, state and batch size.
  """
  return results[f'once_near_{other}'].sel(signal=signal, **labels)


def _losses(results, arm, labels):
  found = protocols.losses(protocols.select_arm(results, arm, **labels))
  return found, _AXES[arm]
