"""Judges N15 and N16 from the results of `arms.compare`.

A log loss ratio is above 0 where the loss that its claim calls lower is the lower one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import verdicts

if TYPE_CHECKING:
  import xarray

__all__ = ['descent', 'escape', 'judge', 'nearest', 'optimum']

NAMES = {'search': 'training', 'holdout': 'held-out'}
INFO = {'protocol': 'rate tuned on other seeds', 'unit': 'log loss ratio'}

Verdicts = Iterator[verdicts.Verdict]


def judge(results: xarray.Dataset) -> list[verdicts.Verdict]:
  """Judges N15 and N16; contrasts are about the first estimator."""
  results = divergence.without(results, ['trained_search', 'trained_holdout'])
  first = results.estimator.values.tolist()[0]
  return [
    *descent(results, first),
    *optimum(results, first),
    *nearest(results),
    *escape(results, first),
  ]


def descent(results: xarray.Dataset, estimator: str) -> Verdicts:
  """Judges N15: do the best flips for the training loss lower it on other data too?

  The claim about held-out data is the study's primary contrast.

  Args:
    results: the results of `arms.compare`.
    estimator: the estimator that trained the networks.
  """
  own = results.sel(estimator=estimator)
  for batch in ('holdout', 'search'):
    before, after = own[f'trained_{batch}'], own[f'descended_{batch}']
    yield contrasts.difference(
      f'N15 descent, {NAMES[batch]}',
      f'{estimator}: flips of the first layer, each the best one for the training '
      f'loss, lower the {NAMES[batch]} loss of the trained network.',
      contrasts.log_ratio(before, after),
      primary=batch == 'holdout',
      details={
        'loss before, nats': before.mean(),
        'loss after, nats': after.mean(),
        'flips': own['num_flips'].mean(),
        'certified': own['certified'].mean(),
        'accuracy': own[f'accuracy_{batch}'].mean(),
      },
      **INFO,
    )


def optimum(results: xarray.Dataset, estimator: str) -> Verdicts:
  """Judges N15: how far from a local optimum of single flips does training end?

  Args:
    results: the results of `arms.compare`.
    estimator: the estimator that trained the networks.
  """
  own = results.sel(estimator=estimator)
  every = own.sel(layer='all')
  yield contrasts.difference(
    'N15 optimum',
    f'{estimator}: more flips lower the training loss by over two standard errors '
    'than raise it by as much; it is no local optimum of single flips.',
    every['significant'] - every['mirrored'],
    details={
      f'{name}, {layer}': own[name].sel(layer=layer).mean()
      for name in ('improving', 'significant', 'mirrored', 'is_optimum')
      for layer in own.layer.values.tolist()
    },
    protocol=INFO['protocol'],
    unit='share of all flips',
    bounds=(-1, 1),
  )
  for kind in ('holds', 'significant_holds'):
    chosen = 'improve' if kind == 'holds' else 'significantly improve'
    yield contrasts.difference(
      f'N15 {kind.replace("_", " ")}',
      f'{estimator}: flips that {chosen} the training loss improve the held-out '
      'loss more often than random flips do.',
      every[kind] - every['random_holds'],
      details={
        kind: every[kind].mean(),
        'random': every['random_holds'].mean(),
        'mean held-out gain, nats': every['mean_holdout'].mean(),
      },
      protocol=INFO['protocol'],
      unit='share of these flips',
      bounds=(-1, 1),
    )
  yield contrasts.difference(
    'N15 additivity',
    f'{estimator}: pairs of the best flips gain less together than the sum of '
    'their gains alone.',
    1 - own['additivity'],
    protocol=INFO['protocol'],
    unit='share of the sum that is lost',
  )


def nearest(results: xarray.Dataset) -> Verdicts:
  """Judges N15: does any estimator end nearer to a local optimum than the first one?

  Args:
    results: the results of `arms.compare`.
  """
  every = results['improving'].sel(layer='all')
  first, *others = every.estimator.values.tolist()
  if not others:
    return
  shares = {
    f'share, {n}': every.sel(estimator=n).mean() for n in every.estimator.values
  }
  yield contrasts.any_arm(
    'N15 nearest',
    f'At least one estimator ends with fewer improving flips than {first} '
    '(simultaneous intervals).',
    {n: every.sel(estimator=first) - every.sel(estimator=n) for n in others},
    details=shares,
    protocol=INFO['protocol'],
    unit='share of all flips',
    bounds=(-1, 1),
  )
  for batch, name in NAMES.items():
    losses = results[f'descended_{batch}']
    yield contrasts.any_arm(
      f'N15 flips after, {name}',
      f'After the descent at least one estimator has a lower {name} loss than '
      f'{first} (simultaneous intervals).',
      {
        n: contrasts.log_ratio(
          losses.sel(estimator=first), losses.sel(estimator=n)
        )
        for n in others
      },
      **INFO,
    )


def escape(results: xarray.Dataset, estimator: str) -> Verdicts:
  """Judges N16: after random flips, does a second descent end lower than the first?

  Args:
    results: the results of `arms.compare`.
    estimator: the estimator that trained the networks.
  """
  own = results.sel(estimator=estimator)
  for batch, name in NAMES.items():
    before = own[f'descended_{batch}']
    for number in own.perturbed.values.tolist():
      again = own.sel(perturbed=number)
      yield contrasts.difference(
        f'N16 escape, {name}, {number} flips',
        f'{estimator}: after {number} random flips of the first layer a second '
        f'descent ends at a lower {name} loss.',
        contrasts.log_ratio(before, again[f'again_{batch}']),
        details={
          'certified before': own['certified'].mean(),
          'certified again': again['again_certified'].mean(),
          'training loss when flipped, nats': again['perturbed_search'].mean(),
        },
        **INFO,
      )
