"""N11 and N12, judged on tables whose answer is known."""

from matplotlib import pyplot
import numpy as np
import pytest
import xarray

from bitjax.evidence import plots
from bitjax.studies.variant_ste import arms
from bitjax.studies.variant_ste import figure
from bitjax.studies.variant_ste import findings

SEEDS = 20
VARIANTS = ['normal', 'same', 'better', 'still']


def table(*, spread=0.01):
  """The normal step saves 1 nat of 2; ``better`` saves 1.2; ``still`` is inert."""
  random = np.random.default_rng(0)
  noise = spread * random.normal(size=(2, len(VARIANTS), SEEDS))
  noise[:, 3] = noise[:, 0]
  saved = np.array([1.0, 1.0, 1.2, 1.0])[:, None] + noise
  holdout = np.stack([2 - 0.5 * saved, 2 - saved], axis=-1)  # [..., rate]
  dims = ('state', 'variant', 'seed', 'learning_rate')
  affected = np.ones((2, len(VARIANTS), SEEDS))
  affected[:, [0, 3]] = 0
  cosine = np.array([0.2, 0.2, 0.4, 0.2])[:, None] + noise
  wide = ('state', 'variant', 'seed')
  layered = np.broadcast_to(cosine[..., None], (*cosine.shape, 2))
  seeds = ('state', 'seed')
  return xarray.Dataset(
    {
      'search': (dims, holdout),
      'holdout': (dims, holdout),
      'start_search': (seeds, np.full((2, SEEDS), 2.0)),
      'start_holdout': (seeds, np.full((2, SEEDS), 2.0)),
      'affected': (wide, affected),
      'reliability': (wide, cosine),
      'discrete_cosine': (wide, cosine),
      'central_cosine': (wide, -cosine),
      'holdout_discrete_cosine': (wide, cosine),
      'gradient_signal_to_noise': ((*wide, 'layer'), layered),
      'gradient_bias': ((*wide, 'layer'), layered),
      'all_search': (('state', 'chosen', 'seed', 'few_rate'), holdout[:, :2]),
      'all_holdout': (('state', 'chosen', 'seed', 'few_rate'), holdout[:, :2]),
    },
    {
      'state': ['initialised', 'trained'],
      'variant': VARIANTS,
      'chosen': VARIANTS[:2],
      'seed': range(SEEDS),
      'learning_rate': [0.1, 1.0],
      'few_rate': [0.1, 1.0],
    },
  )


@pytest.mark.parametrize(
  ('variant', 'spread', 'verdict', 'effect'),
  [
    ('same', 0.01, 'supported', 0.0),
    ('same', 0.5, 'inconclusive', 0.0),
    ('better', 0.01, 'contradicted', 0.2),
    ('still', 0.01, 'inert', 0.0),
  ],
)
def test_equal_within_five_percent(variant, spread, verdict, effect):
  (found,) = findings.equivalent_decrease(
    table(spread=spread), variant, 'initialised'
  )
  assert found.verdict == verdict
  np.testing.assert_allclose(found.effect, effect, atol=spread)
  assert found.num_seeds == SEEDS
  np.testing.assert_allclose(
    found.details['decrease of nSTE (nats)'], 1, atol=spread
  )


def test_one_arm_is_better_and_inert_ones_are_named():
  better, worse = findings.any_variant(table(), 'trained')
  assert (better.verdict, worse.verdict) == ('supported', 'inconclusive')
  assert 'still' in better.caveat and 'still' not in better.details
  assert better.details['better low'] > 0.15
  assert findings.inert(table(), 'trained') == ['still']


def test_all_layers():
  (found,) = findings.all_layers(table(), 'same', 'initialised')
  assert found.verdict == 'supported'
  assert not list(findings.all_layers(table(), 'better', 'initialised'))


def test_nearness_predicts_in_the_sign_of_the_cosine():
  discrete, central, held_out = findings.nearest(table(), 'initialised')
  assert (discrete.verdict, held_out.verdict) == ('supported', 'supported')
  assert central.verdict == 'contradicted'
  assert 'gradient on A is to the discrete gradient on B' in held_out.claim
  assert (
    discrete.details['cosine of better'] > discrete.details['cosine of nSTE']
  )


def test_reliability_is_paired():
  (better,) = findings.replication(table(), 'better', 'trained')
  assert better.verdict == 'supported'
  np.testing.assert_allclose(better.effect, 0.2, atol=0.01)
  (still,) = findings.replication(table(), 'still', 'trained')
  assert still.verdict == 'inert'


def test_simultaneous_intervals_are_wider():
  found = findings.spread(table(), 'initialised')
  assert [len(found), found[0].low, found[0].high] == [4, 0, 0]
  assert found[2].low > 0.1


def test_seeds_that_diverged(as_if_not_run, monkeypatch):
  monkeypatch.setattr(arms, 'PRIMARY', 'same')
  as_if_not_run(findings.judge, table(), ['start_search'])


def test_one_seed_has_no_interval():
  alone, state = table().isel(seed=[0]), 'trained'
  found = [
    *findings.equivalent_decrease(alone, 'same', state),
    *findings.any_variant(alone, state),
    *findings.all_layers(alone, 'same', state),
    *findings.nearest(alone, state),
    *findings.replication(alone, 'better', state),
  ]
  assert len(found) == 8
  for verdict in found:
    assert (verdict.verdict, verdict.num_seeds) == ('inconclusive', 1)
    assert 'One seed: no interval' in verdict.caveat
  assert 'the effect is not defined' in found[0].caveat


def test_the_normal_window_is_drawn_at_zero(complaints):
  """A line from half-width 0.5 to 2 would pass 0 where nothing was measured."""
  families = ['normal', *['window on activations'] * 2, 'window on weights']
  results = table().isel(seed=[0, 1])
  results = results.assign_coords(
    variant=['normal', arms.PRIMARY, 'window on activations 2', 'still'],
    family=('variant', families),
    setting=('variant', [0.0, 0.5, 2.0, 1.0]),
  )
  results['affected'][:, 1] = 1
  with plots.style():
    drawn = figure.page(results)
    for fig in drawn.values():
      assert complaints(fig) == []
      pyplot.close(fig)
  window, *_ = drawn['figure'].axes
  curve = next(line for line in window.lines if line.get_label() == families[1])
  half_widths = curve.get_xdata() / figure._DODGE[families[1]]
  np.testing.assert_allclose(half_widths, [0.5, 1, 2])
  assert curve.get_ydata()[1] == 0
  (mark,) = (one for one in window.lines if one.get_marker() == '*')
  effect = findings.effects(results, 'initialised').sel(variant=arms.PRIMARY)
  np.testing.assert_allclose(mark.get_ydata(), [100 * effect.mean()])
