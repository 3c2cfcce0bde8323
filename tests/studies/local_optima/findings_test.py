"""N15 and N16, judged on tables whose answer is known."""

import numpy as np
import pytest
import xarray

from bitjax.evidence import divergence
from bitjax.evidence import plots
from bitjax.studies.local_optima import causes
from bitjax.studies.local_optima import figure
from bitjax.studies.local_optima import findings
from bitjax.studies.local_optima import margins

SHARES = {
  'improving': 0.4, 'significant': 0.1, 'mirrored': 0.2, 'holds': 0.6,
  'significant_holds': 0.5, 'random_holds': 0.5, 'is_optimum': 0.0,
  'mean_holdout': 0.01,
}  # fmt: skip


def table(precise=0.5):
  """Returns results of 12 seeds; `precise` is the loss after moves in full precision."""
  seeds, rng = 12, np.random.default_rng(0)

  def values(value, *sizes):
    shape = (*sizes, seeds)
    noise = 1 + 0.001 * rng.normal(size=shape)
    return np.broadcast_to(value, shape) * noise

  found = {}

  def add(prefix, dims, sizes, numbers):
    for name, value in numbers.items():
      found[f'{prefix}{name}'] = ((*dims, 'seed'), values(value, *sizes))
    for name, value in SHARES.items():
      own = ((*dims, 'seed', 'layer'), values(value, *sizes)[..., None])
      found[f'{prefix}{name}'] = own
    rates = np.full((*sizes, 2, 2), 1.0) + np.arange(2)
    axes = (*dims, 'tuning_seed', 'learning_rate')
    found[f'{prefix}tuning_holdout'] = (axes, rates)
    found[f'{prefix}chosen_rate'] = (dims, np.full(sizes, 0.1))

  main = {'descended_search': 0.05, 'descended_holdout': 0.75}
  main |= {'together': 0.4, 'separately': 1.0}
  others = ('num_flips', 'certified', 'accuracy_search', 'accuracy_holdout')
  main |= {f'trained_{batch}': 0.5 for batch in margins.NAMES}
  add('', ('estimator',), (2,), main | dict.fromkeys(others, 1.0))
  found['improving'][1][1] *= (
    0.5  # The other estimator ends nearer to an optimum.
  )
  few = {'few_search': 0.2, 'few_holdout': 0.501}
  own = {f'trained_{batch}': 0.5 for batch in margins.NAMES}
  add(
    'control_',
    ('updates', 'schedule'),
    (2, 2),
    own | main | few | {'num_flips': 9},
  )
  # Only longer training changes anything: fewer flips are significant.
  found['control_significant'][1][1] = 0.05
  own |= {f'few_{batch}': precise for batch in margins.NAMES}
  add('precise_', ('move',), (2,), own)
  again = {'search': 0.05, 'holdout': 0.35, 'certified': 1.0}
  again = {f'again_{name}': x for name, x in again.items()}
  for name, value in (again | {'perturbed_search': 0.3}).items():
    dims = ('estimator', 'seed', 'perturbed')
    found[name] = (dims, values(value, 2)[..., None])
  return xarray.Dataset(
    found,
    {
      'estimator': ['normal', 'other'], 'seed': range(seeds), 'layer': ['all'],
      'perturbed': [8], 'updates': [1, 4], 'schedule': ['constant', 'cosine'],
      'move': ['flip-sized', 'negation'], 'learning_rate': [0.1, 0.2],
    },
  )  # fmt: skip


def test_seeds_that_diverged(as_if_not_run):
  def judge(results):
    own = [
      *findings.descent(results, 'normal'),
      *findings.optimum(results, 'normal'),
      *findings.nearest(results),
      *findings.escape(results, 'normal'),
    ]
    return own

  def judged(results):
    return judge(divergence.without(results, ['trained_search']))

  as_if_not_run(judged, table(), ['trained_search'])


@pytest.mark.slow
def test_controls_that_diverged(as_if_not_run):
  def judge(results):
    yield from causes.control(results, 'normal')
    yield from causes.gradient(results, 'normal')

  losses = ['control_trained_search', 'precise_trained_search']
  as_if_not_run(judge, table(), losses)


