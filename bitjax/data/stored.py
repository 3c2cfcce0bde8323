"""Reads the data sets that lie in files, from whichever layout is found.

The official Python archives of CIFAR are pickles, which can run code, and are never
read; their binary versions are.
"""

from __future__ import annotations

import pathlib
import re
from typing import NamedTuple

from bitjax import types
from bitjax.data import cifar_binary
from bitjax.data import idx
from bitjax.data import layouts
from bitjax.data import npz
from bitjax.data import parquet
from bitjax.data import reading

__all__ = ['KINDS', 'Kind', 'read']


class Kind(NamedTuple):
  """What the images and labels of a data set are, in every format.

  Attributes:
    num_classes: number of classes.
    shape: height, width and channels of an image.
    label_column: name of the labels' column in parquet files.
    label_bytes: bytes before the pixels of a binary record; the last is the label.
  """

  num_classes: int
  shape: tuple[int, int, int]
  label_column: str = 'label'
  label_bytes: int = 1


KINDS = {
  'mnist': Kind(10, (28, 28, 1)),
  'fashion_mnist': Kind(10, (28, 28, 1)),
  'cifar10': Kind(10, (32, 32, 3)),
  # A record begins with the coarse label, then the fine one, which is read.
  'cifar100': Kind(100, (32, 32, 3), 'fine_label', label_bytes=2),
}

_CIFAR_EXAMPLES = {'train': 50_000, 'test': 10_000}
_SHARD = re.compile(r'-(\d+)-of-(\d+)\.parquet$')


def read(
  name: str,
  part: str,
  data_dir: reading.PathLike | None,
  cache_dir: reading.PathLike | None = None,
) -> reading.Arrays:
  """Reads one part of a data set of `KINDS`.

  Args:
    name: name of the data set.
    part: ``'train'`` or ``'test'``.
    data_dir: the folder to look into; :mod:`.layouts` says for what.
    cache_dir: directory of decoded parquet images; see :mod:`.cache`.

  Returns:
    Images uint8 [N, H, W, C] and labels int32 [N].

  Raises:
    BadInput: for a missing, truncated or wrongly-typed file.
  """
  kind = KINDS[name]
  found = layouts.find(name, part, data_dir)
  first = found.paths[0]
  match found.layout.form:
    case 'idx':
      images_path, labels_path = found.paths
      images, labels = idx.read_pair(images_path, labels_path, kind.num_classes)
    case 'parquet':
      _check_shards(found.paths)
      images, labels = parquet.read(
        found.paths,
        name,
        kind.label_column,
        kind.num_classes,
        kind.shape,
        cache_dir,
      )
    case 'npz':
      images, labels = npz.read_part(first, part, kind.num_classes)
    case form:
      images, labels = _read_binary(name, part, found, form == 'archive')
  if images.shape[1:] != kind.shape:
    wanted, got = (
      'x'.join(map(str, shape)) for shape in (kind.shape, images.shape[1:])
    )
    raise types.BadInput(
      f'{first}: expected images of {wanted} for {name}; found {got}.'
    )
  return images, labels


def _read_binary(
  name: str, part: str, found: layouts.Found, archived: bool
) -> reading.Arrays:
  """Reads CIFAR's binary files, unpacked or in their archive."""
  kind = KINDS[name]
  fmt = cifar_binary.Format(kind.label_bytes, kind.num_classes)
  unpacked, *_ = layouts.FILES[name].layouts(part)
  records = _CIFAR_EXAMPLES[part] // len(unpacked.slots)
  if not archived:
    return cifar_binary.read_files(found.paths, fmt, records)
  members = [f'{unpacked.folders[0]}/{slot[0]}' for slot in unpacked.slots]
  return cifar_binary.read_archive(found.paths[0], members, fmt, records)


def _check_shards(paths: tuple[pathlib.Path, ...]) -> None:
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
