"""Finds and reads the files of CIFAR-10 and CIFAR-100, in either of two layouts.

The layouts are the official *binary* one, as a folder or as the archive it comes
in, and the parquet files of the Hugging Face Hub. The official Python archives are
pickles, which can run code, and are never read.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re

from bitjax import types
from bitjax.data import cifar_binary
from bitjax.data import cifar_parquet
from bitjax.data import reading

__all__ = ['LAYOUTS', 'Layout', 'read']


@dataclasses.dataclass(frozen=True)
class Layout:
  """The formats and the names of files, folders and columns of one data set.

  Attributes:
    num_classes: number of classes.
    binary: the format of the binary files.
    folder: name of the folder in the official archive, packed or unpacked.
    archive: name of the official archive.
    members: names of the binary files of each part, in order.
    parquet_folder: name of the Hub's folder of parquet files.
    label_column: name of the labels' column in the parquet files.
  """

  num_classes: int
  binary: cifar_binary.Format
  folder: str
  archive: str
  members: dict[str, tuple[str, ...]]
  parquet_folder: str
  label_column: str


LAYOUTS = {
  'cifar10': Layout(
    num_classes=10,
    binary=cifar_binary.Format(label_bytes=1, num_classes=10),
    folder='cifar-10-batches-bin',
    archive='cifar-10-binary.tar.gz',
    members={
      'train': tuple(f'data_batch_{i}.bin' for i in range(1, 6)),
      'test': ('test_batch.bin',),
    },
    parquet_folder='plain_text',
    label_column='label',
  ),
  'cifar100': Layout(
    num_classes=100,
    # The first byte is the coarse label; the last is the fine one, read here.
    binary=cifar_binary.Format(label_bytes=2, num_classes=100),
    folder='cifar-100-binary',
    archive='cifar-100-binary.tar.gz',
    members={'train': ('train.bin',), 'test': ('test.bin',)},
    parquet_folder='cifar100',
    label_column='fine_label',
  ),
}

_NUM_EXAMPLES = {'train': 50_000, 'test': 10_000}
_SHARD = re.compile(r'-(\d+)-of-(\d+)\.parquet$')


def read(
  name: str,
  part: str,
  data_dir: reading.PathLike | None,
  cache_dir: reading.PathLike | None = None,
) -> reading.Arrays:
  """Reads one part of ``'cifar10'`` or ``'cifar100'``.

  Looks in ``data_dir/name`` and ``data_dir`` for all the binary files, then for
  the binary archive, then for parquet files, and reads the first that it finds.

  Args:
    name: name of the data set.
    part: ``'train'`` or ``'test'``.
    data_dir: the folder to look into.
    cache_dir: directory of decoded parquet images; see :mod:`.cache`.

  Returns:
    Images uint8 [N, 32, 32, 3] and labels int32 [N].

  Raises:
    BadInput: for a missing, truncated or wrongly-typed file.
  """
  layout = LAYOUTS[name]
  roots = reading.roots(name, data_dir)
  members = layout.members[part]
  records = _NUM_EXAMPLES[part] // len(members)

  for root in roots:
    for folder in (root / layout.folder, root):
      paths = [folder / member for member in members]
      if all(path.is_file() for path in paths):
        return cifar_binary.read_files(paths, layout.binary, records)
  for root in roots:
    archive = root / layout.archive
    if archive.is_file():
      wanted = [f'{layout.folder}/{member}' for member in members]
      return cifar_binary.read_archive(archive, wanted, layout.binary, records)
  for root in roots:
    for folder in (root / layout.parquet_folder, root):
      paths = sorted(folder.glob(f'{part}-*.parquet'))
      if paths:
        _check_shards(paths)
        return cifar_parquet.read(
          paths, name, layout.label_column, layout.num_classes, cache_dir
        )
  raise types.BadInput(_missing(name, part, layout, roots))


def _check_shards(paths: list[pathlib.Path]) -> None:
  """Raises unless ``paths`` are all shards of one set, each once."""
  shards = [_SHARD.search(path.name) for path in paths]
  if not any(shards):
    return
  found = [(int(s[1]), int(s[2])) if s else (-1, -1) for s in shards]
  total = max(total for _, total in found)
  if len(found) != total or found != [(i, total) for i in range(total)]:
    raise types.BadInput(
      f'{paths[0].parent}: expected all {total} shards of one set, each once; '
      f'found {", ".join(path.name for path in paths)}.'
    )


def _missing(
  name: str, part: str, layout: Layout, roots: tuple[pathlib.Path, ...]
) -> str:
  """Returns the error message for a part that is complete in no layout."""
  members = layout.members[part]
  partial = hint = ''
  for root in roots:
    for folder in (root / layout.folder, root / layout.parquet_folder, root):
      absent = [m for m in members if not (folder / m).is_file()]
      if len(absent) < len(members):
        partial = f' In {folder}, {", ".join(absent)} is missing.'
      if part == 'train' and (
        all((folder / m).is_file() for m in layout.members['test'])
        or any(folder.glob('test-*.parquet'))
      ):
        hint = ' The test files are there: use --split=test.'
  return (
    f'{name}, {part}ing files: expected {", ".join(members)}, '
    f'{layout.archive} or {part}-*.parquet in one of '
    f'{", ".join(map(str, roots))} (or {layout.folder}, '
    f'{layout.parquet_folder} in them); found none complete.{partial}{hint}'
  )
