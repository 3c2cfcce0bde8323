"""Verdicts on tables whose answer is known."""

import numpy as np
import pytest
import xarray

from bitjax.evidence import plots
from bitjax.evidence import verdicts
from bitjax.studies.discrete_optimisers import arms
from bitjax.studies.discrete_optimisers import figure
from bitjax.studies.discrete_optimisers import findings
from bitjax.studies.discrete_optimisers import methods
from bitjax.studies.discrete_optimisers import nearest
from bitjax.studies.discrete_optimisers import outcomes
from bitjax.studies.discrete_optimisers import texts

SIGNS, SEEDS = [16, 128, 1024, 10240], 12
STARTS = ['checkpoint', 'random']


def table():
  """All methods are alike: they save 0.3 nats along a curve, on A and on B."""
  rng = np.random.default_rng(0)
  efforts = np.array(methods.EFFORTS)
  curve = 1 - 0.3 * np.minimum(efforts, 1) ** 0.5
  each = 'signs', 'start', 'seed'
  sizes = len(SIGNS), len(STARTS), SEEDS
  shared = 0.1 * rng.normal(size=sizes)  # A seed is hard for every method.
  names = list(arms.METHODS)
  losses = np.broadcast_to(
    shared[:, None, ..., None] + curve,
    (len(SIGNS), len(names), *sizes[1:], len(efforts)),
  )
  noise = lambda: 1e-3 * rng.normal(size=losses.shape)
  whole = 'signs', 'arm', 'start', 'seed', 'effort'
  ends = shared + 0.7
  plenty = {
    name: (
      ('signs', 'arm', 'start', 'seed'),
      np.full((4, len(names) + 1, 2, SEEDS), 0.2),
    )
    for name in arms.CERTIFIED
  }
  tuning = np.ones((len(SIGNS), len(names), 2, 4, 4, len(efforts)))
  found = xarray.Dataset(
    {
      'search': (whole, losses + noise()),
      'holdout': (whole, losses + noise()),
      'moved': (whole, np.full(losses.shape, 0.1)),
      'seconds': (whole[:-1], np.ones(losses.shape[:-1])),
      'wall': (whole[:-1], np.ones(losses.shape[:-1])),
      'descended_search': (each, ends + 1e-3 * rng.normal(size=sizes)),
      'descended_holdout': (each, ends + 1e-3 * rng.normal(size=sizes)),
      'descended_moved': (each, np.full(sizes, 0.01)),
      'random_search': (
        (*each, 'effort'),
        (losses + noise())[:, names.index('genetic')],
      ),
      'random_holdout': (
        (*each, 'effort'),
        (losses + noise())[:, names.index('genetic')],
      ),
      'optimum': (
        ('signs', 'seed'),
        np.where(np.arange(4)[:, None] == 0, ends[:, 0] - 0.1, np.nan),
      ),
      'tuning_holdout': (
        ('signs', 'arm', 'start', 'tuning_seed', 'choice', 'effort'),
        tuning,
      ),
    },
    {
      'signs': SIGNS,
      'arm': names,
      'start': STARTS,
      'seed': range(SEEDS),
      'effort': list(methods.EFFORTS),
      'tuning_seed': range(1000, 1004),
      'choice': range(4),
    },
    {'gradients': 64.0},
  )
  certified = xarray.Dataset(plenty, {'arm': [*names, arms.DESCENT]})
  certified = certified.assign_coords(found[['signs', 'start', 'seed']].coords)
  return xarray.merge(
    [found, certified], join='outer', combine_attrs='override'
  )


def put(results, value, names=('search', 'holdout'), **labels):
  """Adds to losses at some labels."""
  for name in names:
    results[name].loc[
      {k: v for k, v in labels.items() if k in results[name].dims}
    ] += value


def judged(results, finding, begin=''):
  found = [
    v
    for v in findings.judge(results)
    if v.finding == finding and v.claim.startswith(begin)
  ]
  assert len(found) == 1, (finding, len(found))
  return found[0]