def test_verdicts_of_a_known_table():
  results = table()
  verdicts = {verdict.finding: verdict for verdict in findings.judge(results)}
  judged = {name: verdict.verdict for name, verdict in verdicts.items()}
  primary = verdicts['N15 descent, held-out']
  assert primary.primary and not verdicts['N15 descent, training'].primary
  np.testing.assert_allclose(primary.effect, np.log(0.5 / 0.75), atol=0.01)
  assert judged['N15 descent, held-out'] == 'contradicted'
  assert judged['N15 descent, training'] == 'supported'
  assert judged['N15 holds'] == 'supported'
  lost = verdicts['N15 additivity']
  assert lost.verdict == 'supported'
  np.testing.assert_allclose(lost.effect, 0.6, atol=0.01)
  assert judged['N15 nearest'] == 'supported'
  assert judged['N16 escape, held-out, 8 flips'] == 'supported'
  alone = findings.judge(results.isel(estimator=[0]))
  compared = {name for name in verdicts if name.startswith('N15 nearest')}
  compared |= {name for name in verdicts if name.startswith('N15 flips after')}
  assert {verdict.finding for verdict in alone} == set(verdicts) - compared
  single = findings.judge(results.isel(seed=[0]))
  assert {verdict.finding for verdict in single} == set(verdicts)
  for verdict in single:
    assert verdict.verdict in ('inconclusive', 'inert'), verdict.finding
    assert verdict.num_seeds == 1
    assert 'One seed: no interval' in verdict.caveat


def test_verdicts_say_how_settled_the_rate_of_each_training_is():
  results = table()
  # The second of two tuning seeds alone, a quarter of resamples, would choose otherwise.
  torn = [[1.0, 1.2], [1.1, 1.0]]
  results['tuning_holdout'].loc[{'estimator': 'other'}] = torn
  longest = {'updates': 4, 'schedule': 'cosine'}
  results['control_tuning_holdout'].loc[longest] = torn
  shares = {}
  for verdict in findings.judge(results):
    own = {
      name.removeprefix('tuned otherwise, '): share
      for name, share in verdict.details.items()
      if name.startswith('tuned otherwise, ')
    }
    assert own, verdict.finding
    shares[verdict.finding] = own
  near = {'atol': 0.05}
  for finding, name in (
    ('N15 nearest', 'other'),
    ('N15 flips after, held-out', 'other'),
    ('N15 control, significant, both', 'with'),
    ('N15 control, significant, less nominal', 'rate'),
    ('N15 survives, training', 'rate'),
    ('N15 gradient, held-out', 'rate'),
    ('N15 beyond full precision, training, negation', 'rate'),
  ):
    np.testing.assert_allclose(shares[finding][name], 0.25, **near)
  for finding, name in (
    ('N15 nearest', 'normal'),
    ('N15 descent, held-out', 'rate'),
    ('N16 escape, held-out, 8 flips', 'rate'),
    ('N15 control, significant, both', 'without'),
    ('N15 control, significant, longer training', 'with'),
    ('N15 gradient, held-out', 'full precision'),
    ('N15 full precision, held-out', 'full precision'),
  ):
    assert shares[finding][name] == 0


@pytest.mark.parametrize(
  ('significant', 'wanted'),
  [
    (0.1, ('supported', 'contradicted')),
    (0.0226, ('equivalent', 'contradicted')),
    (0.205, ('supported', 'equivalent')),
    (0.23, ('supported', 'supported')),
    (0.0, ('contradicted', 'contradicted')),
  ],
)
def test_what_is_significant_is_judged_against_its_null(significant, wanted):
  results = table().isel(estimator=0)
  results['significant'] = 0 * results['significant'] + significant
  verdicts = {v.finding: v for v in findings.optimum(results.expand_dims(
    estimator=['normal']), 'normal')}  # fmt: skip
  for null, verdict in zip(('nominal', 'mirrored'), wanted, strict=True):
    found = verdicts[f'N15 significant, less {null}']
    assert found.verdict == verdict
    assert found.details['nominal'] == pytest.approx(0.02275, abs=1e-6)


