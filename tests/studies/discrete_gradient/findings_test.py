"""N1-N3, judged on tables whose answer is known."""

import itertools
import math
import types

from matplotlib import pyplot
import numpy as np
import pytest
import xarray

from bitjax.evidence import plots
from bitjax.studies.discrete_gradient import arms
from bitjax.studies.discrete_gradient import balls
from bitjax.studies.discrete_gradient import factorial
from bitjax.studies.discrete_gradient import figure as page
from bitjax.studies.discrete_gradient import findings
from bitjax.studies.discrete_gradient import outcomes as reads
from bitjax.studies.discrete_gradient import rounds
from bitjax.studies.discrete_gradient import schedules
from bitjax.studies.discrete_gradient import study
from bitjax.studies.toy import arms as toy_arms
from bitjax.studies.toy import promises
from bitjax.studies.toy import searches

SEEDS = 12
WHERE = {'ball': 'l2:0.1', 'layers': 'first', 'state': 'trained'}
CELL = ('ball', 'layers', 'state', 'seed')
COORDS = {
  'ball': ['l2:0.1'],
  'layers': ['first'],
  'state': ['trained'],
  'seed': range(SEEDS),
  'signal': list(searches.SIGNALS),
  'ranking': list(searches.RANKINGS),
  'prefix': [0, 8, 64],
  'direction': list(searches.DIRECTIONS),
  'learning_rate': [0.1, 1.0],
  'split': list(searches.SPLITS),
  'num_rounds': [1, 4],
  'share': list(searches.SHARES),
  'optimizer': ['sgd'],
  'step_size': [1.0],
  'step': [0, 1, 2],
  'order': list(searches.ORDERS),
  'control_draw': [0, 1],
  'batch_size': [64, 256],
  'pair': list(promises.PAIRS),
  'crossing': list(promises.CROSSINGS),
  'behind': list(promises.BEHIND),
}
AXES = {
  'discrete': ('signal', 'ranking', 'prefix'),
  'factorial': ('crossing', 'behind', 'prefix'),
  'rounds': ('signal', 'ranking', 'split', 'num_rounds', 'share'),
  'ste': ('direction', 'learning_rate'),
  'multi': ('optimizer', 'step_size', 'step'),
  'coordinate': ('order',),
  'random': ('control_draw',),
}


