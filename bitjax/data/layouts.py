"""Where the files of a data set lie: one table, and the search that reads it.

A data set is published in several formats, and what downloads or unpacks one gives
its folders names of its own. So `FILES` lists, for each data set, the folders and the
names that occur, and `find` takes the first that is complete: first in folders that
are named as the data set, then in ``data_dir`` itself, where files of several data sets
may have equal names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import os
import pathlib
from typing import NamedTuple
import warnings

from bitjax import files
from bitjax import types
from bitjax.data import reading

__all__ = ['FILES', 'WITHOUT_FILES', 'Files', 'Found', 'Layout', 'find']

WITHOUT_FILES = 'mnist5k, digits, digits32 and synthetic'


class Layout(NamedTuple):
  """One format of the files of a part, and where they may lie.

  Attributes:
    form: the format.
    content: what the format is a form of: an archive and the files that it holds
      have the same content.
    shown: what is looked for, in messages.
    folders: folders that may hold the files, in order; '' is where the search starts.
    slots: for each file (or set of shards) the names that it may have, in order:
      paths from the folder, as glob patterns.
  """

  form: str
  content: str
  shown: str
  folders: tuple[str, ...]
  slots: tuple[tuple[str, ...], ...]


class Files(NamedTuple):
  """The files of one data set.

  Attributes:
    homes: folders that hold this data set alone.
    layouts: ``'train'`` or ``'test'`` -> the layouts of that part, in order.
    pickles: names under which the data set is published as pickles.
    instead: what to get instead of a pickle.
  """

  homes: tuple[str, ...]
  layouts: Callable[[str], tuple[Layout, ...]]
  pickles: tuple[str, ...]
  instead: str


class Found(NamedTuple):
  """The files of a part: their format, folder, and paths in the layout's order."""

  layout: Layout
  folder: pathlib.Path
  paths: tuple[pathlib.Path, ...]


def _idx(part: str, folder: str) -> Layout:
  """IDX files; some tools unpack each into a folder that is named like the file."""
  prefix = {'train': 'train', 'test': 't10k'}[part]
  stems = [f'{prefix}-images-idx3-ubyte', f'{prefix}-labels-idx1-ubyte']
  slots = []
  for stem in stems:
    spellings = (stem, stem.replace('-idx', '.idx'))
    names = tuple(name + end for name in spellings for end in ('', '.gz'))
    nested = tuple(f'{home}/{name}' for home in spellings for name in names)
    slots.append(names + nested)
  shown = ' and '.join(f'{stem}[.gz]' for stem in stems)
  return Layout('idx', 'idx', shown, (f'{folder}/raw', 'raw', ''), tuple(slots))


def _parquet(part: str, folder: str) -> Layout:
  """Parquet files of the Hugging Face Hub: as published, or as it converts them."""
  names = (f'{part}-*.parquet', f'{part}/*.parquet', f'{part}.parquet')
  return Layout('parquet', 'parquet', names[0], (folder, ''), (names,))


def _npz(name: str) -> Layout:
  """One file that holds both parts, as Keras keeps it."""
  return Layout('npz', 'npz', f'{name}.npz', ('',), ((f'{name}.npz',),))


def _binary(
  folder: str, archive: str, members: tuple[str, ...]
) -> tuple[Layout, Layout]:
  """CIFAR's binary files, and the archive that they come in."""
  folders = (folder, f'{folder}/{folder}', f'{archive}/{folder}', '')
  unpacked = tuple((member,) for member in members)
  packed = ((f'{archive}.tar.gz', f'{archive}.tar'),)
  return (
    Layout('binary', 'binary', ', '.join(members), folders, unpacked),
    Layout('archive', 'binary', f'{archive}.tar.gz', ('',), packed),
  )


_IDX_FILES = 'the IDX files, train-images-idx3-ubyte.gz and three more'

FILES = {
  'mnist': Files(
    homes=('mnist', 'MNIST'),
    layouts=lambda part: (
      _idx(part, 'MNIST'),
      _parquet(part, 'mnist'),
      _npz('mnist'),
    ),
    pickles=('mnist.pkl.gz', 'mnist.pkl', 'processed/*.pt'),
    instead=_IDX_FILES,
  ),
  'fashion_mnist': Files(
    homes=('fashion_mnist', 'fashion-mnist', 'FashionMNIST'),
    layouts=lambda part: (
      _idx(part, 'FashionMNIST'),
      _parquet(part, 'fashion_mnist'),
      _npz('fashion_mnist'),
    ),
    pickles=('processed/*.pt',),
    instead=_IDX_FILES,
  ),
  'cifar10': Files(
    homes=('cifar10', 'cifar-10'),
    layouts=lambda part: (
      *_binary(
        'cifar-10-batches-bin',
        'cifar-10-binary',
        tuple(f'data_batch_{i}.bin' for i in range(1, 6))
        if part == 'train'
        else ('test_batch.bin',),
      ),
      _parquet(part, 'plain_text'),
      _npz('cifar10'),
    ),
    pickles=(
      'cifar-10-batches-py*',
      'cifar-10-python*',
      'data_batch_1',
      'test_batch',
    ),
    instead='cifar-10-binary.tar.gz',
  ),
  'cifar100': Files(
    homes=('cifar100', 'cifar-100'),
    layouts=lambda part: (
      *_binary('cifar-100-binary', 'cifar-100-binary', (f'{part}.bin',)),
      _parquet(part, 'cifar100'),
      _npz('cifar100'),
    ),
    pickles=('cifar-100-python*',),
    instead='cifar-100-binary.tar.gz',
  ),
}


