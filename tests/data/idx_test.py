"""MNIST and Fashion-MNIST from IDX files written here, byte by byte."""

import gzip
import io
import pathlib
import re
import struct

import numpy as np
import pytest

from bitjax import data
from bitjax import types

SHARED = pathlib.Path(__file__).parents[3] / 'shared' / 'data' / 'mnist'

RNG = np.random.default_rng(0)
ARRAYS = {
  part: (
    RNG.integers(0, 256, (size, 28, 28), dtype=np.uint8),
    RNG.integers(0, 10, size, dtype=np.uint8),
  )
  for part, size in (('train', 12), ('t10k', 7))
}


def idx_bytes(array):
  header = struct.pack('>BBBB', 0, 0, 8, array.ndim)
  header += b''.join(struct.pack('>I', size) for size in array.shape)
  return header + array.tobytes()


def write(folder, prefix, *, zipped=False, dotted=False):
  folder.mkdir(parents=True, exist_ok=True)
  separator = '.' if dotted else '-'
  for kind, array in zip(('images', 'labels'), ARRAYS[prefix], strict=True):
    content = idx_bytes(array)
    name = f'{prefix}-{kind}{separator}idx{array.ndim}-ubyte'
    if zipped:
      name, content = f'{name}.gz', gzip.compress(content)
    (folder / name).write_bytes(content)


def check(dataset, *prefixes):
  images = np.concatenate([ARRAYS[prefix][0] for prefix in prefixes])
  labels = np.concatenate([ARRAYS[prefix][1] for prefix in prefixes])
  np.testing.assert_array_equal(dataset.images, images[..., None])
  np.testing.assert_array_equal(dataset.labels, labels)


@pytest.mark.parametrize('zipped', [False, True])
@pytest.mark.parametrize('dotted', [False, True])
@pytest.mark.parametrize(
  'name,folder',
  [
    ('mnist', ''),
    ('mnist', 'mnist'),
    ('mnist', 'MNIST/raw'),
    ('fashion_mnist', 'fashion_mnist'),
    ('fashion_mnist', 'FashionMNIST/raw'),
  ],
)
def test_reads_every_spelling_and_place(name, folder, dotted, zipped, tmp_path):
  for prefix in ARRAYS:
    write(tmp_path / folder, prefix, zipped=zipped, dotted=dotted)
  check(data.load(name, data_dir=tmp_path), 'train', 't10k')
  check(data.load(name, data_dir=str(tmp_path), split='train'), 'train')
  check(data.load(name, data_dir=tmp_path, split='test'), 't10k')


@pytest.mark.parametrize('below', ['', 'raw', '..'])
@pytest.mark.parametrize(
  'name,folder', [('mnist', 'MNIST'), ('fashion_mnist', 'FashionMNIST')]
)
def test_torchvision_folders_from_every_level(name, folder, below, tmp_path):
  for prefix in ARRAYS:
    write(tmp_path / folder / 'raw', prefix)
    write(tmp_path / folder / 'raw', prefix, zipped=True)  # It keeps both.
  check(data.load(name, data_dir=tmp_path / folder / below), 'train', 't10k')


@pytest.mark.parametrize('dotted', [False, True])
@pytest.mark.parametrize('zipped', [False, True])
def test_files_in_folders_that_are_named_like_them(dotted, zipped, tmp_path):
  write(tmp_path / 'flat', 't10k', dotted=dotted, zipped=zipped)
  for path in (tmp_path / 'flat').iterdir():
    folder = tmp_path / 'mnist' / path.name.removesuffix('.gz')
    folder.mkdir(parents=True)
    path.rename(folder / path.name)
  check(data.load('mnist', split='test', data_dir=tmp_path), 't10k')


def test_a_folder_like_a_file_may_spell_it_otherwise(tmp_path):
  write(tmp_path / 'flat', 't10k', dotted=True)
  for path in (tmp_path / 'flat').iterdir():
    folder = tmp_path / path.name.replace('.idx', '-idx')
    folder.mkdir()
    path.rename(folder / path.name)
  check(data.load('mnist', split='test', data_dir=tmp_path), 't10k')


def keras(**change):
  arrays = {}
  for part, prefix in (('train', 'train'), ('test', 't10k')):
    arrays[f'x_{part}'], arrays[f'y_{part}'] = ARRAYS[prefix]
  return arrays | change


def test_the_file_that_keras_keeps(tmp_path):
  np.savez_compressed(tmp_path / 'mnist.npz', **keras())
  check(data.load('mnist', data_dir=tmp_path), 'train', 't10k')
  check(data.load('mnist', split='test', data_dir=tmp_path), 't10k')


def test_only_the_part_that_is_asked_for_is_read(tmp_path):
  nothing = np.array([object()])
  np.savez(tmp_path / 'mnist.npz', **keras(x_train=nothing, y_train=nothing))
  check(data.load('mnist', split='test', data_dir=tmp_path), 't10k')
  with pytest.raises(types.BadInput, match='none of them objects'):
    data.load('mnist', split='train', data_dir=tmp_path)


