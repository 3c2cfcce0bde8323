"""N1-N3, judged on tables whose answer is known."""

import numpy as np
import pytest
import xarray

from bitjax.studies import discrete_arms
from bitjax.studies import discrete_findings as findings

SEEDS = 12
WHERE = {'ball': 'l2:0.1', 'layers': 'first', 'state': 'trained'}
CELL = ('ball', 'layers', 'state', 'seed')
COORDS = {
  'ball': ['l2:0.1'],
  'layers': ['first'],
  'state': ['trained'],
  'seed': range(SEEDS),
  'signal': list(discrete_arms.SIGNALS),
  'ranking': list(discrete_arms.RANKINGS),
  'prefix': [0, 8, 64],
  'direction': list(discrete_arms.DIRECTIONS),
  'learning_rate': [0.1, 1.0],
  'split': list(discrete_arms.SPLITS),
  'num_rounds': [1, 4],
  'share': list(discrete_arms.SHARES),
  'optimizer': ['sgd'],
  'step_size': [1.0],
  'step': [0, 1, 2],
  'order': list(discrete_arms.ORDERS),
  'control_draw': [0, 1],
  'batch_size': [64, 256],
  'pair': list(discrete_arms.PAIRS),
}
AXES = {
  'discrete': ('signal', 'ranking', 'prefix'),
  'rounds': ('signal', 'ranking', 'split', 'num_rounds', 'share'),
  'ste': ('direction', 'learning_rate'),
  'multi': ('optimizer', 'step_size', 'step'),
  'coordinate': ('order',),
  'random': ('control_draw',),
}


class Table:
  """All losses are 1 nat, but for what is put in; each seed has its own noise."""

  def __init__(self):
    self.random = np.random.default_rng(0)
    arms = {
      f'{arm}_{batch}': (*CELL, *own)
      for arm, own in AXES.items()
      for batch in ('search', 'holdout')
    }
    once = ('signal', 'ranking')
    arms |= {
      f'discrete_{name}': (*CELL, *once)
      for name in ('moves', 'predicted', 'true', 'used')
    }
    arms['rounds_used'] = (*CELL, *AXES['rounds'][:-1])
    arms['reliability_correlation'] = ('batch_size', 'state', 'seed', 'pair')
    sizes = {name: len(values) for name, values in COORDS.items()}
    self.results = xarray.Dataset(
      {
        name: (dims, np.ones([sizes[d] for d in dims]))
        for name, dims in arms.items()
      },
      COORDS,
    )

  def put(self, name, value, **labels):
    """Sets cells; the noise is that of a seed in this call."""
    cells = self.results[name]
    noise = 1 + 0.001 * self.random.normal(size=SEEDS)
    noise = xarray.DataArray(noise, dims='seed')
    cells.loc[labels] = (xarray.ones_like(cells.sel(labels)) * noise) * value
    return self


def judged(judge, table, *args):
  return {v.finding: v for v in judge(table.results, *args)}


@pytest.fixture
def table():
  return Table()


def test_the_bound_spends_the_whole_budget_against_the_best_rate(table):
  exact = {'signal': 'exact', 'ranking': 'gain'}
  table.put('discrete_search', 0.1, **exact)  # Better on the way ...
  table.put('discrete_search', 0.6, prefix=64, **exact)  # ... than at the end.
  table.put('ste_search', 0.5, learning_rate=0.1, direction='gradient')
  found = judged(findings.bound, table, WHERE)['N3 bound']
  assert found.verdict == 'contradicted' and not found.primary
  np.testing.assert_allclose(found.effect, np.log(0.5 / 0.6), atol=0.01)
  table.put('discrete_search', 0.4, prefix=64, **exact)
  assert judged(findings.bound, table, WHERE)['N3 bound'].verdict == 'supported'


def test_the_best_moves_may_be_fewer_than_all(table):
  table.put('ste_search', 0.5, learning_rate=0.1, direction='gradient')
  exact = {'signal': 'exact', 'ranking': discrete_arms.RANKINGS[2]}
  table.put('discrete_search', 0.9, **exact)
  table.put('discrete_search', 0.4, prefix=8, **exact)
  found = judged(findings.bound, table, WHERE)['N3 bound, best moves']
  assert found.verdict == 'supported'
  np.testing.assert_allclose(found.effect, np.log(0.5 / 0.4), atol=0.01)


def test_causes_are_told_apart(table):
  dense = discrete_arms.RANKINGS[2]
  table.put('discrete_search', 0.3, signal='exact', ranking=dense)
  table.put('discrete_search', 0.4, signal='linear', ranking=dense)
  table.put('discrete_holdout', 0.8, signal='exact', ranking=dense)
  table.put('discrete_holdout', 0.5, signal='linear', ranking=dense)
  for batch in ('search', 'holdout'):
    table.put(f'discrete_{batch}', 1.0, prefix=0)
  table.put('discrete_predicted', 3.0, signal='exact')
  found = judged(findings.causes, table, WHERE)
  assert {name: verdict.verdict for name, verdict in found.items()} == {
    'cause: ranking': 'supported',
    'cause: signal, A': 'supported',
    'cause: signal, B': 'contradicted',
    'control: linear': 'supported',
    'cause: overfitting': 'supported',
    'cause: additivity': 'supported',
  }
  np.testing.assert_allclose(
    found['cause: overfitting'].effect, 0.5 / 0.7 - 0.1 / 0.6, atol=0.02
  )
  held = judged(findings.held_out, table, WHERE)['N3 held out']
  assert held.verdict == 'supported'


def test_rounds_against_one_and_against_ste(table):
  options = {'signal': 'exact', 'ranking': discrete_arms.RANKINGS[2]}
  most = options | {'num_rounds': 4}
  table.put('rounds_search', 0.7, share=0.5, split='cumulative', **most)
  table.put('rounds_search', 0.9, share=1.0, split='cumulative', **most)
  table.put('rounds_search', 1.1, share=1.0, split='even', **most)
  table.put('multi_search', 0.8, step=2)
  table.put('multi_holdout', 0.9, step=1)
  found = judged(findings.several, table, WHERE)
  assert found['N1 rounds'].verdict == 'supported'
  np.testing.assert_allclose(found['N1 rounds'].effect, -np.log(0.7), atol=0.01)
  assert found['N1 rounds'].details['1 rounds'] == 0
  assert found['N3 multi-step, A'].verdict == 'supported'
  assert found['N3 multi-step, B'].verdict == 'contradicted'
  even = judged(findings.split, table, WHERE)['N1 split']
  assert even.verdict == 'supported'
  np.testing.assert_allclose(even.effect, np.log(1.1 / 0.9), atol=0.01)


def test_arms_that_do_the_same_are_inert(table):
  assert judged(findings.split, table, WHERE)['N1 split'].verdict == 'inert'


def test_reliability_by_size_and_signal(table):
  for pair, values in zip(
    discrete_arms.PAIRS, ((0.1, 0.3), (0.5, 0.7), (0.2, 0.25)), strict=True
  ):
    for size, value in zip((64, 256), values, strict=True):
      table.put('reliability_correlation', value, pair=pair, batch_size=size)
  found = judged(findings.reliable, table, 'trained')
  assert found['N3 reliability, data'].verdict == 'supported'
  assert found['N3 reliability, signal'].verdict == 'supported'
  assert found['N3 smoothed'].verdict == 'contradicted'
  np.testing.assert_allclose(found['N3 smoothed'].effect, -0.05, atol=0.01)
