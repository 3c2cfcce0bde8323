"""CIFAR-10 and CIFAR-100 from files written here, in every layout."""

import gzip
import io
import os
import pathlib
import re
import sys
import tarfile

import numpy as np
import pytest

from bitjax import data
from bitjax import types
from bitjax.data import parquet
from bitjax.data import stored

SHARED = pathlib.Path(__file__).parents[3] / 'shared' / 'data' / 'cifar10'

# Few examples: five training files of 4 (or one of 20), and 8 for testing.
SIZES = {'train': 20, 'test': 8}


@pytest.fixture
def small(monkeypatch):
  monkeypatch.setattr(stored, '_CIFAR_EXAMPLES', SIZES)


def make(size, num_classes, seed=0):
  rng = np.random.default_rng(seed)
  images = rng.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8)
  return images, rng.integers(0, num_classes, size).astype(np.int32)


def record(image, *labels):
  """One record, plane by plane."""
  planes = b''.join(image[:, :, c].tobytes() for c in range(3))
  return bytes(labels) + planes


def binary_files(name, seed=0):
  """Returns {file name: content} and {part: (images, labels)}."""
  contents, arrays = {}, {}
  for part, size in SIZES.items():
    images, labels = make(size, int(name[5:]), seed + size)
    arrays[part] = images, labels
    extra = () if name == 'cifar10' else (19,)  # The coarse label.
    records = [
      record(image, *extra, label)
      for image, label in zip(images, labels, strict=True)
    ]
    if part == 'test':
      names = ['test_batch.bin' if name == 'cifar10' else 'test.bin']
    elif name == 'cifar10':
      names = [f'data_batch_{i}.bin' for i in range(1, 6)]
    else:
      names = ['train.bin']
    count = size // len(names)
    for i, file_name in enumerate(names):
      contents[file_name] = b''.join(records[i * count : (i + 1) * count])
  return contents, arrays


FOLDER = {'cifar10': 'cifar-10-batches-bin', 'cifar100': 'cifar-100-binary'}
ARCHIVE = {
  'cifar10': 'cifar-10-binary.tar.gz',
  'cifar100': 'cifar-100-binary.tar.gz',
}


def write_files(folder, contents):
  folder.mkdir(parents=True, exist_ok=True)
  for name, content in contents.items():
    (folder / name).write_bytes(content)


def write_archive(path, name, contents, change=None, prefix=''):
  path.parent.mkdir(parents=True, exist_ok=True)
  with tarfile.open(path, 'w:gz', compresslevel=1) as tar:
    # The members are not in the order of reading, and one is never read.
    for member in ('readme.html', *sorted(contents, reverse=True)):
      content = contents.get(member, b'<html>')
      entry = tarfile.TarInfo(f'{prefix}{FOLDER[name]}/{member}')
      entry.size = len(content)
      if change is not None:
        change(entry)
      tar.addfile(entry, io.BytesIO(content))


def check(dataset, arrays, *parts):
  images = np.concatenate([arrays[part][0] for part in parts])
  labels = np.concatenate([arrays[part][1] for part in parts])
  np.testing.assert_array_equal(dataset.images, images)
  np.testing.assert_array_equal(dataset.labels, labels)


def failure(folder, name='cifar10', split='test', **kwargs):
  with pytest.raises(types.BadInput) as error:
    data.load(name, split=split, data_dir=folder, **kwargs)
  message = str(error.value)
  assert '\n' not in message
  return message


@pytest.mark.parametrize('archived', [False, True])
@pytest.mark.parametrize('root', ['', 'own'])
@pytest.mark.parametrize('name', ['cifar10', 'cifar100'])
def test_binary_files_and_archives(name, root, archived, small, tmp_path):
  contents, arrays = binary_files(name)
  folder = tmp_path / (name if root else '')
  if archived:
    write_archive(folder / ARCHIVE[name], name, contents)
  else:
    write_files(folder / FOLDER[name], contents)
  check(data.load(name, data_dir=tmp_path), arrays, 'train', 'test')
  check(data.load(name, data_dir=tmp_path, split='test'), arrays, 'test')
  assert data.load(name, data_dir=tmp_path).num_classes == int(name[5:])


