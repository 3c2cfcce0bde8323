"""Trainings judged on tables whose answer is known."""

import numpy as np
import pytest
import xarray

from bitjax.evidence import plots
from bitjax.studies.train_superres import figure
from bitjax.studies.train_superres import findings

SEEDS = 6
IMAGES = ('baby.png', 'bird.png', 'woman.png')


def trained(gain, target=None, seeds=SEEDS, images=IMAGES):
  """Returns outcomes that are above bicubic by ``gain``, whose mean is 30 dB."""
  draw = np.random.default_rng(0)
  bicubic = 30 + np.linspace(-2, 2, len(images))
  psnr = bicubic + gain + 0.01 * draw.normal(size=(seeds, 1))
  attrs = {'operations': 1e9, 'bit_operations': 1e10, 'memory': 1e4}
  return xarray.Dataset(
    {
      'psnr': (('seed', 'image'), psnr),
      'ssim': (('seed', 'image'), psnr / 40),
      'validation_loss': ('seed', np.ones(seeds)),
      'train_psnr': (('seed', 'update'), np.full((seeds, 4), 29.0)),
      'validation_psnr': (('seed', 'update'), np.full((seeds, 4), 31.0)),
      'bicubic_psnr': ('image', bicubic),
      'bicubic_ssim': ('image', bicubic / 40),
    },
    {'seed': range(seeds), 'image': list(images), 'update': [10, 20, 30, 35]},
    attrs=attrs if target is None else attrs | {'target': target},
  )


def judged(results):
  return {v.finding: v for v in findings.judge(results)}


@pytest.mark.parametrize(
  ('gain', 'verdict'),
  [(1.5, 'supported'), (0.02, 'equivalent'), (-0.5, 'contradicted')],
)
def test_gain_over_bicubic(gain, verdict):
  found = judged(trained(gain))
  assert set(found) == {'gain'} and found['gain'].primary
  assert found['gain'].verdict == verdict
  np.testing.assert_allclose(found['gain'].effect, gain, atol=0.02)
  details = found['gain'].details
  np.testing.assert_allclose(details['PSNR, dB'], 30 + gain, atol=0.02)
  np.testing.assert_allclose(details['SSIM of bicubic'], 0.75)
  for name in IMAGES:
    one = details[f'dB above bicubic on {name}']
    np.testing.assert_allclose(one, gain, atol=0.02)


@pytest.mark.parametrize(
  ('target', 'verdict'),
  [(31.0, 'supported'), (31.52, 'equivalent'), (32.0, 'contradicted')],
)
def test_what_was_published(target, verdict):
  found = judged(trained(1.5, target))
  assert (
    found['published'].verdict == verdict and not found['published'].primary
  )
  np.testing.assert_allclose(
    found['published'].effect, 31.5 - target, atol=0.02
  )


def test_one_seed_settles_nothing():
  for one in judged(trained(1.5, 31.0, seeds=1)).values():
    assert one.verdict == 'inconclusive'
    assert one.caveat.startswith('One seed: no interval.')


def test_seeds_that_diverged(as_if_not_run):
  as_if_not_run(findings.judge, trained(1.5, 31.0), ['validation_loss'])


@pytest.mark.parametrize('number', [1, 3, 100])
def test_figures_can_be_printed(complaints, number):
  pyplot = pytest.importorskip('matplotlib.pyplot')
  images = [f'image_{index}.png' for index in range(number)]
  with plots.style():
    drawn = figure.page(trained(1.5, images=images))
    assert complaints(drawn) == []
    pyplot.close(drawn)
