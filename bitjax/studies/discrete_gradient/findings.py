"""N3: does the discrete gradient bound STE, and if not, why?

The findings are judged from the results of `toy.arms.collect`. `judge` adds those about
the two factors between exact and linear gains (`factorial`), about rounds (`rounds`),
and the tables over all balls (`balls`).

The note words its discrete gradient, but neither its ball nor what a flip costs. What is
called *literal* here is one reading: exact gains, the largest first, until the budget is
spent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.studies.discrete_gradient import balls
from bitjax.studies.discrete_gradient import factorial
from bitjax.studies.discrete_gradient import outcomes
from bitjax.studies.discrete_gradient import rounds
from bitjax.studies.toy import outcomes as toy_outcomes
from bitjax.studies.toy import promises
from bitjax.studies.toy import searches

if TYPE_CHECKING:
  import xarray

__all__ = ['bound', 'causes', 'held_out', 'judge', 'reliable']


def bound(
  results: xarray.Dataset, cell: dict[str, Any], *, primary: bool = False
) -> toy_outcomes.Verdicts:
  """Judges N3: does the literal discrete gradient bound STE on the batch it searches?

  Args:
    results: the results of `toy.arms.collect`.
    cell: labels of ball, layers and state.
    primary: whether this is the study's primary contrast.
  """
  ste = outcomes.reached(
    results, 'ste', 'oracle', 'search', **cell, direction='gradient'
  )
  literal = outcomes.step(results, 'all', 'search', cell, 'exact', 'gain')
  details: dict[str, Any] = {}
  for signal in searches.SIGNALS:
    for ranking in searches.RANKINGS:
      loss = outcomes.step(results, 'all', 'search', cell, signal, ranking)
      details[f'{signal}, {ranking}'] = contrasts.log_ratio(ste, loss).mean()
  for name in results.direction.values.tolist()[1:]:
    other = outcomes.reached(
      results, 'ste', 'oracle', 'search', **cell, direction=name
    )
    details[f'STE step, {name}'] = contrasts.log_ratio(ste, other).mean()
  details |= {'reached by STE, nats': ste.mean()}
  details |= {
    f'moves {ranking}': results['discrete_moves']
    .sel(cell)
    .sel(signal='exact', ranking=ranking)
    .mean()
    for ranking in searches.RANKINGS
  }
  yield contrasts.difference(
    'N3 bound',
    f'{toy_outcomes.describe(cell)}: on the batch it searches, the literal discrete '
    'gradient (exact gains, largest first, all moves) reaches a lower loss than one '
    'STE step at its best learning rate.',
    contrasts.log_ratio(ste, literal),
    primary=primary,
    details=details,
    smallest=toy_outcomes.LOG_RATIO,
    protocol='oracle, A',
    unit='log loss ratio',
  )
  best = {
    signal: outcomes.step(
      results, 'oracle', 'search', cell, signal, outcomes.PER_SQUARED_COST
    )
    for signal in searches.SIGNALS
  }
  yield contrasts.difference(
    'N3 bound, best moves',
    f'{toy_outcomes.describe(cell)}: on the batch it searches, the discrete gradient of '
    'exact gains per squared cost, stopped at its best number of moves, reaches a '
    'lower loss than one STE step at its best learning rate.',
    contrasts.log_ratio(ste, best['exact']),
    details={
      signal: contrasts.log_ratio(ste, loss).mean()
      for signal, loss in best.items()
    },
    smallest=toy_outcomes.LOG_RATIO,
    protocol='oracle, A',
    unit='log loss ratio',
  )


def held_out(
  results: xarray.Dataset, cell: dict[str, Any]
) -> toy_outcomes.Verdicts:
  """Judges N3 on held-out data: do gains per squared cost beat one step of STE?"""
  ste = outcomes.reached(
    results, 'ste', 'deployable', 'holdout', **cell, direction='gradient'
  )
  names = {
    f'{signal}, {ranking}': outcomes.step(
      results, 'deployable', 'holdout', cell, signal, ranking
    )
    for signal in ('exact', 'linear')
    for ranking in searches.RANKINGS
  }
  yield contrasts.difference(
    'N3 held out',
    f'{toy_outcomes.describe(cell)}: the discrete gradient of exact gains per squared '
    'cost is a better step than one of STE on held-out data.',
    contrasts.log_ratio(ste, names[f'exact, {outcomes.PER_SQUARED_COST}']),
    details={
      name: contrasts.log_ratio(ste, loss).mean()
      for name, loss in names.items()
    }
    | outcomes.otherwise(
      results, 'ste', 'holdout', 'STE', **cell, direction='gradient'
    )
    | outcomes.otherwise(
      results,
      'discrete',
      'holdout',
      'exact',
      **cell,
      signal='exact',
      ranking=outcomes.PER_SQUARED_COST,
    ),
    smallest=toy_outcomes.LOG_RATIO,
    protocol='deployable, B',
    unit='log loss ratio',
  )


def causes(
  results: xarray.Dataset, cell: dict[str, Any]
) -> toy_outcomes.Verdicts:
  """Judges possible causes: the ranking, the signal, overfitting, and additivity."""

  def full(signal, ranking, batch='search'):
    return outcomes.step(results, 'all', batch, cell, signal, ranking)

  yield outcomes.contrast(
    'cause: ranking',
    'exact gains ranked per squared cost reach a lower loss on A than ranked as '
    'such.',
    cell,
    full('exact', 'gain'),
    full('exact', outcomes.PER_SQUARED_COST),
  )
  for batch, name in toy_outcomes.BATCHES.items():
    yield outcomes.contrast(
      f'cause: signal, {name}',
      'of two steps with the same rule (per squared cost), that by exact gains '
      f"reaches a lower loss on {name} than that by STE's linear prediction.",
      cell,
      full('linear', outcomes.PER_SQUARED_COST, batch),
      full('exact', outcomes.PER_SQUARED_COST, batch),
      batch=name,
      details={
        f'decrease, {signal}': outcomes.decrease(
          results, batch, cell, full(signal, outcomes.PER_SQUARED_COST, batch)
        ).mean()
        for signal in searches.SIGNALS
      },
    )
  yield outcomes.contrast(
    'control: linear',
    "STE's linear prediction reaches a lower loss on A than the cheapest moves, "
    'whatever they do.',
    cell,
    full('cost', outcomes.PER_SQUARED_COST),
    full('linear', outcomes.PER_SQUARED_COST),
  )
  gaps = {}
  for signal, finding in (
    ('exact', 'cause: overfitting'),
    ('linear', 'control: overfitting, linear'),
  ):
    on_a, on_b = (
      outcomes.decrease(
        results, batch, cell, full(signal, outcomes.PER_SQUARED_COST, batch)
      )
      for batch in toy_outcomes.BATCHES
    )
    gaps[signal] = on_a - on_b
    yield contrasts.difference(
      finding,
      f'{toy_outcomes.describe(cell)}: of what the step by {signal} gains saves on A, a '
      'part is lost on B (per squared cost, whole budget).',
      gaps[signal],
      whole=on_a,
      smallest=toy_outcomes.SHARE,
      details={'decrease on A': on_a.mean(), 'decrease on B': on_b.mean()},
      protocol='all moves, A and B',
      unit='of the mean decrease on A',
    )
  yield contrasts.difference(
    'cause: overfitting, exact less linear',
    f'{toy_outcomes.describe(cell)}: the step by exact gains saves more on A than on B, by '
    "a larger difference than that by STE's linear prediction (per squared cost, whole "
    'budget).',
    gaps['exact'] - gaps['linear'],
    smallest=toy_outcomes.NATS,
    details={f'lost, {name}': gap.mean() for name, gap in gaps.items()},
    protocol='all moves, A and B',
    unit='nats',
  )
  found = results[['discrete_predicted', 'discrete_true']].sel(cell)
  found = found.sel(signal='exact')
  yield contrasts.difference(
    'cause: additivity',
    f'{toy_outcomes.describe(cell)}: moves together gain less than the sum of their gains '
    'alone (exact gains, per squared cost).',
    (found.discrete_predicted - found.discrete_true).sel(
      ranking=outcomes.PER_SQUARED_COST
    ),
    details={
      f'true / predicted, {ranking}': found.discrete_true.sel(
        ranking=ranking
      ).mean()
      / found.discrete_predicted.sel(ranking=ranking).mean()
      for ranking in searches.RANKINGS
    },
    smallest=toy_outcomes.NATS,
    protocol='all moves, A',
    unit='nats',
  )
  together, alone = (
    found[name].sel(ranking=outcomes.PER_SQUARED_COST)
    for name in ('discrete_true', 'discrete_predicted')
  )
  yield contrasts.difference(
    'cause: additivity, share',
    f'{toy_outcomes.describe(cell)}: of the sum of their gains alone, moves together gain '
    'a part (exact gains, per squared cost).',
    together,
    whole=alone,
    smallest=toy_outcomes.SHARE,
    protocol='all moves, A',
    unit='of the mean sum of the gains',
  )


def reliable(results: xarray.Dataset, state: str) -> toy_outcomes.Verdicts:
  """Judges whether exact gains hold on other data, and whether more data would help.

  Args:
    results: the results of `toy.arms.collect`.
    state: the state of the network, as in `toy.STATES`.
  """
  found = results['reliability_correlation'].sel(state=state)
  sizes = found.batch_size.values.tolist()
  pairs = {
    name: promises.pair(*name)
    for name in (('exact', 'exact'), ('linear', 'linear'), ('linear', 'exact'))
  }
  exact, linear, across = (found.sel(pair=pair) for pair in pairs.values())
  if len(sizes) > 1:
    yield contrasts.difference(
      'N3 reliability, data',
      f'{state}, first layer: the exact gains of two batches of {sizes[-1]} '
      f'agree better than those of two batches of {sizes[0]}.',
      exact.sel(batch_size=sizes[-1]) - exact.sel(batch_size=sizes[0]),
      details={
        f'{pair}, batch {size}': found.sel(pair=pair, batch_size=size).mean()
        for pair in pairs.values()
        for size in sizes
      },
      **outcomes.CORRELATION,
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
    **outcomes.CORRELATION,
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
    **outcomes.CORRELATION,
  )


def judge(results: xarray.Dataset) -> toy_outcomes.Verdicts:
  """Yields findings for all balls, layers and states, the primary contrast first."""
  start = outcomes.start(results)['search']
  results = divergence.without(results.assign(start=start), ['start'])
  results = results.drop_vars('start')
  for number, cell in enumerate(toy_outcomes.cells(results)):
    yield from bound(results, cell, primary=number == 0)
    for find in (held_out, causes):
      yield from find(results, cell)
  for state in results.state.values.tolist():
    yield from reliable(results, state)
  yield from factorial.judge(results)
  yield from rounds.judge(results)
  yield from balls.judge(results)