def test_binary_files_directly_in_data_dir(small, tmp_path):
  contents, arrays = binary_files('cifar10')
  write_files(tmp_path, contents)
  check(data.load('cifar10', data_dir=tmp_path), arrays, 'train', 'test')


def test_archive_with_dotted_names(small, tmp_path):
  contents, arrays = binary_files('cifar10')
  write_archive(tmp_path / ARCHIVE['cifar10'], 'cifar10', contents, prefix='./')
  check(data.load('cifar10', data_dir=tmp_path), arrays, 'train', 'test')


def test_official_size_is_ten_thousand_records(tmp_path):
  path = tmp_path / 'test_batch.bin'
  path.write_bytes(bytes(10_000 * 3073))
  dataset = data.load('cifar10', split='test', data_dir=tmp_path)
  assert dataset.images.shape == (10_000, 32, 32, 3)
  os.truncate(path, 9_999 * 3073)
  assert failure(tmp_path) == (
    f'{path}: expected 30730000 bytes (10000 records of 3073); found 30726927.'
  )
  os.truncate(path, 20_000 * 3073)
  assert failure(tmp_path).endswith('found 61460000.')


def test_labels_out_of_range_name_the_file(small, tmp_path):
  contents, _ = binary_files('cifar10')
  content = bytearray(contents['test_batch.bin'])
  content[3 * 3073] = 11
  write_files(tmp_path, {'test_batch.bin': bytes(content)})
  path = tmp_path / 'test_batch.bin'
  pattern = 'expected labels from 0 to 9; found labels from . to 11'
  assert re.match(f'{re.escape(str(path))}: {pattern}', failure(tmp_path))


def test_missing_files_are_named(small, tmp_path):
  message = failure(tmp_path, split='train')
  for name in ('data_batch_5.bin', ARCHIVE['cifar10'], 'train-*.parquet'):
    assert name in message
  assert f'looked in {tmp_path} (and its folders cifar10, ' in message
  assert f'{tmp_path} holds nothing.' in message
  assert 'split' not in message and 'is missing' not in message
  contents, _ = binary_files('cifar10')
  del contents['data_batch_3.bin']
  write_files(tmp_path, contents)
  message = failure(tmp_path, split='train')
  assert f'In {tmp_path}, data_batch_3.bin is missing.' in message
  assert f'{tmp_path} holds data_batch_1.bin, data_batch_2.bin, ' in message
  assert 'split=test' in message
  pattern = 'cifar10 needs data_dir=.* are mnist5k, digits'
  assert re.match(pattern, failure(None))


@pytest.mark.parametrize(
  'name,pickle,archive',
  [
    ('cifar10', 'cifar-10-batches-py/test_batch', 'cifar-10-binary.tar.gz'),
    ('cifar10', 'cifar10/cifar-10-batches-py/x', 'cifar-10-binary.tar.gz'),
    ('cifar10', 'cifar-10-python.tar.gz', 'cifar-10-binary.tar.gz'),
    ('cifar100', 'cifar-100-python/train', 'cifar-100-binary.tar.gz'),
    ('cifar100', 'cifar-100-python.tar.gz', 'cifar-100-binary.tar.gz'),
  ],
)
def test_pickles_are_refused_and_the_archive_to_get_is_named(
  name, pickle, archive, tmp_path
):
  path = tmp_path / pickle
  write_files(path.parent, {path.name: b'\x80\x04.'})
  wanted = f'is refused: get {archive} instead.'
  message = failure(tmp_path, name)
  assert wanted in message and f'-{name[5:]}-' in message
  assert 'is a pickle, which can run code' in message
  if path.parent.name.startswith('cifar-'):
    assert wanted in failure(path.parent, name)


def test_pickles_do_not_matter_beside_files_that_are_read(small, tmp_path):
  contents, arrays = binary_files('cifar10')
  write_files(tmp_path / 'cifar-10-batches-py', {'test_batch': b'\x80\x04.'})
  write_files(tmp_path / FOLDER['cifar10'], contents)
  check(data.load('cifar10', data_dir=tmp_path), arrays, 'train', 'test')


