"""Windows in units of spreads, one by one, on tables whose answer is known."""

import numpy as np
import pytest
import xarray

from bitjax.studies.variant_ste import effects
from bitjax.studies.variant_ste import families
from bitjax.studies.variant_ste import widths
from tests.studies.variant_ste import findings_test as cases

WORDS = 'trained, a window of 2 spreads in first layer'


def judged(results, step):
  found = list(widths.judge(results, 'trained', step))
  assert len({v.finding for v in found}) == len(
    found
  )  # One window of each kind.
  assert all(v.claim.startswith(WORDS) for v in found)
  return found


def test_a_window_in_both_units():
  share, nats = judged(cases.table(), 'first layer')
  assert [share.verdict, nats.verdict] == ['contradicted', 'contradicted']
  assert nats.finding == f'{share.finding}, nats' and nats.unit == 'nats'
  # The normal step saves 1 nat, so both are the same number.
  np.testing.assert_allclose([share.effect, nats.effect], -0.2, atol=0.02)
  assert share.details['tuned otherwise, normal'] == 0
  assert f'tuned otherwise, {cases.WIDE}' in nats.details


def test_with_and_without_the_mass():
  found = judged(cases.table(), 'all layers')
  assert ['mass kept' in v.finding for v in found] == [False, True] * 2
  for plain, kept in (found[:2], found[2:]):
    assert 'mass kept' in kept.claim and 'mass kept' not in plain.claim
    np.testing.assert_allclose(plain.effect, -0.2, atol=0.02)
    np.testing.assert_allclose(kept.effect, 0, atol=0.02)
  assert [v.verdict for v in found[:2]] == ['contradicted', 'equivalent']


def test_an_undefined_share_is_no_undefined_difference():
  """The normal step saves nothing that is clearly positive; the other one harms."""
  results = cases.table()
  shift = 1 + np.resize([0.5, -0.5], cases.SEEDS)
  results['holdout'] = results['holdout'] + xarray.DataArray(shift, dims='seed')
  share, nats = judged(results, 'first layer')
  assert share.verdict == 'inconclusive' and np.isnan(share.effect)
  assert nats.verdict == 'contradicted' and -0.25 < nats.low < nats.high < -0.15


@pytest.mark.parametrize('step', effects.STEPS)
def test_the_intervals_of_all_windows_hold_at_once(step):
  """They are those of the claim about some window."""
  results = cases.table(spread=0.3)
  names = dict(zip(['same', 'better'], ['0.5', '1'], strict=True))
  new = {n: f'{families.RELATIVE}second layer {c}' for n, c in names.items()}
  for axis in ('variant', 'chosen'):
    labels = [new.get(n, n) for n in results[axis].values.tolist()]
    results = results.assign_coords({axis: labels})
  found = effects.saved(results, 'trained', step=step)
  others = effects.within_layers(found.extra.variant)
  joint = effects.percentages(found, others)
  own = list(widths.judge(results, 'trained', step))[: len(others)]
  assert len(own) == 3
  for verdict, name in zip(own, others, strict=True):
    place, width, kept = effects.placed(name)
    assert f'{width:g} spreads in {place}' in verdict.claim
    assert kept == ('mass kept' in verdict.claim)
    np.testing.assert_allclose(
      [100 * verdict.low, 100 * verdict.high],
      [joint[name].low, joint[name].high],
    )


def test_without_such_windows():
  without = cases.table().drop_sel(variant=cases.WIDE)
  assert not list(widths.judge(without, 'trained', 'first layer'))
