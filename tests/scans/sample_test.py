"""Samples of a layer's weights estimate what all weights would say."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import measures
from bitjax import scans
from bitjax import types
from tests.scans import conftest

CHANNELS, POPULATION = 4, 50


def view_of(shape):
  view, _ = conftest.view_and_loss()
  return dataclasses.replace(view, kernel=jnp.zeros(shape))


def population(seed=0):
  """Values of all weights, [population, channels], of channels that differ."""
  rng = np.random.default_rng(seed)
  spread = np.linspace(1, 3, CHANNELS)
  return rng.normal(size=(POPULATION, CHANNELS)) * spread + 5 * spread


def test_channels_give_equally_many_weights_without_repetition():
  view = view_of((3, 3, 5, 4))
  sample = scans.draw_sample(view, 41, jax.random.key(0))
  assert sample.coordinates.shape == (44,)
  assert len(set(sample.coordinates.tolist())) == 44
  counts = np.bincount(np.asarray(sample.coordinates) % 4)
  np.testing.assert_array_equal(counts, 11)
  assert repr(sample) == 'Sample(44 of 180 weights)'
  two = scans.draw_sample(view, 1, jax.random.key(0))
  assert two.coordinates.size == 2 * 4


def test_a_sample_of_all_weights_has_no_error():
  sample = scans.draw_sample(view_of((7, 4)), 28, jax.random.key(1))
  np.testing.assert_array_equal(np.sort(sample.coordinates), np.arange(28))
  values = jnp.arange(28.0)[sample.coordinates]
  mean, error = sample.mean(values)
  assert mean == pytest.approx(13.5) and error == 0


def correlation(weights, a, b):
  def mean(x):
    return (weights * x).sum() / weights.sum()

  a, b = a - mean(a), b - mean(b)
  return mean(a * b) / jnp.sqrt(mean(a * a) * mean(b * b))


def test_errors_are_the_spread_of_estimates_over_samples():
  """Against the definition: many samples of one population."""
  values = population()
  others = np.float32(
    values + np.random.default_rng(1).normal(size=values.shape)
  )
  view = view_of((POPULATION, CHANNELS))

  @jax.jit
  @jax.vmap
  def estimates(key):
    sample = scans.draw_sample(view, 48, key)
    a, b = (
      jnp.float32(x).reshape(-1)[sample.coordinates] for x in (values, others)
    )
    one = sample.mean(a), sample.estimate(correlation, a, b)
    return *one, *sample.agreement(a - 10, b - 10)

  keys = jax.random.split(jax.random.key(2), 2000)
  pair = (jnp.float32(x) - 10 for x in (values, others))  # Of both signs.
  whole = measures.agreement(*pair)[:4]
  truths = values.mean(), np.corrcoef(values.ravel(), others.ravel())[0, 1]
  truths += tuple(map(float, whole))
  # Spearman's correlation of n independent pairs is biased towards Kendall's.
  signs = (np.sign(x.ravel()[:, None] - x.ravel()) for x in (values, others))
  kendall = np.prod([*signs], axis=0).sum() / (values.size * (values.size - 1))
  biases = [0, 0, 0, 0, 3 / 49 * abs(kendall - truths[4]), 0]
  for (value, error), truth, bias in zip(
    estimates(keys), truths, biases, strict=True
  ):
    value, error = np.float64(value), np.float64(error)
    spread = value.std()
    most = bias + 0.05 * spread + 3 * spread / 2000**0.5
    assert abs(value.mean() - truth) < most
    # Ranks of 48 weights are coarse, and their first order is too.
    rtol = 0.2 if bias else 0.08
    np.testing.assert_allclose(np.sqrt((error**2).mean()), spread, rtol=rtol)


def test_an_agreement_of_all_weights_is_that_of_the_layer():
  rng = np.random.default_rng(3)
  sample = scans.draw_sample(view_of((7, 4)), 28, jax.random.key(1))
  a = jnp.asarray(rng.integers(-2, 3, 28), 'f4')  # With zeros and ties.
  b = jnp.asarray(rng.normal(size=28), 'f4')
  agreement = jax.jit(sample.agreement)
  for one in (a, jnp.zeros(28), jnp.full(28, 0.1, jnp.float32)):
    found = agreement(one, b)
    np.testing.assert_allclose(
      [each.value for each in found],
      measures.agreement(one, b)[:4],
      rtol=1e-5,
      atol=1e-6,
    )
    np.testing.assert_array_equal([each.error for each in found], 0)
  assert np.isnan(agreement(a.at[3].set(jnp.nan), b).cosine.value)
  with pytest.raises(types.BadInput, match='each of the 28 sampled weights'):
    sample.agreement(a[None], b)


def test_gains_keep_their_sample():
  view, _ = conftest.view_and_loss()
  sample = scans.draw_sample(view, 8, jax.random.key(1))
  found = scans.flip_gains(view, coordinates=sample, path='brute_force')
  plain = scans.flip_gains(
    view, coordinates=sample.coordinates, path='brute_force'
  )
  np.testing.assert_array_equal(found.gains, plain.gains)
  assert found.sample is sample and plain.sample is None
  both = scans.merge_gains(found, found)
  np.testing.assert_array_equal(both.sample.coordinates, sample.coordinates)
  another = scans.draw_sample(view, 8, jax.random.key(2))
  other = scans.flip_gains(view, coordinates=another, path='brute_force')
  for mixed in (plain, other):
    with pytest.raises(types.BadInput, match='of different samples'):
      scans.merge_gains(found, mixed)
  wide = scans.draw_sample(view_of((9, 4)), 8, jax.random.key(1))
  with pytest.raises(types.BadInput, match='4 channels of 9 weights; this one'):
    scans.flip_gains(view, coordinates=wide)


@pytest.mark.parametrize(
  ('shape', 'size', 'match'),
  [
    ((5, 4), 21, 'at most that of the layer, 20 weights; got 21'),
    ((5, 4), 0, 'size must be an integer >= 1'),
    ((1, 4), 2, 'two weights for each channel'),
    ((0, 4), 2, 'must not be empty'),
  ],
)
def test_bad_input(shape, size, match):
  with pytest.raises(types.BadInput, match=match):
    scans.draw_sample(view_of(shape), size, jax.random.key(0))
