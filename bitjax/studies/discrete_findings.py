"""N1-N3, judged from the results of `toy_discrete.compare`.

Contrasts are logs of loss ratios, paired by seed: above 0 the arm named first in the
claim is better. *All moves* means that an arm spends its whole budget; otherwise the
number of moves, rounds, steps and the learning rate are chosen by the protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax.studies import contrasts
from bitjax.studies import discrete_arms
from bitjax.studies import protocols
from bitjax.studies import toy_discrete
from bitjax.studies import verdicts

if TYPE_CHECKING:
  import xarray

__all__ = [
  'bound',
  'causes',
  'held_out',
  'judge',
  'reached',
  'reliable',
  'several',
  'split',
]

DENSE = discrete_arms.RANKINGS[2]
BATCHES = {'search': 'A', 'holdout': 'B'}

Verdicts = Iterator[verdicts.Verdict]


def reached(
  results: xarray.Dataset,
  arm: str,
  protocol: str,
  batch: str,
  **where: Any,
) -> xarray.DataArray:
  """The loss that an arm reaches, by seed.

  Args:
    results: of `toy_discrete.compare`.
    arm: its name.
    protocol: ``'oracle'``, ``'deployable'``, or ``'all'`` for the end of its axis.
    batch: ``'search'`` for A, ``'holdout'`` for B.
    **where: labels: the state, the ball, and what the arm varies.
  """
  outcomes = protocols.arm(results, arm)[['search', 'holdout']]
  outcomes = outcomes.sel(
    {name: label for name, label in where.items() if name in outcomes.dims}
  )
  over = [axis for axis in toy_discrete.AXES if axis in outcomes.dims]
  if not over:
    return outcomes[batch]
  if protocol == 'all':
    return outcomes[batch].isel(dict.fromkeys(over, -1))
  return protocols.select(outcomes, over, protocol)[batch]


def bound(
  results: xarray.Dataset, where: dict[str, Any], *, primary: bool = False
) -> Verdicts:
  """N3: the note's discrete gradient bounds STE on the batch that it searches.

  Args:
    results: of `toy_discrete.compare`.
    where: labels of ball, layers and state.
    primary: whether this is the study's primary contrast.
  """
  ste = _read(results, 'ste', 'oracle', 'search', where, direction='gradient')
  note = _discrete(results, 'all', 'search', where, 'exact', 'gain')
  details: dict[str, Any] = {}
  for signal in discrete_arms.SIGNALS:
    for ranking in discrete_arms.RANKINGS:
      loss = _discrete(results, 'all', 'search', where, signal, ranking)
      details[f'{signal}, {ranking}'] = _log(ste, loss).mean()
  for name in results.direction.values.tolist()[1:]:
    other = _read(results, 'ste', 'oracle', 'search', where, direction=name)
    details[f'STE step, {name}'] = _log(ste, other).mean()
  details |= {'reached by STE, nats': ste.mean()}
  details |= {
    f'moves {ranking}': results['discrete_moves']
    .sel(where)
    .sel(signal='exact', ranking=ranking)
    .mean()
    for ranking in discrete_arms.RANKINGS
  }
  yield contrasts.difference(
    'N3 bound',
    f'{_name(where)}: on the batch it searches, the discrete gradient of the '
    'note (exact gains, largest first, all moves) reaches a lower loss than one '
    'STE step at its best learning rate.',
    _log(ste, note),
    primary=primary,
    details=details,
    protocol='oracle, A',
    unit='log loss ratio',
  )
  best = {
    signal: _discrete(results, 'oracle', 'search', where, signal, DENSE)
    for signal in discrete_arms.SIGNALS
  }
  yield contrasts.difference(
    'N3 bound, best moves',
    f'{_name(where)}: on the batch it searches, the discrete gradient of exact gains '
    'per squared cost, stopped at its best number of moves, reaches a lower loss than '
    'one STE step at its best learning rate.',
    _log(ste, best['exact']),
    details={signal: _log(ste, loss).mean() for signal, loss in best.items()},
    protocol='oracle, A',
    unit='log loss ratio',
  )


def held_out(results: xarray.Dataset, where: dict[str, Any]) -> Verdicts:
  """N3: a discrete gradient that minds the cost is a better step than STE's."""
  ste = _read(
    results, 'ste', 'deployable', 'holdout', where, direction='gradient'
  )
  names = {
    f'{signal}, {ranking}': _discrete(
      results, 'deployable', 'holdout', where, signal, ranking
    )
    for signal in ('exact', 'linear')
    for ranking in discrete_arms.RANKINGS
  }
  yield contrasts.difference(
    'N3 held out',
    f'{_name(where)}: the discrete gradient of exact gains per squared cost is a '
    'better step than one of STE on held-out data.',
    _log(ste, names[f'exact, {DENSE}']),
    details={name: _log(ste, loss).mean() for name, loss in names.items()},
    protocol='deployable, B',
    unit='log loss ratio',
  )


