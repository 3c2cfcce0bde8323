"""N1: does a budget save more if it is spent in rounds, each of which scores again?

For every signal, ranking, split and number of rounds, the loss after the whole budget
is compared with that of one round of the same signal and ranking; the intervals of
such a table hold for all its schedules at once. In addition, each signal is compared
in several rounds and in one, with all these settings tuned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitjax.evidence import contrasts
from bitjax.evidence import protocols
from bitjax.studies.discrete_gradient import outcomes
from bitjax.studies.toy import outcomes as toy_outcomes
from bitjax.studies.toy import searches

if TYPE_CHECKING:
  import xarray

__all__ = [
  'against_one',
  'judge',
  'literal',
  'reversals',
  'several',
  'split',
  'tuned',
]

_SCHEDULE = ('ranking', 'split', 'num_rounds')


def several(
  results: xarray.Dataset, cell: dict[str, Any]
) -> toy_outcomes.Verdicts:
  """Judges N1: do rounds that score again beat one round, and several steps of STE?"""
  one = outcomes.step(
    results, 'oracle', 'search', cell, 'exact', outcomes.PER_SQUARED_COST
  )
  options = {
    'signal': 'exact',
    'ranking': outcomes.PER_SQUARED_COST,
    'split': 'cumulative',
  }
  numbers = results.num_rounds.values.tolist()
  by_number = {
    number: outcomes.reached(
      results, 'rounds', 'oracle', 'search', **cell,
      num_rounds=number, **options,
    )
    for number in numbers
  }  # fmt: skip
  most = {'num_rounds': numbers[-1]}
  yield outcomes.contrast(
    'N1 rounds',
    f'{numbers[-1]} rounds that score all moves again reach a lower loss on A '
    'than one of the same budget (exact gains, per squared cost).',
    cell,
    one,
    by_number[numbers[-1]],
    protocol='oracle',
    details={
      f'{number} rounds': contrasts.log_ratio(one, loss).mean()
      for number, loss in by_number.items()
    },
  )
  optimizer = results.optimizer.values.tolist()[0]
  for batch, name in toy_outcomes.BATCHES.items():
    protocol = toy_outcomes.PROTOCOLS[batch]
    steps = outcomes.reached(
      results, 'multi', protocol, batch, **cell, optimizer=optimizer
    )
    arms = {
      f'rounds, {signal}': outcomes.reached(
        results, 'rounds', protocol, batch, **cell,
        **(options | most | {'signal': signal}),
      )
      for signal in ('exact', 'linear')
    }  # fmt: skip
    if cell['layers'] == results.layers.values[0]:
      for order in results.order.values.tolist():
        arms[f'one after another, {order}'] = outcomes.reached(
          results, 'coordinate', protocol, batch, **cell, order=order
        )
    arms['random points'] = outcomes.reached(
      results, 'random', protocol, batch, **cell
    )
    yield outcomes.contrast(
      f'N3 multi-step, {name}',
      f'{numbers[-1]} rounds of exact gains reach a lower loss on {name} than as '
      f'many steps of STE ({optimizer}).',
      cell,
      steps,
      arms['rounds, exact'],
      batch=name,
      protocol=protocol,
      details={
        arm: contrasts.log_ratio(steps, loss).mean()
        for arm, loss in arms.items()
      }
      | outcomes.otherwise(
        results, 'multi', batch, 'steps of STE', **cell, optimizer=optimizer
      )
      | outcomes.otherwise(
        results, 'rounds', batch, 'rounds, exact', **cell, **options, **most
      ),
    )


def literal(
  results: xarray.Dataset, cell: dict[str, Any]
) -> toy_outcomes.Verdicts:
  """Judges N1 to the letter of one reading: even rounds, by gain, the whole budget.

  Its opponent takes as many projected steps of STE; the protocol of the batch chooses
  their learning rate and where to stop.

  Args:
    results: the results of `toy.arms.collect`.
    cell: labels of ball, layers and state.
  """
  number = results.num_rounds.values.tolist()[-1]
  labels = {
    'signal': 'exact',
    'ranking': searches.RANKINGS[0],
    'split': 'even',
    'num_rounds': number,
  }
  made = protocols.select_arm(results, 'rounds', **cell, **labels)
  if number == 1 or not bool(made['search'].notnull().any()):
    return
  optimizer = results.optimizer.values.tolist()[0]
  for batch, name in toy_outcomes.BATCHES.items():
    protocol = toy_outcomes.PROTOCOLS[batch]
    options = {**cell, 'optimizer': optimizer}
    steps = outcomes.reached(results, 'multi', protocol, batch, **options)
    found = outcomes.reached(results, 'rounds', 'all', batch, **cell, **labels)
    yield outcomes.contrast(
      f'N1 literal, {name}',
      f'{number} rounds of exact gains, each with an equal part of the budget that '
      f'goes to the largest gains first, reach a lower loss on {name} than as many '
      f'steps of STE ({optimizer}).',
      cell,
      steps,
      found,
      batch=name,
      protocol=f'all moves against {protocol}',
      details={
        f'decrease, {arm}': outcomes.decrease(results, batch, cell, loss).mean()
        for arm, loss in (('rounds', found), ('steps of STE', steps))
      }
      | {f'{what}, rounds': made[what].mean() for what in ('moves', 'used')}
      | outcomes.otherwise(results, 'multi', batch, 'steps of STE', **options),
    )


def split(
  results: xarray.Dataset, cell: dict[str, Any]
) -> toy_outcomes.Verdicts:
  """Judges N1: does a budget that grows over the rounds beat equal parts of it?"""
  numbers = results.num_rounds.values.tolist()
  options = {'signal': 'exact', 'ranking': outcomes.PER_SQUARED_COST}
  even, together = (
    outcomes.reached(
      results, 'rounds', 'all', 'search', **cell, **options,
      split=name, num_rounds=numbers[-1],
    )
    for name in searches.SPLITS
  )  # fmt: skip
  used = results['rounds_used'].sel(cell | options).mean('seed')
  yield outcomes.contrast(
    'N1 split',
    f'a budget that grows over {numbers[-1]} rounds reaches a lower loss on A '
    'than equal parts of it (exact gains, per squared cost).',
    cell,
    even,
    together,
    details={
      f'budget used, {name}, {number} rounds': used.sel(
        split=name, num_rounds=number
      )
      for name in searches.SPLITS
      for number in numbers
    },
  )


def against_one(
  results: xarray.Dataset, cell: dict[str, Any]
) -> toy_outcomes.Verdicts:
  """Judges N1 for each signal: does any schedule of several rounds beat one round?

  Args:
    results: the results of `toy.arms.collect`.
    cell: labels of ball, layers and state.
  """
  for signal in results.signal.values.tolist():
    for batch, name in toy_outcomes.BATCHES.items():
      arms = {}
      for labels, loss in _schedules(results, batch, cell, signal):
        one = outcomes.step(
          results, 'all', batch, cell, signal, labels['ranking']
        )
        arms['{ranking}, {split}, {num_rounds}'.format(**labels)] = (
          contrasts.log_ratio(one, loss)
        )
      if not arms:
        continue
      yield contrasts.any_arm(
        f'N1 schedules, {name}, {signal}',
        f'{toy_outcomes.describe(cell)}: at least one of {len(arms)} schedules of several '
        f'rounds reaches a lower loss on {name} than one round ({signal} signal, '
        'whole budget; simultaneous intervals).',
        arms,
        smallest=toy_outcomes.LOG_RATIO,
        protocol=f'all moves, {name}',
        unit='log loss ratio',
      )


def tuned(
  results: xarray.Dataset, cell: dict[str, Any]
) -> toy_outcomes.Verdicts:
  """Judges N1 with all settings tuned: do several rounds beat one round?

  The protocol chooses the ranking, the split, the number of rounds and where to stop;
  for one round, it chooses the ranking and the number of moves. The intervals of a
  batch hold for all signals at once.

  Args:
    results: the results of `toy.arms.collect`.
    cell: labels of ball, layers and state.
  """
  numbers = [n for n in results.num_rounds.values.tolist() if n > 1]
  if not numbers:
    return
  again = results.sel(num_rounds=numbers)
  signals = [s for s in results.signal.values.tolist() if _made(again, s)]
  for batch, name in toy_outcomes.BATCHES.items():
    protocol = toy_outcomes.PROTOCOLS[batch]
    one, best = (
      {
        signal: outcomes.reached(
          found, arm, protocol, batch, over=over, **cell, signal=signal
        )
        for signal in signals
      }
      for arm, found, over in (
        ('discrete', results, _SCHEDULE[:1]),
        ('rounds', again, _SCHEDULE),
      )
    )

    def tuned_otherwise(signal, batch=batch):
      return outcomes.otherwise(
        results, 'discrete', batch, f'one, {signal}',
        over=_SCHEDULE[:1], **cell, signal=signal,
      ) | outcomes.otherwise(
        again, 'rounds', batch, f'several, {signal}',
        over=_SCHEDULE, **cell, signal=signal,
      )  # fmt: skip

    steps = outcomes.reached(
      results, 'multi', protocol, batch, **cell,
      optimizer=results.optimizer.values[0],
    )  # fmt: skip
    info: dict[str, Any] = {
      'protocol': f'{protocol}, {name}',
      'smallest': toy_outcomes.LOG_RATIO,
      'unit': 'log loss ratio',
    }
    yield from contrasts.family(
      [
        contrasts.Cell(
          f'N1 tuned, {name}, {signal}',
          f'{toy_outcomes.describe(cell)}: several rounds reach a lower loss on {name} '
          f'than one, all else chosen for each ({signal} signal).',
          contrasts.log_ratio(one[signal], best[signal]),
          {
            'against steps of STE': contrasts.log_ratio(
              steps, best[signal]
            ).mean(),
            'decrease': outcomes.decrease(
              results, batch, cell, best[signal]
            ).mean(),
          }
          | tuned_otherwise(signal),
        )
        for signal in signals
      ],
      **info,
    )
    if {'linear', 'exact'} <= best.keys():  # Not if all seeds diverged.
      yield outcomes.contrast(
        f'N1 tuned, {name}, exact against linear',
        f'several rounds of exact gains reach a lower loss on {name} than several '
        "of STE's linear prediction, all else chosen for each.",
        cell,
        best['linear'],
        best['exact'],
        batch=name,
        protocol=protocol,
        details={
          key: share
          for signal in ('linear', 'exact')
          for key, share in tuned_otherwise(signal).items()
          if 'several' in key
        },
      )


def reversals(
  results: xarray.Dataset, cell: dict[str, Any]
) -> toy_outcomes.Verdicts:
  """Judges N1: does ranking per squared cost turn weights round more often?

  A move that turns a weight round costs the budget a whole distance again.

  Args:
    results: the results of `toy.arms.collect`.
    cell: labels of ball, layers and state.
  """
  number = results.num_rounds.values.tolist()[-1]
  info = {'split': 'cumulative', 'num_rounds': number}
  names = ('moves', 'returns', 'used')
  cells = []
  for signal in searches.SCORED:
    found = protocols.select_arm(
      results, 'rounds', **cell, **info, signal=signal
    )
    found = found[list(names)]
    share = found['returns'] / found['moves']
    dense = {'ranking': outcomes.PER_SQUARED_COST}
    for ranking in searches.RANKINGS[:-1]:
      other = share.sel(ranking=ranking)
      if number > 1 and bool(other.notnull().any()):
        cells.append(
          contrasts.Cell(
            f'N1 turning, {signal}, {ranking}',
            f'{toy_outcomes.describe(cell)}: over {number} rounds ({signal} signal, '
            'cumulative) a larger share of moves turn a weight round '
            f'{outcomes.PER_SQUARED_COST} than {ranking}.',
            share.sel(dense) - other,
            {
              f'{name}, {label}': found[name].sel(ranking=label).mean()
              for label in (outcomes.PER_SQUARED_COST, ranking)
              for name in names
            },
          )
        )
  yield from contrasts.family(
    cells,
    smallest=toy_outcomes.SHARE,
    protocol='all moves, A',
    unit='share of all moves',
    bounds=(-1, 1),
  )


def judge(results: xarray.Dataset) -> toy_outcomes.Verdicts:
  """Yields all findings about rounds, for all balls, layers and states."""
  for cell in toy_outcomes.cells(results):
    for find in (several, literal, split, against_one, tuned, reversals):
      yield from find(results, cell)


def _made(results, signal):
  """Returns whether rounds were run with a signal."""
  return bool(results['rounds_search'].sel(signal=signal).notnull().any())


def _schedules(results, batch, cell, signal):
  """Yields labels and final losses of all schedules of several rounds that were run."""
  found = outcomes.chosen(results, 'rounds', 'all', **cell, signal=signal)[
    batch
  ]
  for ranking in found.ranking.values.tolist():
    if signal == 'cost' and ranking != outcomes.PER_SQUARED_COST:
      continue  # All rankings order this signal in the same way.
    for split_ in found.split.values.tolist():
      for number in found.num_rounds.values.tolist():
        labels = {'ranking': ranking, 'split': split_, 'num_rounds': number}
        loss = found.sel(labels)
        if number > 1 and bool(loss.notnull().any()):
          yield labels, loss
