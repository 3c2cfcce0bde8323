"""N3: why does STE's prediction choose other flips than the exact gains do?

The two differ in two factors (see `scans.flip_factorial`): the *crossing* of the
threshold is true or smoothed, and the effect of what lies *behind* is exact or linear.
Main effects are those of a two-by-two factorial: the mean, over the levels of the other
factor, of what a factor changes; the interaction is half the difference of the two.

Crossings are smoothed, and effects linearised, by the straight-through estimators.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitjax.evidence import contrasts
from bitjax.studies.discrete_gradient import outcomes
from bitjax.studies.toy import outcomes as toy_outcomes
from bitjax.studies.toy import promises

if TYPE_CHECKING:
  import xarray

__all__ = ['judge', 'replication', 'saved']


_LABELS = [
  {'crossing': crossing, 'behind': behind}
  for crossing in promises.CROSSINGS
  for behind in promises.BEHIND
]


def saved(
  results: xarray.Dataset, cell: dict[str, Any]
) -> toy_outcomes.Verdicts:
  """Judges what the flips of each signal save, and which factor matters more to it.

  Each signal stops at the number of moves that the protocol of the batch chooses. On
  each batch, the intervals of all four savings hold at once, and so do those of all
  claims about the factors.

  Args:
    results: the results of `toy.arms.collect`.
    cell: labels of ball, layers and state.
  """
  if cell['layers'] != results.layers.values[0]:
    return
  for batch, name in toy_outcomes.BATCHES.items():
    protocol = toy_outcomes.PROTOCOLS[batch]

    def decreases(protocol, batch=batch):
      return [
        outcomes.decrease(
          results,
          batch,
          cell,
          outcomes.reached(
            results, 'factorial', protocol, batch, **cell, **labels
          ),
        )
        for labels in _LABELS
      ]

    tuned, whole = decreases(protocol), decreases('all')
    details = {
      f'{head}{words(**labels)}': found.mean()
      for head, rows in (('decrease, ', tuned), ('whole budget, ', whole))
      for labels, found in zip(_LABELS, rows, strict=True)
    }
    settled = [
      outcomes.otherwise(
        results, 'factorial', batch, words(**labels), **cell, **labels
      )
      for labels in _LABELS
    ]
    for each in settled:
      details |= each
    info: dict[str, Any] = {
      'smallest': toy_outcomes.NATS,
      'protocol': f'{protocol}, {name}',
      'unit': 'nats',
    }
    yield from _table(
      f'N3 factorial, {name}',
      f'{toy_outcomes.describe(cell)}: of flips ranked to fill the ball, ',
      f'saves more on {name}',
      tuned,
      details,
      **info,
    )
    yield from _each(
      'N3 factorial',
      f'{toy_outcomes.describe(cell)}: on {name}, flips ranked to fill the ball lower '
      'the loss, by a prediction with a',
      tuned,
      settled,
      **info,
    )


def replication(results: xarray.Dataset, state: str) -> toy_outcomes.Verdicts:
  """Judges how well each signal replicates from A to B, and which factor matters more.

  How near it comes to the exact gains on B is judged as well. The intervals hold for
  all signals at once.

  Args:
    results: the results of `toy.arms.collect`.
    state: the state of the network, as in `toy.STATES`.
  """
  found = results['reliability_correlation'].sel(state=state)
  size = found.batch_size.values.tolist()[-1]
  found = found.sel(batch_size=size)
  own = [found.sel(pair=promises.pair(s, s)) for s in promises.SIGNALS]
  across = [found.sel(pair=promises.pair(s, 'exact')) for s in promises.SIGNALS]
  details = {
    f'{words(**labels)} on A, {on_b} on B': correlation.mean()
    for rows, on_b in ((own, 'the same'), (across, 'exact gains'))
    for labels, correlation in zip(_LABELS, rows, strict=True)
  }
  yield from _table(
    'N3 replication',
    f'{state}, first layer, batch {size}: of all flips, ',
    'replicates better from A to B',
    own,
    details,
    **outcomes.CORRELATION,
  )
  for rows, head in (
    (own, 'from A to B, a prediction replicates'),
    (across, 'on A, a prediction agrees with the exact gains on B'),
  ):
    yield from _each(
      'N3 replication',
      f'{state}, first layer, batch {size}: {head} (correlation over all flips), with a',
      rows,
      [{} for _ in _LABELS],
      **outcomes.CORRELATION | {'bounds': (-1, 1)},
    )


def judge(results: xarray.Dataset) -> toy_outcomes.Verdicts:
  """Yields the verdicts about both factors, for all balls and states."""
  for cell in toy_outcomes.cells(results):
    yield from saved(results, cell)
  for state in results.state.values.tolist():
    yield from replication(results, state)


def words(crossing: str, behind: str) -> str:
  """Returns the words for a signal of the factorial."""
  return f'{crossing} crossing, {behind} effect'


def _table(finding, where, what, samples, details, **info):
  """Judges main effects, their interaction, and each factor alone against others."""
  exact, linearised, smoothed, both = samples
  linearising = (linearised - exact + both - smoothed) / 2
  smoothing = (smoothed - exact + both - linearised) / 2
  claims = {
    'linearising': (
      f'a prediction that linearises what lies behind a unit {what} than one that '
      'computes it (mean over true and smoothed crossings)',
      linearising,
    ),
    'smoothing': (
      f'a prediction that smooths the crossing of the threshold {what} than one with '
      'true crossings (mean over exact and linear effects)',
      smoothing,
    ),
    'interaction': (
      'linearising helps more where the crossing is smoothed than where it is true '
      '(half the difference)',
      (both - smoothed - linearised + exact) / 2,
    ),
    'linearising less smoothing': (
      f'linearising what lies behind a unit, alone, {what} than smoothing its crossing, '
      'alone',
      linearised - smoothed,
    ),
    'linearised less both': (
      f'a prediction with true crossings and linear effects {what} than that of STE, '
      'whose crossings are smoothed as well',
      linearised - both,
    ),
  }
  yield from contrasts.family(
    [
      contrasts.Cell(
        f'{finding}, {name}',
        f'{where}{claim}.',
        effect,
        details if name == 'linearising' else {},  # Once is enough.
      )
      for name, (claim, effect) in claims.items()
    ],
    **info,
  )


def _each(finding, claim, samples, details, **info):
  """Judges whether each signal has a positive effect; with details of its own."""
  names = [words(**labels) for labels in _LABELS]
  return contrasts.family(
    [
      contrasts.Cell(
        f'{finding}, {name}', f'{claim} {name}.', own, details=more
      )
      for name, own, more in zip(names, samples, details, strict=True)
    ],
    **info,
  )
