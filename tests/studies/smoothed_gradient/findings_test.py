"""Verdicts on tables whose answer is known."""

import numpy as np
import pytest
import xarray

from bitjax.studies.smoothed_gradient import arms
from bitjax.studies.smoothed_gradient import findings
from bitjax.studies.toy import outcomes as toy_outcomes
from bitjax.studies.toy import searches

SEEDS = 12
CELL = {'layers': 'first', 'state': 'trained'}
COORDS = {
  'layers': ['first'],
  'state': ['initialised', 'trained'],
  'seed': range(SEEDS),
  'batch_size': [32, 64],
  'signal': arms.names((2, 8)),
  'prefix': [0, 4, 64],
  'crossing': list(arms.CROSSINGS),
  'behind': list(arms.BEHIND),
  'round_signal': list(arms.ROUND_SIGNALS),
  'num_rounds': [4],
  'share': list(searches.SHARES),
}
ROWS = ('layers', 'state', 'seed')
AXES = {
  'once': ('batch_size', 'signal', 'prefix'),
  'factorial': ('crossing', 'behind', 'prefix'),
  'rounds': ('round_signal', 'num_rounds', 'share'),
}


class Table:
  """A table in which every loss is 1 nat and every correlation 0 until `put`."""

  def __init__(self):
    self.random = np.random.default_rng(0)
    dims = {
      f'{arm}_{batch}': (*ROWS, *own)
      for arm, own in AXES.items()
      for batch in toy_outcomes.BATCHES
    }
    dims |= {
      f'tuning_{name}': tuple('tuning_seed' if d == 'seed' else d for d in own)
      for name, own in dims.items()
      if name.endswith('_holdout')
    }
    near = {
      f'once_near_{other}': (*ROWS, *AXES['once'][:-1])
      for other in ('linear', 'smoothed', 'exact')
    }
    coords = COORDS | {'tuning_seed': range(1000, 1004)}
    sizes = {name: len(values) for name, values in coords.items()}
    self.results = xarray.Dataset(
      {
        name: (own, np.full([sizes[d] for d in own], float(name in dims)))
        for name, own in (dims | near).items()
      },
      coords,
    )

  def put(self, name, value, **labels):
    """Sets cells to `value` times a noise that each call draws for each seed."""
    cells = self.results[name]
    noise = 1 + 0.001 * self.random.normal(size=SEEDS)
    noise = xarray.DataArray(noise, dims='seed')
    cells.loc[labels] = (xarray.ones_like(cells.sel(labels)) * noise) * value
    if name.endswith('_holdout'):  # Tuning seeds choose as tested ones would.
      self.results[f'tuning_{name}'].loc[labels] = value
    return self


@pytest.fixture
def table():
  return Table()


def judged(find, table, *args):
  return {v.finding: v for v in find(table.results, *args)}


def test_the_primary_contrast_is_about_the_tuned_number_on_b(table):
  labels = CELL | {'batch_size': 64}
  table.put('once_holdout', 0.8, prefix=4, signal='linear', **labels)
  table.put('once_holdout', 0.7, prefix=64, signal='co-flip 8', **labels)
  table.put('once_search', 0.1)  # Of A, which does not matter.
  table.put('once_holdout', 0.1, batch_size=32)  # Nor do smaller batches.
  first, *rest = findings.judge(table.results)
  assert first.primary and not any(v.primary for v in rest)
  assert first.verdict == 'supported' and 'trained' in first.claim
  np.testing.assert_allclose(first.effect, np.log(0.8 / 0.7), atol=2e-3)
  np.testing.assert_allclose(
    [first.details[f'decrease on B, {s}'] for s in ('linear', 'co-flip 8')],
    [0.2, 0.3],
    atol=2e-3,
  )
  assert first.details['whole budget, B, linear'] < 0.01
  assert first.details['tuned otherwise, linear'] == 0
  for verdict in (first, *rest):
    tuned = [n for n in verdict.details if n.startswith('tuned otherwise, ')]
    # Both sides of a contrast on B are tuned, and nothing is for correlations.
    on_b = verdict.protocol == 'deployable, B'
    assert (len(tuned) >= 2) == on_b, verdict.finding


