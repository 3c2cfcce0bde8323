"""Files of a finished run: all numbers as netCDF and CSV, verdicts, and figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import csv
import os
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax import files
from bitjax.evidence import verdicts as verdicts_lib

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray

__all__ = ['load', 'save', 'save_figure', 'save_verdicts']

_ROWS = 8192  # Rows of the CSV that are held in memory at a time.


def save(
  results: xarray.Dataset, directory: str | os.PathLike[str]
) -> list[pathlib.Path]:
  """Writes ``results.csv``, then ``results.nc``, which marks a run as complete.

  Returns:
    The paths of both.
  """
  directory = pathlib.Path(directory)
  table, archive = directory / 'results.csv', directory / 'results.nc'
  with (
    files.atomic(table) as temporary,
    open(temporary, 'w', newline='', encoding='utf-8') as file,
  ):
    csv.writer(file, lineterminator='\n').writerows(_rows(results))
  with files.atomic(archive) as temporary:
    results.to_netcdf(temporary, engine='h5netcdf')
  return [archive, table]


def load(directory: str | os.PathLike[str]) -> xarray.Dataset:
  """Reads ``results.nc`` as it was saved.

  Raises:
    OSError: if it is missing or damaged.
  """
  import xarray

  # xarray would decode numbers with an attribute `units = 'seconds'` as durations.
  return xarray.load_dataset(
    pathlib.Path(directory) / 'results.nc',
    engine='h5netcdf',
    decode_times=False,
    decode_timedelta=False,
  )


def save_verdicts(
  verdicts: Sequence[verdicts_lib.Verdict], directory: str | os.PathLike[str]
) -> pathlib.Path:
  """Writes ``verdicts.json``."""
  path = pathlib.Path(directory) / 'verdicts.json'
  files.write_json(path, [verdict.to_json() for verdict in verdicts])
  return path


def save_figure(
  drawn: figure.Figure, directory: str | os.PathLike[str]
) -> list[pathlib.Path]:
  """Writes ``figure.png`` (200 dpi) and ``figure.pdf`` (fonts embedded)."""
  import matplotlib

  paths = []
  metadata: dict[str, dict[str, Any]] = {
    'png': {},
    'pdf': {'CreationDate': None},
  }
  for kind, entries in metadata.items():
    path = pathlib.Path(directory) / f'figure.{kind}'
    with (
      files.atomic(path) as temporary,
      matplotlib.rc_context({'pdf.fonttype': 42}),
    ):
      drawn.savefig(temporary, format=kind, dpi=200, metadata=entries)
    paths.append(path)
  return paths


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
