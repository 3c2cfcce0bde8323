"""Files of a finished run: all numbers as netCDF and CSV, verdicts, and figures.

``results.sha256`` holds the checksums of the numbers' files, as ``sha256sum`` writes and
checks them. It is written before ``results.nc``, which marks a run as complete and is
therefore never without a checksum, whatever kills the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import csv
import hashlib
import io
import os
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax import files
from bitjax import types
from bitjax.evidence import verdicts as verdicts_lib

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray

__all__ = [
  'ARCHIVE',
  'CHECKSUMS',
  'FIGURES',
  'TABLE',
  'Damaged',
  'draw',
  'has_checksum',
  'load',
  'pack',
  'save',
  'save_figure',
  'save_table',
  'save_verdicts',
  'sound',
  'unpack',
]

ARCHIVE = 'results.nc'
TABLE = 'results.csv'
CHECKSUMS = 'results.sha256'
FIGURES = ('figure', 'figure_supplement')  # Names of a study's figures.
_ROWS = 8192  # Rows of the CSV that are held in memory at a time.
# Kinds of files of a figure, and their metadata.
_KINDS: dict[str, dict[str, Any]] = {'png': {}, 'pdf': {'CreationDate': None}}


class Damaged(OSError):
  """Raised for a file of results that is not as it was written; it names the file."""


def save(
  results: xarray.Dataset, directory: str | os.PathLike[str]
) -> list[pathlib.Path]:
  """Writes ``results.csv``, then ``results.nc``, which marks a run as complete.

  Returns:
    The paths of ``results.nc`` and ``results.csv``.
  """
  directory = files.expand(directory)
  content = pack(results)
  table = save_table(
    results, directory, archive=hashlib.sha256(content).hexdigest()
  )
  files.write_bytes(directory / ARCHIVE, content)
  return [directory / ARCHIVE, table]


def save_table(
  results: xarray.Dataset,
  directory: str | os.PathLike[str],
  *,
  archive: str | None = None,
) -> pathlib.Path:
  """Writes ``results.csv`` and the checksums.

  Args:
    results: the results.
    directory: directory of the run.
    archive: checksum of ``results.nc``; None to keep the one that is known.

  Returns:
    The path of ``results.csv``.
  """
  directory = files.expand(directory)
  table = directory / TABLE
  with (
    files.atomic(table) as temporary,
    open(temporary, 'w', newline='', encoding='utf-8') as file,
  ):
    csv.writer(file, lineterminator='\n').writerows(_rows(results))
  archive = archive or _checksums(directory).get(ARCHIVE)
  lines = [f'{files.checksum(table)}  {TABLE}\n']
  if archive:
    lines.insert(0, f'{archive}  {ARCHIVE}\n')
  files.write_text(directory / CHECKSUMS, ''.join(lines))
  return table


def load(directory: str | os.PathLike[str]) -> xarray.Dataset:
  """Reads ``results.nc`` as it was saved.

  Raises:
    Damaged: if it is missing, its checksum differs, or it is no netCDF.
  """
  path = files.expand(directory) / ARCHIVE
  try:
    content = path.read_bytes()
  except OSError as error:
    raise Damaged(f'{path} cannot be read ({error.strerror})') from error
  wanted = _checksums(path.parent).get(ARCHIVE)
  if wanted not in (None, hashlib.sha256(content).hexdigest()):
    raise Damaged(f'{path} is damaged (its checksum differs)')
  try:
    return unpack(content)
  except Exception as error:  # Reading a damaged file can raise anything.
    raise Damaged(f'{path} is damaged ({types.one_line(error)})') from error


def has_checksum(directory: pathlib.Path) -> bool:
  """Returns whether damage of ``results.nc`` would be noticed."""
  return ARCHIVE in _checksums(directory)


def sound(path: pathlib.Path) -> bool:
  """Returns whether a file is there, and is not known to be damaged."""
  if not path.is_file():
    return False
  return _checksums(path.parent).get(path.name) in (
    None,
    files.checksum(path),
  )


def pack(results: xarray.Dataset) -> memoryview:
  """Returns a dataset as netCDF, made in memory.

  HDF5 would lock a file on the disk, which not all file systems allow.
  """
  buffer = io.BytesIO()
  results.to_netcdf(buffer, engine='h5netcdf')
  return buffer.getbuffer()


def unpack(content: bytes | memoryview) -> xarray.Dataset:
  """Returns the dataset that `pack` made into netCDF."""
  import xarray

  # xarray would decode numbers with an attribute `units = 'seconds'` as durations.
  return xarray.load_dataset(
    io.BytesIO(content),
    engine='h5netcdf',
    decode_times=False,
    decode_timedelta=False,
  )


def _checksums(directory: pathlib.Path) -> dict[str, str]:
  """Returns file -> checksum; runs of older versions have none."""
  try:
    lines = (directory / CHECKSUMS).read_bytes().decode(errors='replace')
  except FileNotFoundError:
    return {}
  found = dict.fromkeys((ARCHIVE, TABLE), '')  # What is damaged fits no file.
  for line in lines.splitlines():
    checksum, _, name = line.partition('  ')
    found[name] = checksum
  return found


def save_verdicts(
  verdicts: Sequence[verdicts_lib.Verdict], directory: str | os.PathLike[str]
) -> pathlib.Path:
  """Writes ``verdicts.json``."""
  path = files.expand(directory) / 'verdicts.json'
  files.write_json(path, [verdict.to_json() for verdict in verdicts])
  return path


def save_figure(
  drawn: figure.Figure | Mapping[str, figure.Figure],
  directory: str | os.PathLike[str],
) -> list[pathlib.Path]:
  """Writes ``figure.png`` (200 dpi) and ``figure.pdf`` (fonts embedded).

  Args:
    drawn: the figure, or figures by their names in ``FIGURES``, which are those of the
      files. Files of a figure that is not among them are removed.
    directory: where the files go.

  Raises:
    ValueError: for another name, or if there is no ``'figure'``.
  """
  named = drawn if isinstance(drawn, Mapping) else {FIGURES[0]: drawn}
  if FIGURES[0] not in named or set(named) - set(FIGURES):
    raise ValueError(
      f'a study draws {FIGURES[0]!r}, and perhaps {FIGURES[1]!r}; got '
      f'{", ".join(named) or "nothing"}.'
    )
  paths = []
  for name in FIGURES:
    if name not in named:
      for kind in _KINDS:
        (files.expand(directory) / f'{name}.{kind}').unlink(missing_ok=True)
      continue
    for kind, content in draw(named[name]).items():
      paths.append(files.expand(directory) / f'{name}.{kind}')
      files.write_bytes(paths[-1], content)
  return paths


def draw(drawn: figure.Figure) -> dict[str, bytes]:
  """Returns the contents of a figure's files, by kind."""
  import matplotlib

  contents = {}
  for kind, entries in _KINDS.items():
    buffer = io.BytesIO()
    with matplotlib.rc_context({'pdf.fonttype': 42}):
      drawn.savefig(buffer, format=kind, dpi=200, metadata=entries)
    contents[kind] = buffer.getvalue()
  return contents


