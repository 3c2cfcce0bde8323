"""PSNR and SSIM against sums written out, scikit-image, and published numbers."""

import functools
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import data
from bitjax import measures
from bitjax import types

RNG = np.random.default_rng(3)
FILES = os.environ.get('BITJAX_SR_DIR')  # As in tests/data/resampling_test.py.
jitted = {
  name: jax.jit(getattr(measures, name), static_argnames=('border', 'channels'))
  for name in ('psnr', 'ssim')
}


def pair(height=17, width=20, channels=3, noise=12):
  truth = RNG.integers(0, 256, (height, width, channels))
  other = np.clip(truth + RNG.normal(0, noise, truth.shape), 0, 255)
  return np.rint(other).astype(np.uint8), truth.astype(np.uint8)


def luma(image):
  red, green, blue = np.moveaxis(image.astype(np.float64), -1, 0)
  y = 16 + 65.481 * red / 255 + 128.553 * green / 255 + 24.966 * blue / 255
  return y[..., None]


def decibels(x, y):
  error = np.mean((x.astype(np.float64) - y.astype(np.float64)) ** 2)
  return 10 * np.log10(255**2 / error)


def similarity(x, y):
  """Window by window."""
  x, y = x.astype(np.float64), y.astype(np.float64)
  line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
  window = np.outer(line, line)
  window /= window.sum()
  c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
  found = []
  for channel in range(x.shape[-1]):
    for row in range(x.shape[0] - 10):
      for column in range(x.shape[1] - 10):
        a = x[row : row + 11, column : column + 11, channel]
        b = y[row : row + 11, column : column + 11, channel]
        mean_a, mean_b = np.sum(window * a), np.sum(window * b)
        var_a = np.sum(window * (a - mean_a) ** 2)
        var_b = np.sum(window * (b - mean_b) ** 2)
        both = np.sum(window * (a - mean_a) * (b - mean_b))
        top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
        found.append(
          top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
        )
  return np.mean(found)


ORACLES = {'psnr': decibels, 'ssim': similarity}