@pytest.mark.parametrize(
  ('better', 'verdict'),
  [(0.05, 'supported'), (0.0, 'equivalent'), (-0.05, 'contradicted')],
)
def test_the_primary_contrast(better, verdict):
  results = table()
  put(
    results, -better, signs=SIGNS[-1], arm='ADMM', start='checkpoint', effort=1
  )
  first = next(iter(findings.judge(results)))
  assert first.primary and first.finding == 'N16 ADMM'
  assert first.verdict == verdict
  np.testing.assert_allclose(first.effect, better, atol=2e-3)


@pytest.mark.slow
def test_the_dimension_from_which_genetic_search_does_not_help():
  results = table()
  # 0.21 nats, 0.11 and, in the largest, 0: 0.01 is crossed between the last two.
  for signs, gain in zip(SIGNS[1:], (0.21, 0.11, 0.0), strict=True):
    put(
      results, gain, ('random_search',), signs=signs, start='random', effort=1
    )
  found = judged(results, 'N16 dimension, A, random')
  assert found.verdict == 'supported'
  wanted = 3 + np.log10(1.024) + 1.0 * (0.10 / 0.11)
  np.testing.assert_allclose(found.effect, wanted, atol=0.02)
  assert found.low < wanted < found.high < np.log10(SIGNS[-1])
  # Nowhere: it is the smallest. Everywhere: there is none.
  nowhere = judged(results, 'N16 dimension, A, checkpoint')
  np.testing.assert_allclose(nowhere.effect, np.log10(SIGNS[1]))
  assert nowhere.caveat.startswith('So it is in the smallest network')
  put(results, 0.3, ('random_search',), start='random', effort=1)
  everywhere = judged(results, 'N16 dimension, A, random')
  assert everywhere.verdict == 'contradicted' and np.isinf(everywhere.low)
  assert everywhere.caveat.startswith('Not so in the largest network')


@pytest.mark.slow
def test_exponents_are_those_of_a_power_law():
  results = table()
  for place, signs in enumerate(SIGNS[1:]):
    saved = 0.3 * 10 ** (-0.5 * place)
    at = {'signs': signs, 'arm': 'genetic', 'start': 'random', 'effort': 1}
    put(results, 0.3 - saved, ('search',), **at)
  found = judged(results, 'N16 exponent, random')
  slope = -0.5 / np.log10(SIGNS[2] / SIGNS[1])
  wanted = np.polyfit(np.log(SIGNS[1:]), np.log([0.3, 0.3 / 10**0.5, 0.03]), 1)[
    0
  ]
  np.testing.assert_allclose(found.effect, wanted, atol=0.02)
  assert found.verdict == 'supported' and wanted < slope / 2
  assert judged(results, 'N16 exponent, checkpoint').verdict == 'equivalent'
  other = judged(results, 'N16 exponent of annealing, random')
  assert other.verdict == 'equivalent' and 'what annealing saves' in other.claim
  assert np.isnan(outcomes.exponent([1, 10], np.array([[1.0], [-1.0]])))


def test_exponents_are_compared_in_the_networks_in_which_both_save():
  signs = np.array([10, 100, 1000, 10000])
  power = lambda slope: signs[:, None] ** slope * np.ones((1, 3))
  first, second = power(-0.5), power(-0.2)
  apart = outcomes.exponents_apart
  np.testing.assert_allclose(apart(signs, first, second), -0.3)
  # What lies beside the line is left out of both, where one saves nothing.
  first[0], second[0] = -1.0, 7.0
  np.testing.assert_allclose(apart(signs, first, second), -0.3)
  second[1:3] = 0.0
  assert np.isnan(apart(signs, first, second))