def _rows(results: xarray.Dataset) -> Iterator[tuple[str, ...]]:
  """Yields a header, and a row ``variable, *dims, value`` for each number."""
  dims: list[str] = []
  for variable in results.data_vars.values():
    dims.extend(str(dim) for dim in variable.dims if dim not in dims)
  yield ('variable', *dims, 'value')
  labels = {}
  for dim in dims:
    known = results[dim].values if dim in results.coords else None
    size = results.sizes[dim]
    labels[dim] = _text(np.arange(size) if known is None else known)
  for name, variable in results.data_vars.items():
    flat = variable.values.reshape(-1)
    for start in range(0, flat.size, _ROWS):
      rows = np.arange(start, min(start + _ROWS, flat.size))
      index = dict(
        zip(
          variable.dims,
          np.unravel_index(rows, variable.shape) if variable.ndim else (),
          strict=True,
        )
      )
      columns = [
        labels[dim][index[dim]].tolist() if dim in index else [''] * len(rows)
        for dim in dims
      ]
      values = _text(flat[rows]).tolist()
      yield from zip([str(name)] * len(rows), *columns, values, strict=True)


def _text(values: np.ndarray) -> np.ndarray:
  """Returns the shortest texts that give the same values in their own precision."""
  if values.dtype == bool:
    values = values.astype(np.int8)
  return np.asarray(values).astype(str)