@pytest.mark.parametrize(
  ('without', 'verdict', 'num_seeds'),
  [(3, 'supported', 9), (8, 'supported', 4), (12, 'inconclusive', 0)],
)
def test_a_network_without_significant_flips_did_not_diverge(
  without, verdict, num_seeds
):
  results = table()
  results['significant_holds'] += 0.2
  results['significant_holds'][:, :without] = np.nan
  verdicts = {v.finding: v for v in findings.optimum(results, 'normal')}
  found = verdicts['N15 significant holds']
  assert (found.verdict, found.num_seeds) == (verdict, num_seeds)
  assert 'diverged' not in found.details
  assert found.caveat == f'{without} of 12 networks have no such flip.'
  assert not verdicts['N15 holds'].caveat


def test_a_descent_that_was_cut_off_is_no_optimum_to_escape_from():
  results = table()
  results['certified'].loc[{'estimator': 'normal'}] = 1.0
  assert not any(v.caveat for v in findings.escape(results, 'normal'))
  results['certified'].loc[{'estimator': 'normal', 'seed': [3, 5]}] = 0.0
  for verdict in findings.escape(results, 'normal'):
    assert 'At 2 of 12 seeds the first descent was cut off' in verdict.caveat


def test_what_diverged_is_not_drawn(monkeypatch):
  """A network of which the loss is NaN has a share of improving flips: none."""
  drawn = {}
  pyplot = pytest.importorskip('matplotlib.pyplot')

  def whisker(ax, position, found, *, label, **style):
    drawn.setdefault(label, found)

  monkeypatch.setattr(plots, 'whisker', whisker)
  results = table()
  for prefix in ('', 'control_'):
    for name in ('trained_search', 'trained_holdout'):
      results[f'{prefix}{name}'][..., 3] = np.nan
    results[f'{prefix}improving'][..., 3, :] = 0
    results[f'{prefix}mirrored'][..., 3, :] = 0
  pyplot.close(figure.page(results))
  for label in (
    'flips that lower the training loss',
    'higher training loss by over 2 errors',
  ):
    assert (drawn[label].num, drawn[label].dropped) == (11, 1), label


def test_additivity_needs_a_sum_that_is_positive():
  results = table()
  signs = np.where(np.arange(12) % 2, 1, -1)
  results['separately'] = results['separately'] * signs
  verdicts = {v.finding: v for v in findings.optimum(results, 'normal')}
  lost = verdicts['N15 additivity']
  assert np.isnan(lost.effect) and lost.verdict == 'inconclusive'


def test_what_longer_training_changes():
  verdicts = {v.finding: v for v in causes.control(table(), 'normal')}
  name = 'N15 control, significant, '
  assert verdicts[f'{name}a falling rate'].verdict == 'equivalent'
  for arm in ('longer training', 'both'):
    found = verdicts[f'{name}{arm}']
    assert found.verdict == 'supported'
    np.testing.assert_allclose(found.effect, 0.05, atol=1e-3)
  kept = verdicts['N15 control, descent, training, both']
  assert kept.verdict == 'equivalent'


@pytest.mark.parametrize(
  ('after', 'wanted'),
  [(0.5, 'supported'), (0.6, 'supported'), (0.45, 'inconclusive')],
)
def test_a_wrong_gradient_needs_both_controls(after, wanted):
  """Flips lower A, and not B; whether moves in full precision do decides about A."""
  verdicts = {v.finding: v for v in causes.gradient(table(after), 'normal')}
  assert verdicts['N15 survives, training'].verdict == 'supported'
  assert verdicts['N15 gradient, training'].verdict == wanted
  assert verdicts['N15 gradient, held-out'].verdict == 'equivalent'
  for move in ('flip-sized', 'negation'):
    found = verdicts[f'N15 beyond full precision, training, {move}']
    assert found.verdict == 'supported'
    np.testing.assert_allclose(found.effect, np.log(after / 0.2), atol=0.01)
  if after < 0.5:
    assert 'help as well' in verdicts['N15 gradient, training'].caveat


def test_without_full_precision_nothing_is_said_of_the_gradient():
  results = table()
  names = [name for name in results if str(name).startswith('precise_')]
  found = {v.finding for v in findings.judge(results.drop_vars(names))}
  assert 'N15 survives, held-out' in found
  assert not any('gradient' in name or 'precision' in name for name in found)
