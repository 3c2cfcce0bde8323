"""Judges discrete methods against continued STE, and how they bear high dimension.

Effects are losses in nats, paired by seed; above 0, the method that the claim names is
better. Tables have simultaneous intervals, so no p-values need to be corrected.
"""

from __future__ import annotations

from collections.abc import Iterator
import functools
from typing import TYPE_CHECKING

import numpy as np

from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import intervals
from bitjax.evidence import verdicts
from bitjax.studies.discrete_optimisers import arms
from bitjax.studies.discrete_optimisers import nearest
from bitjax.studies.discrete_optimisers import outcomes
from bitjax.studies.discrete_optimisers import texts

if TYPE_CHECKING:
  import xarray

__all__ = ['MARGIN', 'SHARE', 'judge']

MARGIN = 0.01  # Nats: a smaller difference does not matter.
SHARE = 0.01  # Of all flips.
_SLOPE = 0.05  # Of an exponent.
_STE = arms.GRADIENTS[0]
_WITHOUT = _STE, 'STE that goes on without'
_WEIGHTED = 'weighted flips at intervals'
# How each perturbation is called, its control of equal length, and how that is called.
_PERTURBED = {
  'flips, then STE': ('STE after random flips', *_WITHOUT),
  'noise, then STE': ('STE after noise', *_WITHOUT),
  'flips at intervals': ('STE with random flips at intervals', *_WITHOUT),
  'noise at intervals': ('STE with noise at intervals', *_WITHOUT),
  _WEIGHTED: (
    'STE with flips at intervals that gains weigh',
    'flips at intervals',
    'with as many that are drawn uniformly',
  ),
  'restarts of the rate': (
    'STE with a rate that restarts at random times',
    'one fall of the rate',
    'with a rate that falls once',
  ),
}
_COSTS = {
  arms.DESCENT: ' (whatever it costs).',
  _WEIGHTED: ', at equal updates (whatever its gains cost).',
}
_BATCHES = {'holdout': 'B', 'search': 'A'}


def judge(results: xarray.Dataset) -> Iterator[verdicts.Verdict]:
  """Yields all findings, the primary contrast first."""
  results = divergence.without(results, ['search', 'holdout'])
  results = texts.doubted(results)
  largest = outcomes.widths(results)[-1]
  yield _primary(results.sel(signs=largest, start='checkpoint'), largest)
  for start in results.start.values.tolist():
    if len(outcomes.widths(results)) > 1:
      yield from _dimension(results, start)
      yield from _exponents(results, start)
  for start in results.start.values.tolist():
    for signs in outcomes.widths(results):
      at = results.sel(signs=signs, start=start)
      yield from _against(at, signs, start)
      if start == 'checkpoint':
        yield from _perturbations(at, signs)
  for start in results.start.values.tolist():
    at = results.sel(signs=largest, start=start)
    yield from _times(at, largest, start)
    if outcomes.exact(results):
      yield from _certificates(at, largest, start)
    if outcomes.tiny() in results.signs:
      yield from nearest.judge(results, start, MARGIN)


def _primary(at, signs):
  ste, admm = (at.holdout.sel(arm=arm, effort=1) for arm in (_STE, 'ADMM'))
  return contrasts.difference(
    'N16 ADMM',
    f'{texts.where(signs, "checkpoint")}: ADMM ends at a lower loss on B than STE that goes on '
    'for as many updates.',
    ste - admm,
    primary=True,
    smallest=MARGIN,
    details=_losses(at, (_STE, 'ADMM')) | texts.unsettled(at, (_STE, 'ADMM')),
    **_on('holdout'),
  )


def _against(at, signs, start):
  """Compares every method with continued STE, on B and on A."""
  for batch, name in _BATCHES.items():
    ends = at[batch].sel(effort=1)
    last = {arm: ends.sel(arm=arm) for arm in outcomes.names(at)}
    if outcomes.exact(at):
      last[arms.DESCENT] = at[f'descended_{batch}']
    base = last.pop(_STE)
    yield from contrasts.family(
      [
        contrasts.Cell(
          f'N16 {arm} against STE, {name}',
          f'{texts.where(signs, start)}: {texts.words(arm)} ends at a lower loss on {name} than '
          'continued STE' + _COSTS.get(arm, ', at equal evaluations.'),
          base - loss,
          {
            arm: loss.mean(),
            _STE: base.mean(),
            'signs moved': at.descended_moved.mean()
            if arm == arms.DESCENT
            else at.moved.sel(arm=arm, effort=1).mean(),
          }
          | texts.unsettled(at, (arm, _STE)),
        )
        for arm, loss in last.items()
      ],
      smallest=MARGIN,
      **_on(batch),
    )


def _dimension(results, start):
  """Judges from which dimension on genetic search is no better than random flips."""
  signs = outcomes.widths(results)
  for batch, name in _BATCHES.items():
    table = outcomes.advantage(results, batch, start)
    find = functools.partial(outcomes.crossing, signs, margin=MARGIN)
    found = outcomes.resampled(find, table)
    most = np.log10(signs[-1])
    verdict = 'inconclusive'
    if found.high <= most:
      verdict = 'supported'
    elif found.low > most:
      verdict = 'contradicted'
    caveat = ''
    if found.mean <= np.log10(signs[0]):
      caveat = 'So it is in the smallest network: from it on, or sooner.'
    elif np.isposinf(found.mean):
      caveat = 'Not so in the largest network: from a larger one on, or never.'
    verdict, caveat, lost = divergence.account(verdict, found, caveat)
    yield verdicts.Verdict(
      f'N16 dimension, {name}, {start}',
      f'{texts.FROM[start]}, of up to {signs[-1]} signs: from some dimension on the genetic '
      f'algorithm lowers the loss on {name} by no more than {MARGIN} nats beyond random '
      'flips of the same number.',
      verdict,
      found.mean,
      found.low,
      found.high,
      unit='log10 of the number of signs',
      num_seeds=found.num,
      protocol=f'deployable, {name}',
      caveat=caveat,
      details={
        f'beyond random flips, {n} signs': float(np.nanmean(row))
        for n, row in zip(signs, table, strict=True)
      }
      | texts.by_signs(results.sel(start=start), signs, ('genetic',))
      | lost,
    )


