"""Pairs of images from folders, arrays and packages."""

import os
import pathlib
import warnings

import numpy as np
import pytest

from bitjax import data
from bitjax import types

Image = pytest.importorskip('PIL.Image')
RNG = np.random.default_rng(11)
FILES = os.environ.get('BITJAX_SR_DIR')  # As in resampling_test.py.


def colours(rows, columns):
  return RNG.integers(0, 256, (rows, columns, 3), dtype=np.uint8)


def save(path, image):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(image).save(path)
  return image


def check(pair, high, scale):
  np.testing.assert_array_equal(pair.high, high)
  low = data.bicubic_on_host(high, 1 / scale)
  np.testing.assert_array_equal(pair.low, low)


def test_a_folder_of_images_makes_its_low_resolutions(tmp_path):
  first = save(tmp_path / 'b.png', colours(8, 6))
  other = save(tmp_path / 'a.PNG', colours(4, 10))
  save(tmp_path / 'c.jpeg', colours(6, 6))
  (tmp_path / 'notes.txt').write_text('no image')
  pairs = data.load_pairs(tmp_path, 2)
  assert pairs.names == ('a.PNG', 'b.png', 'c.jpeg')
  assert pairs.sizes == ((2, 5), (4, 3), (3, 3))
  assert len(pairs) == 3 and len(list(pairs)) == 3
  check(pairs[0], other, 2)
  check(pairs[1], first, 2)
  with Image.open(tmp_path / 'c.jpeg') as image:
    check(pairs[-1], np.asarray(image), 2)


def test_sides_are_cropped_to_multiples_with_one_line(tmp_path):
  image = save(tmp_path / 'a.png', colours(9, 8))
  save(tmp_path / 'b.png', colours(6, 9))
  with pytest.warns(
    UserWarning, match=r'1 of 2 images are cropped .* 3'
  ) as told:
    pairs = data.load_pairs(tmp_path, 3)
  assert len(told) == 1 and '\n' not in str(told[0].message)
  assert pairs.sizes == ((3, 2), (2, 3))
  check(pairs[0], image[:9, :6], 3)


@pytest.mark.parametrize('inner', ['', 'image_SRF_2'])
def test_benchmarks_bring_both(tmp_path, inner):
  high = save(tmp_path / inner / 'img_1_SRF_2_HR.png', colours(8, 6))
  low = save(tmp_path / inner / 'img_1_SRF_2_LR.png', colours(4, 3))
  for split in data.PAIR_SPLITS:
    (pair,) = data.load_pairs(tmp_path, 2, split=split)
    assert pair.name == 'img_1_SRF_2_HR.png'
    np.testing.assert_array_equal(pair.high, high)
    np.testing.assert_array_equal(pair.low, low)


def test_what_else_lies_in_a_folder_is_left_out(tmp_path):
  home = tmp_path / 'Set5'
  high = save(home / 'a_HR.png', colours(8, 6))
  save(home / 'a_LR.png', colours(4, 3))
  save(home / 'a_bicubic.png', colours(8, 6))
  (home / '._a_HR.png').write_bytes(b'of a Mac')
  (pair,) = data.load_pairs(home, 2)
  np.testing.assert_array_equal(pair.high, high)
  alone = save(tmp_path / 'photographs' / 'HR.png', colours(4, 4))
  (tmp_path / 'photographs' / '._HR.png').write_bytes(b'of a Mac')
  (pair,) = data.load_pairs(tmp_path / 'photographs', 2)
  check(pair, alone, 2)


def test_div2k_in_its_own_names_and_in_short_ones(tmp_path):
  high, low = {}, {}
  for part in ('train', 'valid'):
    home = tmp_path / 'a' / f'DIV2K_{part}'
    high[part] = save(pathlib.Path(f'{home}_HR') / '0001.png', colours(6, 9))
    inner = pathlib.Path(f'{home}_LR_bicubic') / 'X3'
    low[part] = save(inner / '0001x3.png', colours(2, 3))
  for split, part in (('train', 'train'), ('test', 'valid')):
    (pair,) = data.load_pairs(tmp_path / 'a', 3, split=split)
    np.testing.assert_array_equal(pair.high, high[part])
    np.testing.assert_array_equal(pair.low, low[part])
  image = save(tmp_path / 'b' / 'HR' / '7.png', colours(4, 4))
  (pair,) = data.load_pairs(tmp_path / 'b', 2)
  check(pair, image, 2)
  given = save(tmp_path / 'b' / 'LR_bicubic' / 'X2' / '7x2.png', colours(2, 2))
  (pair,) = data.load_pairs(tmp_path / 'b', 2)
  np.testing.assert_array_equal(pair.low, given)


def test_kinds_of_images_have_one_meaning_each(tmp_path):
  rgb = colours(4, 4)
  grey, alpha = rgb[..., 0], rgb[..., 1]
  deep = RNG.integers(0, 1 << 16, (4, 4)).astype(np.uint16)
  palette = Image.fromarray(rgb).quantize(4)
  images = {
    'grey': (Image.fromarray(grey), grey),
    'transparent': (Image.fromarray(np.dstack([rgb, alpha])), rgb),
    'transparent grey': (Image.fromarray(np.dstack([grey, alpha]), 'LA'), grey),
    'deep': (Image.fromarray(deep), (deep >> 8).astype(np.uint8)),
    'palette': (palette, np.asarray(palette.convert('RGB'))),
    'bit': (Image.fromarray(grey > 99), 255 * (grey > 99).astype(np.uint8)),
  }
  for name, (image, _) in images.items():
    image.save(tmp_path / f'{name}.png')
  for pair in data.load_pairs(tmp_path, 1):
    expected = images[pair.name.removesuffix('.png')][1]
    if expected.ndim == 2:
      expected = np.repeat(expected[..., None], 3, axis=2)
    np.testing.assert_array_equal(pair.high, expected, err_msg=pair.name)
    np.testing.assert_array_equal(pair.low, expected)


