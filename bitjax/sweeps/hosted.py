"""Sweeps over ordinary Python functions, which JAX does not trace.

A training reads data, writes checkpoints and takes hours, so it cannot be traced as
part of one program. Its result is still one chunk, labelled and judged like any other.
In addition, each block of lanes has a folder of its own in the run's directory, in
which the function keeps what it needs to resume in the middle of its work.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np

from bitjax.sweeps import compute
from bitjax.sweeps import plan as plan_lib
from bitjax.sweeps import progress
from bitjax.sweeps import table as table_lib

__all__ = ['FOLDER', 'HostTask']

FOLDER = 'lanes'  # Relative to the directory of a run.


@dataclasses.dataclass
class HostTask(compute.Task):
  """A sweep to compute whose function runs on the host, as ordinary Python.

  Attributes:
    folder: folder in which each block gets a folder of its own; None for no folders.
    report: whether to show progress.
  """

  folder: pathlib.Path | None = None
  report: bool = False

  def agrees(self, block: plan_lib.Block, code: Any) -> bool:
    """Returns whether the sources that computed a chunk are today's."""
    return code is not None and not self.origin.code.changes(code)

  def run_all(self, missing: list[plan_lib.Block]) -> None:
    """Computes blocks one after another, saves each and adds it to the table.

    Lanes that report nothing themselves are counted as they are done.

    Raises:
      TypeError: if the function returns anything but a dictionary of arrays of
        real numbers with a leading axis of lanes.
    """
    left = sum(block.size for block in missing)
    done: progress.Silent | None = None
    try:
      for block in missing:
        work = self._run(block)
        left -= block.size
        if done is not None:
          done.advance(block.size, self.plan.label(block))
        elif self.report and not work.begun:
          total = self.plan.total
          done = progress.reporter(self.plan.name, total, total - left)
    finally:
      if done is not None:
        done.close()

  def begun(self, blocks: list[plan_lib.Block]) -> int:
    """Returns the number of lanes of the given blocks that have a folder already."""
    folders = ((block, self._folder(block)) for block in blocks)
    return sum(block.size for block, path in folders if path and path.is_dir())

  def _folder(self, block: plan_lib.Block) -> pathlib.Path | None:
    if self.folder is None:
      return None
    return self.folder / f'{block.combination}-{block.index}'

  def _run(self, block):
    folder = self._folder(block)
    if folder is not None:
      folder.mkdir(parents=True, exist_ok=True)
    lanes = self.plan.traced(block)
    named = [f'{k}={_short(v)}' for k, v in lanes.items()]
    parts = [self.plan.label(block), *named]
    name = ', '.join(part for part in parts if part)
    work = progress.Work(f'{self.plan.name} ({name})', self.report)
    combination = self.plan.combinations[block.combination]
    try:
      outputs = self.fn(
        folder=folder, report=work, mesh=self.mesh, **combination, **lanes
      )
    finally:
      work.close()
    found = _checked(self.plan.name, outputs, block.size)
    template = {k: (v.shape[1:], v.dtype) for k, v in found.items()}
    if self.table.template not in (None, template):
      raise TypeError(
        f'the outputs of the sweep {self.plan.name!r} must have the same names, '
        f'shapes and dtypes everywhere; they differ for {name}.'
      )
    if self.table.template is None:
      self.table.use(template)
    if self.store is not None:
      self.store.save(block, found, self.origin.code.record())
    self.table.fill(block, found)
    return work


def _checked(name: str, outputs: Any, size: int) -> dict[str, np.ndarray]:
  """Returns the outputs as arrays of real numbers, [lanes, ...]."""
  if not isinstance(outputs, dict) or not outputs:
    raise TypeError(
      f'the function of the sweep {name!r} must return a dictionary, output '
      f'name -> array; got {type(outputs).__name__}.'
    )
  found = {key: np.asarray(value) for key, value in outputs.items()}
  found = {
    key: value.astype(table_lib.stored(value.dtype), copy=False)
    for key, value in found.items()
  }
  for key, value in found.items():
    if value.dtype.kind not in 'biuf' or value.shape[:1] != (size,):
      raise TypeError(
        f'output {key!r} of the sweep {name!r} must be real numbers, [{size} '
        f'lanes, ...]; got {value.dtype} of shape {value.shape}.'
      )
  return found


def _short(values: np.ndarray) -> str:
  shown = [f'{value:.6g}' for value in values.tolist()]
  return ','.join(shown) if len(shown) < 4 else f'{shown[0]}...{shown[-1]}'