def causes(results: xarray.Dataset, where: dict[str, Any]) -> Verdicts:
  """Why: the ranking, the signal, the overfitting of the batch; one arm each."""

  def full(signal, ranking, batch='search'):
    return _discrete(results, 'all', batch, where, signal, ranking)

  yield _contrast(
    'cause: ranking',
    'exact gains ranked per squared cost reach a lower loss on A than ranked as '
    'such.',
    where,
    full('exact', 'gain'),
    full('exact', DENSE),
  )
  for batch, name in BATCHES.items():
    yield _contrast(
      f'cause: signal, {name}',
      'of two steps with the same rule (per squared cost), that by exact gains '
      f"reaches a lower loss on {name} than that by STE's linear prediction.",
      where,
      full('linear', DENSE, batch),
      full('exact', DENSE, batch),
      batch=name,
    )
  yield _contrast(
    'control: linear',
    "STE's linear prediction reaches a lower loss on A than the cheapest moves, "
    'whatever they do.',
    where,
    full('cost', DENSE),
    full('linear', DENSE),
  )
  gaps = {}
  for signal in ('exact', 'linear'):
    start = protocols.arm(results, 'discrete').sel(where).isel(prefix=0)
    start = start.sel(signal=signal, ranking=DENSE)
    falls = [start[batch] - full(signal, DENSE, batch) for batch in BATCHES]
    gaps[signal] = (falls[0] - falls[1]) / falls[0].mean()
  yield contrasts.difference(
    'cause: overfitting',
    f'{_name(where)}: of what it gains on A, the step by exact gains loses a larger '
    "share on B than that by STE's linear prediction (per squared cost).",
    gaps['exact'] - gaps['linear'],
    details={f'share lost, {name}': gap.mean() for name, gap in gaps.items()},
    protocol='all moves, A and B',
    unit='of the mean decrease on A',
  )
  found = results[['discrete_predicted', 'discrete_true']].sel(where)
  found = found.sel(signal='exact')
  yield contrasts.difference(
    'cause: additivity',
    f'{_name(where)}: moves together gain less than the sum of their gains alone '
    '(exact gains, per squared cost).',
    (found.discrete_predicted - found.discrete_true).sel(ranking=DENSE),
    details={
      f'true / predicted, {ranking}': found.discrete_true.sel(
        ranking=ranking
      ).mean()
      / found.discrete_predicted.sel(ranking=ranking).mean()
      for ranking in discrete_arms.RANKINGS
    },
    protocol='all moves, A',
    unit='nats',
  )


def several(results: xarray.Dataset, where: dict[str, Any]) -> Verdicts:
  """N1: rounds that score again gain over one, and over several steps of STE."""
  one = _discrete(results, 'oracle', 'search', where, 'exact', DENSE)
  options = {'signal': 'exact', 'ranking': DENSE, 'split': 'cumulative'}
  numbers = results.num_rounds.values.tolist()
  by_number = {
    number: _read(
      results, 'rounds', 'oracle', 'search', where,
      num_rounds=number, **options,
    )
    for number in numbers
  }  # fmt: skip
  most = {'num_rounds': numbers[-1]}
  yield _contrast(
    'N1 rounds',
    f'{numbers[-1]} rounds that score all moves again reach a lower loss on A '
    'than one of the same budget (exact gains, per squared cost).',
    where,
    one,
    by_number[numbers[-1]],
    protocol='oracle',
    details={
      f'{number} rounds': _log(one, loss).mean()
      for number, loss in by_number.items()
    },
  )
  best = results.optimizer.values.tolist()[0]
  for batch, name in BATCHES.items():
    protocol = 'oracle' if name == 'A' else 'deployable'
    steps = _read(results, 'multi', protocol, batch, where, optimizer=best)
    arms = {
      f'rounds, {signal}': _read(
        results, 'rounds', protocol, batch, where,
        **(options | most | {'signal': signal}),
      )
      for signal in ('exact', 'linear')
    }  # fmt: skip
    if where['layers'] == results.layers.values[0]:
      for order in results.order.values.tolist():
        arms[f'one after another, {order}'] = _read(
          results, 'coordinate', protocol, batch, where, order=order
        )
    arms['random points'] = _read(results, 'random', protocol, batch, where)
    yield _contrast(
      f'N3 multi-step, {name}',
      f'{numbers[-1]} rounds of exact gains reach a lower loss on {name} than as '
      f'many steps of STE ({best}).',
      where,
      steps,
      arms['rounds, exact'],
      batch=name,
      protocol=protocol,
      details={arm: _log(steps, loss).mean() for arm, loss in arms.items()},
    )


