"""Samples of a layer's weights estimate what all weights would say."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
    return sample.mean(a), sample.estimate(correlation, a, b)

  keys = jax.random.split(jax.random.key(2), 2000)
  truths = values.mean(), np.corrcoef(values.ravel(), others.ravel())[0, 1]
  for (value, error), truth in zip(estimates(keys), truths, strict=True):
    value, error = np.float64(value), np.float64(error)
    spread = value.std()
    assert abs(value.mean() - truth) < 0.05 * spread + 3 * spread / 2000**0.5
    np.testing.assert_allclose(np.sqrt((error**2).mean()), spread, rtol=0.08)


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
