"""Computes the blocks of a sweep that are missing, on all devices and processes.

A block is what one device computes in one call, and what one chunk holds: its
program, shapes and file do not depend on how many devices there are. So a group of
as many blocks as the mesh has devices for lanes is computed at once, processes take
turns at the groups, and a run may go on with other numbers of both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import functools
import itertools
import pathlib
import time
import traceback
from typing import Any

import jax
import numpy as np

from bitjax import lanes as lanes_lib
from bitjax import types
from bitjax.sweeps import chunks
from bitjax.sweeps import job
from bitjax.sweeps import plan as plan_lib
from bitjax.sweeps import progress
from bitjax.sweeps import table as table_lib

__all__ = ['Task', 'TraceError', 'load', 'place']

_POLL = 0.1  # Seconds between two looks for the chunks of other processes.


class TraceError(types.BadInput):
  """Bad input that a sweep's function found while it was traced."""


@dataclasses.dataclass
class Task:
  """A sweep to compute.

  Attributes:
    fn: keyword arguments -> dictionary of outputs.
    plan: its lanes.
    width: lanes that are vectorised at a time.
    shared: inputs that all lanes have in common, on the devices.
    mesh: the devices of this process; None for one.
    table: receives the results.
    store: keeps them on disk; None where nothing is kept.
  """

  fn: Callable[..., dict[str, Any]]
  plan: plan_lib.Plan
  width: int | None
  shared: dict[str, Any]
  mesh: jax.sharding.Mesh | None
  table: table_lib.Table
  store: chunks.Store | None

  @property
  def num_devices(self) -> int:
    """Devices of this process that have lanes of their own."""
    return 1 if self.mesh is None else self.mesh.shape['lanes']

  def trace(self, block: plan_lib.Block) -> jax.stages.Traced:
    """Traces the program of a block's static combination."""
    combination = self.plan.combinations[block.combination]
    each = functools.partial(
      lanes_lib.each,
      functools.partial(self.fn, **combination),
      width=self.width,
      mesh=self.mesh,
    )

    def program(lane, shared):
      return each(lane, shared=shared)

    name = self.plan.name
    program.__name__ = program.__qualname__ = name
    try:
      return jax.jit(program).trace(self._lanes([block]), self.shared)
    except types.BadInput as error:
      frames = traceback.extract_tb(error.__traceback__)
      ours = [f for f in frames if 'site-packages' not in f.filename]
      where = f'{pathlib.Path(ours[-1].filename).name}:{ours[-1].lineno}'
      raise TraceError(f'{error} (sweep {name!r}, {where})') from error

  def run(
    self,
    missing: list[plan_lib.Block],
    traced: jax.stages.Traced,
    reporter: progress.Silent,
  ) -> None:
    """Computes, saves and fills in blocks: this process's share of them.

    Args:
      missing: the blocks that no process has.
      traced: the program of the first of them.
      reporter: is told of every block, whoever computes it.
    """
    groups = list(_groups(missing, self.num_devices))
    mine = groups[job.index() :: job.count()]
    ours = set(itertools.chain.from_iterable(mine))
    others = [block for block in missing if block not in ours]
    template, first = self.table.template, missing[0].combination
    for combination, same in itertools.groupby(
      mine, lambda group: group[0].combination
    ):
      same = list(same)
      if combination != first:
        traced = self.trace(same[0][0])
      label = self.plan.label(same[0][0])
      if table_lib.template_of(traced.out_info) != template:
        raise TypeError(
          f'the outputs of the sweep {self.plan.name!r} must have the same '
          f'names, shapes and dtypes everywhere; they differ for {label}.'
        )
      reporter.compiling(label)
      compiled = traced.lower().compile()
      # While a group is written, the next one is computed.
      launched = (
        (group, compiled(self._lanes(group), self.shared)) for group in same
      )
      for group, outputs in _one_ahead(launched):
        self._finish(group, outputs, reporter, label)
        others = self.gather(others, reporter)
    self.wait(others, reporter)

  def wait(
    self, blocks: list[plan_lib.Block], reporter: progress.Silent
  ) -> None:
    """Fills in blocks of other processes, as soon as they are there."""
    while blocks := self.gather(blocks, reporter):
      time.sleep(_POLL)

  def gather(
    self, blocks: list[plan_lib.Block], reporter: progress.Silent
  ) -> list[plan_lib.Block]:
    """Fills in blocks of other processes; returns those that are not there."""
    if not blocks:
      return blocks
    assert self.store is not None  # Several processes need a directory.
    self.store.refresh()
    waiting = []
    for block in blocks:
      try:
        outputs = self.store.load(block)
      except chunks.Damaged:  # An old file that will be replaced.
        outputs = None
      if outputs is None or not _fits(self.table, outputs):
        waiting.append(block)
      else:
        self.table.fill(block, outputs)
        reporter.advance(block.size, self.plan.label(block))
    return waiting

  def _finish(self, group, outputs, reporter, label) -> None:
    assert self.table.template is not None
    fetched = table_lib.host(outputs, self.table.template)
    for place, block in enumerate(group):
      start = place * self.plan.block
      lanes = slice(start, start + block.size)
      found = {name: array[lanes] for name, array in fetched.items()}
      if self.store is not None:
        self.store.save(block, found)
      self.table.fill(block, found)
      reporter.advance(block.size, label)

  def _lanes(self, group) -> dict[str, Any]:
    """The lanes of a group, on the devices; its last block fills it up."""
    full = [*group, *[group[-1]] * (self.num_devices - len(group))]
    parts = [self.plan.traced(block, pad=True) for block in full]
    values = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
    if self.mesh is None:
      return values
    return jax.device_put(
      values, jax.sharding.NamedSharding(self.mesh, jax.P('lanes'))
    )