@pytest.mark.parametrize(
  ('verdict', 'kinds'),
  [
    ('supported', ['supported', 'supported']),
    ('contradicted', ['supported', 'equivalent']),
    ('contradicted', ['contradicted', 'inconclusive']),
    ('inconclusive', ['supported', 'inconclusive']),
    ('inconclusive', ['supported', 'inconclusive: diverged']),
  ],
)
def test_several_claims_at_once(verdict, kinds):
  effects = [0.5, np.nan if 'diverged' in kinds[1] else 0.2]
  found = [
    verdicts.Verdict(
      'N16 x', 'a claim.', kind, effect, 0.0, 1.0, 'nats', 12, 'deployable'
    )
    for kind, effect in zip(kinds, effects, strict=True)
  ]
  for order in (1, -1):
    assert outcomes.all_hold(found[::order]) == (verdict, found[1])


def test_the_nearest_of_all_is_compared_with_every_method():
  results = table()
  at = {'signs': 16, 'start': 'checkpoint', 'effort': 1}
  put(results, -0.08, ('search',), arm='annealing', **at)
  put(results, -0.05, ('search',), arm='STE, Adam', **at)

  def judge(start):
    found = [*nearest.judge(texts.doubted(results), start, findings.MARGIN)]
    marked = [v for v in found[:-1] if v.details['the nearest of all']]
    return found[-1], [v.finding for v in marked]

  last, marked = judge('checkpoint')
  assert last.finding == 'N16 nearest, checkpoint'
  assert marked == ['N16 annealing, tiny layer']
  assert last.verdict == 'supported' and 'annealing, whose' in last.claim
  np.testing.assert_allclose(last.effect, 0.03, atol=2e-3)
  np.testing.assert_allclose(last.details['gap, annealing'], 0.02, atol=2e-3)
  told = ('nearer than', 'tuned otherwise,')
  for prefix in told:  # Every method but itself; every method, but no descent.
    of = [name for name in last.details if name.startswith(prefix)]
    assert len(of) == len(arms.METHODS)
  # Another comes as near as that: none is the nearest.
  put(results, -0.08, ('search',), arm='Bop', **at)
  assert judge('checkpoint')[0].verdict == 'contradicted'
  # What all are compared with may be the nearest.
  put(results, -0.05, ('search',), arm='STE, Adam', **at)
  last, marked = judge('checkpoint')
  assert not marked and 'STE, Adam, whose' in last.claim
  assert last.verdict == 'supported'


def test_perturbations_have_controls_of_their_own():
  results = table()
  at = {'signs': SIGNS[-1], 'start': 'checkpoint', 'effort': 1}
  # Uniform flips hurt, and those that gains weigh less so.
  put(results, 0.3, arm='flips at intervals', **at)
  put(results, 0.1, arm='weighted flips at intervals', **at)
  put(results, 0.1, arm='one fall of the rate', **at)
  # One of four tuning seeds alone tells settings apart: without it, in a resample, the
  # first is chosen.
  results['tuning_holdout'].loc[
    {'arm': 'noise at intervals', 'tuning_seed': 1002, 'choice': 3}
  ] = 0.5
  last = texts.doubted(results)
  last = last.sel(signs=SIGNS[-1], start='checkpoint')
  found = {one.finding: one for one in findings._perturbations(last, SIGNS[-1])}
  verdict = {-1: 'contradicted', 0: 'equivalent', 1: 'supported'}
  for arm, effect in (
    ('flips at intervals', -0.3),
    ('weighted flips at intervals', 0.2),
    ('restarts of the rate', 0.1),
    ('noise at intervals', 0.0),
  ):
    one = found[f'N16 {arm}, B']
    np.testing.assert_allclose(one.effect, effect, atol=2e-3)
    assert one.verdict == verdict[int(np.sign(effect))]
    control = findings._PERTURBED[arm][1]
    for kind in ('A', 'B', 'both'):
      details = found[f'N16 {arm}, {kind}'].details
      assert details[f'tuned otherwise, {control}'] == 0
      doubt = 0.75**4 if arm == 'noise at intervals' else 0
      np.testing.assert_allclose(
        details[f'tuned otherwise, {arm}'], doubt, atol=0.05
      )
  controls = {control for _, control, _ in findings._PERTURBED.values()}
  assert {*findings._PERTURBED} | controls <= {*arms.METHODS}