def test_another_data_set_in_the_file_of_keras_is_refused(tmp_path):
  path = tmp_path / 'mnist.npz'
  wide = {
    f'x_{part}': keras()[f'x_{part}'][:, :14] for part in ('train', 'test')
  }
  np.savez(path, **keras(**wide))
  assert failure(tmp_path) == (
    f'{path}: expected images of 28x28x1 for mnist; found 14x28x1.'
  )
  np.savez(path, **keras(y_test=ARRAYS['t10k'][1] + 10))
  assert failure(tmp_path).startswith(f'{path}, y_test: expected labels from 0')
  np.savez(path, **keras(y_test=np.array([object()])))
  message = failure(tmp_path)
  assert message.startswith(f'{path}: expected an .npz file of plain arrays')
  assert 'allow_pickle=False' in message


@pytest.mark.parametrize('folder', ['', 'mnist', 'mnist/mnist'])
@pytest.mark.parametrize('pattern', ['test-00000-of-00001', 'test/0000'])
def test_parquet_files(folder, pattern, tmp_path):
  pa = pytest.importorskip('pyarrow')
  parquet = pytest.importorskip('pyarrow.parquet')
  pil = pytest.importorskip('PIL.Image')
  images, labels = ARRAYS['t10k']
  cells = []
  for image in images:
    file = io.BytesIO()
    pil.fromarray(image).save(file, 'PNG')
    cells.append({'bytes': file.getvalue(), 'path': None})
  kind = pa.struct([('bytes', pa.binary()), ('path', pa.string())])
  path = tmp_path / 'in' / folder / f'{pattern}.parquet'
  path.parent.mkdir(parents=True)
  columns = {'image': pa.array(cells, kind), 'label': labels.astype(np.int64)}
  parquet.write_table(pa.table(columns), path)
  dataset = data.load(
    'mnist', split='test', data_dir=tmp_path / 'in', cache_dir=tmp_path / 'c'
  )
  check(dataset, 't10k')


def test_the_data_sets_own_folder_comes_first_and_others_are_said(tmp_path):
  np.savez(tmp_path / 'mnist.npz', **keras())
  write(tmp_path, 't10k')
  with pytest.warns(UserWarning, match='mnist.npz. Name another data_dir'):
    check(data.load('mnist', split='test', data_dir=tmp_path), 't10k')
  write(tmp_path / 'mnist', 't10k')
  labels = tmp_path / 'mnist' / 't10k-labels-idx1-ubyte'
  labels.write_bytes(idx_bytes(9 - ARRAYS['t10k'][1]))
  own = data.load('mnist', split='test', data_dir=tmp_path)
  np.testing.assert_array_equal(own.labels, 9 - ARRAYS['t10k'][1])
  write(tmp_path / 'MNIST' / 'raw', 't10k')
  with pytest.warns(
    UserWarning, match='/mnist/t10k-images.* is read; not read'
  ):
    data.load('mnist', split='test', data_dir=tmp_path)


@pytest.mark.parametrize('pickle', ['mnist.pkl.gz', 'MNIST/processed/test.pt'])
def test_pickles_are_refused_and_the_files_to_get_are_named(pickle, tmp_path):
  path = tmp_path / pickle
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(b'\x80\x04.')
  assert (
    f'{path} is a pickle, which can run code when it is read, and is refused: get '
    'the IDX files, train-images-idx3-ubyte.gz and three more instead.'
  ) in failure(tmp_path)


def test_what_was_found_is_listed_on_one_line(tmp_path):
  (tmp_path / 'mnist').mkdir()
  for number in range(9):
    (tmp_path / 'mnist' / f'{number}\n.txt').touch()
  message = failure(tmp_path)
  assert f'{tmp_path} holds mnist/.' in message
  assert f'{tmp_path}/mnist holds 0\\n.txt, 1\\n.txt, ' in message
  assert ', 7\\n.txt, 1 more.' in message


