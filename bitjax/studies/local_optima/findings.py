"""Judges N15 and N16 from the results of `arms.compare` and `controls`.

A log loss ratio is above 0 where the loss that its claim calls lower is the lower one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitjax.evidence import contrasts
from bitjax.evidence import verdicts
from bitjax.studies.local_optima import causes
from bitjax.studies.local_optima import margins

if TYPE_CHECKING:
  import xarray

__all__ = ['descent', 'escape', 'judge', 'nearest', 'optimum']


def judge(results: xarray.Dataset) -> list[verdicts.Verdict]:
  """Judges N15 and N16; contrasts are about the first estimator."""
  results = margins.sound(results)
  first = results.estimator.values.tolist()[0]
  return [
    *descent(results, first),
    *optimum(results, first),
    *causes.control(results, first),
    *causes.gradient(results, first),
    *nearest(results),
    *escape(results, first),
  ]


def descent(results: xarray.Dataset, estimator: str) -> margins.Verdicts:
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
      f'N15 descent, {margins.NAMES[batch]}',
      f'{estimator}: flips of the first layer, each the best one for the training '
      f'loss, lower the {margins.NAMES[batch]} loss of the trained network.',
      contrasts.log_ratio(before, after),
      primary=batch == 'holdout',
      details={
        'loss before, nats': before.mean(),
        'loss after, nats': after.mean(),
        'flips': own['num_flips'].mean(),
        'certified': own['certified'].mean(),
        'accuracy': own[f'accuracy_{batch}'].mean(),
        'rate': own['chosen_rate'],
      }
      | margins.unsettled('rate', own),
      **margins.INFO,
    )


def optimum(results: xarray.Dataset, estimator: str) -> margins.Verdicts:
  """Judges N15: how far from a local optimum of single flips does training end?

  Args:
    results: the results of `arms.compare`.
    estimator: the estimator that trained the networks.
  """
  own = results.sel(estimator=estimator)
  every = own.sel(layer='all')
  tuned = margins.unsettled('rate', own)
  details = tuned | {
    f'{name}, {layer}': own[name].sel(layer=layer).mean()
    for name in ('improving', 'significant', 'mirrored', 'is_optimum')
    for layer in own.layer.values.tolist()
  }
  yield from margins.excess('', f'{estimator}:', every, details)
  for kind in ('holds', 'significant_holds'):
    chosen = 'improve' if kind == 'holds' else 'significantly improve'
    # A network without such flips has no share, which does not mean that it diverged.
    none = every[kind].isnull() & every['random_holds'].notnull()
    yield contrasts.difference(
      f'N15 {kind.replace("_", " ")}',
      f'{estimator}: flips that {chosen} the training loss improve the held-out '
      'loss more often than random flips do.',
      (every[kind] - every['random_holds']).where(~none, drop=True),
      details={
        kind: every[kind].mean(),
        'random': every['random_holds'].mean(),
        'mean held-out gain, nats': every['mean_holdout'].mean(),
      }
      | tuned,
      caveat=f'{none.sum():d} of {none.size} networks have no such flip.'
      if none.any()
      else '',
      **margins.SHARES | {'unit': 'share of these flips'},
    )
  yield contrasts.difference(
    'N15 additivity',
    f'{estimator}: pairs of the best flips gain less together than the sum of '
    'their gains alone.',
    own['separately'] - own['together'],
    whole=own['separately'],
    protocol=margins.PROTOCOL,
    unit='share of the sum that is lost',
    smallest=margins.SHARE,
    details=tuned,
  )


def nearest(results: xarray.Dataset) -> margins.Verdicts:
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
  tuned: dict[str, Any] = {}
  for name in (first, *others):
    tuned |= margins.unsettled(name, results.sel(estimator=name))
  yield contrasts.any_arm(
    'N15 nearest',
    f'At least one estimator ends with fewer improving flips than {first} '
    '(simultaneous intervals).',
    {n: every.sel(estimator=first) - every.sel(estimator=n) for n in others},
    details=shares | tuned,
    **margins.SHARES,
  )
  for batch, name in margins.NAMES.items():
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
      details=tuned,
      **margins.INFO,
    )


def escape(results: xarray.Dataset, estimator: str) -> margins.Verdicts:
  """Judges N16: after random flips, does a second descent end lower than the first?

  Args:
    results: the results of `arms.compare`.
    estimator: the estimator that trained the networks.
  """
  own = results.sel(estimator=estimator)
  cut = (own['certified'] == 0).sum()
  caveat = (
    f'At {cut:d} of {own.seed.size} seeds the first descent was cut off before an '
    'optimum, and the second one may only have gone on.'
  )
  for batch, name in margins.NAMES.items():
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
        }
        | margins.unsettled('rate', own),
        caveat=caveat if cut else '',
        **margins.INFO,
      )
