"""Reads parquet files of the Hugging Face Hub: a PNG or JPEG, and a label, per row.

Decoding 50 000 images takes a while, so the result is cached under the hash of the
files' *content*: neither a replaced file nor an old time stamp can give a stale
answer. Pillow's version is part of the key too, because JPEG decoders differ in
the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
import hashlib
import io
import pathlib
from typing import Any

import numpy as np

from bitjax import extras
from bitjax import types
from bitjax.data import cache
from bitjax.data import reading

__all__ = ['read']

_IMAGE_COLUMNS = ('img', 'image')  # The first that there is counts.
_MODES = {1: 'L', 3: 'RGB'}  # Pillow's names of grey and of colour.
_ROWS = 1_000  # Rows decoded at a time, which bounds the memory.
_VERSION = 1  # Version of this decoder, a part of the cache's key.


def read(
  paths: Sequence[pathlib.Path],
  name: str,
  label_column: str,
  num_classes: int,
  shape: tuple[int, int, int],
  cache_dir: reading.PathLike | None = None,
) -> reading.Arrays:
  """Reads the parquet files of one part, in order.

  Args:
    paths: the files, with a column ``img`` or ``image: struct<bytes, path>`` and one
      of labels.
    name: name of the data set; the names of cache entries begin with it.
    label_column: name of the labels' column.
    num_classes: number of classes; labels are below it.
    shape: height, width and channels (1: grey, 3: red, green and blue) of an image.
    cache_dir: directory of decoded images; see :mod:`.cache`.

  Returns:
    Images uint8 [N, H, W, C] and labels int32 [N].

  Raises:
    BadInput: for a missing package, or a file that is not parquet, lacks a
      column, or has another kind of image or a label out of range.
  """
  try:
    import PIL
  except ImportError as error:
    raise extras.missing(f'{name} in parquet files', 'pillow') from error
  contents = []
  for path in paths:
    try:
      contents.append(path.read_bytes())
    except OSError as error:
      raise types.BadInput(
        f'{path}: expected a readable file; found: {reading.one_line(error)}.'
      ) from error
  versions = f'{_VERSION} {PIL.__version__} {label_column} {num_classes}'
  digest = hashlib.sha256(versions.encode())
  for content in contents:
    digest.update(hashlib.sha256(content).digest())

  def build():
    parts = [
      _decode(path, content, name, label_column, num_classes, shape)
      for path, content in zip(paths, contents, strict=True)
    ]
    return (
      np.concatenate([images for images, _ in parts]),
      np.concatenate([labels for _, labels in parts]),
    )

  key = f'{name}-{digest.hexdigest()}'
  return cache.fetch(key, build, cache_dir=cache_dir)


def _decode(
  path: pathlib.Path,
  content: bytes,
  name: str,
  label_column: str,
  num_classes: int,
  shape: tuple[int, int, int],
) -> reading.Arrays:
  """Returns the images and labels of one parquet file."""
  try:
    import pyarrow as pa
    from pyarrow import parquet
  except ImportError as error:
    raise extras.missing(f'{name} in parquet files', 'pyarrow') from error

  images, labels = [], []
  try:
    with parquet.ParquetFile(pa.BufferReader(content)) as file:
      image_column = _check_columns(path, file.schema_arrow, label_column)
      columns = [f'{image_column}.bytes', label_column]
      for rows in file.iter_batches(_ROWS, columns=columns):
        start = len(images)
        encoded = rows.column(image_column).to_pylist()
        images += [
          _decode_image(
            f'{path}, row {start + i}', (cell or {}).get('bytes'), shape
          )
          for i, cell in enumerate(encoded)
        ]
        labels += rows.column(label_column).to_pylist()
  except (pa.ArrowException, OSError) as error:
    raise types.BadInput(
      f'{path}: expected a parquet file that can be read; found: '
      f'{reading.one_line(error)}.'
    ) from error
  if not images:
    raise types.BadInput(f'{path}: expected at least one row; found none.')
  if None in labels:
    raise types.BadInput(
      f'{path}, row {labels.index(None)}: expected a label; found none.'
    )
  values = np.asarray(labels)
  reading.check_labels(path, values, num_classes)
  return np.stack(images), values.astype(np.int32)


def _check_columns(path: pathlib.Path, schema: Any, label_column: str) -> str:
  """Returns the column of images; raises unless there are images and labels."""
  from pyarrow import types as kinds

  found = {field.name: field.type for field in schema}
  name = next((key for key in _IMAGE_COLUMNS if key in found), '')
  image, label = found.get(name), found.get(label_column)
  if (
    image is None
    or not kinds.is_struct(image)
    or image.get_field_index('bytes') < 0
    or label is None
    or not kinds.is_integer(label)
  ):
    columns = ', '.join(f'{key}: {value}' for key, value in found.items())
    raise types.BadInput(
      f'{path}: expected the columns {" or ".join(_IMAGE_COLUMNS)}: struct<bytes, '
      f'path> and {label_column}: integer; found {columns}.'
    )
  return name


def _decode_image(
  location: str, encoded: Any, shape: tuple[int, int, int]
) -> np.ndarray:
  """Decodes one PNG or JPEG to uint8 of the given shape, [H, W, C]."""
  from PIL import Image

  height, width, channels = shape
  wanted = _MODES[channels]
  expected = (
    f'{location}: expected a PNG or JPEG of {width}x{height} pixels, {wanted}'
  )
  if not isinstance(encoded, bytes):
    raise types.BadInput(f'{expected}; found no bytes.')
  try:
    with Image.open(io.BytesIO(encoded), formats=('PNG', 'JPEG')) as image:
      size, mode = image.size, image.mode
      # Check before decoding any pixel: a small file can hold a huge image.
      if size == (width, height) and mode == wanted:
        return np.asarray(image).reshape(shape)
  except Exception as error:  # A damaged image can raise nearly anything.
    raise types.BadInput(
      f'{expected}; found one that cannot be decoded ({type(error).__name__}).'
    ) from error
  raise types.BadInput(f'{expected}; found {size[0]}x{size[1]}, {mode}.')
