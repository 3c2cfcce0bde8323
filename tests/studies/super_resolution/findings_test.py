"""N20, judged on tables whose answer is known."""

import numpy as np
import pytest
import xarray

from bitjax.studies.super_resolution import arms as arms_lib
from bitjax.studies.super_resolution import crops
from bitjax.studies.super_resolution import figure
from bitjax.studies.super_resolution import findings

SEEDS = 8
IMAGES = ('astronaut', 'camera', 'chelsea', 'coffee')
LAYERS, PROBES = 3, 6


def compared(arms=arms_lib.ARMS, seeds=SEEDS, noise=0.01, **decibels):
  """Returns outcomes at 30 dB plus the decibels of each arm; bicubic has 29."""
  arms = list(arms)
  draw = np.random.default_rng(0)
  shape = (len(arms), seeds)
  level = np.array([decibels.get(arm, 0.0) for arm in arms])[:, None, None]
  psnr = 30 + level + noise * draw.normal(size=(*shape, 1))
  psnr = psnr + np.array([-3.0, 0.0, 1.0, 2.0])
  # The range of each image is a factor times that of the network.
  factors = np.array([0.8, 0.9, 1.0, 1.0, 1.1, 1.2])
  ranges = draw.uniform(1, 2, (*shape, LAYERS, 1)) * factors
  dims = ('arm', 'seed')
  each = {'operations': 1e9, 'bit_operations': 1e8, 'memory': 1e4}
  each |= {'energy_low': 20.0, 'energy_high': 40.0}
  return xarray.Dataset(
    {
      'psnr': ((*dims, 'image'), psnr),
      'ssim': ((*dims, 'image'), psnr / 40),
      'validation_loss': (dims, np.ones(shape)),
      'passing': ((*dims, 'layer'), np.full((*shape, LAYERS), 0.9)),
      'range': ((*dims, 'layer', 'probe'), ranges),
      'deviation': ((*dims, 'layer', 'probe'), ranges / 4),
      'bicubic_psnr': ('image', np.array([26.0, 29.0, 30.0, 31.0])),
      'tuning_validation_loss': (
        ('arm', 'rate', 'tuning_seed'),
        np.broadcast_to([[2.0] * 2, [1.0] * 2], (len(arms), 2, 2)),
      ),
    },
    {
      'arm': arms,
      'seed': range(seeds),
      'image': list(IMAGES),
      'layer': [f'Conv_{i}' for i in range(LAYERS)],
      'probe': range(PROBES),
      'rate': [0.5, 2.0],
      'tuning_seed': [1000, 1001],
    }
    | {name: ('arm', np.full(len(arms), v)) for name, v in each.items()},
  )


def judged(results):
  found = findings.judge(results)
  assert len({v.finding for v in found}) == len(found)
  return {v.finding: v for v in found}


def test_the_primary_contrast():
  found = judged(compared(**{'1 bit': 0.3}))
  assert [v.finding for v in found.values() if v.primary] == ['N20 shortcuts']
  primary = found['N20 shortcuts']
  assert primary.verdict == 'supported' and primary.num_seeds == SEEDS
  np.testing.assert_allclose(primary.effect, 0.3, atol=0.02)
  for name in IMAGES:  # Reported by image too.
    np.testing.assert_allclose(primary.details[f'dB on {name}'], 0.3, atol=0.02)
  assert primary.details['rate, 1 bit'] == 2.0
  assert found['N20 shortcuts, SSIM'].effect == pytest.approx(
    primary.effect / 40
  )


@pytest.mark.parametrize(
  ('gain', 'verdict'),
  [(0.3, 'supported'), (0.02, 'equivalent'), (-0.3, 'contradicted')],
)
def test_a_tenth_of_a_decibel_counts(gain, verdict):
  assert judged(compared(**{'1 bit': gain}))['N20 shortcuts'].verdict == verdict


def test_seeds_are_the_clusters_and_images_widen_the_interval():
  results = compared(**{'1 bit': 0.3})
  # On one image of four the effect is another: seeds agree, images do not.
  results['psnr'].loc[{'arm': '1 bit', 'image': 'coffee'}] += 2.0
  found = judged(results)
  over_seeds, over_both = (
    found[name] for name in ('N20 shortcuts', 'N20 shortcuts, other images')
  )
  np.testing.assert_allclose(over_seeds.effect, over_both.effect)
  assert over_seeds.high - over_seeds.low < 0.05
  # The standard error of a mean of four images, and Student's t with 3 degrees.
  half = 3.182 * np.std([0, 0, 0, 2.0], ddof=1) / 2
  np.testing.assert_allclose(over_both.high - over_both.effect, half, rtol=0.02)
  assert over_both.verdict == 'inconclusive'


