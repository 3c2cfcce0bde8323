"""Judges what few bits save: accuracy at equal cost, and what operations leave out.

Claims about accuracy are judged over seeds and test images. Claims about what networks cost
are counted: they have no seeds, and their bands are those of the assumptions of `bitjax.nn.energy`.
"""

from __future__ import annotations

from collections.abc import Iterator
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax.evidence import contrasts
from bitjax.evidence import protocols
from bitjax.evidence import verdicts
from bitjax.studies import recipes
from bitjax.studies.hardware import arms as arms_lib
from bitjax.studies.recipes import outcomes

if TYPE_CHECKING:
  import xarray

__all__ = ['MARGIN', 'NEAR', 'TESTED', 'judge']

MARGIN = 0.5  # Points of accuracy: a smaller difference does not matter.
NEAR = 0.05  # Relative difference of operations that are nearly equal.
_HALF = 0.5  # Of the energy: more than that is most of it.
# What tells which test examples are guessed correctly.
TESTED = ('validation_loss', 'test_accuracy', 'test_right')
_CAVEAT = 'Small networks, and one recipe whose rate alone is tuned.'
_MODEL = (
  'A model of energy: Horowitz, 45 nm, with an assumption about XNOR and popcount; '
  'nothing was measured.'
)
_COUNTED: dict[str, Any] = {'num_seeds': 0, 'protocol': 'counted, no seeds'}
_SHORTCUTS = 'ResNet-20, W1A1, Bi-Real'
_BINARY, _FLOAT = 'ResNet-20, W1A1', 'ResNet-20, W32A32'


def judge(results: xarray.Dataset) -> list[verdicts.Verdict]:
  """Judges N17.

  Args:
    results: of `trainings.compare`.
  """
  return [*_accuracies(results), *_counted(results)]


def _accuracies(results: xarray.Dataset) -> Iterator[verdicts.Verdict]:
  found = outcomes.tested(results[list(TESTED)])
  losses = results.tuning_validation_loss
  doubt = protocols.unsettled(
    losses.to_dataset(name='tuning_holdout'), ['rate']
  )
  rates = recipes.chosen(losses)
  info: dict[str, Any] = {
    'unit': 'points of test accuracy',
    'protocol': 'deployable, last epoch, over seeds and test images',
    'caveat': _CAVEAT,
    'crossed': True,
    'smallest': MARGIN,
    'bounds': (-100, 100),
  }

  def details(arm):
    at = results.sel(arm=arm)
    return {
      f'accuracy, {arm}': float(found.right.sel(arm=arm).mean()),
      f'rate, {arm}': float(rates.sel(arm=arm)),
      f'tuned otherwise, {arm}': float(doubt.sel(arm=arm)),
      f'microjoules, least, {arm}': float(at.energy_low),
      f'microjoules, most, {arm}': float(at.energy_high),
      f'bytes, {arm}': float(at.memory),
      f'cycles, {arm}': float(at.latency),
    }

  def difference(arm, against):
    right = found.right.sel(arm=arm) - found.right.sel(arm=against)
    return right.transpose('seed', 'test_example').values

  for name in arms_lib.SERIES:
    own = results[f'equal_{name}'].values
    arms = dict(
      zip(
        results.bits.values[own].tolist(),
        results.arm.values[own].tolist(),
        strict=True,
      )
    )
    few, many = arms[arms_lib.PRIMARY], arms[arms_lib.REFERENCE]
    yield contrasts.difference(
      f'N17 equal {name}',
      f'At equal {name}, "{few}" is more accurate than "{many}".',
      difference(few, many),
      primary=name == arms_lib.SERIES[0],
      details=details(few) | details(many),
      **info,
    )
    others = {
      bits: arm
      for bits, arm in arms.items()
      if bits not in (arms_lib.PRIMARY, arms_lib.REFERENCE)
    }
    if others:
      yield contrasts.any_arm(
        f'N17 equal {name}, others',
        f'At equal {name}, some other number of bits is more accurate than "{many}".',
        {arm: difference(arm, many) for arm in others.values()},
        details={
          key: value
          for arm in others.values()
          for key, value in details(arm).items()
        },
        **info,
      )


