"""Tries, before anything is computed, what a run does at its end.

A run that has computed for days must not find out only then that no figure can be
drawn, or that the disk takes no file.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib

from bitjax import files
from bitjax import types
from bitjax.cli import results
from bitjax.evidence import plots

__all__ = ['draw', 'write']

# At least as long as the name of a chunk while it is written, and its folders'.
_NAME = f'.{"rehearsal":-<120}'
_TEXT = 'α ≥ 10⁻³ × …'


@functools.cache
def draw() -> bytes:
  """Draws a figure, in this process's memory, and returns its files.

  Raises:
    BadInput: if that fails.
  """
  # Figures go to files, whatever window the environment asks for.
  asked = os.environ.pop('MPLBACKEND', None)
  try:
    with plots.style():
      from matplotlib import figure

      drawn = figure.Figure(figsize=(1, 1))
      drawn.subplots().set_title(f'{_TEXT}, $\\alpha$')
      return b''.join(results.draw(drawn).values())
  except Exception as error:  # A broken installation can raise anything.
    raise types.BadInput(
      f'matplotlib cannot draw figures here: {types.one_line(error)}'
    ) from error
  finally:
    if asked is not None:
      os.environ['MPLBACKEND'] = asked


def write(directory: pathlib.Path) -> None:
  """Writes a file of netCDF and figures into a directory, and removes it again.

  Raises:
    OSError: if that fails: the disk is full, read-only, or takes no long names.
    BadInput: if the file does not come back as it was written.
  """
  content = _archive() + draw()
  path = directory / f'{_NAME}.partial'
  try:
    files.write_bytes(path, content)
    found = path.read_bytes()
  finally:
    with contextlib.suppress(OSError):
      path.unlink()
  if found != content:
    raise types.BadInput(
      f'{directory} does not give back what was written; choose another --out.'
    )


@functools.cache
def _archive() -> bytes:
  """Makes a small netCDF in memory, reads it, and returns it.

  Raises:
    BadInput: if that fails.
  """
  import xarray

  sample = xarray.Dataset({'a': (('x',), [0.0, 1.0])}, {'x': ['a', _TEXT]})
  try:
    content = bytes(results.pack(sample))
    if not results.unpack(content).identical(sample):
      raise ValueError('it reads other numbers than it wrote')
    return content
  except Exception as error:  # A broken installation can raise anything.
    raise types.BadInput(
      f'h5netcdf cannot write results here: {types.one_line(error)}'
    ) from error
