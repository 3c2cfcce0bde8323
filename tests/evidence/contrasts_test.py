"""Claims are judged as their samples say."""

import numpy as np
import pytest
import xarray

from bitjax.evidence import contrasts

INFO = {'unit': 'nats', 'protocol': 'oracle'}
NOISE = np.random.default_rng(0).normal(size=20)


@pytest.mark.parametrize(
  ('shift', 'direction', 'verdict'),
  [
    (5, 1, 'supported'),
    (-5, 1, 'contradicted'),
    (-5, -1, 'supported'),
    (0, 1, 'inconclusive'),
  ],
)
def test_difference(shift, direction, verdict):
  found = contrasts.difference(
    'N1', 'claim.', shift + NOISE - NOISE.mean(), direction=direction, **INFO
  )
  assert found.verdict == verdict and found.num_seeds == 20
  assert found.effect == pytest.approx(shift)


def test_diverged_samples_are_counted():
  samples = np.append(5 + NOISE, np.nan)
  found = contrasts.difference('N1', 'claim.', samples, **INFO)
  assert found.details['diverged'] == 1 and found.num_seeds == 20


@pytest.mark.parametrize(
  ('scale', 'shift', 'verdict'),
  [(0.1, 0, 'supported'), (0.1, 3, 'contradicted'), (9, 0, 'inconclusive')],
)
def test_equivalent(scale, shift, verdict):
  samples = shift + scale * (NOISE - NOISE.mean())
  found = contrasts.equivalent('N1', 'claim.', samples, 1.0, **INFO)
  assert found.verdict == verdict and found.details['margin'] == 1.0


@pytest.mark.parametrize(
  ('shifts', 'verdict'),
  [
    ((0, 5), 'supported'),
    ((-5, -6), 'contradicted'),
    ((0, -5), 'inconclusive'),
  ],
)
def test_any_arm(shifts, verdict):
  centred = NOISE - NOISE.mean()
  arms = {f'arm {s}': s + centred for s in shifts}
  found = contrasts.any_arm('N1', 'claim.', arms, **INFO)
  assert found.verdict == verdict
  assert found.effect == pytest.approx(max(shifts))


def test_cells_of_a_table_are_judged_together():
  centred = NOISE - NOISE.mean()
  shifts = {'up': 5, 'down': -5, 'level': 0}
  cells = [
    contrasts.Cell('N1', name, s + np.roll(centred, s), {'shift': s})
    for name, s in shifts.items()
  ]
  cells.append(contrasts.Cell('N1', 'nothing', np.zeros(20)))
  found = {v.claim: v for v in contrasts.family(cells, **INFO)}
  assert {name: verdict.verdict for name, verdict in found.items()} == {
    'up': 'supported',
    'down': 'contradicted',
    'level': 'inconclusive',
    'nothing': 'inert',
  }
  alone = contrasts.difference('N1', 'up', cells[0].samples, **INFO)
  up = found['up']
  assert up.effect == alone.effect and up.details['shift'] == 5
  assert up.low < alone.low and alone.high < up.high
  assert up.caveat == 'Simultaneous with 3 other claims.'
  assert not contrasts.family([], **INFO)


def test_a_table_of_one_cell_has_no_others():
  (found,) = contrasts.family([contrasts.Cell('N1', 'c.', 5 + NOISE)], **INFO)
  assert found.caveat == '' and found.num_seeds == 20


def test_variances():
  info = {'protocol': 'oracle'}
  found = contrasts.variances('N1', 'claim.', NOISE, 10 * NOISE[::-1], **info)
  assert found.verdict == 'supported'
  assert found.effect == pytest.approx(np.log(0.01))
  found = contrasts.variances('N1', 'claim.', 10 * NOISE[::-1], NOISE, **info)
  assert found.verdict == 'contradicted'


@pytest.mark.parametrize(
  ('scale', 'verdict'),
  [(0.9, 'supported'), (0.98, 'equivalent'), (1.1, 'contradicted')],
)
def test_variances_that_differ_by_less_than_counts(scale, verdict):
  info = {'protocol': 'oracle', 'smallest': np.log(1.1)}
  found = contrasts.variances('N1', 'claim.', scale * NOISE, NOISE, **info)
  assert found.verdict == verdict
  assert found.details == {'smallest that counts': np.log(1.1)}


def test_what_does_not_vary_has_no_ratio_of_variances():
  found = contrasts.variances('N1', 'c.', 0 * NOISE, 0 * NOISE, protocol='B')
  assert found.verdict == 'inconclusive' and np.isnan(found.effect)
  assert found.caveat == 'The ratio is not defined: neither varies over seeds.'


