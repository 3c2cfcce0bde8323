"""Statistics of channels, and the normalisation of images by them."""

import jax
import numpy as np
import pytest

from bitjax import data
from bitjax import types
from bitjax.data import normalization


def images_of(size=10):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (size, 5, 4, 3), dtype=np.uint8)
  images[..., 1] //= 4
  return images


@pytest.mark.parametrize('chunk', [3, 5, 1000])
def test_statistics_are_those_of_numpy(chunk, monkeypatch):
  monkeypatch.setattr(normalization, '_CHUNK', chunk)
  images = images_of()
  mean, std = data.channel_statistics(images, 1 / 16)
  wanted = images.astype(np.float64) / 16
  assert mean.dtype == std.dtype == np.float32
  np.testing.assert_allclose(mean, wanted.mean(axis=(0, 1, 2)), rtol=1e-6)
  np.testing.assert_allclose(std, wanted.std(axis=(0, 1, 2)), rtol=1e-6)


def test_normalized_images_have_mean_0_and_deviation_1():
  images = images_of()
  statistics = data.channel_statistics(images, 1 / 255)

  @jax.jit
  def normalize(images):
    return data.normalize(images, *statistics, 1 / 255)

  found = np.asarray(normalize(images))
  assert found.dtype == np.float32
  wanted = (images / 255 - statistics.mean) / statistics.std
  np.testing.assert_allclose(found, wanted, atol=2e-6)
  np.testing.assert_allclose(found.mean(axis=(0, 1, 2)), 0, atol=1e-5)
  np.testing.assert_allclose(found.std(axis=(0, 1, 2)), 1, atol=1e-5)
  # Blended images are floats in the same units, so they are normalised alike.
  as_float = data.normalize(images.astype(np.float32), *statistics, 1 / 255)
  np.testing.assert_allclose(as_float, found, atol=2e-6)


@pytest.mark.parametrize(
  'call,pattern',
  [
    (
      lambda x: data.normalize(x, np.zeros(1), np.ones(3), 1.0),
      r'must have shape \(3,\), .* got \(1,\) and \(3,\)',
    ),
    (
      lambda x: data.normalize(x, 0.0, 1.0, 1.0),
      r'must have shape \(3,\)',
    ),
    (
      lambda x: data.normalize(x, *data.channel_statistics(0 * x, 1.0), 1.0),
      'std must be > 0',
    ),
    (lambda x: data.channel_statistics(x / 255, 1.0), 'uint8 .* float64'),
    (lambda x: data.channel_statistics(x[:0], 1.0), 'at least one'),
    (lambda x: data.channel_statistics(x[0], 1.0), r'\[N, H, W, C\]'),
  ],
)
def test_bad_arguments_are_one_line(call, pattern):
  with pytest.raises(types.BadInput, match=pattern) as error:
    call(images_of())
  assert '\n' not in str(error.value)
