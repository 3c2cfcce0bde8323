"""Sweeps over ordinary Python functions, which JAX does not trace.

A training reads data, writes checkpoints and takes hours, so it cannot be traced as
part of one program. Its result is still one chunk, labelled and judged like any other.
In addition, each block of lanes has a folder of its own in the run's directory, in
which the function keeps what it needs to resume in the middle of its work.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import secrets
import shutil
from typing import Any

import numpy as np

from bitjax.sweeps import compute
from bitjax.sweeps import job
from bitjax.sweeps import plan as plan_lib
from bitjax.sweeps import progress
from bitjax.sweeps import table as table_lib

__all__ = ['FOLDER', 'HostTask']

FOLDER = 'lanes'  # Relative to the directory of a run.
_CLAIMS = 'claims'  # In the folder of a sweep, while a job computes it.


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

    In a job of several processes each takes what no other has begun: a static
    combination, as each may be a program to compile, or single blocks where there are
    fewer combinations than processes. Lanes that report nothing themselves are
    counted as they are done.

    Raises:
      TypeError: if the function returns anything but a dictionary of arrays of
        real numbers with a leading axis of lanes.
    """
    token = job.decide(lambda: secrets.token_hex(4))
    left, done = list(missing), None
    try:
      for unit in _units(missing):
        if not self._claim(token, unit):
          continue
        for block in unit:
          work = self._run(block)
          left.remove(block)
          if done is not None:
            done.advance(block.size, self.plan.label(block))
          elif self.report and not work.begun:
            known = self.plan.total - sum(block.size for block in left)
            done = progress.reporter(self.plan.name, self.plan.total, known)
          if job.count() > 1:
            left = self.gather(left, done or progress.Silent())
      self.wait(left, done or progress.Silent())
    finally:
      if done is not None:
        done.close()
    job.decide(self._release)

  def _claim(self, token: str, unit: list[plan_lib.Block]) -> bool:
    """Returns whether this process of a job is the first that wants some blocks.

    Args:
      token: of the job, which knows nothing of the claims of one that was killed.
      unit: the blocks.
    """
    if job.count() == 1:
      return True
    # A sweep of several processes has a directory.
    assert self.folder is not None
    folder = self.folder / _CLAIMS
    folder.mkdir(parents=True, exist_ok=True)
    try:
      name = f'{token}.{unit[0].combination}.{unit[0].index}'
      (folder / name).touch(exist_ok=False)
    except FileExistsError:
      return False
    return True

  def _release(self) -> None:
    """Removes the claims of this job and of those before."""
    if self.folder is not None:
      shutil.rmtree(self.folder / _CLAIMS, ignore_errors=True)

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


def _units(missing: list[plan_lib.Block]) -> list[list[plan_lib.Block]]:
  """Returns the blocks that one process of a job computes together."""
  kinds = itertools.groupby(missing, lambda block: block.combination)
  units = [list(same) for _, same in kinds]
  if len(units) < job.count():
    return [[block] for block in missing]
  return units


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