def find(name: str, part: str, data_dir: reading.PathLike | None) -> Found:
  """Finds the files of one part.

  Where other files would do as well, a `UserWarning` says which are read.

  Args:
    name: a key of `FILES`.
    part: ``'train'`` or ``'test'``.
    data_dir: the folder to look into; a leading ``~`` is the home directory.

  Returns:
    The first complete files; the paths of shards are sorted.

  Raises:
    BadInput: if there is no ``data_dir``, or nothing complete in it.
  """
  if data_dir is None or not os.fspath(data_dir):
    raise types.BadInput(
      f'{name} needs data_dir=..., the folder of its files; data sets without '
      f'files are {WITHOUT_FILES}.'
    )
  root = files.expand(data_dir)
  if not root.is_dir():
    raise types.BadInput(f'{name}: data_dir={root} is not a directory.')
  for homes in (FILES[name].homes, ('',)):
    matches = list(_matches(FILES[name].layouts(part), root, homes))
    if matches:
      _say_others(name, part, matches)
      return matches[0]
  raise types.BadInput(_missing(name, part, root))


def _matches(
  layouts: tuple[Layout, ...], root: pathlib.Path, homes: tuple[str, ...]
) -> Iterator[Found]:
  """Yields all complete files, in order."""
  for layout in layouts:
    for home in homes:
      for below in layout.folders:
        folder = root / home / below
        slots = [_fill(folder, names) for names in layout.slots]
        if all(slots):
          yield Found(
            layout, folder, tuple(p for paths in slots for p in paths)
          )


def _fill(folder: pathlib.Path, names: tuple[str, ...]) -> list[pathlib.Path]:
  """Returns the files that have the first name that any file has."""
  for name in names:
    paths = sorted(path for path in folder.glob(name) if path.is_file())
    if paths:
      return paths
  return []


def _say_others(name: str, part: str, matches: list[Found]) -> None:
  """Warns if other files than the first would do, and may differ from them."""
  first = matches[0]
  others = [
    other.paths[0]
    for other in matches[1:]
    if other.layout.content != first.layout.content
    or (
      other.layout.form == first.layout.form
      and not other.paths[0].samefile(first.paths[0])
    )
  ]
  if others:
    warnings.warn(
      f'{name}, {part} part: {first.paths[0]} is read; not read: '
      f'{", ".join(map(str, others))}. Name another data_dir to choose.',
      stacklevel=2,
    )


def _missing(name: str, part: str, root: pathlib.Path) -> str:
  """Returns the message for a part that is complete in no layout."""
  described = FILES[name]
  layouts = described.layouts(part)
  places = [home for home in described.homes if (root / home).is_dir()] + ['']
  said = [
    f'{name}, {part} part: looked in {root} (and its folders '
    f'{", ".join(described.homes)}) for '
    f'{"; or ".join(layout.shown for layout in layouts)}.'
  ]
  for place in places:
    said.append(f'{root / place} holds {_listing(root / place)}.')
  for layout in layouts:
    for folder in {root / p / f: None for p in places for f in layout.folders}:
      slots = {names[0]: _fill(folder, names) for names in layout.slots}
      absent = [label for label, paths in slots.items() if not paths]
      if len(absent) < len(slots):
        said.append(f'In {folder}, {", ".join(absent)} is missing.')
  pickles = [root] if _is_pickle(root, described) else []
  pickles += [
    path
    for place in places
    for pattern in described.pickles
    for path in sorted((root / place).glob(pattern))
  ]
  if pickles:
    said.append(
      f'{pickles[0]} is a pickle, which can run code when it is read, and is '
      f'refused: get {described.instead} instead.'
    )
  if part == 'train' and any(
    any(_matches(described.layouts('test'), root, (place,))) for place in places
  ):
    said.append('The test files are there: split=test reads them.')
  return ' '.join(said)


def _is_pickle(root: pathlib.Path, described: Files) -> bool:
  """Returns whether a folder has itself the name of unpacked pickles."""
  return any(root.match(pattern) for pattern in described.pickles)


def _listing(folder: pathlib.Path, most: int = 8) -> str:
  """Returns the names in a folder, folders with a slash, on one line."""
  try:
    found = sorted(folder.iterdir())
  except OSError as error:
    return f'nothing that can be read ({reading.one_line(error)})'
  names = [
    repr(path.name)[1:-1] + ('/' if path.is_dir() else '')
    for path in found[:most]
  ]
  more = [f'{len(found) - most} more'] if len(found) > most else []
  return ', '.join(names + more) or 'nothing'
