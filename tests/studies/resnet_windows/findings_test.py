"""N18 and N12 on a ResNet, judged on tables whose answer is known."""

import numpy as np
import pytest
from scipy import stats

from bitjax.studies.resnet_windows import estimators
from bitjax.studies.resnet_windows import findings
from bitjax.studies.resnet_windows import models
from bitjax.studies.resnet_windows import nearness
from bitjax.studies.resnet_windows import onestep
from bitjax.studies.resnet_windows import tables
from tests.studies.resnet_windows import synthetic

HALF, ONE, MASS = estimators.HALF, estimators.ONE, estimators.MASS
NONE, SHRINKING = estimators.NONE, estimators.SHRINKING
WHERE = 'resnet8_narrow, trained'


def judged(results, judge=findings.judge):
  found = list(judge(results))
  assert len({one.finding for one in found}) == len(found)
  return {one.finding: one for one in found}


def check(found, wanted):
  for finding, verdict, effect in wanted:
    one = found[finding]
    assert (one.verdict, one.num_seeds) == (verdict, synthetic.SEEDS), finding
    np.testing.assert_allclose(one.effect, effect, atol=0.05, err_msg=finding)


@pytest.fixture(scope='module')
def trained():
  return judged(
    synthetic.results(
      {
        'window 0.5, initialised': 0.04,
        'window 2, pretrained': -0.03,
        'relative window 0.5, pretrained': 0.04,
        'relative window 1, pretrained': 0.04,
        'shrinking window, pretrained': 0.01,
        'window 0.5, mass kept, pretrained': -0.02,
        'no window, initialised': -0.05,
        'Bi-Real, pretrained': 0.03,
      }
    )
  )


def test_trainings(trained):
  check(
    trained,
    (
      ('N18', 'supported', 0),  # Equivalence is the claim.
      ('N18, initialised', 'contradicted', 4),
      ('N18 start and window', 'contradicted', -4),
      ('N18 widths, pretrained, worse', 'supported', 3),
      ('N18 widths, initialised, better', 'supported', 4),
      ('N18 units, pretrained', 'supported', (4 + 4 + 3) / 4),
      ('N18 units, initialised', 'contradicted', -4 / 4),
      ('N18 no window, initialised', 'contradicted', -5),
      ('N18 no window, pretrained', 'equivalent', 0),
      ('N18 mass, pretrained', 'contradicted', -2),
      ('N18 shrinking, against window 1, pretrained', 'supported', 1),
      ('N18 shrinking, against window 0.5, pretrained', 'supported', 1),
      ('N18 shapes', 'supported', 3),
    ),
  )
  assert [v.finding for v in trained.values() if v.primary] == ['N18']
  details = trained['N18'].details
  assert details['margin'] == findings.MARGIN == 0.5
  np.testing.assert_allclose(
    details['accuracy, window 1, pretrained'], 50, 0.01
  )
  assert details['rate, window 1, pretrained'] == 1.0
  assert details['tuned otherwise, window 1, pretrained'] == 0


def starts(results):
  return findings._of_starts(tables.Trained(results))


def half(results):
  return findings._half_against_one(tables.Trained(results))


def test_starts():
  """Averaged over the estimators that are trained from both: 11, but no shape."""
  points = {
    f'{name}, pretrained': 0.01 for name in ('window 1', 'no window', 'Bi-Real')
  }
  found = judged(synthetic.trained(points=points), starts)['N18 start']
  np.testing.assert_allclose(found.effect, 2 / 11, atol=0.03)
  assert '11 estimators' in found.claim


def test_arms_that_were_not_trained():
  found = judged(
    synthetic.results(
      half_widths=(0.5, 1.0), units=('absolute',), extras=(), shapes=()
    )
  )
  assert {'N18', 'N18, initialised', 'N18 widths, pretrained, better'} <= {
    *found
  }
  for word in ('units', 'mass', 'shrinking', 'no window', 'shapes', 'predicts'):
    assert not any(word in finding for finding in found), word


def test_a_training_that_diverged_is_left_out():
  results = synthetic.trained(points={'window 0.5, pretrained': 0.03})
  at = {'arm': 'window 0.5, pretrained', 'seed': 2}
  results['validation_loss'].loc[at] = np.nan
  found = judged(results, half)
  assert found['N18'].num_seeds == synthetic.SEEDS - 1
  assert found['N18, initialised'].num_seeds == synthetic.SEEDS


def test_one_seed_has_no_interval():
  results = synthetic.results(
    half_widths=(0.5, 1.0), extras=(), shapes=(), seeds=1
  )
  for one in findings.judge(results):
    assert (one.verdict, one.num_seeds) == ('inconclusive', 1)


