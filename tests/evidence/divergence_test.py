"""Samples that diverged are no evidence, and verdicts say how many were lost."""

import numpy as np
import pytest
import xarray

from bitjax import evidence
from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import protocols

INFO = {'unit': 'nats', 'protocol': 'oracle'}
NOISE = np.random.default_rng(0).normal(size=16)


def judge(kind, samples):
  """Judges samples that lie around 5 by one kind of contrast."""
  if kind == 'difference':
    return contrasts.difference('N1', 'c.', samples, **INFO)
  if kind == 'equivalent':
    return contrasts.equivalent('N1', 'c.', samples, 20.0, **INFO)
  if kind == 'any_arm':
    return contrasts.any_arm('N1', 'c.', {'a': samples, 'b': samples}, **INFO)
  if kind == 'family':
    return contrasts.family([contrasts.Cell('N1', 'c.', samples)], **INFO)[0]
  return contrasts.variances('N1', 'c.', samples / 50, NOISE, protocol='oracle')


KINDS = ('difference', 'equivalent', 'any_arm', 'family', 'variances')


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_verdicts_say_what_they_lost(kind, value):
  samples = 5 + NOISE
  whole = judge(kind, samples)
  assert whole.verdict == 'supported' and 'diverged' not in whole.details
  assert 'left out' not in whole.caveat
  samples[:7] = value
  some = judge(kind, samples)
  assert (some.verdict, some.num_seeds) == ('supported', 9)
  assert '7 of 16 samples are left out' in some.caveat
  samples[7] = value
  half = judge(kind, samples)
  assert (half.verdict, half.num_seeds) == (evidence.divergence.DIVERGED, 8)
  assert half.details['diverged'] == 8
  samples[:] = value
  nothing = judge(kind, samples)
  assert (nothing.verdict, nothing.num_seeds) == ('inconclusive: diverged', 0)
  assert '16 of 16 samples are left out' in nothing.caveat
  assert evidence.Verdict.from_json(nothing.to_json()).num_seeds == 0


def test_caveats_are_kept():
  found = contrasts.difference(
    'N1', 'c.', [5.0, 5.1, 5.2, np.nan], caveat='Own.', **INFO
  )
  assert found.caveat.startswith('Own. 1 of 4 samples are left out')


def test_draws_are_counted_one_by_one():
  samples = 5 + NOISE.reshape(4, 4)
  samples[0, :2] = np.nan
  found = contrasts.difference('N1', 'c.', samples, **INFO)
  assert (found.verdict, found.num_seeds) == ('supported', 4)
  assert '2 of 16 samples' in found.caveat


def test_two_seeds_of_which_one_diverged():
  found = contrasts.difference('N1', 'c.', [5.0, np.nan], **INFO)
  assert (found.verdict, found.num_seeds) == ('inconclusive: diverged', 1)


def test_too_few_seeds_did_not_diverge():
  found = contrasts.difference('N1', 'c.', [5.0], **INFO)
  assert found.verdict == 'inconclusive'
  assert found.caveat == 'One seed: no interval.'
  alone = contrasts.difference(
    'N1', 'c.', [np.nan], unit='nats', protocol='deployable, B'
  )
  assert alone.verdict == 'inconclusive'
  assert 'the effect is not defined' in alone.caveat


def test_inert_cells_are_inert_without_what_diverged():
  samples = np.zeros(9)
  samples[0] = np.nan
  (found,) = contrasts.family([contrasts.Cell('N1', 'c.', samples)], **INFO)
  assert found.verdict == 'inert' and found.details['diverged'] == 1


def table(**changed):
  values = {
    'loss': (('arm', 'seed'), np.ones((2, 3))),
    'accuracy': (('arm', 'seed', 'epoch'), np.full((2, 3, 2), 0.5)),
    'flips': (('seed',), np.arange(3)),
  }
  results = xarray.Dataset(
    values, {'arm': ['a', 'b'], 'seed': [4, 5, 6], 'epoch': [1, 2]}
  )
  for name, where in changed.items():
    results[name].loc[where] = np.nan
  return results


def test_what_diverged_has_no_metrics():
  whole = table()
  assert divergence.without(whole, ['loss']) is whole
  assert divergence.without(whole, ['absent']) is whole
  found = divergence.without(
    table(loss={'arm': 'b', 'seed': 5}), ['loss', 'absent']
  )
  lost = np.isnan(found.accuracy)
  assert int(lost.sum()) == 2 and lost.sel(arm='b', seed=5).all()
  assert found.flips.identical(whole.flips)  # It is not of one arm.


def test_a_mean_of_draws_of_which_one_diverged_is_none():
  values = table(loss={'arm': 'b', 'seed': 5}).loss
  found = divergence.unless_any(values.mean('arm'), values, 'arm')
  np.testing.assert_array_equal(found, [1, np.nan, 1])


def test_one_infinite_loss_does_not_make_effects_zero():
  values = xarray.DataArray([1.0, np.inf, 3.0, np.nan], dims='seed')
  assert divergence.finite_mean(values) == 2


class TestProtocols:
  """A setting at which something diverged is not chosen; a lost lane is lost."""

  def outcomes(self, losses):
    losses = np.asarray(losses, float)
    return xarray.Dataset(
      {
        'search': (('seed', 'rate'), losses),
        'holdout': (('seed', 'rate'), losses),
        'flips': (
          ('seed', 'rate'),
          np.arange(losses.size).reshape(losses.shape),
        ),
      },
      {'seed': range(len(losses)), 'rate': range(losses.shape[1])},
    )

  def test_oracle(self):
    found = protocols.oracle(
      self.outcomes([[3, 2], [np.nan, 4], [np.nan, np.nan]]), ['rate']
    )
    np.testing.assert_array_equal(found.flips, [1, 3, np.nan])
    np.testing.assert_array_equal(found.holdout, [2, 4, np.nan])

  def tuned(self, losses):
    outcomes = self.outcomes([[1, 2], [np.nan, 4]])
    losses = np.array(losses, float)
    return outcomes.assign(tuning_holdout=(('tuning_seed', 'rate'), losses))

  def test_a_seed_that_always_diverges_does_not_tune(self):
    found = protocols.deployable(
      self.tuned([[3, 2], [3, 2], [np.nan, np.nan]]), ['rate']
    )
    np.testing.assert_array_equal(found.rate, 1)

  def test_a_rate_at_which_a_tuning_seed_diverges_is_not_chosen(self):
    found = protocols.deployable(
      self.tuned([[3, 2], [3, 2], [3, np.nan]]), ['rate']
    )
    np.testing.assert_array_equal(found.rate, 0)
    np.testing.assert_array_equal(np.isnan(found.search), [False, True])

  @pytest.mark.parametrize(
    'losses', [[[3, np.inf], [np.nan, 2]], [[np.nan, np.nan]] * 2]
  )
  def test_no_rate_is_left(self, losses):
    found = protocols.deployable(self.tuned(losses), ['rate'])
    np.testing.assert_array_equal(found.holdout, [np.nan] * 2)