def load(task: Task) -> list[plan_lib.Block]:
  """Fills in the blocks that are on disk; returns the others."""
  assert task.store is not None
  task.store.refresh()
  missing = []
  for block in task.plan.blocks:
    try:
      outputs = task.store.load(block)
      if outputs is not None and not _fits(task.table, outputs):
        raise chunks.Damaged(f'{task.plan.label(block)} holds other outputs')
    except chunks.Damaged as problem:
      progress.say(f'{task.plan.name}: {problem}; computed again')
      outputs = None
    if outputs is None:
      missing.append(block)
    else:
      task.table.fill(block, outputs)
  return missing


def place(
  name: str,
  shared: Mapping[str, Any],
  batched: Mapping[str, int],
  mesh: jax.sharding.Mesh | None,
) -> dict[str, Any]:
  """Puts the shared inputs of the sweep ``name`` on the devices.

  Args:
    name: the sweep's name.
    shared: pytrees of arrays.
    batched: inputs whose axis of that number is split over the mesh's `batch`.
    mesh: the devices; None for one.

  Raises:
    ValueError: if they cannot be split as asked.
  """
  unknown = sorted(set(batched) - set(shared))
  if unknown:
    raise types.BadInput(
      f'batched names {unknown[0]!r}, which is no shared input.'
    )
  if mesh is None:
    return jax.device_put(dict(shared))
  parts = mesh.shape.get('batch', 1)
  if parts > 1 and not batched:
    raise types.BadInput(
      f'mesh splits batches over {parts} devices, but the sweep {name!r} has no '
      'input that can be split; use lanes only.'
    )
  placed = {}
  for key, value in shared.items():
    spec = jax.P()
    if key in batched and parts > 1:
      axis = batched[key]
      spec = jax.P(*[None] * axis, 'batch')
      for leaf in jax.tree.leaves(value):
        if np.ndim(leaf) <= axis or np.shape(leaf)[axis] % parts:
          raise types.BadInput(
            f'mesh splits batches over {parts} devices, which axis {axis} of the '
            f'input {key!r} of shape {np.shape(leaf)} does not allow.'
          )
    placed[key] = jax.device_put(value, jax.sharding.NamedSharding(mesh, spec))
  return placed


def _fits(table, outputs) -> bool:
  found = {k: (v.shape[1:], v.dtype) for k, v in outputs.items()}
  return table.template in (None, found)


def _groups(blocks, size) -> Iterator[list[plan_lib.Block]]:
  """Blocks of one program, as many as there are devices."""
  for _, same in itertools.groupby(blocks, lambda block: block.combination):
    same = list(same)
    for start in range(0, len(same), size):
      yield same[start : start + size]


def _one_ahead(items: Iterator[Any]) -> Iterator[Any]:
  """Yields the items; asks for the next one before it yields one."""
  waiting = None
  for item in items:
    if waiting is not None:
      yield waiting
    waiting = item
  if waiting is not None:
    yield waiting
