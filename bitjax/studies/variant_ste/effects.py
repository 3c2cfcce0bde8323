"""How much more each variant saves than the normal STE, read from results.

A decrease is that of the loss by one step, of the first layer or of all layers. Learning
rates are chosen by a protocol, for each variant on its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bitjax.evidence import divergence
from bitjax.evidence import intervals
from bitjax.evidence import joint
from bitjax.evidence import protocols
from bitjax.studies.variant_ste import families

if TYPE_CHECKING:
  import xarray

__all__ = [
  'INFO',
  'MARGIN',
  'STEPS',
  'Saved',
  'affected',
  'inert',
  'percentages',
  'placed',
  'saved',
  'sound',
  'unsettled',
  'variants',
  'within_layers',
]

# The largest difference that does not matter, as a share of nSTE's decrease.
MARGIN = 0.05
# How effects are chosen and shown, in the fields of verdicts.
INFO = {'unit': "of nSTE's decrease", 'protocol': 'deployable, B'}
# Which layers step -> the prefix of the losses, and the axes of rates and of variants.
STEPS = {
  'first layer': ('', 'learning_rate', 'variant'),
  'all layers': ('all_', 'few_rate', 'chosen'),
}


def sound(results: xarray.Dataset) -> xarray.Dataset:
  """Returns the results with NaN for networks that diverged before the step."""
  return divergence.without(results, ['start_search', 'start_holdout'])


class Saved(NamedTuple):
  """Decreases of the loss by one step, in nats.

  Attributes:
    extra: how much more each variant saves than the normal STE, [variant, seed].
    own: what the normal STE saves, [seed].
  """

  extra: xarray.DataArray
  own: xarray.DataArray


def saved(
  results: xarray.Dataset,
  state: str,
  *,
  step: str = 'first layer',
  protocol: str = 'deployable',
  batch: str = 'holdout',
) -> Saved:
  """Returns what every variant saves.

  Args:
    results: of `study.run`.
    state: of the network.
    step: a name in `STEPS`.
    protocol: ``'oracle'`` or ``'deployable'``.
    batch: ``'search'`` for A, ``'holdout'`` for B.
  """
  outcomes, over = _outcomes(results, state, step)
  losses = protocols.select(outcomes, [over], protocol)[batch]
  normal = losses.isel(variant=0, drop=True)
  start = results[f'start_{batch}'].sel(state=state)
  return Saved((normal - losses).transpose('variant', 'seed'), start - normal)


def unsettled(
  results: xarray.Dataset, state: str, step: str, names: Iterable[str]
) -> dict[str, float]:
  """Returns how often other tuning seeds would have chosen another rate, by variant.

  Args:
    results: of `study.run`.
    state: of the network.
    step: a name in `STEPS`.
    names: the variants, besides the normal STE.
  """
  outcomes, over = _outcomes(results, state, step)
  found = protocols.unsettled(outcomes, [over])
  return {
    f'tuned otherwise, {name}': float(found.sel(variant=name))
    for name in ('normal', *names)
  }


def percentages(
  found: Saved, names: Sequence[str]
) -> dict[str, intervals.Interval]:
  """Returns simultaneous intervals of variants' effects, in percent of nSTE's decrease.

  Args:
    found: what variants save.
    names: the variants; the normal STE's own effect is 0.
  """
  others = [name for name in names if name != 'normal']
  parts = [found.extra.sel(variant=name).values for name in others]
  shares = joint.simultaneous(parts, [found.own.values] * len(parts))
  drawn = dict(zip(others, shares, strict=True))
  none = intervals.Interval(0, 0, 0, found.own.size)
  return {name: _percent(drawn.get(name, none)) for name in names}


def _percent(share):
  scaled = {
    name: 100 * getattr(share, name) for name in ('mean', 'low', 'high')
  }
  return dataclasses.replace(share, **scaled)


def variants(results: xarray.Dataset) -> list[str]:
  """Lists the variants that have the same estimators in all layers, nSTE first."""
  return [
    name
    for name in results.variant.values.tolist()
    if not name.startswith(families.LAYERWISE)
  ]


def within_layers(names: xarray.DataArray) -> list[str]:
  """Lists those that have a window in units of spreads in one layer or in all."""
  return [n for n in names.values.tolist() if n.startswith(families.RELATIVE)]


def placed(name: str) -> tuple[str, float, bool]:
  """Returns what the name of a window in units of spreads says.

  Args:
    name: one of `within_layers`.

  Returns:
    The layers, a name of `families.places`; the half-width; and whether the window keeps
    its mass.
  """
  plain = name.removesuffix(families.KEPT).removeprefix(families.RELATIVE)
  place, _, width = plain.rpartition(' ')
  return place, float(width), name.endswith(families.KEPT)


def inert(results: xarray.Dataset, state: str) -> list[str]:
  """Lists the variants that change no entry of the first layer's gradients."""
  share = results['affected'].sel(state=state).max('seed')
  names = share.variant.values[share.values == 0].tolist()
  return [name for name in names if name != results.variant.values[0]]


def affected(results: xarray.Dataset, state: str, variant: str) -> float:
  """Returns the share of the first layer's gradient that a variant changes."""
  share = results['affected'].sel(state=state, variant=variant)
  return float(np.mean(share.values))


def _outcomes(results, state, step):
  """Returns the losses of a step, and the axis of rates to choose from."""
  prefix, over, axis = STEPS[step]
  names = {
    f'{prefix}search': 'search',
    f'{prefix}holdout': 'holdout',
    f'tuning_{prefix}holdout': 'tuning_holdout',
  }
  if axis != 'variant':
    names |= {axis: 'variant'}
  losses = [name for name in names if name != axis]
  return results[losses].sel(state=state).rename(names), over