@pytest.mark.parametrize('channels', measures.CHANNELS)
@pytest.mark.parametrize('name', ORACLES)
def test_sums_written_out(name, channels):
  x, y = pair()
  parts = (x, y) if channels == 'rgb' else (luma(x), luma(y))
  expected = ORACLES[name](*(p[2:-2, 2:-2] for p in parts))
  found = jitted[name](x, y, border=2, channels=channels)
  assert found.dtype == np.float32 and found.shape == ()
  np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_leading_axes_grey_images_and_equal_ones():
  pairs = [pair(12, 13, 1, noise) for noise in (1, 5, 30)]
  x, y = (np.stack(parts) for parts in zip(*pairs, strict=True))
  for name, oracle in ORACLES.items():
    found = jitted[name](x, y)
    expected = [oracle(*p) for p in zip(x, y, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    np.testing.assert_array_equal(found, jitted[name](x, y, channels='rgb'))
  assert np.all(np.isposinf(jitted['psnr'](y, y)))
  np.testing.assert_allclose(jitted['ssim'](y, y), 1, rtol=1e-6)


def test_a_flat_shift_has_the_decibels_that_the_page_names():
  y = RNG.integers(0, 200, (12, 12, 3)).astype(np.float32)
  psnr = functools.partial(jitted['psnr'], y + 10, y)
  np.testing.assert_allclose(
    psnr(channels='rgb'), 20 * np.log10(25.5), rtol=1e-5
  )
  np.testing.assert_allclose(
    psnr() - psnr(channels='rgb'), 20 * np.log10(255 / 219), atol=1e-3
  )


def test_flat_images_and_gradients():
  flat = jnp.full((12, 12, 1), 200.0)
  np.testing.assert_allclose(jitted['ssim'](flat, flat), 1, rtol=1e-6)
  c1 = (0.01 * 255) ** 2
  expected = (2 * 200 * 100 + c1) / (200**2 + 100**2 + c1)
  np.testing.assert_allclose(
    jitted['ssim'](flat, flat - 100), expected, rtol=1e-5
  )
  x, y = (a.astype(np.float32) for a in pair(12, 12))
  gradient = jax.jit(jax.grad(measures.psnr))(x, y)
  slope = jitted['psnr'](x + 0.01 * gradient, y) - jitted['psnr'](x, y)
  np.testing.assert_allclose(slope / 0.01, np.sum(gradient**2), rtol=0.1)


def test_luma_ends():
  black, white = (
    np.zeros((1, 1, 3), np.uint8),
    np.full((1, 1, 3), 255, np.uint8),
  )
  np.testing.assert_allclose(measures.luma(black), [[[16]]])
  np.testing.assert_allclose(measures.luma(white), [[[235]]], rtol=1e-6)


@pytest.mark.parametrize('channels', measures.CHANNELS)
def test_scikit_image(channels):
  metrics = pytest.importorskip('skimage.metrics')
  x, y = pair(40, 33)
  parts = (x, y) if channels == 'rgb' else (luma(x), luma(y))
  inner = [p[3:-3, 3:-3].astype(np.float64) for p in parts]
  np.testing.assert_allclose(
    jitted['psnr'](x, y, border=3, channels=channels),
    metrics.peak_signal_noise_ratio(inner[1], inner[0], data_range=255),
    rtol=1e-5,
  )
  theirs = metrics.structural_similarity(
    *inner,
    gaussian_weights=True,
    use_sample_covariance=False,
    data_range=255,
    channel_axis=-1,
  )
  found = jitted['ssim'](x, y, border=3, channels=channels)
  np.testing.assert_allclose(found, theirs, rtol=1e-5)


@pytest.mark.parametrize('name', ORACLES)
@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'truth': np.zeros((20, 21, 3))}, 'one shape'),
    ({'images': np.zeros((20, 20))}, 'one shape'),
    ({'border': -1}, 'border must be'),
    ({'border': 10}, 'pixels or more on a side'),
    ({'channels': 'y'}, 'channels must be one of luma, rgb'),
    ({'images': np.zeros((20, 20, 3), int)}, 'uint8 or floating'),
    (
      {'images': np.zeros((20, 20, 2)), 'truth': np.zeros((20, 20, 2))},
      '1 or 3 channels',
    ),
  ],
)
def test_bad_input(name, change, message):
  given = {'images': np.zeros((20, 20, 3)), 'truth': np.zeros((20, 20, 3))}
  with pytest.raises(types.BadInput, match=message):
    getattr(measures, name)(**given | change)


def test_small_images_have_no_ssim_and_luma_needs_colours():
  image = np.zeros((14, 14, 3), np.uint8)
  with pytest.raises(types.BadInput, match='15 pixels or more on a side, 11'):
    measures.ssim(image, image, border=2)
  with pytest.raises(types.BadInput, match='must be RGB'):
    measures.luma(image[..., :1])


@pytest.mark.skipif(FILES is None, reason='needs BITJAX_SR_DIR')
@pytest.mark.parametrize(
  ('scale', 'published'), [(2, 33.66), (3, 30.39), (4, 28.42)]
)
def test_the_row_bicubic_of_set5(scale, published):
  from PIL import Image

  found = []
  folder = pathlib.Path(FILES) / 'Set5' / f'image_SRF_{scale}'
  for path in sorted(folder.glob('*_HR.png')):
    high, low = (
      np.asarray(Image.open(str(path).replace('HR', kind)).convert('RGB'))
      for kind in ('HR', 'LR')
    )
    enlarged = data.bicubic_on_host(low, scale)
    found.append(measures.psnr(enlarged, high, border=scale))
  assert len(found) == 5
  np.testing.assert_allclose(np.mean(found), published, rtol=0, atol=0.05)
