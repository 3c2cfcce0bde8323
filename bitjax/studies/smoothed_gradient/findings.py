"""Is STE a smoothed discrete gradient, and is a smoothed one better?

`primary` is the contrast that was declared beforehand, and `kills` are the claims any of
which would kill the description of STE as a smoothed discrete gradient. The rest explores:
every signal (`signals`), what the batch does (`batches`), the factorial of crossing and effect
behind (`factors`), and rounds (`rounds`). The intervals of a table hold for all its
claims at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitjax.evidence import contrasts
from bitjax.studies.smoothed_gradient import arms
from bitjax.studies.smoothed_gradient import outcomes
from bitjax.studies.toy import outcomes as toy_outcomes

if TYPE_CHECKING:
  import xarray

__all__ = [
  'batches',
  'factors',
  'judge',
  'kills',
  'primary',
  'rounds',
  'signals',
]

_ON_B: dict[str, Any] = {
  'smallest': toy_outcomes.LOG_RATIO,
  'protocol': 'deployable, B',
  'unit': 'log loss ratio',
}


def primary(results: xarray.Dataset) -> toy_outcomes.Verdicts:
  """Judges the primary contrast: are co-flip gains better than STE's prediction?

  Args:
    results: the results of `toy.arms.collect`.
  """
  cell = {'layers': results.layers.values.tolist()[0], 'state': 'trained'}
  size, name = outcomes.largest(results), outcomes.co_flips(results)[-1]
  linear, found = (
    _once(results, cell, size, signal) for signal in ('linear', name)
  )
  yield contrasts.difference(
    'co-flip against STE',
    f'{toy_outcomes.describe(cell)}, batch {size}: flips ranked by gains that are averaged '
    f'over random flips of the other weights ({name}) reach a lower loss on B than flips '
    "ranked by STE's linear prediction.",
    contrasts.log_ratio(linear, found),
    primary=True,
    details=_details(results, cell, size, ['exact', 'linear', name]),
    **_ON_B,
  )


def kills(
  results: xarray.Dataset, cell: dict[str, Any]
) -> toy_outcomes.Verdicts:
  """Judges the claims without which STE is no smoothed discrete gradient.

  Args:
    results: the results of `toy.arms.collect`.
    cell: labels of layers and state.
  """
  size = outcomes.largest(results)
  few, *_, many = outcomes.co_flips(results)
  near = {
    signal: outcomes.nearness(
      results, 'linear', signal, **cell, batch_size=size
    )
    for signal in results.signal.values.tolist()
  }
  details = {f'{signal}, STE': found.mean() for signal, found in near.items()}
  where = f"{toy_outcomes.describe(cell)}, batch {size}: STE's prediction correlates more"
  yield from contrasts.family(
    [
      contrasts.Cell(
        'STE nearer to smoothed than exact',
        f'{where} with gains that are averaged ({many}) than with exact gains.',
        near[many] - near['exact'],
        details,
      ),
      contrasts.Cell(
        'STE nearer with more draws',
        f'{where} with {many} than with {few}.',
        near[many] - near[few],
      ),
    ],
    smallest=toy_outcomes.CORRELATION,
    bounds=(-2, 2),
    protocol='A',
    unit='correlation over flips',
  )
  exact, found = (
    _once(results, cell, size, signal) for signal in ('exact', many)
  )
  yield contrasts.difference(
    'smoothed against exact',
    f'{toy_outcomes.describe(cell)}, batch {size}: flips ranked by averaged gains ({many}) '
    'reach a lower loss on B than flips ranked by exact gains.',
    contrasts.log_ratio(exact, found),
    details=_details(results, cell, size, ['exact', many]),
    **_ON_B,
  )


def signals(
  results: xarray.Dataset, cell: dict[str, Any]
) -> toy_outcomes.Verdicts:
  """Compares every signal with STE's prediction, on B.

  Args:
    results: the results of `toy.arms.collect`.
    cell: labels of layers and state.
  """
  size = outcomes.largest(results)
  linear = _once(results, cell, size, 'linear')
  tuned = _unsettled(results, cell, size, 'linear')
  yield from contrasts.family(
    [
      contrasts.Cell(
        f'{signal} against STE, B',
        f'{toy_outcomes.describe(cell)}, batch {size}: flips ranked by {_words(signal)} '
        "reach a lower loss on B than flips ranked by STE's linear prediction.",
        contrasts.log_ratio(linear, _once(results, cell, size, signal)),
        _details(results, cell, size, [signal]) | tuned,
      )
      for signal in results.signal.values.tolist()
      if signal != 'linear'
    ],
    **_ON_B,
  )


def batches(
  results: xarray.Dataset, cell: dict[str, Any]
) -> toy_outcomes.Verdicts:
  """Compares how near signals come to the exact gains on B, by batch size.

  Args:
    results: the results of `toy.arms.collect`.
    cell: labels of layers and state.
  """
  for size in results.batch_size.values.tolist():
    near = {
      signal: outcomes.nearness(
        results, 'exact', signal, **cell, batch_size=size
      )
      for signal in results.signal.values.tolist()
    }
    yield from contrasts.family(
      [
        contrasts.Cell(
          f'{signal} nearer than STE',
          f'{toy_outcomes.describe(cell)}, batch {size}: {_words(signal)} of A correlate '
          "more with the exact gains of B than STE's prediction does.",
          found - near['linear'],
          {signal: found.mean(), 'linear': near['linear'].mean()},
        )
        for signal, found in near.items()
        if signal != 'linear'
      ],
      smallest=toy_outcomes.CORRELATION,
      bounds=(-2, 2),
      protocol='A, exact on B',
      unit='correlation over flips',
    )


def factors(results: xarray.Dataset, state: str) -> toy_outcomes.Verdicts:
  """Judges whether averaging an effect behind does what linearising it does.

  Args:
    results: the results of `toy.arms.collect`.
    state: the state of the networks.
  """
  cell = {'layers': results.layers.values.tolist()[0], 'state': state}
  size = outcomes.largest(results)
  saved = {
    (crossing, behind): outcomes.saved(
      results, 'factorial', 'holdout', 'deployable', **cell,
      crossing=crossing, behind=behind,
    )
    for crossing in arms.CROSSINGS
    for behind in arms.BEHIND
  }  # fmt: skip
  details = {_factor(*one): found.mean() for one, found in saved.items()}
  tuned = {
    (crossing, behind): outcomes.unsettled(
      results, 'factorial', _factor(crossing, behind), **cell,
      crossing=crossing, behind=behind,
    )
    for crossing, behind in saved
  }  # fmt: skip
  pairs = [
    ((crossing, 'averaged'), (crossing, behind))
    for crossing in arms.CROSSINGS
    for behind in arms.BEHIND[:2]
  ] + [
    (('smoothed', behind), ('true', behind)) for behind in arms.BEHIND
  ]  # fmt: skip
  yield from contrasts.family(
    [
      contrasts.Cell(
        f'factorial, {_factor(*one)} less {_factor(*other)}',
        f'{toy_outcomes.describe(cell)}, batch {size}: flips ranked with {_factor(*one)} '
        f'save more on B than with {_factor(*other)}.',
        saved[one] - saved[other],
        # Once is enough for the decreases.
        ({} if number else details) | tuned[one] | tuned[other],
      )
      for number, (one, other) in enumerate(pairs)
    ],
    smallest=toy_outcomes.NATS,
    protocol='deployable, B',
    unit='nats',
  )


def rounds(
  results: xarray.Dataset, cell: dict[str, Any]
) -> toy_outcomes.Verdicts:
  """Compares signals with STE's prediction where each round scores all flips again.

  Args:
    results: the results of `toy.arms.collect`.
    cell: labels of layers and state.
  """
  for number in results.num_rounds.values.tolist():
    labels = cell | {'num_rounds': number}

    def found(signal, read, labels=labels):
      return read(
        results, 'rounds', 'holdout', 'deployable', **labels,
        round_signal=signal,
      )  # fmt: skip

    def tuned(signal, labels=labels):
      return outcomes.unsettled(
        results, 'rounds', signal, **labels, round_signal=signal
      )

    linear, base = found('linear', outcomes.reached), tuned('linear')
    yield from contrasts.family(
      [
        contrasts.Cell(
          f'{signal} against STE, rounds',
          f'{toy_outcomes.describe(cell)}, {number} rounds: flips ranked in each round by '
          f"{_words(signal)} reach a lower loss on B than by STE's prediction.",
          contrasts.log_ratio(linear, found(signal, outcomes.reached)),
          {
            f'decrease, {name}': found(name, outcomes.saved).mean()
            for name in (signal, 'linear')
          }
          | tuned(signal)
          | base,
        )
        for signal in arms.ROUND_SIGNALS
        if signal != 'linear'
      ],
      **_ON_B,
    )


def judge(results: xarray.Dataset) -> toy_outcomes.Verdicts:
  """Yields all findings, the primary contrast first."""
  yield from primary(results)
  for cell in toy_outcomes.cells(results):
    for find in (kills, signals, batches, rounds):
      yield from find(results, cell)
  for state in results.state.values.tolist():
    yield from factors(results, state)


def _once(results, cell, size, signal):
  """Returns the losses on B of flips that a signal ranks, made at once."""
  return outcomes.reached(
    results, 'once', 'holdout', 'deployable', **cell,
    batch_size=size, signal=signal,
  )  # fmt: skip


def _details(results, cell, size, names):
  """Returns what the flips of each signal save, and how settled their number is."""
  details = {}
  for name in names:
    labels = cell | {'batch_size': size, 'signal': name}
    for head, batch, protocol in (
      ('decrease on A', 'search', 'oracle'),
      ('decrease on B', 'holdout', 'deployable'),
      ('whole budget, B', 'holdout', 'all'),
    ):
      found = outcomes.saved(results, 'once', batch, protocol, **labels)
      details[f'{head}, {name}'] = found.mean()
    details |= _unsettled(results, cell, size, name)
  return details


def _unsettled(results, cell, size, signal):
  """Returns how settled the number of flips is that a signal ranks."""
  return outcomes.unsettled(
    results, 'once', signal, **cell, batch_size=size, signal=signal
  )


def _words(signal):
  """Returns the words for a signal's values."""
  if signal == 'exact':
    return 'exact gains'
  if signal.startswith('co-flip'):
    return f'averaged gains ({signal})'
  return f'predictions with the {signal}'


def _factor(crossing, behind):
  """Returns the words for a signal of the factorial."""
  return f'{crossing} crossing, {behind} effect'