class Table:
  """A table in which every loss is 1 nat until `put` sets it, with noise."""

  def __init__(self, **coords):
    coords = COORDS | coords
    self.random = np.random.default_rng(0)
    arms = {
      f'{arm}_{batch}': (*CELL, *own)
      for arm, own in AXES.items()
      for batch in ('search', 'holdout')
    }
    tuned = {'seed': 'tuning_seed'}
    once = ('signal', 'ranking')
    arms |= {
      f'discrete_{name}': (*CELL, *once)
      for name in ('moves', 'predicted', 'true', 'used')
    }
    arms |= {
      f'rounds_{name}': (*CELL, *AXES['rounds'][:-1])
      for name in ('used', 'moves', 'returns')
    }
    arms |= {
      f'tuning_{name}': tuple(tuned.get(d, d) for d in dims)
      for name, dims in arms.items()
      if name.endswith('_holdout')
    }
    arms['reliability_correlation'] = ('batch_size', 'state', 'seed', 'pair')
    coords |= {'tuning_seed': range(1000, 1004)}
    sizes = {name: len(values) for name, values in coords.items()}
    self.results = xarray.Dataset(
      {
        name: (dims, np.ones([sizes[d] for d in dims]))
        for name, dims in arms.items()
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


@pytest.mark.parametrize('num_balls', [1, 3])
@pytest.mark.parametrize('sizes', [(64,), (32, 64)])
def test_the_cost_counts_the_lanes_of_all_arms(num_balls, sizes, monkeypatch):
  config = study.Config(
    layers=('first', 'all'),
    more_balls=','.join(['linf:0.002', 'flips:9'][: num_balls - 1]) or None,
    batch_size=sizes,
  )
  monkeypatch.setattr(toy_arms, 'prefixes', lambda *args, **options: [0, 1])
  problems = types.SimpleNamespace(config=config)
  networks = 2 * len(config.all_seeds)
  lanes = [
    networks * math.prod(map(len, (arm.static | arm.lanes).values()))
    for arm in arms.declared(problems)
  ]
  assert config.cost().lanes == sum(lanes)


def judged(judge, table, *args):
  return {v.finding: v for v in judge(table.results, *args)}


@pytest.fixture
def table():
  return Table()


def test_the_bound_spends_the_whole_budget_against_the_best_rate(table):
  exact = {'signal': 'exact', 'ranking': 'gain'}
  table.put('discrete_search', 0.1, **exact)  # Better on the way.
  table.put('discrete_search', 0.6, prefix=64, **exact)  # Worse at the end.
  table.put('ste_search', 0.5, learning_rate=0.1, direction='gradient')
  found = judged(findings.bound, table, WHERE)['N3 bound']
  assert found.verdict == 'contradicted' and not found.primary
  np.testing.assert_allclose(found.effect, np.log(0.5 / 0.6), atol=0.01)
  table.put('discrete_search', 0.4, prefix=64, **exact)
  assert judged(findings.bound, table, WHERE)['N3 bound'].verdict == 'supported'


def test_the_best_moves_may_be_fewer_than_all(table):
  table.put('ste_search', 0.5, learning_rate=0.1, direction='gradient')
  exact = {'signal': 'exact', 'ranking': searches.RANKINGS[2]}
  table.put('discrete_search', 0.9, **exact)
  table.put('discrete_search', 0.4, prefix=8, **exact)
  found = judged(findings.bound, table, WHERE)['N3 bound, best moves']
  assert found.verdict == 'supported'
  np.testing.assert_allclose(found.effect, np.log(0.5 / 0.4), atol=0.01)


def test_causes_are_told_apart(table):
  dense = searches.RANKINGS[2]
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
    'control: overfitting, linear': 'supported',
    'cause: overfitting, exact less linear': 'supported',
    'cause: additivity': 'supported',
    'cause: additivity, share': 'supported',
  }
  for finding, effect in (
    ('cause: additivity, share', 1 / 3),
    ('cause: overfitting', 0.5 / 0.7),
    ('control: overfitting, linear', 0.1 / 0.6),
    ('cause: overfitting, exact less linear', 0.4),
  ):
    np.testing.assert_allclose(found[finding].effect, effect, atol=0.02)
  held = judged(findings.held_out, table, WHERE)['N3 held out']
  assert held.verdict == 'supported'
  assert held.details['tuned otherwise, exact'] == 0
  table.put('discrete_search', 1.4, prefix=64, signal='linear', ranking=dense)
  found = judged(findings.causes, table, WHERE)
  share = found['control: overfitting, linear']
  assert share.verdict == 'inconclusive' and np.isnan(share.effect)
  assert 'not clearly positive' in share.caveat
  less = found['cause: overfitting, exact less linear']
  assert less.verdict == 'supported'  # Nats are defined.


def test_tuning_seeds_choose_for_all_others(table):
  exact = {'signal': 'exact', 'ranking': searches.RANKINGS[2]}
  table.put('discrete_holdout', 0.2, prefix=64, **exact)
  tuning = table.results['tuning_discrete_holdout']
  tuning.loc[{'prefix': 64, **exact}] = 3.0
  tuning.loc[{'prefix': 8, **exact}] = 0.9
  tuning.loc[{'prefix': 0, 'tuning_seed': 1003, **exact}] = 0.7
  held = judged(findings.held_out, table, WHERE)['N3 held out']
  np.testing.assert_allclose(held.effect, 0, atol=0.01)
  # Moves are made unless seed 1003 is drawn twice or more often.
  chance = 1 - 0.75**4 - 0.75**3
  share = held.details['tuned otherwise, exact']
  np.testing.assert_allclose(share, chance, atol=0.05)


def test_rounds_against_one_and_against_ste(table):
  options = {'signal': 'exact', 'ranking': searches.RANKINGS[2]}
  most = options | {'num_rounds': 4}
  table.put('rounds_search', 0.7, share=0.5, split='cumulative', **most)
  table.put('rounds_search', 0.9, share=1.0, split='cumulative', **most)
  table.put('rounds_search', 1.1, share=1.0, split='even', **most)
  table.put('multi_search', 0.8, step=2)
  table.put('multi_holdout', 0.9, step=1)
  found = judged(rounds.several, table, WHERE)
  assert found['N1 rounds'].verdict == 'supported'
  np.testing.assert_allclose(found['N1 rounds'].effect, -np.log(0.7), atol=0.01)
  assert found['N1 rounds'].details['1 rounds'] == 0
  assert found['N3 multi-step, A'].verdict == 'supported'
  assert found['N3 multi-step, B'].verdict == 'contradicted'
  even = judged(rounds.split, table, WHERE)['N1 split']
  assert even.verdict == 'supported'
  np.testing.assert_allclose(even.effect, np.log(1.1 / 0.9), atol=0.01)


def test_schedules_against_one_round_of_the_same_ranking(table):
  options = {'signal': 'exact', 'ranking': 'per cost', 'num_rounds': 4}
  table.put('discrete_search', 0.5, prefix=64, signal='exact', ranking='gain')
  table.put(
    'discrete_search', 0.8, prefix=64, signal='exact', ranking='per cost'
  )
  table.put(
    'discrete_search', 0.1, prefix=8, signal='exact', ranking='per cost'
  )
  table.put('rounds_search', 0.7, share=1.0, split='even', **options)
  table.put('rounds_search', 0.2, share=0.5, split='even', **options)
  table.put('rounds_search', 0.9, share=1.0, split='cumulative', **options)
  found = judged(rounds.against_one, table, WHERE)
  assert len(found) == 2 * len(searches.SIGNALS)
  exact = found['N1 schedules, A, exact']
  assert exact.verdict == 'supported'
  np.testing.assert_allclose(exact.effect, np.log(0.8 / 0.7), atol=0.01)
  for name, loss, one in (
    ('per cost, even, 4', 0.7, 0.8),
    ('per cost, cumulative, 4', 0.9, 0.8),
    ('gain, even, 4', 1.0, 0.5),
  ):
    mean, low, high = (
      exact.details[f'{name}{e}'] for e in ('', ' low', ' high')
    )
    np.testing.assert_allclose(mean, np.log(one / loss), atol=0.01)
    assert low < mean < high
  assert not any('1' in name.split(', ')[-1] for name in exact.details)
  cheap = found['N1 schedules, A, cost'].details
  assert sum(name.endswith(' low') for name in cheap) == 2  # One ranking.
  table.results['rounds_search'].loc[{'ranking': 'gain'}] = np.nan
  again = judged(rounds.against_one, table, WHERE)['N1 schedules, A, exact']
  assert not any(name.startswith('gain') for name in again.details)


def test_rounds_and_one_round_are_both_tuned(table):
  cell = {'signal': 'exact', 'ranking': 'gain'}
  table.put('discrete_holdout', 0.8, prefix=8, **cell)
  more = cell | {'split': 'even', 'num_rounds': 4}
  table.put('rounds_holdout', 0.6, share=0.5, **more)
  table.put('rounds_holdout', 0.1, share=1.0, **(more | {'num_rounds': 1}))
  table.put('rounds_search', 0.7, share=0.5, **(more | {'signal': 'linear'}))
  table.put('multi_holdout', 0.9, step=1)
  table.results['rounds_holdout'].loc[{'signal': 'random'}] = np.nan
  table.results['rounds_search'].loc[{'signal': 'random'}] = np.nan
  found = judged(rounds.tuned, table, WHERE)
  held = found['N1 tuned, B, exact']
  assert held.verdict == 'supported' and '2 other' in held.caveat
  np.testing.assert_allclose(held.effect, np.log(0.8 / 0.6), atol=0.01)
  np.testing.assert_allclose(
    held.details['against steps of STE'], np.log(0.9 / 0.6), atol=0.01
  )
  np.testing.assert_allclose(held.details['decrease'], 0.4, atol=0.01)
  assert found['N1 tuned, A, linear'].verdict == 'supported'
  assert found['N1 tuned, A, exact'].verdict == 'inert'
  across = found['N1 tuned, B, exact against linear']
  np.testing.assert_allclose(across.effect, -np.log(0.6), atol=0.01)
  searched = found['N1 tuned, A, exact against linear']
  assert searched.verdict == 'contradicted'
  assert 'N1 tuned, B, random' not in found


def test_schedules_are_drawn_by_ranking_state_and_split(table):
  table.results['rounds_search'].loc[{'ranking': 'gain'}] = np.nan
  table.put('discrete_search', 1.0, prefix=0)
  more = {'signal': 'exact', 'ranking': 'per cost', 'split': 'even'}
  table.put('rounds_search', 0.7, share=1.0, num_rounds=4, **more)
  with plots.style():
    where = {'ball': 'l2:0.1', 'layers': 'first'}
    fig = schedules.page(table.results, where)
  even, together, *rest = fig.axes
  pyplot.close(fig)
  assert len(rest) == 2 and even.get_ylabel() == 'ranked per cost'
  assert 'equal' in even.get_title() and 'growing' in together.get_title()
  drawn = {line.get_label(): line.get_ydata() for line in even.lines}
  np.testing.assert_allclose(drawn['exact gains, A'], [0.0, 0.3], atol=0.01)
  np.testing.assert_allclose(drawn['linear gains, A'], [0.0, 0.0], atol=0.01)


def test_moves_that_turn_round(table):
  last = {'signal': 'exact', 'split': 'cumulative', 'num_rounds': 4}
  table.put('rounds_moves', 100, **last)
  table.put('rounds_returns', 75, ranking='per squared cost', **last)
  table.put('rounds_returns', 50, ranking='per cost', **last)
  table.put('rounds_returns', 90, ranking='gain', **last)
  found = judged(rounds.reversals, table, WHERE)
  assert {name: verdict.verdict for name, verdict in found.items()} == {
    'N1 turning, exact, gain': 'contradicted',
    'N1 turning, exact, per cost': 'supported',
    'N1 turning, linear, gain': 'inert',
    'N1 turning, linear, per cost': 'inert',
  }
  cell = found['N1 turning, exact, per cost']
  np.testing.assert_allclose(cell.effect, 0.25, atol=0.01)
  np.testing.assert_allclose(cell.details['returns, per cost'], 50, rtol=0.01)
  table.results['rounds_returns'].loc[{'ranking': 'gain'}] = np.nan
  assert len(judged(rounds.reversals, table, WHERE)) == 2


def test_one_round_is_not_several():
  table = Table(num_rounds=[1])
  assert not judged(rounds.reversals, table, WHERE)
  assert not judged(rounds.tuned, table, WHERE)
  assert not judged(rounds.against_one, table, WHERE)


def test_every_ball_has_a_ranking():
  assert {
    name: reads.ranking_of_ball(name)
    for name in ('l2:1', 'l1:1', 'linf:1', 'flips:9')
  } == {
    'l2:1': 'per squared cost',
    'l1:1': 'per cost',
    'linf:1': 'gain',
    'flips:9': 'gain',
  }


@pytest.fixture
def wide():
  """Two balls, each good in its own ranking only."""
  table = Table(ball=['l2:0.1', 'linf:0.002'])
  for ball in table.results.ball.values.tolist():
    own = {'ball': ball, 'ranking': reads.ranking_of_ball(ball)}
    table.put('discrete_search', 0.5, prefix=8, signal='exact', **own)
    table.put('discrete_holdout', 0.8, prefix=8, signal='exact', **own)
    table.put('discrete_search', 0.6, prefix=64, signal='linear', **own)
    table.put('discrete_holdout', 0.6, prefix=64, signal='linear', **own)
    table.put('discrete_moves', 50, **own)
  table.put('discrete_predicted', 5.0, signal='exact')
  ste = {'ball': 'linf:0.002', 'direction': 'sign', 'learning_rate': 0.1}
  table.put('ste_search', 0.4, **ste)
  table.put('ste_holdout', 0.7, **ste)
  return table


def rows(judge, table):
  return {(v.finding, v.claim.split(':')[0]): v for v in judge(table.results)}


def test_steps_in_every_ball(wide):
  found = rows(balls.steps, wide)
  assert len(found) == 2 * 2 * 2
  for (finding, ball), verdict in found.items():
    better = (ball, finding.split(', ')[-1]) != ('linf', 'sign')
    assert verdict.verdict == ('supported' if better else 'contradicted')
    assert '3 other' in verdict.caveat
  cell = found['N3 ball, A, sign', 'linf']
  np.testing.assert_allclose(cell.effect, np.log(0.4 / 0.5), atol=0.01)
  np.testing.assert_allclose(cell.details['true / predicted'], 0.2, atol=0.01)
  np.testing.assert_allclose(
    cell.details['moves of a whole budget'], 50, rtol=0.01
  )
  cell = found['N3 ball, B, gradient', 'l2']
  np.testing.assert_allclose(cell.effect, np.log(1 / 0.8), atol=0.01)


def test_intervals_of_a_table_are_wider_than_those_of_a_cell(wide):
  cell = rows(balls.steps, wide)['N3 ball, A, gradient', 'l2']
  where = {'ball': 'l2:0.1', 'layers': 'first', 'state': 'trained'}
  alone = judged(findings.bound, wide, where)['N3 bound, best moves']
  assert cell.effect == alone.effect
  assert cell.low < alone.low < alone.high < cell.high


def test_signals_in_every_ball(wide):
  found = rows(balls.signals, wide)
  assert {name: verdict.verdict for name, verdict in found.items()} == {
    ('N3 ball, A, signal', 'l2'): 'supported',
    ('N3 ball, A, signal', 'linf'): 'supported',
    ('N3 ball, B, signal', 'l2'): 'contradicted',
    ('N3 ball, B, signal', 'linf'): 'contradicted',
  }
  cell = found['N3 ball, B, signal', 'linf']
  np.testing.assert_allclose(cell.details['decrease, linear'], 0.4, atol=0.01)


def test_what_of_the_best_step_is_lost(wide):
  found = rows(balls.lost, wide)
  exact = found['N3 ball, lost on B, exact', 'linf']
  assert exact.verdict == 'supported'
  np.testing.assert_allclose(exact.effect, (0.5 - 0.2) / 0.5, atol=0.01)
  assert exact.details['fewest moves'] == exact.details['most moves'] == 8
  linear = found['N3 ball, lost on B, linear', 'l2']
  np.testing.assert_allclose(linear.effect, 0, atol=0.01)
  # The prefix of 64 goes on beyond the last move.
  np.testing.assert_allclose(linear.details['most moves'], 50, rtol=0.01)


def test_arms_that_do_the_same_are_inert(table):
  assert judged(rounds.split, table, WHERE)['N1 split'].verdict == 'inert'


def test_reliability_by_size_and_signal(table):
  for pair, values in zip(
    (('exact', 'exact'), ('linear', 'linear'), ('linear', 'exact')),
    ((0.1, 0.3), (0.5, 0.7), (0.2, 0.25)),
    strict=True,
  ):
    for size, value in zip((64, 256), values, strict=True):
      labels = {'pair': promises.pair(*pair), 'batch_size': size}
      table.put('reliability_correlation', value, **labels)
  found = judged(findings.reliable, table, 'trained')
  assert found['N3 reliability, data'].verdict == 'supported'
  assert found['N3 reliability, signal'].verdict == 'supported'
  assert found['N3 smoothed'].verdict == 'contradicted'
  np.testing.assert_allclose(found['N3 smoothed'].effect, -0.05, atol=0.01)


FACTORS = [
  f'{crossing} crossing, {behind} effect'
  for crossing in promises.CROSSINGS
  for behind in promises.BEHIND
]


def test_main_effects_of_the_factorial(table):
  """Decreases on B of .36, .66, .56 and .74 nats."""
  losses = iter((0.64, 0.34, 0.44, 0.26))
  for crossing in promises.CROSSINGS:
    for behind in promises.BEHIND:
      labels = {'crossing': crossing, 'behind': behind, 'prefix': 8}
      table.put('factorial_holdout', next(losses), **labels)
  found = judged(factorial.saved, table, WHERE)
  effects = {
    'linearising': (0.24, 'supported'),
    'smoothing': (0.14, 'supported'),
    'interaction': (-0.06, 'contradicted'),
    'linearising less smoothing': (0.10, 'supported'),
    'linearised less both': (-0.08, 'contradicted'),
  }
  for name, (effect, verdict) in effects.items():
    judgement = found[f'N3 factorial, B, {name}']
    np.testing.assert_allclose(judgement.effect, effect, atol=0.002)
    assert judgement.verdict == verdict
    assert '4 other' in judgement.caveat
    assert found[f'N3 factorial, A, {name}'].verdict == 'inert'
  details = found['N3 factorial, B, linearising'].details
  np.testing.assert_allclose(
    details['decrease, smoothed crossing, exact effect'], 0.56, atol=0.002
  )
  np.testing.assert_allclose(
    details['whole budget, true crossing, exact effect'], 0, atol=0.002
  )
  assert not judged(factorial.saved, table, WHERE | {'layers': 'all'})
  for saved, name in zip((0.36, 0.66, 0.56, 0.74), FACTORS, strict=True):
    both = [
      verdict
      for verdict in factorial.saved(table.results, WHERE)
      if verdict.finding == f'N3 factorial, {name}'
    ]
    assert [verdict.verdict for verdict in both] == ['inert', 'supported']
    np.testing.assert_allclose(both[1].effect, saved, atol=0.002)
    assert 'trained: on B' in both[1].claim and '3 other' in both[1].caveat


def test_what_matters_to_replication(table):
  for signal, value in zip(
    promises.SIGNALS, (0.12, 0.63, 0.39, 0.89), strict=True
  ):
    pair = promises.pair(signal, signal)
    table.put('reliability_correlation', value, pair=pair)
  found = judged(factorial.replication, table, 'trained')
  for name, effect in (('linearising', 0.505), ('smoothing', 0.265)):
    judgement = found[f'N3 replication, {name}']
    assert judgement.verdict == 'supported'
    np.testing.assert_allclose(judgement.effect, effect, atol=0.002)
  less = found['N3 replication, linearising less smoothing']
  np.testing.assert_allclose(less.effect, 0.24, atol=0.002)
  assert found['N3 replication, interaction'].verdict == 'equivalent'
  for signal, value in zip(promises.SIGNALS[1:], (0.3, 0.2, -0.1), strict=True):
    pair = promises.pair(signal, 'exact')
    table.put('reliability_correlation', value, pair=pair)
  every = list(factorial.replication(table.results, 'trained'))
  for name, own, across in zip(
    FACTORS, (0.12, 0.63, 0.39, 0.89), (0.12, 0.3, 0.2, -0.1), strict=True
  ):
    each = [v for v in every if v.finding == f'N3 replication, {name}']
    effects = [verdict.effect for verdict in each]
    np.testing.assert_allclose(effects, [own, across], atol=0.002)
    assert 'from A to B' in each[0].claim and 'gains on B' in each[1].claim


def test_the_literal_rounds_spend_the_whole_budget(table):
  even = {'signal': 'exact', 'ranking': 'gain', 'split': 'even'}
  table.put('rounds_search', 0.2, share=0.5, num_rounds=4, **even)
  table.put('rounds_search', 0.8, share=1.0, num_rounds=4, **even)
  table.put('rounds_holdout', 0.9, share=1.0, num_rounds=4, **even)
  table.put('multi_search', 0.7, step=1)
  found = judged(rounds.literal, table, WHERE)
  assert found['N1 literal, A'].verdict == 'contradicted'
  np.testing.assert_allclose(
    found['N1 literal, A'].effect, np.log(0.7 / 0.8), atol=0.01
  )
  assert found['N1 literal, B'].verdict == 'supported'
  table.results['rounds_search'].loc[{'ranking': 'gain'}] = np.nan
  assert not judged(rounds.literal, table, WHERE)


@pytest.mark.slow
def test_seeds_that_diverged(table, as_if_not_run):
  """Numbers of moves, which are never NaN, decide nothing on their own."""
  for signal, ranking in itertools.product(searches.SIGNALS, searches.RANKINGS):
    for name, labels in (
      ('discrete', {'signal': signal, 'ranking': ranking}),
      ('rounds', {'signal': signal, 'ranking': ranking}),
    ):
      table.put(f'{name}_search', 0.7, **labels)
      table.put(f'{name}_holdout', 0.8, **labels)
    labels = {'signal': signal, 'ranking': ranking}
    table.put('rounds_returns', 0.2, **labels)
    table.put('discrete_true', 0.5, **labels)
  for pair in promises.PAIRS:
    table.put('reliability_correlation', 0.5, pair=pair)
  for name in ('ste', 'multi', 'factorial'):
    table.put(f'{name}_search', 0.9)
    table.put(f'{name}_holdout', 0.9)
  losses = [
    name
    for name in table.results.data_vars
    if name.endswith(('_search', '_holdout', '_correlation'))
    and not name.startswith('tuning_')
  ]
  as_if_not_run(findings.judge, table.results, losses)


@pytest.mark.slow
def test_one_seed_has_no_interval_and_is_drawn():
  alone = Table(num_rounds=[4], batch_size=[64]).results.isel(seed=[0])
  judged = list(findings.judge(alone))
  assert judged and {v.num_seeds for v in judged} == {1}
  assert {v.verdict for v in judged} <= {'inconclusive', 'inert'}
  assert all('One seed: no interval' in v.caveat for v in judged)
  with plots.style():
    for fig in page.page(alone).values():
      pyplot.close(fig)


BALLS = ['l2:0.1', 'linf:0.002', 'flips:200']


@pytest.mark.parametrize(
  ('coords', 'axes', 'rows'),
  [
    # What the main methods save, and reliability.
    pytest.param({'num_rounds': [4]}, 4, 18, marks=pytest.mark.slow),
    # The same in two balls.
    pytest.param(
      {'num_rounds': [4], 'ball': BALLS[:2]}, 6, 18, marks=pytest.mark.slow
    ),
    # Schedules.
    pytest.param(
      {'num_rounds': [1, 4, 16, 64]}, 12, None, marks=pytest.mark.study
    ),
    # Exact gains against a step of STE, in every ball.
    pytest.param(
      {'num_rounds': [4], 'ball': BALLS, 'layers': ['first', 'all']},
      4,
      12,
      marks=pytest.mark.slow,
    ),
  ],
)
def test_the_figure_answers_what_the_preset_asks(
  coords, axes, rows, complaints
):
  table = Table(state=['initialised', 'trained'], **coords)
  table.put('discrete_search', 0.8, prefix=64)
  with plots.style():
    drawn = page.page(table.results.isel(seed=[0, 1]))
    for name, fig in drawn.items():
      assert complaints(fig) == [], name
      pyplot.close(fig)
  main = drawn['figure'].axes
  assert len(main) == axes
  assert rows is None or len(main[0].get_yticks()) == rows
  shaded = [text.get_text() for text in bold(drawn['figure_supplement'])]
  assert shaded == ['one STE step', 'exact gains, largest first']


def bold(fig):
  labels = [text for ax in fig.axes for text in ax.get_yticklabels()]
  return [text for text in labels if text.get_fontweight() == 'bold']