def _counted(results: xarray.Dataset) -> Iterator[verdicts.Verdict]:
  energy = results.counted_energy.sum('part')
  low, high = (energy.sel(side=side).to_series() for side in ('low', 'high'))
  operations = results.counted_operations.to_series()
  yield _ordering(low, high, operations)

  parts = results.counted_energy.sel(counted=_SHORTCUTS)
  shortcuts = parts.sel(part='shortcuts')
  share = (
    float(shortcuts.sel(side='low')) / high[_SHORTCUTS],
    float(shortcuts.sel(side='high')) / low[_SHORTCUTS],
  )
  yield verdicts.Verdict(
    'N17 shortcuts',
    f'Shortcuts of 32 bits take more than half of the energy of {_SHORTCUTS}.',
    _beyond(share, _HALF),
    float(np.mean(share)),
    *share,
    unit='share of the energy',
    caveat=_MODEL,
    details={
      f'{part}, {side}': float(parts.sel(part=part, side=side))
      for part in parts.part.values
      for side in ('low', 'high')
    },
    **_COUNTED,
  )

  yield _published(results)

  saved = low[_FLOAT] / high[_BINARY], high[_FLOAT] / low[_BINARY]
  promised = float(operations[_FLOAT] / operations[_BINARY])
  kept = results.float_energy.sel(counted=_BINARY).sum('part')
  least, most = (float(kept.sel(side=side)) for side in ('low', 'high'))
  yield verdicts.Verdict(
    'N17 saved',
    f'{_BINARY}, whose first and last layer are in full precision, saves a smaller '
    'factor of energy than of operations.',
    {'supported': 'contradicted', 'contradicted': 'supported'}.get(
      word := _beyond(saved, promised), word
    ),
    float(np.sqrt(saved[0] * saved[1])),
    *saved,
    unit='times less energy',
    caveat=_MODEL,
    details={
      'times fewer operations': promised,
      'share of layers in full precision, low': least / high[_BINARY],
      'share of layers in full precision, high': most / low[_BINARY],
    },
    **_COUNTED,
  )


def _published(results):
  """Judges whether our count orders BoolNet's networks by energy as their authors do."""
  theirs = results.published_energy.to_series()
  ours = results.boolnet_energy
  sides = {side: ours.sel(side=side).to_series() for side in ours.side.values}
  pairs = list(itertools.combinations(theirs.index, 2))
  alike = sum(
    all(
      (own[one] < own[other]) == (theirs[one] < theirs[other])
      for own in sides.values()
    )
    for one, other in pairs
  )
  details = {}
  for name in theirs.index:
    details |= {
      f'millijoules, {name}, {side}': own[name] for side, own in sides.items()
    }
    details[f'millijoules, {name}, published'] = theirs[name]
    ratio = results.boolnet_operations / results.published_operations
    details[f'operations, {name}, of those published'] = ratio.sel(boolnet=name)
  share = alike / len(pairs)
  return verdicts.Verdict(
    'N17 BoolNet',
    "The model of energy orders BoolNet's networks and Bi-Real as BoolNet's authors do.",
    'supported' if alike == len(pairs) else 'contradicted',
    share,
    share,
    share,
    unit='share of pairs that are ordered alike',
    caveat=f"The order alone: the authors' table of energies is not known. {_MODEL}",
    details=details,
    **_COUNTED,
  )


def _beyond(band, bound):
  if band[0] > bound:
    return 'supported'
  return 'contradicted' if band[1] < bound else 'inconclusive'


def _ordering(low, high, operations):
  """Judges whether operations order networks as energy does, where bands tell them apart."""
  apart, wrong, near = 0, 0, {}
  for one, other in itertools.combinations(operations.index, 2):
    if low[one] <= high[other] and low[other] <= high[one]:
      continue  # The model does not say which takes more.
    apart += 1
    more, less = (one, other) if low[one] > high[other] else (other, one)
    ratio = operations[more] / operations[less]
    equal = abs(np.log(ratio)) <= np.log1p(NEAR)
    wrong += bool(ratio < 1 or equal)
    if equal:
      near[f'times the energy, {more} against {less}'] = low[more] / high[less]
  share = wrong / apart if apart else np.nan
  return verdicts.Verdict(
    'N17 operations',
    'Of two networks, the one with more operations (OPs) takes more energy.',
    'inconclusive' if not apart else 'contradicted' if wrong else 'supported',
    share,
    share if apart else -np.inf,
    share if apart else np.inf,
    unit='share of pairs that are ordered otherwise, or nearly equal in operations',
    caveat=_MODEL,
    details={'pairs that differ in energy': apart, **near},
    **_COUNTED,
  )
