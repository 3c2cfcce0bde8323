"""The cache saves time and does nothing else."""

import io
import multiprocessing
import os
import stat

import numpy as np
import pytest

from bitjax import files
from bitjax.data import cache

IMAGES = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3, 1)
LABELS = np.array([1, 0], np.int32)


class Build:
  """Counts how often it is called."""

  def __init__(self):
    self.calls = 0

  def __call__(self):
    self.calls += 1
    return IMAGES, LABELS


def check(arrays):
  images, labels = arrays
  np.testing.assert_array_equal(images, IMAGES)
  np.testing.assert_array_equal(labels, LABELS)
  assert (images.dtype, labels.dtype) == (np.uint8, np.int32)


def test_builds_once_and_writes_privately_and_atomically(tmp_path):
  build, folder = Build(), tmp_path / 'new' / 'bitjax'
  for _ in range(3):
    check(cache.fetch('key', build, cache_dir=folder))
  assert build.calls == 1
  assert [path.name for path in folder.iterdir()] == ['key.npz']
  assert stat.S_IMODE(folder.stat().st_mode) == 0o700
  check(cache.fetch('other', build, cache_dir=folder))
  assert build.calls == 2


def test_default_directory_is_the_users(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  cache.fetch('key', Build())
  assert (tmp_path / '.cache' / 'bitjax' / 'key.npz').is_file()


def test_without_a_home_nothing_is_kept(monkeypatch):
  def no_home():
    raise RuntimeError('Could not determine home directory.')

  monkeypatch.setattr(files, 'cache_dir', no_home)
  build = Build()
  for _ in range(2):
    check(cache.fetch('key', build))
  assert build.calls == 2


def entry(**changes):
  arrays = {'images': IMAGES, 'labels': LABELS} | changes
  if 'checksum' not in arrays:
    arrays['checksum'] = cache.checksum(arrays['images'], arrays['labels'])
  return arrays


def npy_bytes():
  file = io.BytesIO()
  np.save(file, IMAGES)
  return file.getvalue()


class Evil:
  def __reduce__(self):
    return (os.mkdir, ('unpickled',))


DAMAGE = {
  'truncated': lambda path: path.write_bytes(path.read_bytes()[:-40]),
  'empty': lambda path: path.write_bytes(b''),
  'not an archive': lambda path: path.write_bytes(b'hello' * 100),
  'npy': lambda path: path.write_bytes(npy_bytes()),
  'flipped byte': lambda path: path.write_bytes(
    path.read_bytes().replace(IMAGES.tobytes(), IMAGES[::-1].tobytes())
  ),
  'other content': lambda path: np.savez(
    path, **entry(labels=LABELS[::-1], checksum=cache.checksum(IMAGES, LABELS))
  ),
  'other dtype': lambda path: np.savez(
    path, **entry(images=IMAGES.astype(np.float32))
  ),
  'other shape': lambda path: np.savez(path, **entry(labels=LABELS[:1])),
  'missing array': lambda path: np.savez(path, images=IMAGES),
  'pickle': lambda path: np.savez(
    path, **entry(labels=np.array([Evil(), 0], object), checksum='0')
  ),
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_damaged_entries_are_rebuilt(damage, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  build, path = Build(), tmp_path / 'cache' / 'key.npz'
  cache.fetch('key', build, cache_dir=path.parent)
  before = path.read_bytes()
  DAMAGE[damage](path)
  assert path.read_bytes() != before
  for _ in range(2):
    check(cache.fetch('key', build, cache_dir=path.parent))
  assert build.calls == 2
  assert not (tmp_path / 'unpickled').exists()


def test_an_entry_without_the_expected_checksum_is_not_used(tmp_path):
  build = Build()
  expected = cache.checksum(IMAGES, LABELS)
  np.savez(tmp_path / 'key.npz', **entry(images=IMAGES + np.uint8(1)))
  for _ in range(2):
    check(cache.fetch('key', build, expected=expected, cache_dir=tmp_path))
  assert build.calls == 1


@pytest.mark.parametrize('blocked', ['file in the way', 'parent is a file'])
def test_where_nothing_can_be_written_nothing_is_kept(blocked, tmp_path):
  file = tmp_path / 'file'
  file.write_text('')
  folder = file if blocked == 'file in the way' else file / 'a' / 'b'
  build = Build()
  for _ in range(2):
    check(cache.fetch('key', build, cache_dir=folder))
  assert build.calls == 2
  assert file.read_text() == ''


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
  def full(descriptor):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', full)
  check(cache.fetch('key', Build(), cache_dir=tmp_path))
  assert list(tmp_path.iterdir()) == []


def test_errors_of_the_builder_pass_through(tmp_path):
  def fail():
    raise ValueError('no such data')

  with pytest.raises(ValueError, match='no such data'):
    cache.fetch('key', fail, cache_dir=tmp_path)
  assert list(tmp_path.iterdir()) == []


def _hammer(folder, failures):
  for _ in range(30):
    (folder / 'key.npz').unlink(missing_ok=True)
    images, labels = cache.fetch('key', Build(), cache_dir=folder)
    if not (np.array_equal(images, IMAGES) and np.array_equal(labels, LABELS)):
      failures.put('wrong')
  failures.put('done')


def test_processes_at_the_same_time_are_safe(tmp_path):
  context = multiprocessing.get_context('forkserver')
  queue = context.Queue()
  workers = [
    context.Process(target=_hammer, args=(tmp_path, queue)) for _ in range(2)
  ]
  for worker in workers:
    worker.start()
  for worker in workers:
    worker.join(60)
  assert [queue.get(timeout=5) for _ in workers] == ['done', 'done']
  assert [path.name for path in tmp_path.iterdir()] == ['key.npz']


def test_checksum_is_of_shape_and_values_whatever_the_layout():
  value = cache.checksum(IMAGES, LABELS)
  fortran = np.asfortranarray(IMAGES)
  assert cache.checksum(fortran, LABELS.astype('>i4')) == value
  assert cache.checksum(IMAGES.reshape(2, 9, 1, 1), LABELS) != value
  assert cache.checksum(IMAGES, LABELS[::-1]) != value
  assert cache.checksum(IMAGES[::-1], LABELS) != value
