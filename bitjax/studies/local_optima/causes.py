"""Judges what the controls say of N15: from the results of `controls`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import verdicts
from bitjax.studies.local_optima import margins

if TYPE_CHECKING:
  import xarray

__all__ = ['control', 'gradient']


def control(results: xarray.Dataset, estimator: str) -> margins.Verdicts:
  """Judges N15: is what flips improve left over from too short a training?

  Args:
    results: the results of `controls.binary`.
    estimator: the estimator that trained the networks.
  """
  own = margins.sound(results, 'control_')
  base = _last(own, schedule='constant', updates=0)
  arms = {
    'a falling rate': _last(own, schedule='cosine', updates=0),
    'longer training': _last(own, schedule='constant'),
    'both': _last(own, schedule='cosine'),
  }
  quantities: dict[str, tuple[Any, dict[str, Any]]] = {
    'significant': (lambda x: x['significant'], margins.SHARES),
    'excess over mirrored': (
      lambda x: x['significant'] - x['mirrored'],
      margins.SHARES,
    ),
    **{
      f'descent, {name}': (
        lambda x, batch=batch: contrasts.log_ratio(
          x[f'trained_{batch}'], x[f'descended_{batch}']
        ),
        margins.INFO,
      )
      for batch, name in margins.NAMES.items()
    },
  }
  times = own.updates.values.tolist()[-1]
  what = {
    'significant': 'the share of flips that significantly lower the training loss',
    'excess over mirrored': 'that share, less that of flips that raise it by as much,',
    **{
      f'descent, {name}': f'the decrease of the {name} loss by the best flips'
      for name in margins.NAMES.values()
    },
  }
  for name, (measure, info) in quantities.items():
    yield from contrasts.family(
      [
        contrasts.Cell(
          f'N15 control, {name}, {arm}',
          f'{estimator}: {what[name]} is smaller with {arm} ({times} times the '
          'updates, a rate that falls to 0, or both).',
          measure(base) - measure(other),
          {'without': measure(base).mean(), 'with': measure(other).mean()}
          | margins.unsettled('without', base)
          | margins.unsettled('with', other),
        )
        for arm, other in arms.items()
      ],
      **info,
    )
  yield from margins.excess(
    'control, ',
    f'{estimator}, longest training, falling rate:',
    arms['both'],
    margins.unsettled('rate', arms['both']),
  )


def gradient(results: xarray.Dataset, estimator: str) -> margins.Verdicts:
  """Judges N15: is the gradient wrong enough to leave flips that help?

  It is supported if flips still help after the longest training with a falling rate,
  and no kind of move helps the full-precision network, trained alike.

  Args:
    results: the results of `controls.binary` and `controls.full_precision`.
    estimator: the estimator that trained the networks.
  """
  own = _last(margins.sound(results, 'control_'), schedule='cosine')
  tuned = margins.unsettled('rate', own)
  precise, exact = None, {}
  if 'precise_trained_search' in results:
    precise = margins.sound(results, 'precise_')
    # Networks whose moves differ are trained and tuned alike.
    exact = margins.unsettled('full precision', precise.isel(move=0))
    for move in precise.move.values.tolist():
      yield from margins.excess(
        f'full precision, {move}, ',
        f'Full precision, {move} moves in the place of flips:',
        precise.sel(move=move, layer='all'),
        exact,
      )
  for batch, name in margins.NAMES.items():
    survives = contrasts.difference(
      f'N15 survives, {name}',
      f'{estimator}: after the longest training, with a rate that falls to 0, the '
      f'best flips still lower the {name} loss.',
      contrasts.log_ratio(own[f'trained_{batch}'], own[f'few_{batch}']),
      details={
        'after all flips': contrasts.log_ratio(
          own[f'trained_{batch}'], own[f'descended_{batch}']
        ).mean(),
        'flips': own['num_flips'].mean(),
        'loss before, nats': own[f'trained_{batch}'].mean(),
        'loss after, nats': own[f'few_{batch}'].mean(),
        'rate': own['chosen_rate'],
      }
      | tuned,
      **margins.INFO,
    )
    yield survives
    if precise is None:
      continue
    before, after = (precise[f'{x}_{batch}'] for x in ('trained', 'few'))
    moved = contrasts.log_ratio(before, after)
    shows = contrasts.any_arm(
      f'N15 full precision, {name}',
      f'In full precision at least one kind of single moves, as many, lowers the '
      f'{name} loss as well (simultaneous intervals).',
      {move: moved.sel(move=move) for move in precise.move.values.tolist()},
      details={
        'loss before, nats': before.mean(),
        'loss after, nats': after.mean(),
        'rate': precise['chosen_rate'].mean(),
      }
      | exact,
      **margins.INFO,
    )
    yield shows
    yield _both(name, estimator, survives, shows, tuned | exact)
    flipped = contrasts.log_ratio(own[f'trained_{batch}'], own[f'few_{batch}'])
    yield from contrasts.family(
      [
        contrasts.Cell(
          f'N15 beyond full precision, {name}, {move}',
          f'{estimator}, longest training, falling rate: the best flips lower the '
          f'{name} loss by more, as a log ratio, than as many {move} moves do in '
          'full precision.',
          flipped - moved.sel(move=move),
          tuned | exact,
        )
        for move in precise.move.values.tolist()
      ],
      **margins.INFO,
    )


def _both(name, estimator, survives, shows, tuned):
  """Joins what the flips show with what the full-precision network must not show."""
  verdict, caveat = 'inconclusive', ''
  if survives.verdict in ('contradicted', 'equivalent'):
    verdict = survives.verdict
  elif divergence.DIVERGED in (survives.verdict, shows.verdict):
    verdict = divergence.DIVERGED
  elif survives.verdict == 'supported':
    if shows.verdict in ('contradicted', 'equivalent'):
      verdict = 'supported'
    elif shows.verdict == 'supported':
      caveat = (
        'Moves of a full-precision network, whose gradient is exact, help as '
        'well: that flips help does not tell that a gradient is wrong.'
      )
    else:
      caveat = 'It is not settled whether moves help in full precision.'
  return verdicts.Verdict(
    f'N15 gradient, {name}',
    f'{estimator}: its gradient is wrong enough to leave flips that lower the '
    f'{name} loss: they do after the longest training with a falling rate, while '
    'single moves of a full-precision network, trained alike, do not.',
    verdict,
    survives.effect,
    survives.low,
    survives.high,
    unit=survives.unit,
    num_seeds=min(survives.num_seeds, shows.num_seeds),
    protocol=margins.PROTOCOL,
    caveat=' '.join(filter(None, [caveat, survives.caveat])),
    details={
      'full precision': shows.effect,
      'full precision low': shows.low,
      'full precision high': shows.high,
    }
    | tuned,
  )


def _last(own, *, schedule, updates=-1):
  return own.isel(updates=updates).sel(schedule=schedule, layer='all')
