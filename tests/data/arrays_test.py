"""Data sets of one's own arrays, from Python and from .npz files."""

import pathlib
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import data
from bitjax import types

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (7, 5, 4, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 3, 3, 1, 0])
GOOD = {
  'train_images': BYTES,
  'train_labels': LABELS,
  'test_images': BYTES[:3],
  'test_labels': LABELS[:3],
}
KERAS = ('x_train', 'y_train', 'x_test', 'y_test')


def make(**change):
  return data.from_arrays(**(GOOD | change))


def test_everything_is_inferred():
  train, test = make(name='mine')
  for part, split, size in ((train, 'train', 7), (test, 'test', 3)):
    assert (part.name, part.split, part.num_classes) == ('mine', split, 4)
    assert part.scale == 1 / 255
    assert part.images.dtype == np.uint8 and part.labels.dtype == np.int32
    np.testing.assert_array_equal(part.images, BYTES[:size])
    np.testing.assert_array_equal(part.labels, LABELS[:size])
    assert not part.images.flags.writeable and not part.labels.flags.writeable
  assert make(num_classes=9)[1].num_classes == 9


def test_arrays_are_copies_and_the_callers_stay_writeable():
  images, labels = BYTES.copy(), LABELS.astype(np.int32)
  train, _ = make(train_images=images, train_labels=labels)
  images[:], labels[:] = 0, 0
  np.testing.assert_array_equal(train.images, BYTES)
  np.testing.assert_array_equal(train.labels, LABELS)


@pytest.mark.parametrize(
  'labels',
  [
    LABELS.astype(np.int64),
    LABELS.astype(np.uint8),
    LABELS.astype(np.float64),
    LABELS.astype(np.float16),
    LABELS[:, None],
    LABELS.tolist(),
    jnp.asarray(LABELS),
  ],
)
def test_labels_of_every_kind(labels):
  train, _ = make(train_labels=labels)
  assert train.labels.dtype == np.int32
  np.testing.assert_array_equal(train.labels, LABELS)


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
def test_bytes_that_became_floats_are_exact_again(dtype):
  every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(7, 0)
  floats = (every / 255).astype(dtype)
  train, _ = make(train_images=floats, test_images=floats[:3])
  np.testing.assert_array_equal(train.images, every)


def test_other_floats_are_rounded_to_the_nearest_level():
  floats = RNG.random((7, 5, 4))
  train, _ = make(train_images=floats, test_images=floats[:3])
  assert train.images.shape == (7, 5, 4, 1)
  error = train.images[..., 0] * train.scale - floats
  assert 1 / 1020 < np.abs(error).max() <= 1 / 510 + 1e-12


def test_integers_of_other_types_are_kept():
  train, _ = make(train_images=BYTES.astype(np.int64))
  np.testing.assert_array_equal(train.images, BYTES)


def with_value(array, value):
  array = array.astype(np.float64)
  array.flat[4] = value
  return array


