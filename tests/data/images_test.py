"""Images without labels are read from any file that holds some."""

import gzip

import numpy as np
from PIL import Image
import pytest

from bitjax import data
from bitjax import types

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 5, 4), dtype=np.uint8)
COLOURS = RNG.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)


def saved(folder, name, content):
  path = folder / name
  path.write_bytes(content)
  return path


def idx():
  return bytes((0, 0, 8, 3)) + np.asarray(IMAGES.shape, '>u4').tobytes()


@pytest.mark.parametrize('compress', [bytes, gzip.compress])
def test_idx(tmp_path, compress):
  path = saved(tmp_path, 'digits', compress(idx() + IMAGES.tobytes()))
  np.testing.assert_array_equal(data.read_images(path), IMAGES[..., None])


@pytest.mark.parametrize('labels', [1, 2])
def test_binary_files_of_cifar(tmp_path, labels):
  planes = COLOURS.transpose(0, 3, 1, 2).reshape(2, -1)
  rows = np.concatenate([np.full((2, labels), 3, np.uint8), planes], 1)
  path = saved(tmp_path, 'test_batch.bin', rows.tobytes())
  np.testing.assert_array_equal(data.read_images(path), COLOURS)


@pytest.mark.parametrize('name', ['images', 'x_test', 'mine'])
def test_arrays(tmp_path, name):
  np.save(tmp_path / 'a.npy', IMAGES)
  others = {} if name == 'mine' else {'y_test': np.zeros(3)}
  np.savez(tmp_path / 'a.npz', **{name: IMAGES}, **others)
  for end in ('npy', 'npz'):
    found = data.read_images(tmp_path / f'a.{end}')
    np.testing.assert_array_equal(found, IMAGES)


def test_pictures(tmp_path):
  Image.fromarray(COLOURS[0]).save(tmp_path / 'colour.PNG')
  Image.fromarray(IMAGES[0]).save(tmp_path / 'grey.png')
  Image.fromarray(IMAGES[0]).convert('P').save(tmp_path / 'palette.png')
  found = data.read_images(tmp_path / 'colour.PNG')
  np.testing.assert_array_equal(found, COLOURS[:1])
  found = data.read_images(tmp_path / 'grey.png')
  np.testing.assert_array_equal(found, IMAGES[:1, ..., None])
  with pytest.raises(types.BadInput, match='expected grey'):
    data.read_images(tmp_path / 'palette.png')


def test_bad_files(tmp_path):
  np.savez(tmp_path / 'two.npz', a=IMAGES, b=IMAGES)
  np.save(tmp_path / 'objects.npy', np.asarray([None]), allow_pickle=True)
  for path, words in (
    (tmp_path / 'absent.npy', 'there is none'),
    (tmp_path / 'two.npz', 'found a, b'),
    (tmp_path / 'objects.npy', 'none of them objects'),
    (saved(tmp_path, 'short.bin', b'123'), 'found 3 bytes'),
    (saved(tmp_path, 'none.png', b'123'), 'cannot be decoded'),
    (saved(tmp_path, 'text.npy', b'123'), 'can be read'),
    (saved(tmp_path, 'text.npz', b'123'), 'can be read'),
    (saved(tmp_path, 'cut', idx()), 'expected 60 bytes'),
  ):
    with pytest.raises(types.BadInput, match=words) as caught:
      data.read_images(path)
    assert str(path) in str(caught.value)


def test_bytes():
  floats = IMAGES.astype(np.float32) / 255
  for images in (IMAGES, IMAGES.astype(np.int64), floats):
    np.testing.assert_array_equal(data.as_bytes('x', images), IMAGES)
  dark = np.ones((1, 2, 2), np.uint8)
  np.testing.assert_array_equal(data.as_bytes('x', dark), dark)
  with pytest.raises(types.BadInput, match='x: expected floats from 0 to 1'):
    data.as_bytes('x', floats * 2)