def split(results: xarray.Dataset, where: dict[str, Any]) -> Verdicts:
  """N1: what the even split of the budget costs."""
  number = results.num_rounds.values.tolist()[-1]
  options = {'signal': 'exact', 'ranking': DENSE, 'num_rounds': number}
  even, together = (
    _read(results, 'rounds', 'all', 'search', where, split=name, **options)
    for name in discrete_arms.SPLITS
  )
  used = results['rounds_used'].sel(where).sel(options).mean('seed')
  yield _contrast(
    'N1 split',
    f'a budget that grows over {number} rounds reaches a lower loss on A than '
    'equal parts of it (exact gains, per squared cost).',
    where,
    even,
    together,
    details={
      f'budget used, {name}': used.sel(split=name)
      for name in discrete_arms.SPLITS
    },
  )


def reliable(results: xarray.Dataset, state: str) -> Verdicts:
  """Do exact gains hold on other data, and would more data help?

  Args:
    results: of `toy_discrete.compare`.
    state: of the network.
  """
  found = results['reliability_correlation'].sel(state=state)
  sizes = found.batch_size.values.tolist()
  exact, linear, across = (found.sel(pair=pair) for pair in discrete_arms.PAIRS)
  info: dict[str, Any] = {'protocol': 'A, B', 'unit': 'correlation over moves'}
  if len(sizes) > 1:
    yield contrasts.difference(
      'N3 reliability, data',
      f'{state}, first layer: the exact gains of two batches of {sizes[-1]} '
      f'agree better than those of two batches of {sizes[0]}.',
      exact.sel(batch_size=sizes[-1]) - exact.sel(batch_size=sizes[0]),
      details={
        f'{pair}, batch {size}': found.sel(pair=pair, batch_size=size).mean()
        for pair in discrete_arms.PAIRS
        for size in sizes
      },
      **info,
    )
  large = {'batch_size': sizes[-1]}
  yield contrasts.difference(
    'N3 reliability, signal',
    f"{state}, first layer: STE's linear prediction replicates better from A to B "
    f'than the exact gains do (batch {sizes[-1]}).',
    linear.sel(large) - exact.sel(large),
    details={
      'exact': exact.sel(large).mean(),
      'linear': linear.sel(large).mean(),
    },
    **info,
  )
  yield contrasts.difference(
    'N3 smoothed',
    f"{state}, first layer: STE's linear prediction on A is nearer to the exact "
    f'gains on B than the exact gains on A are (batch {sizes[-1]}).',
    across.sel(large) - exact.sel(large),
    details={
      f'linear A, exact B, batch {size}': across.sel(batch_size=size).mean()
      for size in sizes
    }
    | {
      f'exact A, exact B, batch {size}': exact.sel(batch_size=size).mean()
      for size in sizes
    },
    **info,
  )


def judge(results: xarray.Dataset) -> Verdicts:
  """All findings, in every ball, layer and state; the primary contrast first."""
  names = ('ball', 'layers', 'state')
  places = itertools.product(*(results[name].values.tolist() for name in names))
  for number, labels in enumerate(places):
    where = dict(zip(names, labels, strict=True))
    yield from bound(results, where, primary=number == 0)
    for find in (held_out, causes, several, split):
      yield from find(results, where)
  for state in results.state.values.tolist():
    yield from reliable(results, state)


def _contrast(
  finding, claim, where, above, below, batch='A', protocol='all moves', **info
):
  """A claim that the losses ``below`` are lower; inert if they are the same."""
  ratio = _log(above, below)
  verdict = contrasts.difference(
    finding,
    f'{_name(where)}: {claim}',
    ratio,
    protocol=f'{protocol}, {batch}',
    unit='log loss ratio',
    **info,
  )
  if bool((ratio == 0).all()):
    verdict = dataclasses.replace(verdict, verdict='inert')
  return verdict


def _read(results, arm, protocol, batch, where, **options):
  return reached(results, arm, protocol, batch, **where, **options)


def _discrete(results, protocol, batch, where, signal, ranking):
  options = {'signal': signal, 'ranking': ranking}
  return _read(results, 'discrete', protocol, batch, where, **options)


def _name(where):
  layers = 'first layer' if where['layers'] == 'first' else 'all layers'
  return f'{where["ball"]}, {layers}, {where["state"]}'


def _log(above: xarray.DataArray, below: xarray.DataArray) -> Any:
  return np.log(above / below)