def refused(message, *args, **kwargs):
  with pytest.raises(types.BadInput, match=message) as caught:
    data.load_pairs(*args, **kwargs)
  assert '\n' not in str(caught.value)


def test_bad_folders(tmp_path):
  refused('no folder', tmp_path / 'nowhere', 2)
  refused('none of these', tmp_path, 2)
  refused('split must be one of train, test', tmp_path, 2, split='all')
  refused('scale must be', tmp_path, 0)
  home = tmp_path / 'b'
  save(home / 'x_HR.png', colours(8, 6))
  refused('x_HR.png: expected x_LR.png beside it', home, 2)
  save(tmp_path / 'low' / 'x_LR.png', colours(4, 3))
  refused('x_LR.png: expected x_HR.png beside it', tmp_path / 'low', 2)
  save(home / 'x_LR.png', colours(4, 4))
  refused(
    r'x_LR.png: expected .* smaller than .*x_HR.png, 4 x 3 of 8 x 6; found 4 x 4',
    home,
    2,
  )
  save(tmp_path / 'c' / 'image_SRF_4' / 'x_HR.png', colours(8, 8))
  refused(
    'expected image_SRF_2 for the scale 2; found image_SRF_4', tmp_path / 'c', 2
  )
  home = tmp_path / 'd'
  save(home / 'HR' / '1.png', colours(8, 8))
  (home / 'LR_bicubic' / 'X4').mkdir(parents=True)
  refused('expected X2 for the scale 2; found X4', home, 2)
  refused(r'1.png: expected .*1x4.png', home, 4)
  save(tmp_path / 'e' / 'tiny.png', colours(8, 2))
  refused('tiny.png: expected an image of 3 pixels', tmp_path / 'e', 3)


def test_damaged_files_are_named(tmp_path):
  save(tmp_path / 'a.png', colours(32, 32))
  content = (tmp_path / 'a.png').read_bytes()
  (tmp_path / 'a.png').write_bytes(content[: len(content) // 2])
  pairs = data.load_pairs(tmp_path, 2)  # The head is whole.
  with pytest.raises(types.BadInput, match=r'a.png: expected .* can be read'):
    pairs[0]
  (tmp_path / 'a.png').write_bytes(b'no image at all')
  refused('a.png: expected a PNG or JPEG that can be read', tmp_path, 2)
  Image.new('CMYK', (8, 8)).save(tmp_path / 'a.png', 'JPEG')
  refused('a.png: .* found CMYK', tmp_path, 2)


def test_a_file_that_changed_is_named_when_it_is_read(tmp_path):
  save(tmp_path / 'a.png', colours(8, 8))
  pairs = data.load_pairs(tmp_path, 2)
  save(tmp_path / 'a.png', colours(8, 6))
  with pytest.raises(types.BadInput, match=r'a.png: expected uint8'):
    data.patch_feeds(pairs, 1, [0], side=2)


@pytest.mark.parametrize(
  ('images', 'message'),
  [
    ({}, 'at least one image'),
    ({'a': np.zeros((4, 4), np.uint8)}, 'a: expected RGB'),
    ({'a': np.zeros((4, 4, 3))}, 'a: expected RGB, .* got float64'),
  ],
)
def test_bad_arrays(images, message):
  with pytest.raises(types.BadInput, match=message):
    data.make_pairs(images, 2)


def test_pairs_are_a_sequence_of_one_length():
  pairs = data.make_pairs({'a': colours(4, 4)}, 2)
  with pytest.raises(IndexError):
    pairs[1]
  with pytest.raises(TypeError, match='slice'):
    pairs[:1]
  with pytest.raises(types.BadInput, match='as many names as sizes'):
    data.Pairs('x', 2, (), (), pairs.read)


@pytest.mark.slow
def test_photographs_are_split_by_scene():
  pytest.importorskip('skimage')
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', UserWarning)  # Some are cropped.
    parts = [
      data.load_pairs('photographs', 2, split=s) for s in data.PAIR_SPLITS
    ]
  train, test = parts
  assert len(train) == 8 and len(test) == 4
  assert not set(train.names) & set(test.names)

  # No test image looks like a training image: thumbnails hardly correlate.
  def thumbnail(pair):
    small = data.bicubic_on_host(pair.low, shape=(12, 12)).astype(float)
    return (small - small.mean()) / small.std()

  for a in train:
    for b in test:
      assert np.mean(thumbnail(a) * thumbnail(b)) < 0.8, (a.name, b.name)


@pytest.mark.skipif(FILES is None, reason='needs BITJAX_SR_DIR')
def test_real_folders():
  pairs = data.load_pairs(pathlib.Path(FILES) / 'Set5', 4)
  assert len(pairs) == 5 and pairs[0].low.shape == (128, 128, 3)
  with pytest.warns(UserWarning, match='200 of 200 images are cropped'):
    train = data.load_pairs(pathlib.Path(FILES) / 'train', 2)
  assert set(train.sizes) == {(160, 240), (240, 160)}