@pytest.mark.parametrize('name', ['cifar10', 'cifar100'])
def test_archives_that_tools_unpacked_into_folders(name, small, tmp_path):
  contents, arrays = binary_files(name)
  folder = tmp_path / ARCHIVE[name].removesuffix('.tar.gz') / FOLDER[name]
  write_files(folder, contents)
  check(data.load(name, data_dir=tmp_path), arrays, 'train', 'test')
  check(data.load(name, data_dir=folder.parent), arrays, 'train', 'test')
  check(data.load(name, data_dir=folder), arrays, 'train', 'test')


def test_an_archive_that_a_browser_has_gunzipped(small, tmp_path):
  contents, arrays = binary_files('cifar10')
  zipped = tmp_path / ARCHIVE['cifar10']
  write_archive(zipped, 'cifar10', contents)
  zipped.with_suffix('').write_bytes(gzip.decompress(zipped.read_bytes()))
  zipped.unlink()
  check(data.load('cifar10', data_dir=tmp_path), arrays, 'train', 'test')


def test_an_unpacked_archive_beside_itself_is_one_copy(small, tmp_path):
  contents, arrays = binary_files('cifar10')
  write_archive(tmp_path / ARCHIVE['cifar10'], 'cifar10', contents)
  write_files(tmp_path / FOLDER['cifar10'], contents)
  check(data.load('cifar10', data_dir=tmp_path), arrays, 'train', 'test')


def link(entry):
  if entry.name.endswith('test_batch.bin'):
    entry.type, entry.linkname, entry.size = tarfile.SYMTYPE, '/etc/passwd', 0


def hard_link(entry):
  if entry.name.endswith('test_batch.bin'):
    entry.type, entry.linkname, entry.size = tarfile.LNKTYPE, 'other', 0


def rename(entry):
  entry.name = entry.name.replace('test_batch', '../test_batch')