def test_home_is_expanded(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  write(tmp_path / 'd', 't10k')
  check(data.load('mnist', split='test', data_dir='~/d'), 't10k')
  assert '~nobody-of-this-name' in failure('~nobody-of-this-name/d')


def test_one_folder_may_hold_both_data_sets(tmp_path):
  write(tmp_path, 't10k')
  write(tmp_path / 'fashion_mnist', 't10k')
  labels = tmp_path / 'fashion_mnist' / 't10k-labels-idx1-ubyte'
  labels.write_bytes(idx_bytes(9 - ARRAYS['t10k'][1]))
  fashion = data.load('fashion_mnist', split='test', data_dir=tmp_path)
  np.testing.assert_array_equal(fashion.labels, 9 - ARRAYS['t10k'][1])
  check(data.load('mnist', split='test', data_dir=tmp_path), 't10k')


def failure(tmp_path, split='test', name='mnist'):
  with pytest.raises(types.BadInput) as error:
    data.load(name, split=split, data_dir=tmp_path)
  message = str(error.value)
  assert '\n' not in message
  return message


@pytest.mark.parametrize('split', ['all', 'train'])
def test_missing_training_files_are_named_and_a_way_out(split, tmp_path):
  write(tmp_path, 't10k')
  message = failure(tmp_path, split)
  assert 'train-images-idx3-ubyte[.gz]' in message
  assert 'train-labels-idx1-ubyte[.gz]' in message
  assert f'looked in {tmp_path} (and its folders mnist, MNIST) for' in message
  assert 'split=test reads them' in message


def test_only_the_missing_file_is_named(tmp_path):
  write(tmp_path, 't10k')
  (tmp_path / 't10k-labels-idx1-ubyte').unlink()
  message = failure(tmp_path)
  assert f'In {tmp_path}, t10k-labels-idx1-ubyte is missing.' in message
  assert 'split' not in message


def test_images_and_labels_of_two_folders_are_not_paired(tmp_path):
  write(tmp_path / 'mnist', 't10k')
  write(tmp_path, 't10k')
  (tmp_path / 'mnist' / 't10k-labels-idx1-ubyte').unlink()
  (tmp_path / 't10k-images-idx3-ubyte').unlink()
  message = failure(tmp_path)
  assert 't10k-images-idx3' in message and 't10k-labels-idx1' in message


GOOD_IMAGES = idx_bytes(ARRAYS['t10k'][0])
GOOD_LABELS = idx_bytes(ARRAYS['t10k'][1])
BAD = {
  'truncated': (GOOD_IMAGES[:-1], 'expected 5488 bytes .*7x28x28.*found 5487'),
  'too long': (GOOD_IMAGES + b'!', 'expected 5488 bytes .*found more'),
  'short header': (GOOD_IMAGES[:9], 'header of 16 bytes; found 9'),
  'empty': (b'', '0x00000803; found 0x[.]'),
  'labels for images': (GOOD_LABELS, '0x00000803; found 0x00000801'),
  'floats': (b'\0\0\x0d\x03' + GOOD_IMAGES[4:], 'found 0x00000d03'),
  'html': (b'<!doctype html>' * 9, 'unsigned bytes .*found 0x3c21646f'),
  'other size': (
    idx_bytes(np.zeros((7, 14, 56), np.uint8)),
    'images of 28x28x1 for mnist; found 14x56x1',
  ),
  'no images': (idx_bytes(np.zeros((0, 28, 28), np.uint8)), 'found .*0x28x28'),
  'huge header': (
    b'\0\0\x08\x03' + b'\xff' * 12 + b'abc',
    'found 3',
  ),
  'truncated gzip': (gzip.compress(GOOD_IMAGES)[:-20], 'read to its end'),
  'damaged gzip': (
    gzip.compress(GOOD_IMAGES)[:-8] + b'\0' * 8,
    'read to its end; found: CRC check failed',
  ),
  'half a gzip header': (b'\x1f\x8b\x08', 'read to its end'),
}


@pytest.mark.parametrize('kind', BAD)
def test_bad_image_files_are_named_with_expected_and_found(kind, tmp_path):
  content, pattern = BAD[kind]
  write(tmp_path, 't10k')
  path = tmp_path / 't10k-images-idx3-ubyte'
  path.write_bytes(content)
  message = failure(tmp_path)
  assert message.startswith(f'{path}: expected')
  assert re.search(pattern, message), message


def test_bad_labels_are_named(tmp_path):
  write(tmp_path, 't10k')
  path = tmp_path / 't10k-labels-idx1-ubyte'
  labels = ARRAYS['t10k'][1].copy()
  labels[3] = 10
  path.write_bytes(idx_bytes(labels))
  message = failure(tmp_path)
  assert message.startswith(str(path))
  assert 'expected labels from 0 to 9; found labels from' in message
  assert message.endswith('to 10.')
  path.write_bytes(idx_bytes(labels[:3]))
  message = failure(tmp_path)
  assert message.startswith(f'{path}: expected 7 labels')
  assert message.endswith('found 3.')


@pytest.mark.parametrize('name', ['mnist', 'fashion_mnist'])
@pytest.mark.parametrize('data_dir', [None, ''])
def test_without_data_dir_the_argument_and_an_alternative_are_named(
  name, data_dir
):
  with pytest.raises(types.BadInput) as error:
    data.load(name, data_dir=data_dir)
  assert str(error.value) == (
    f'{name} needs data_dir=..., the folder of its files; data sets without files '
    'are mnist5k, digits, digits32 and synthetic.'
  )


def test_data_dir_must_be_a_directory(tmp_path):
  assert 'is not a directory' in failure(tmp_path / 'none')
  file = tmp_path / 'file'
  file.write_text('')
  assert f'{file} is not a directory' in failure(file)


@pytest.mark.skipif(not SHARED.is_dir(), reason='no ../shared/data/mnist')
def test_the_real_test_images():
  mnist = data.load('mnist', split='test', data_dir=SHARED)
  assert mnist.images.shape == (10_000, 28, 28, 1)
  # Published facts: the first labels, the class counts and the mean pixel.
  assert mnist.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
  counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
  assert np.bincount(mnist.labels).tolist() == counts
  assert abs(mnist.images.mean() * mnist.scale - 0.1325) < 1e-4
  if not (SHARED / 'train-images-idx3-ubyte.gz').exists():
    assert 'split=test' in failure(SHARED, 'all')