def test_log_ratios_keep_their_labels():
  above = xarray.DataArray([2.0, 1.0, 0.5], {'seed': [4, 5, 6]}, dims='seed')
  found = contrasts.log_ratio(above, 1.0)
  np.testing.assert_allclose(found.sel(seed=4), np.log(2))
  assert found.sel(seed=5) == 0 and found.sel(seed=6) < 0
  np.testing.assert_array_equal(contrasts.log_ratio(1.0, above), -found)


@pytest.mark.parametrize('value', [2.0, np.nan])
def test_one_seed_has_no_interval(value):
  """Whatever is claimed."""
  one = np.array([value])
  judged = [
    contrasts.difference('N1', 'claim.', one, **INFO),
    contrasts.equivalent('N1', 'claim.', one, 1.0, **INFO),
    contrasts.difference('N1', 'claim.', one, whole=one, **INFO),
    contrasts.any_arm('N1', 'claim.', {'a': one, 'b': 2 * one}, **INFO),
    *contrasts.family([contrasts.Cell('N1', 'claim.', one)] * 2, **INFO),
    contrasts.variances('N1', 'claim.', one, one, protocol='oracle'),
    contrasts.difference('N1', 'claim.', one[:, None] * np.ones(3), **INFO),
  ]
  for found in judged:
    assert (found.verdict, found.num_seeds) == ('inconclusive', 1)
    assert (found.low, found.high) == (-np.inf, np.inf)
    assert found.caveat.startswith('One seed: no interval')
    assert 'diverged' not in found.details


@pytest.mark.parametrize('margin', [0.0, np.nan])
def test_a_margin_must_be_positive(margin):
  with pytest.raises(ValueError, match='margin'):
    contrasts.equivalent('N1', 'claim.', NOISE, margin, **INFO)


@pytest.mark.parametrize(
  ('shift', 'verdict'),
  [(3, 'supported'), (0, 'equivalent'), (-3, 'contradicted')],
)
def test_an_effect_below_what_counts_is_equivalent(shift, verdict):
  samples = shift + 0.1 * (NOISE - NOISE.mean()) + 0.1
  options = {'smallest': 1.0} | INFO
  (cell,) = contrasts.family(
    [contrasts.Cell('N1', 'claim.', samples)], **options
  )
  for found in (
    contrasts.difference('N1', 'claim.', samples, **options),
    contrasts.any_arm('N1', 'claim.', {'a': samples}, **options),
    cell,
  ):
    assert found.verdict == verdict and found.low > shift
    assert found.details['smallest that counts'] == 1.0


@pytest.mark.parametrize(
  ('shifts', 'verdict'),
  [((0, -5), 'contradicted'), ((0, 5), 'supported'), ((0, 1), 'inconclusive')],
)
def test_several_arms_and_a_smallest_effect(shifts, verdict):
  arms = {f'{s}': s + 0.1 * (NOISE - NOISE.mean()) for s in shifts}
  found = contrasts.any_arm('N1', 'claim.', arms, smallest=1.0, **INFO)
  assert found.verdict == verdict


def test_shares():
  whole = 4 + 0.1 * NOISE
  options = {'whole': whole} | INFO
  found = contrasts.difference('N1', 'claim.', 2 * whole, **options)
  assert (found.low, found.effect, found.high) == pytest.approx([2.0] * 3)
  same = contrasts.equivalent('N1', 'claim.', 0.2 * NOISE, 0.1, **options)
  assert same.verdict == 'supported'
  first, second = contrasts.family(
    [
      contrasts.Cell('N1', 'a.', 2 * whole, whole=whole),
      contrasts.Cell('N1', 'b.', NOISE),
    ],
    **INFO,
  )
  assert first.low == pytest.approx(2) and second.low < 0 < second.high


def test_a_share_of_what_may_be_nothing_is_not_defined():
  whole = NOISE - NOISE.mean() + 0.01
  arms, wholes = {'a': NOISE, 'b': NOISE}, {'a': whole, 'b': 5 + NOISE}
  alone, same = (
    contrasts.difference('N1', 'claim.', NOISE, whole=whole, **INFO),
    contrasts.equivalent('N1', 'claim.', NOISE, 0.1, whole=whole, **INFO),
  )
  for found in (alone, same):
    assert np.isnan(found.effect) and found.verdict == 'inconclusive'
    assert 'not clearly positive' in found.caveat
  best = contrasts.any_arm('N1', 'claim.', arms, wholes=wholes, **INFO)
  assert np.isfinite(best.effect) and np.isnan(best.details['a'])