@pytest.mark.slow
def test_a_perturbation_must_help_on_both():
  results, arm = table(), 'flips, then STE'
  at = {'signs': SIGNS[-1], 'arm': arm, 'start': 'checkpoint', 'effort': 1}
  begin = f'{SIGNS[-1]} signs'
  put(results, -0.1, ('search',), **at)
  assert judged(results, f'N16 {arm}, A', begin).verdict == 'supported'
  assert judged(results, f'N16 {arm}, both', begin).verdict == 'contradicted'
  put(results, -0.05, ('holdout',), **at)
  found = judged(results, f'N16 {arm}, both', begin)
  assert found.verdict == 'supported'
  other = judged(results, f'N16 {arm} against STE, B', f'{begin}, from random')
  assert other.verdict == 'equivalent'
  np.testing.assert_allclose(found.effect, 0.05, atol=2e-3)


def test_equal_time_reads_searches_where_time_was_equal():
  results = table()
  at = {'signs': SIGNS[-1], 'arm': 'genetic', 'start': 'random'}
  results['seconds'].loc[at] = 8.0  # Half the evaluations in STE's second.
  for effort in methods.EFFORTS:
    results['search'].loc[at | {'effort': effort}] = 5 - effort
  own = results.sel(signs=SIGNS[-1], start='random')
  np.testing.assert_allclose(outcomes.same_time(own, 'genetic').search, 4.5)
  results['seconds'].loc[at] = 0.1  # More than it has: the last.
  own = results.sel(signs=SIGNS[-1], start='random')
  np.testing.assert_allclose(outcomes.same_time(own, 'genetic').search, 1.0)


@pytest.mark.slow
def test_flips_left_and_the_tiny_layer():
  results = table()
  at = {'signs': SIGNS[-1], 'arm': 'annealing', 'start': 'random'}
  put(results, -0.1, ('improving',), **at)
  found = judged(
    results, 'N16 annealing, flips left', '10240 signs, from random'
  )
  assert found.verdict == 'supported'
  at = {'signs': 16, 'arm': 'annealing', 'start': 'checkpoint', 'effort': 1}
  put(results, -0.08, ('search',), **at)
  found = judged(results, 'N16 annealing, tiny layer', '16 signs, from the')
  assert found.verdict == 'supported'
  np.testing.assert_allclose(found.details['gap, annealing'], 0.02, atol=5e-3)
  assert found.details['the nearest of all'] == 1


def test_what_diverged_is_no_evidence(as_if_not_run):
  as_if_not_run(
    lambda results: [next(iter(findings.judge(results)))],
    table(), ['search', 'holdout'],
  )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize('worse', [0.0, 5.0])
def test_figures_can_be_printed(worse, complaints):
  results = table()
  put(results, worse, effort=1)  # Nothing is saved then.
  with plots.style():
    for fig in figure.page(results).values():
      assert complaints(fig) == []


@pytest.mark.slow
def test_few_methods_are_judged_and_drawn(complaints):
  """As with ``--methods=few`` on several networks."""
  results = table().sel(arm=[*methods.FEW, arms.DESCENT])
  found = {one.finding for one in findings.judge(results)}
  assert {'N16 nearest, random', 'N16 exponent, random'} <= found
  assert not any('annealing' in finding for finding in found)
  with plots.style():
    pages = figure.page(results)
    for fig in pages.values():
      assert complaints(fig) == []
  rows = pages['figure_supplement'].axes[2].get_yticklabels()
  assert [r.get_text() for r in rows] == [*methods.FEW, arms.DESCENT]
