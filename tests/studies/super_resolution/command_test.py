"""Bad input of the study of super-resolution."""

import numpy as np
import pytest

from bitjax.data import pictures
from bitjax.studies import super_resolution


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--arms=1 bit'], 'arms must list "1 bit with block shortcut"'),
    (['--arms=3 bits'], 'arms must be one of full precision'),
    (['--scale=5'], 'scale must be one of 2, 3, 4'),
    (['--side=3'], 'side must be >= 4'),
    (['--tuning_seeds=7,2'], 'no seed in common; both list 2'),
    (['--images=folder'], 'needs --data_dir'),
    (
      ['--preset=full', '--channels=6'],
      'channels must be a multiple of 4 for the arm "4 bits at equal BOPs"',
    ),
  ],
)
def test_flags(refused, flags, words):
  preset = [] if 'preset' in flags[0] else ['--preset=smoke']
  refused(super_resolution.STUDY, [*preset, *flags], words)


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--validation_images=3'], 'must leave some of the 3 training images'),
    (['--epochs=0.01'], 'epochs must give from 1 to 2147483647 updates'),
    (['--epochs=1e30'], 'epochs must give from 1 to 2147483647 updates'),
    (['--side=13'], 'hold no patch of 13'),
    (['--batch_size=50'], 'Use a batch_size of at most 16'),
    (['--test_set=Set14'], 'Set14: expected a folder of PNG'),
  ],
)
def test_images(refused, pairs_folder, flags, words):
  given = ['--preset=smoke', '--images=folder', f'--data_dir={pairs_folder}']
  given.append('--validation_images=2')
  names = {flag.partition('=')[0] for flag in flags}
  given = [flag for flag in given if flag.partition('=')[0] not in names]
  refused(super_resolution.STUDY, [*given, *flags], words)


@pytest.mark.parametrize('scale', [2, 4])
def test_what_cannot_be_measured_is_refused_before_it_is_trained(
  refused, pairs_folder, scale
):
  draw = np.random.default_rng(0)
  flags = ['--preset=smoke', '--images=folder', f'--data_dir={pairs_folder}']
  flags += [f'--scale={scale}', '--validation_images=1', '--side=4']

  def add(path, side):
    image = draw.integers(0, 256, (side, side, 3), np.uint8)
    pictures.write(pairs_folder / path, image)

  # SSIM takes windows of 11 pixels, within a border of the scale.
  least = 11 + 2 * scale
  add('Set5/e.png', least // scale * scale)
  refused(
    super_resolution.STUDY,
    flags,
    f'e.png: images must have {least} pixels or more on a side',
  )
  (pairs_folder / 'Set5' / 'e.png').unlink()
  for name in ('a.png', 'b.png', 'c.png'):  # Whichever validates.
    add(f'train/{name}', 2 * scale)
  refused(
    super_resolution.STUDY,
    flags,
    f'images must have {1 + 2 * scale} pixels or more on a side',
  )


def test_a_folder_that_is_not_asked_for(refused, pairs_folder):
  flags = ['--preset=smoke', f'--data_dir={pairs_folder}']
  refused(super_resolution.STUDY, flags, 'is for images=folder')


def test_an_image_that_is_cut_short_is_named(refused, pairs_folder):
  whole = (pairs_folder / 'train' / 'b.png').read_bytes()
  (pairs_folder / 'train' / 'b.png').write_bytes(whole[: len(whole) // 2])
  flags = ['--preset=smoke', '--images=folder', f'--data_dir={pairs_folder}']
  refused(super_resolution.STUDY, flags, 'train/b.png: expected a PNG or JPEG')