@pytest.mark.parametrize(
  'change,pattern',
  [
    (link, 'member cifar-10-batches-bin/test_batch.bin: expected a regular'),
    (hard_link, 'expected a regular file; found a link'),
    (rename, 'cifar-10-batches-bin/test_batch.bin not found'),
  ],
)
def test_archives_with_tricks_are_refused(change, pattern, small, tmp_path):
  contents, _ = binary_files('cifar10')
  path = tmp_path / ARCHIVE['cifar10']
  write_archive(path, 'cifar10', contents, change)
  message = failure(tmp_path)
  assert message.startswith(str(path)) and pattern in message
  assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_damaged_archives_are_named(small, tmp_path):
  contents, _ = binary_files('cifar10')
  path = tmp_path / ARCHIVE['cifar10']
  write_archive(path, 'cifar10', contents)
  whole = path.read_bytes()
  for content in (whole[: len(whole) // 2], b'not an archive' * 99, b''):
    path.write_bytes(content)
    message = failure(tmp_path, split='train')
    assert message.startswith(f'{path}: expected a .tar.gz'), message
  contents['test_batch.bin'] = contents['test_batch.bin'][:-1]
  write_archive(path, 'cifar10', contents)
  assert 'expected 24584 bytes (8 records of 3073); found' in failure(tmp_path)


@pytest.mark.parametrize('name', ['cifar10', 'cifar100'])
def test_an_archive_cut_anywhere_is_one_line(name, small, tmp_path):
  contents, _ = binary_files(name)
  path = tmp_path / ARCHIVE[name]
  write_archive(path, name, contents)
  whole = path.read_bytes()
  for share in range(20):
    path.write_bytes(whole[: len(whole) * share // 20])
    message = failure(tmp_path, name, split='train')
    assert message.startswith(f'{path}') and 'expected' in message
  # Damage is noticed even in a part that the split does not need.
  changed = bytearray(whole)
  changed[-2_000] ^= 1
  path.write_bytes(changed)
  for split in ('train', 'test'):
    message = failure(tmp_path, name, split=split)
    assert message.startswith(f'{path}: expected a .tar.gz'), message


@pytest.mark.parametrize('archived', [False, True])
def test_records_of_the_other_data_set_are_refused(archived, small, tmp_path):
  records, fine = SIZES['test'], 3074
  _, arrays = binary_files('cifar10')
  images, labels = arrays['test']
  # CIFAR-10's records under CIFAR-100's name are one byte too short each.
  content = b''.join(map(record, images, labels))
  if archived:
    write_archive(
      tmp_path / ARCHIVE['cifar100'], 'cifar100', {'test.bin': content}
    )
  else:
    write_files(tmp_path, {'test.bin': content})
  message = failure(tmp_path, 'cifar100')
  assert message.endswith(
    f'expected {records * fine} bytes ({records} records of {fine}); found '
    f'{len(content)}.'
  )
  assert 'test.bin' in message


@pytest.mark.parametrize('archived', [False, True])
def test_more_classes_than_there_are_name_the_file(archived, small, tmp_path):
  contents, _ = binary_files('cifar100')
  content = bytearray(contents['test.bin'])
  content[5 * 3074 + 1] = 100  # The fine label; coarse ones come before it.
  contents['test.bin'] = bytes(content)
  if archived:
    write_archive(tmp_path / ARCHIVE['cifar100'], 'cifar100', contents)
  else:
    write_files(tmp_path, contents)
  message = failure(tmp_path, 'cifar100')
  assert 'test.bin: expected labels from 0 to 99; found labels' in message
  assert message.endswith('to 100.')


# Parquet.


def encode(image, kind='PNG', mode='RGB'):
  pil = pytest.importorskip('PIL.Image')
  file = io.BytesIO()
  pil.fromarray(image).convert(mode).save(file, kind)
  return file.getvalue()


def write_parquet(path, encoded, labels, name='label', **extra):
  pa = pytest.importorskip('pyarrow')
  parquet = pytest.importorskip('pyarrow.parquet')
  path.parent.mkdir(parents=True, exist_ok=True)
  cells = [{'bytes': b, 'path': f'{i}.png'} for i, b in enumerate(encoded)]
  kind = pa.struct([('bytes', pa.binary()), ('path', pa.string())])
  columns = {
    'img': pa.array(cells, kind),
    name: pa.array(labels, pa.int64()),
  } | extra
  parquet.write_table(pa.table(columns), path, row_group_size=3)


@pytest.mark.parametrize(
  'name,folder,label',
  [
    ('cifar10', '', 'label'),
    ('cifar10', 'plain_text', 'label'),
    ('cifar10', 'cifar10/plain_text', 'label'),
    ('cifar100', 'cifar100', 'fine_label'),
    ('cifar100', 'cifar100/cifar100', 'fine_label'),
  ],
)
def test_parquet_in_every_place(name, folder, label, tmp_path):
  arrays = {}
  for part, size in SIZES.items():
    images, labels = arrays[part] = make(size, int(name[5:]), size)
    extra = {'coarse_label': [0] * size} if name == 'cifar100' else {}
    half = size // 2
    for i, rows in enumerate((slice(0, half), slice(half, None))):
      write_parquet(
        tmp_path / 'in' / folder / f'{part}-0000{i}-of-00002.parquet',
        [encode(image) for image in images[rows]],
        labels[rows].tolist(),
        label,
        **{key: value[rows] for key, value in extra.items()},
      )
  for _ in range(2):  # The first load decodes; the second reads the cache.
    dataset = data.load(
      name, data_dir=tmp_path / 'in', cache_dir=tmp_path / 'cache'
    )
    check(dataset, arrays, 'train', 'test')
  assert len(list((tmp_path / 'cache').glob(f'{name}-*.npz'))) == 2


@pytest.mark.parametrize(
  'pattern',
  ['plain_text/{}/0000.parquet', '{}.parquet', 'cifar10/{}/0000.parquet'],
)
def test_parquet_files_that_are_named_otherwise(pattern, tmp_path):
  arrays = {}
  for part in SIZES:
    images, labels = arrays[part] = make(2, 10, len(part))
    encoded = [encode(image) for image in images]
    write_parquet(tmp_path / pattern.format(part), encoded, labels.tolist())
  dataset = data.load(
    'cifar10', data_dir=tmp_path, cache_dir=tmp_path / 'cache'
  )
  check(dataset, arrays, 'train', 'test')


@pytest.mark.parametrize(
  'module,package', [('PIL', 'pillow'), ('pyarrow', 'pyarrow')]
)
def test_missing_packages_name_the_extra(
  module, package, tmp_path, monkeypatch
):
  (tmp_path / 'test-0.parquet').write_bytes(b'')
  monkeypatch.setitem(sys.modules, module, None)
  assert failure(tmp_path, cache_dir=tmp_path / 'cache') == (
    f'cifar10 in parquet files needs {package}, which this installation lacks; '
    "install the extra: pip install 'bitjax[experiments]'."
  )


def test_jpegs_are_decoded_nearly(tmp_path):
  ramp = np.arange(32, dtype=np.uint8) * 8
  image = np.stack([*np.meshgrid(ramp, ramp), np.full((32, 32), 99)], axis=2)
  image = image.astype(np.uint8)
  write_parquet(tmp_path / 'test-0.parquet', [encode(image, 'JPEG')], [3])
  dataset = data.load(
    'cifar10', split='test', data_dir=tmp_path, cache_dir=tmp_path / 'cache'
  )
  error = dataset.images[0].astype(int) - image
  assert 0 < np.abs(error).mean() < 8


def test_a_replaced_parquet_file_is_never_answered_from_the_cache(
  tmp_path, monkeypatch
):
  path = tmp_path / 'test-0.parquet'

  def load():
    return data.load(
      'cifar10', split='test', data_dir=tmp_path, cache_dir=tmp_path / 'cache'
    )

  decoded = []
  original = parquet._decode
  monkeypatch.setattr(
    parquet,
    '_decode',
    lambda *args: decoded.append(1) or original(*args),
  )
  images, _ = make(3, 10)
  encoded = [encode(image) for image in images]
  write_parquet(path, encoded, [1, 2, 3])
  stat = path.stat()
  assert load().labels.tolist() == load().labels.tolist() == [1, 2, 3]
  assert len(decoded) == 1
  write_parquet(path, encoded, [3, 2, 1])
  assert path.stat().st_size == stat.st_size
  os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
  assert load().labels.tolist() == [3, 2, 1]
  assert len(decoded) == 2


def test_binary_is_preferred_to_parquet_and_that_is_said(small, tmp_path):
  contents, arrays = binary_files('cifar10')
  write_archive(tmp_path / ARCHIVE['cifar10'], 'cifar10', contents)
  parquet_path = tmp_path / 'test-0.parquet'
  parquet_path.write_bytes(b'')
  with pytest.warns(UserWarning) as said:
    check(data.load('cifar10', split='test', data_dir=tmp_path), arrays, 'test')
  assert str(said[0].message) == (
    f'cifar10, test part: {tmp_path / ARCHIVE["cifar10"]} is read; not read: '
    f'{parquet_path}. Name another data_dir to choose.'
  )
  parquet_path.unlink()
  write_files(tmp_path, contents)
  (tmp_path / ARCHIVE['cifar10']).write_bytes(b'')
  check(data.load('cifar10', split='test', data_dir=tmp_path), arrays, 'test')


@pytest.mark.parametrize(
  'names',
  [
    ['test-00000-of-00002.parquet'],
    ['test-00000-of-00001.parquet', 'test-00001-of-00002.parquet'],
    ['test-00000-of-00001.parquet', 'test-copy.parquet'],
    ['test-00000-of-99999999999.parquet'],
  ],
)
def test_incomplete_shards_are_named(names, tmp_path):
  for name in names:
    (tmp_path / name).write_bytes(b'')
  message = failure(tmp_path)
  assert 'shards of one set, each once' in message
  assert all(name in message for name in names)


IMAGE = make(1, 10)[0][0]


@pytest.mark.parametrize(
  'encoded,label,pattern',
  [
    (lambda: encode(IMAGE[:16]), 1, 'row 1: .*found 32x16, RGB'),
    (lambda: encode(IMAGE, mode='L'), 1, 'row 1: .*found 32x32, L'),
    (lambda: encode(IMAGE)[:60], 1, 'row 1: .*cannot be decoded'),
    (lambda: encode(IMAGE, 'GIF'), 1, 'row 1: .*cannot be decoded'),
    (lambda: b'', 1, 'row 1: .*cannot be decoded'),
    (lambda: None, 1, 'row 1: .*found no bytes'),
    (lambda: encode(IMAGE), 10, 'labels from 0 to 9; found .* to 10'),
    (lambda: encode(IMAGE), -1, 'labels from 0 to 9; found labels from -1'),
    (lambda: encode(IMAGE), None, 'row 1: expected a label; found none'),
  ],
)
def test_bad_parquet_rows_are_named(encoded, label, pattern, tmp_path):
  path = tmp_path / 'test-0.parquet'
  write_parquet(path, [encode(IMAGE), encoded()], [5, label])
  message = failure(tmp_path, cache_dir=tmp_path / 'cache')
  assert message.startswith(str(path))
  assert re.search(pattern, message), message
  assert not (tmp_path / 'cache').exists()


@pytest.mark.parametrize(
  'encoded,label,pattern',
  [
    (lambda: encode(IMAGE[:16]), 1, 'row 1: .*found 32x16, RGB'),
    (lambda: encode(IMAGE), 100, 'labels from 0 to 99; found .* to 100'),
  ],
)
def test_bad_rows_of_cifar100_are_named(encoded, label, pattern, tmp_path):
  path = tmp_path / 'test-0.parquet'
  rows = [encode(IMAGE), encoded()]
  write_parquet(path, rows, [99, label], 'fine_label')
  message = failure(tmp_path, 'cifar100', cache_dir=tmp_path / 'cache')
  assert message.startswith(str(path))
  assert re.search(pattern, message), message
  assert not (tmp_path / 'cache').exists()


def test_bad_parquet_files_are_named(tmp_path):
  path = tmp_path / 'test-0.parquet'

  def message(name='cifar10'):
    text = failure(tmp_path, name, cache_dir=tmp_path / 'cache')
    assert text.startswith(f'{path}: expected')
    return text

  write_parquet(path, [encode(IMAGE)], [1])
  assert 'fine_label: integer; found img: struct<' in message('cifar100')
  whole = path.read_bytes()
  for content in (whole[:-9], whole[: len(whole) // 2], b'', b'PAR1' * 3):
    path.write_bytes(content)
    assert 'a parquet file that can be read; found' in message()
  # Damage within the data, not the footer.
  path.write_bytes(whole[:4] + b'\xff' * 60 + whole[64:])
  assert message()
  write_parquet(path, [], [])
  assert 'at least one row' in message()
  write_parquet(path, [encode(IMAGE)], [1], 'lable')
  assert 'label: integer; found img: struct<' in message()
  pa = pytest.importorskip('pyarrow')
  write_parquet(path, [b''], [1], img=pa.array([b'']))
  assert 'img or image: struct<bytes, path>' in message()
  write_parquet(path, [b''], [1], label=pa.array(['cat']))
  assert 'found img: ' in message() and 'label: string' in message()


@pytest.mark.skipif(not SHARED.is_dir(), reason='no ../shared/data/cifar10')
def test_the_real_test_images(tmp_path):
  first, second = (
    data.load('cifar10', split='test', data_dir=folder, cache_dir=tmp_path)
    for folder in (SHARED, SHARED.parent)
  )
  assert first.images.shape == (10_000, 32, 32, 3)
  assert np.bincount(first.labels).tolist() == [1000] * 10
  # The published channel means of CIFAR-10, up to split and compression.
  means = first.images.mean(axis=(0, 1, 2)) * first.scale
  np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=0.01)
  assert first.checksum == second.checksum
