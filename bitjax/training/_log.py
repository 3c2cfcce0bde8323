"""Logs what a training measures, as JSON lines, as CSV and for TensorBoard.

A row holds what was measured after some update: for each name, a list over seeds. If
a training resumes from a checkpoint, later rows are dropped and measured again. A
number that is not finite is stored as `bitjax.files` says: NaN as null.
"""

from __future__ import annotations

from collections.abc import Mapping
import csv
import hashlib
import io
import json
import math
import os
from typing import Any

import numpy as np

from bitjax import files
from bitjax import types

__all__ = ['NAME', 'Log']

NAME = 'history.jsonl'

Row = dict[str, Any]  # Name -> list over seeds; 'step' -> int.


class Log:
  """The rows of a training.

  Args:
    folder: folder of ``history.jsonl`` and ``history.csv``; None keeps rows in memory.
    tensorboard: whether to write event files for TensorBoard as well.

  Attributes:
    rows: the rows, in order.
    digest: SHA-256 of the rows in the folder, by which a checkpoint tells whether they
      are still those that it was saved with.

  Raises:
    BadInput: for ``tensorboard`` without a folder or without its package.
  """

  def __init__(
    self,
    folder: str | os.PathLike[str] | None = None,
    *,
    tensorboard: bool = False,
  ):
    self._folder = None if folder is None else files.expand(folder)
    self._writer = None
    self.rows: list[Row] = []
    self.digest = _digest('')
    if tensorboard:
      self._writer = _events(self._folder)

  def resume(self, step: int, digest: str | None = None) -> None:
    """Reads the rows in the folder up to update ``step``, and drops later ones.

    Args:
      step: number of updates made.
      digest: the ``digest`` of these rows when they were written; None if unknown.

    Raises:
      BadInput: if the rows have another digest; the files then stay as they are.
    """
    self.rows = []
    if self._folder is None:
      return
    path = self._folder / NAME
    if path.is_file():
      for line in path.read_bytes().splitlines():
        row = _read(line)
        if row is None:  # The line was cut off when the process was killed.
          break
        if row['step'] <= step:
          self.rows.append(row)
    if digest not in (None, _digest(_lines(self.rows))):
      raise types.BadInput(
        f'{path} is damaged (up to update {step} it is not as it was written); '
        'restore it, or train in another folder.'
      )
    if self._folder.is_dir():
      files.remove_partial(self._folder)
    self._rewrite()

  def add(self, step: int, values: Mapping[str, Any]) -> None:
    """Adds a row.

    Args:
      step: number of updates made.
      values: name -> a number, or one for each seed. TensorBoard shows the mean of
        those that are finite.
    """
    row: Row = {'step': step}
    for name, value in values.items():
      row[name] = np.asarray(value, np.float64).reshape(-1).tolist()
    self.rows.append(row)
    self._rewrite()
    if self._writer is not None:
      for name, numbers in row.items():
        if name != 'step':
          known = [number for number in numbers if math.isfinite(number)]
          if known:
            self._writer.add_scalar(name, np.mean(known), step)
      self._writer.flush()

  def history(self) -> dict[str, np.ndarray]:
    """Returns all rows as name -> [rows, seeds]; ``step`` is [rows], int64."""
    if not self.rows:
      return {}
    found = {'step': np.array([row['step'] for row in self.rows])}
    for name in self.rows[-1]:
      if name != 'step':
        found[name] = np.array([row[name] for row in self.rows])
    return found

  def close(self) -> None:
    """Closes TensorBoard's writer, if there is one."""
    if self._writer is not None:
      self._writer.close()

  def _rewrite(self) -> None:
    """Writes both files anew where they differ; they are small enough."""
    if self._folder is None:
      return
    self._folder.mkdir(parents=True, exist_ok=True)
    lines = _lines(self.rows)
    self.digest = _digest(lines)
    for name, text in ((NAME, lines), ('history.csv', _table(self.rows))):
      path = self._folder / name
      if not path.is_file() or path.read_bytes() != text.encode():
        files.write_text(path, text)


def _lines(rows: list[Row]) -> str:
  return ''.join(f'{files.json_text(row)}\n' for row in rows)


def _digest(lines: str) -> str:
  return hashlib.sha256(lines.encode()).hexdigest()


def _read(line: bytes) -> Row | None:
  """Returns the row that a line holds; None if it is damaged."""
  try:
    row = json.loads(line)
    return {
      name: int(value) if name == 'step' else [files.number(x) for x in value]
      for name, value in row.items()
    } | {'step': int(row['step'])}
  except (ValueError, TypeError, KeyError, AttributeError):
    return None


def _table(rows: list[Row]) -> str:
  """Formats rows as CSV, with a line for each row and seed."""
  if not rows:
    return ''
  names = [name for name in rows[-1] if name != 'step']
  num_seeds = max((len(rows[-1][name]) for name in names), default=1)
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(['step', 'seed', *names])
  for row in rows:
    for seed in range(num_seeds):
      values = [row[name][seed if len(row[name]) > 1 else 0] for name in names]
      shown = ['' if math.isnan(value) else f'{value:.9g}' for value in values]
      writer.writerow([row['step'], seed, *shown])
  return text.getvalue()


def _events(folder):
  if folder is None:
    raise types.BadInput('tensorboard needs a folder; got none.')
  try:
    import tensorboardX
  except ImportError as error:
    raise types.BadInput(
      'tensorboard needs the package tensorboardX: pip install tensorboardX.'
    ) from error
  return tensorboardX.SummaryWriter(str(folder / 'tensorboard'))