BAD = {
  'channels second': (
    {'train_images': BYTES.transpose(0, 3, 1, 2)},
    r'train_images: .*\[7, 3, 5, 4\].*pass images.transpose\(0, 2, 3, 1\)',
  ),
  'one channel second': (
    {'test_images': BYTES[:3, None, :, :, 0]},
    r'test_images: .*\[3, 1, 5, 4\].*transpose',
  ),
  'flat': (
    {'train_images': BYTES.reshape(7, -1)},
    r'train_images: .*\[7, 60\]. Reshape',
  ),
  'no images': (
    {'train_images': BYTES[:0], 'train_labels': LABELS[:0]},
    r'train_images: .*\[0, 5, 4, 3\]',
  ),
  'floats up to 255': (
    {'train_images': BYTES.astype(np.float32)},
    'train_images: expected floats from 0 to 1; .* divided by 255',
  ),
  'floats from -1': (
    {'test_images': with_value(BYTES[:3] / 255, -0.5)},
    'test_images: expected floats from 0 to 1; got values from -0.5',
  ),
  'NaN': (
    {'train_images': with_value(BYTES / 255, np.nan)},
    'train_images: .*from nan to nan',
  ),
  'integers above 255': (
    {'train_images': BYTES.astype(np.int32) + 1},
    'train_images: expected integers from 0 to 255 .*int32 from 1 to 256',
  ),
  'black': (
    {'train_images': BYTES // 128},
    'train_images: .*none above 1, which is black. Multiply them by 255',
  ),
  'complex': (
    {'train_images': BYTES.astype(np.complex64)},
    'train_images: .*complex64',
  ),
  'other shape in test': (
    {'test_images': BYTES[:3, :4]},
    r'test_images: .*\[5, 4, 3\]; got \[4, 4, 3\]',
  ),
  'too few labels': (
    {'train_labels': LABELS[:6]},
    r'train_labels: expected 7 labels, one for each image; got shape \[6\]\.$',
  ),
  'one-hot': (
    {'train_labels': np.eye(4)[LABELS]},
    r'train_labels: .*shape \[7, 4\]. Turn one-hot .*argmax',
  ),
  'label NaN': (
    {'train_labels': with_value(LABELS, np.nan)},
    'train_labels: expected integers .*got nan at index 4',
  ),
  'label infinite': (
    {'train_labels': with_value(LABELS, np.inf)},
    'train_labels: expected integers .*got inf at index 4',
  ),
  'label 1.5': (
    {'train_labels': with_value(LABELS, 1.5)},
    'train_labels: expected integers .*got 1.5 at index 4',
  ),
  'negative label': (
    {'test_labels': [0, 1, -1]},
    'test_labels: .*got -1 at index 2',
  ),
  'huge label': (
    {'test_labels': np.array([0, 1, 2**63], np.uint64)},
    'test_labels: .*got 9223372036854775808 at index 2',
  ),
  'labels as text': ({'train_labels': list('abcdefg')}, 'train_labels: .*<U1'),
  'ragged labels': ({'train_labels': [0, [1, 2]]}, 'train_labels: .*inhomogen'),
  'test label unseen': (
    {'test_labels': [0, 1, 4]},
    'test_labels: expected labels from 0 to 3; found labels from 0 to 4',
  ),
  'labels from 1': (
    {'train_labels': LABELS + 1},
    'train_labels: .*to the largest, 4; got none of 0. Number the classes',
  ),
  'more labels than num_classes': (
    {'num_classes': 3},
    'train_labels: expected labels from 0 to 2',
  ),
  'one class': ({'train_labels': LABELS * 0}, 'train_labels: .*got 0 alone'),
  'num_classes': ({'num_classes': 2.5}, 'num_classes must be an integer'),
}


@pytest.mark.parametrize('kind', BAD)
def test_what_would_be_a_guess_is_refused_on_one_line(kind, tmp_path):
  change, pattern = BAD[kind]
  with pytest.raises(types.BadInput, match=f'^{pattern}') as error:
    make(**change)
  assert '\n' not in str(error.value)


def test_a_dataset_may_have_any_shape():
  """Only of arrays whose layout nobody stated is it guessed."""
  images = np.zeros((2, 3, 8, 8), np.uint8)
  made = data.Dataset('mine', 'all', images, np.zeros(2, np.int32), 2, 1.0)
  assert made.images.shape == (2, 3, 8, 8)


@pytest.mark.parametrize('keys', [KERAS, tuple(GOOD)])
@pytest.mark.parametrize('write', [np.savez, np.savez_compressed])
def test_a_file_is_the_same_data(keys, write, tmp_path):
  path = tmp_path / 'mine.npz'
  write(path, **dict(zip(keys, GOOD.values(), strict=True)), other=np.ones(3))
  train, test = make()
  for name in (path, str(path)):
    assert data.load(name, split='train').checksum == train.checksum
    assert data.load(name, split='test').checksum == test.checksum
  whole = data.load(path)
  assert (whole.name, whole.num_classes, whole.scale) == ('mine', 4, 1 / 255)
  np.testing.assert_array_equal(whole.labels, [*LABELS, *LABELS[:3]])
  assert not whole.images.flags.writeable


def test_home_is_expanded(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  np.savez(tmp_path / 'mine.npz', **GOOD)
  assert data.load('~/mine.npz', split='test').num_classes == 4


def failure(path):
  with pytest.raises(types.BadInput) as error:
    data.load(path)
  message = str(error.value)
  assert message.startswith(str(path)) and '\n' not in message
  return message


def test_files_that_are_no_data_set_are_named(tmp_path):
  path = tmp_path / 'mine.npz'
  assert 'No such file' in failure(path)
  np.savez(path, x_train=BYTES, y_train=LABELS)
  assert (
    'expected the arrays x_train, y_train, x_test, y_test or train_images, '
    'train_labels, test_images, test_labels; found x_train, y_train.'
  ) in failure(path)
  np.savez(path, **(GOOD | {'train_labels': LABELS.astype(object)}))
  assert 'plain arrays, none of them objects' in failure(path)
  np.savez(path, **(GOOD | {'train_labels': LABELS - 1}))
  assert failure(path).startswith(f'{path}, train_labels: expected integers')
  np.savez(path, **GOOD)
  whole = path.read_bytes()
  for content in (b'', b'\x80\x04N.', whole[:-9], whole[: len(whole) // 2]):
    path.write_bytes(content)
    assert 'that can be read; found' in failure(path)
  damaged = bytearray(whole)
  damaged[300] ^= 1
  path.write_bytes(damaged)
  assert 'that can be read; found' in failure(path)
  with path.open('wb') as file:
    np.save(file, BYTES)
  assert 'found: a single array' in failure(path)
  with zipfile.ZipFile(path, 'w'):
    pass
  assert 'found none' in failure(path)


def test_names_are_checked_before_files():
  data.check_name('mnist')
  data.check_name(pathlib.Path('/nowhere/mine.npz'))
  for name in ('my.csv', '', None, 3):
    with pytest.raises(types.BadInput, match=r'or a file .*; got'):
      data.check_name(name)