def test_gradients():
  found = judged(
    synthetic.results(
      values={
        ('reliability', HALF): 0.8,
        ('cosine', HALF): 0.5,
        ('signal_to_noise', HALF): 2.0,
        ('signal_to_noise', estimators.kept(0.25)): 0.5,
        ('shifted_reliability', 0.5): 1.2,
        ('shifted_signal_to_noise', 0.5): 0.25,
      },
      reached={HALF: 1.9 * np.exp(0.01), NONE: 1.9 * np.exp(-0.02)},
    )
  )
  log = float(np.log(2))
  check(
    found,
    (
      (f'N18 one step, {WHERE}', 'contradicted', -0.01),
      (f'N18 one step, {WHERE}, better', 'supported', 0.02),
      (f'N18 one step, {WHERE}, worse', 'supported', 0.01),
      (f'N18 one layer, {WHERE}, 1', 'contradicted', -0.01),
      (f'N18 one layer, {WHERE}, 2', 'contradicted', -0.01),
      (f'N12, {WHERE}', 'contradicted', -0.2),
      (f'N12 variance, {WHERE}', 'supported', -log),
      (f'N18 exact gains on A, {WHERE}', 'contradicted', -0.5),
      (f'N18 exact gains on B, {WHERE}', 'equivalent', 0),
      (f'N12 scaled quantizer, {WHERE}, replicates', 'equivalent', 0),
      (f'N12 scaled quantizer, {WHERE}, varies less', 'contradicted', 0),
      (f'N12 shifted quantizer, {WHERE}, replicates', 'supported', 0.2),
      (
        f'N12 shifted quantizer, {WHERE}, varies less',
        'contradicted',
        -2 * log,
      ),
    ),
  )
  second = [v.finding for v in found.values() if 'second contrast' in v.claim]
  assert second == [f'N18 one step, {WHERE}']
  details = found[f'N18 one step, {WHERE}'].details
  np.testing.assert_allclose(
    details['decrease (nats), window 1'], 0.1, atol=1e-4
  )


@pytest.mark.slow
def test_every_network_and_state_is_judged():
  networks = 'resnet8_narrow', 'resnet20'
  found = judged(
    synthetic.looked((), (), networks, states=models.STATES), onestep.judge
  )
  steps = [
    f for f in found if f.startswith('N18 one step') and f.count(',') == 2
  ]
  assert len(steps) == 2 * 3


def test_a_length_is_chosen_on_tuning_seeds():
  results = synthetic.looked((), ())
  tuned = results.tuning_all_holdout
  tuned.loc[{'estimator': HALF, 'step_rate': 1.0}] = 3.0
  found = judged(results, onestep.judge)[f'N18 one step, {WHERE}']
  # The other length leaves the loss as it is.
  np.testing.assert_allclose(found.effect, np.log(1.9 / 2.0), atol=1e-4)


@pytest.mark.parametrize('sign', [1, -1])
def test_nearness_that_predicts(sign):
  names = [n for n in synthetic.trained().of.values.tolist() if n != SHRINKING]
  ranked = {name: i for i, name in enumerate(dict.fromkeys(names))}
  found = judged(
    synthetic.results(
      {f'{name}, pretrained': 0.01 * i for name, i in ranked.items()},
      {('holdout_cosine', name): 0.05 * sign * i for name, i in ranked.items()},
    ),
    nearness.judge,
  )
  one = found['N18 predicts accuracy: nearness, B, pretrained']
  assert one.verdict == ('supported' if sign > 0 else 'contradicted')
  np.testing.assert_allclose(one.effect, sign, atol=1e-6)
  assert f'{len(ranked)} estimators of 7 families' in one.claim
  for name in ('lowest', 'highest'):
    np.testing.assert_allclose(one.details[f'{name} without a family'], sign)
  # What does not differ predicts nothing: it differs by noise alone.
  other = found['N18 predicts accuracy: nearness, A, pretrained']
  assert other.verdict == 'inconclusive'


def test_one_family_may_be_all_there_is():
  """Ten members of one family agree, three others do not: its range says so."""
  a = np.asarray([*range(10), 20.0, 21.0, 22.0])[:, None].repeat(3, 1)
  b = np.asarray([*range(10), 5.3, 5.2, 5.1])[:, None].repeat(3, 1)
  families = ['window'] * 10 + ['x', 'y', 'z']
  whole = nearness.rank_correlations(a, b)
  found = nearness._by_family(a, b, families)
  np.testing.assert_allclose(found['without window'], -1)
  assert whole[0] > 0 and found['lowest without a family'] == -1


def test_rank_correlations_are_those_of_scipy():
  draw = np.random.default_rng(0)
  a, b = draw.integers(0, 4, (2, 9, 5)).astype(float)
  wanted = [
    stats.spearmanr(x, y).statistic for x, y in zip(a.T, b.T, strict=True)
  ]
  np.testing.assert_allclose(nearness.rank_correlations(a, b), wanted)
  a[2, 1] = np.nan
  b[:, 3] = 1.0
  found = nearness.rank_correlations(a, b)
  assert np.isnan(found[[1, 3]]).all() and np.isfinite(found[[0, 2, 4]]).all()