@pytest.mark.parametrize(
  ('near', 'wanted'),
  [
    ({'exact': 0.2, 'co-flip 2': 0.3, 'co-flip 8': 0.5}, ('supported',) * 2),
    (
      {'exact': 0.5, 'co-flip 2': 0.2, 'co-flip 8': 0.3},
      ('contradicted', 'supported'),
    ),
    (
      {'exact': 0.3, 'co-flip 2': 0.301, 'co-flip 8': 0.302},
      ('equivalent',) * 2,
    ),
  ],
)
def test_what_kills_the_description(table, near, wanted):
  for signal, value in near.items():
    table.put('once_near_linear', value, signal=signal)
  table.put('once_holdout', 0.9, signal='exact', prefix=4)
  table.put('once_holdout', 0.8, signal='co-flip 8', prefix=4)
  found = judged(findings.kills, table, CELL)
  assert [v.verdict for v in found.values()] == [*wanted, 'supported']
  table.put('once_holdout', 0.95, signal='co-flip 8', prefix=4)
  found = judged(findings.kills, table, CELL)
  assert found['smoothed against exact'].verdict == 'contradicted'


def test_tables_of_signals_batches_and_rounds(table):
  table.put('once_holdout', 0.9, signal='linear', prefix=64)
  table.put('once_holdout', 0.8, signal='window 0.5', prefix=64)
  found = judged(findings.signals, table, CELL)
  assert len(found) == len(COORDS['signal']) - 1
  assert found['window 0.5 against STE, B'].verdict == 'supported'
  assert found['exact against STE, B'].verdict == 'contradicted'
  table.put('once_near_exact', 0.2, signal='linear')
  table.put('once_near_exact', 0.4, signal='exact', batch_size=64)
  by_size = [
    v
    for v in findings.batches(table.results, CELL)
    if v.finding == 'exact nearer than STE'
  ]
  assert [v.verdict for v in by_size] == ['contradicted', 'supported']
  assert 'batch 64' in by_size[1].claim
  table.put('rounds_holdout', 0.9, round_signal='linear', share=1.0)
  table.put('rounds_holdout', 0.7, round_signal='co-flip', share=0.5)
  found = judged(findings.rounds, table, CELL)
  verdict = found['co-flip against STE, rounds']
  np.testing.assert_allclose(verdict.effect, np.log(0.9 / 0.7), atol=2e-3)


def test_the_factorial_compares_savings_in_nats(table):
  saved = {
    ('true', 'exact'): 0.1,
    ('true', 'linear'): 0.2,
    ('true', 'averaged'): 0.3,
    ('smoothed', 'exact'): 0.15,
    ('smoothed', 'linear'): 0.4,
    ('smoothed', 'averaged'): 0.404,
  }
  for (crossing, behind), value in saved.items():
    table.put('factorial_holdout', 1.0, crossing=crossing, behind=behind)
    table.put(
      'factorial_holdout', 1 - value, crossing=crossing, behind=behind, prefix=4
    )
  found = judged(findings.factors, table, 'trained')
  assert len(found) == 7
  for name, effect, verdict in (
    ('true crossing, averaged effect less true crossing, exact effect',
     0.2, 'supported'),
    ('smoothed crossing, averaged effect less smoothed crossing, linear effect',
     0.004, 'equivalent'),
    ('smoothed crossing, linear effect less true crossing, linear effect',
     0.2, 'supported'),
  ):  # fmt: skip
    one = found[f'factorial, {name}']
    np.testing.assert_allclose(one.effect, effect, atol=2e-3)
    assert one.verdict == verdict


def test_lost_seeds_are_no_evidence(as_if_not_run):
  table = Table()
  for name in list(table.results.data_vars):
    if name.startswith('tuning') or 'near' in name:
      continue
    values = table.results[name]
    table.results[name] = values * (
      1 + 0.01 * table.random.normal(size=values.shape)
    )
  losses = [
    n for n in table.results.data_vars
    if not n.startswith('tuning') and 'near' not in n
  ]  # fmt: skip
  as_if_not_run(findings.primary, table.results, losses)