def _exponents(results, start):
  """Judges whether searches save less than STE where there are more signs."""
  signs = outcomes.widths(results)
  saved = outcomes.decrease(results, 'search').sel(signs=signs, start=start)
  tables = {
    arm: saved.sel(arm=arm).transpose('signs', 'seed').values
    for arm in outcomes.names(results)
  }
  slopes = {
    arm: outcomes.exponent(signs, table) for arm, table in tables.items()
  }
  apart = lambda rows: outcomes.exponents_apart(
    signs, rows[: len(signs)], rows[len(signs) :]
  )
  for searching in outcomes.searches(results):
    compared = tables[searching], tables[_STE]
    found = outcomes.resampled(apart, np.concatenate(compared))
    verdict = intervals.judge(found, direction=-1, smallest=_SLOPE)
    shown = outcomes.both_save(*compared).sum()
    caveat = ''
    if shown < len(signs):
      caveat = (
        f'Of {shown} of {len(signs)} networks, in which both save something.'
      )
    verdict, caveat, lost = divergence.account(verdict, found, caveat)
    if np.isnan(found.mean):
      verdict = 'inconclusive'
    of = '' if searching == arms.GENETIC else f' of {searching}'
    yield verdicts.Verdict(
      f'N16 exponent{of}, {start}',
      f'{texts.FROM[start]}: at equal evaluations, what {texts.words(searching)} '
      'saves on A falls faster with the number of signs than what STE saves.',
      verdict,
      found.mean,
      found.low,
      found.high,
      unit='exponent of the number of signs',
      num_seeds=found.num,
      protocol='deployable, A',
      caveat=caveat,
      details=slopes
      | texts.by_signs(results.sel(start=start), signs, (searching, _STE))
      | lost,
    )


def _perturbations(at, signs):
  """Judges whether a perturbation leaves the basin for a better one, on A and on B."""
  known = outcomes.names(at)
  for arm, (words, control, without) in _PERTURBED.items():
    if arm not in known or control not in known:
      continue
    found = contrasts.family(
      [
        contrasts.Cell(
          f'N16 {arm}, {name}',
          f'{texts.where(signs, "checkpoint")}: {words} ends at a lower loss on {name} '
          f'than {without}, after as many updates.',
          at[batch].sel(arm=control, effort=1)
          - at[batch].sel(arm=arm, effort=1),
          texts.unsettled(at, (arm, control)),
        )
        for batch, name in _BATCHES.items()
      ],
      smallest=MARGIN,
      protocol='deployable',
      unit='nats',
    )
    yield from found
    verdict, worse = outcomes.all_hold(found)
    yield verdicts.Verdict(
      f'N16 {arm}, both',
      f'{texts.where(signs, "checkpoint")}: {words} leaves for a lower loss on A and helps on '
      'B.',
      verdict,
      worse.effect,
      worse.low,
      worse.high,
      unit='nats, the smaller of both effects',
      num_seeds=worse.num_seeds,
      protocol='deployable',
      caveat=worse.caveat,
      details={
        f'on {n}': one.effect for n, one in zip('BA', found, strict=True)
      }
      | texts.unsettled(at, (arm, control)),
    )


def _times(at, signs, start):
  """Compares searches with STE at equal processor time."""
  searches = outcomes.searches(at)
  for batch, name in _BATCHES.items():
    base = at[batch].sel(arm=_STE, effort=1)
    yield from contrasts.family(
      [
        contrasts.Cell(
          f'N16 {arm}, equal time, {name}',
          f'{texts.where(signs, start)}: {texts.words(arm)} ends at a lower loss on {name} than '
          'continued STE in the same processor time (at most four times the evaluations).',
          base - outcomes.same_time(at, arm)[batch],
          {
            'seconds, all efforts': at.seconds.sel(arm=arm).median(),
            'seconds, STE': at.seconds.sel(arm=_STE).median(),
          }
          | texts.unsettled(at, (arm, _STE)),
        )
        for arm in searches
      ],
      smallest=MARGIN,
      **_on(batch),
    )


def _certificates(at, signs, start):
  """Compares how many single flips would still lower the loss on A."""
  base = at.improving.sel(arm=_STE)
  others = [arm for arm in at.arm.values.tolist() if arm != _STE]
  yield from contrasts.family(
    [
      contrasts.Cell(
        f'N16 {arm}, flips left',
        f'{texts.where(signs, start)}: after {texts.words(arm)} fewer single flips would lower the '
        'loss on A than after continued STE.',
        base - at.improving.sel(arm=arm),
        {arm: at.improving.sel(arm=arm).mean(), _STE: base.mean()}
        | texts.unsettled(at, (arm, _STE)),
      )
      for arm in others
    ],
    smallest=SHARE,
    bounds=(-1, 1),
    protocol='deployable, A',
    unit='share of flips',
  )


def _on(batch):
  return {'protocol': f'deployable, {_BATCHES[batch]}', 'unit': 'nats'}


def _losses(at, names):
  details = {}
  for batch, name in _BATCHES.items():
    details[f'start, {name}'] = at[batch].sel(arm=names[0], effort=0).mean()
    for arm in names:
      details[f'{arm}, {name}'] = at[batch].sel(arm=arm, effort=1).mean()
  return details