def test_every_part_is_judged_against_the_design_that_it_departs_from():
  decibels = {
    'full precision': 1.0,
    '1 bit': 0.3,
    '1 bit with head and tail': -0.7,
    '1 bit with identity': 0.5,
    '2 bits': 0.6,
    '2 bits with fixed range': 0.1,
    '2 bits at equal BOPs': 0.32,
    '4 bits at equal BOPs': 0.1,
  }
  found = judged(compared(**decibels))
  for arm, effect, verdict in (
    ('1 bit', 0.7, 'supported'),
    ('1 bit with head and tail', 1.0, 'supported'),
    ('1 bit with identity', -0.2, 'contradicted'),
    ('2 bits', 0.4, 'supported'),
    ('2 bits with fixed range', 0.5, 'supported'),
    ('2 bits at equal BOPs', -0.02, 'equivalent'),
    ('4 bits at equal BOPs', 0.2, 'supported'),
  ):
    one = found[f'N20 part, {arm}']
    assert one.verdict == verdict, arm
    np.testing.assert_allclose(one.effect, effect, atol=0.02)
    assert 'Simultaneous with' in one.caveat
    # By image too, and what else is measured of either network.
    for name in IMAGES:
      value = one.details[f'dB on {name}']
      np.testing.assert_allclose(value, effect, atol=0.02)
    assert one.details[f'% passes, {arm}'] == pytest.approx(90)
    share = one.details[f'% of the mean, range, {arm}']
    assert share == one.details[f'% of the mean, deviation, {arm}'] > 0
    ssim = (30 + decibels.get(arm, 0)) / 40
    assert one.details[f'SSIM, {arm}'] == pytest.approx(ssim, abs=1e-3)
    assert one.details[f'bit operations, {arm}'] == 1e8
  parts = [name for name in found if name.startswith('N20 part')]
  # All but full precision and the arm of the primary contrast.
  assert len(parts) == len(arms_lib.ARMS) - 2
  bicubic = found['N20 bicubic, full precision']
  np.testing.assert_allclose(bicubic.effect, 2.0, atol=0.02)
  assert bicubic.verdict == 'supported'


def test_an_arm_that_changes_nothing_is_inert():
  results = compared()
  same = results.psnr.sel(arm='1 bit').values
  results['psnr'].loc[{'arm': '1 bit with identity'}] = same
  found = judged(results)
  assert found['N20 part, 1 bit with identity'].verdict == 'inert'
  assert found['N20 part, 1 bit with Bi-Real'].verdict == 'equivalent'


def test_how_ranges_vary_from_image_to_image():
  results = compared()
  factors = results['range'].sel(arm='1 bit', seed=0, layer='Conv_0').values
  share = 100 * factors.std(ddof=1) / factors.mean()
  results['range'].loc[{'arm': '1 bit with BatchNorm'}] = 1.0
  found = judged(results)['N20 range']
  np.testing.assert_allclose(found.effect, share)
  assert found.verdict == 'supported'
  assert found.details['% of the mean, 1 bit with BatchNorm'] == 0
  assert judged(results)['N20 deviation'].effect == pytest.approx(0)


def test_arms_that_were_not_trained():
  found = judged(compared(arms=arms_lib.PRIMARY))
  assert not [name for name in found if name.startswith('N20 part')]
  assert 'N20 range' not in found
  details = found['N20 gradient'].details
  for arm in arms_lib.PRIMARY:
    for layer in range(LAYERS):
      assert details[f'% passes Conv_{layer}, {arm}'] == pytest.approx(90)


def test_seeds_that_diverged(as_if_not_run):
  results = compared(**{'1 bit': 0.3})
  as_if_not_run(findings.judge, results, ['validation_loss'])


def test_one_seed_has_no_interval():
  for one in judged(compared(seeds=1, noise=0.5)).values():
    assert one.verdict in ('inconclusive', 'inert'), one.finding
    assert one.caveat.startswith('One seed: no interval.')


def test_figures_can_be_printed(complaints):
  pyplot = pytest.importorskip('matplotlib.pyplot')
  from bitjax.evidence import plots

  with plots.style():
    drawn = figure.page(compared(**{'1 bit': 0.3}))
    assert set(drawn) == {'figure', 'figure_supplement'}
    pixels = np.zeros((8, 8, 3), np.uint8)
    names = ('bicubic', *arms_lib.ARMS)
    panels = [crops.Crop(name, pixels, 30.0) for name in names]
    panels.append(crops.Crop('truth', pixels))
    for fig in (*drawn.values(), crops.draw(panels, 'butterfly')):
      assert complaints(fig) == []
      pyplot.close(fig)
