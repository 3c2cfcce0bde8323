"""Computes the missing blocks of a sweep, on all devices and processes.

One device computes a block in one call, and one chunk holds it, so its program, shapes
and file do not depend on the number of devices. A group has as many blocks as the mesh
has devices for lanes, and is computed at once; the processes take turns at the groups.
A run may therefore be resumed with other numbers of devices and processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import contextlib
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
from bitjax import memory
from bitjax import types
from bitjax.sweeps import chunks
from bitjax.sweeps import code as code_lib
from bitjax.sweeps import job
from bitjax.sweeps import origin as origin_lib
from bitjax.sweeps import plan as plan_lib
from bitjax.sweeps import progress
from bitjax.sweeps import table as table_lib

__all__ = ['Task', 'TraceError', 'load_blocks', 'place']

_POLL = 0.1  # Seconds between two checks for the chunks of other processes.


class TraceError(types.BadInput):
  """Bad input that a sweep's function raised while it was traced."""


@dataclasses.dataclass
class Task:
  """A sweep to compute.

  Attributes:
    fn: keyword arguments -> dictionary of outputs.
    plan: plan of its lanes.
    width: lanes that are vectorised at a time; None for one (see `width`).
    shared: inputs that all lanes have in common, already on the devices.
    mesh: the devices of this process; None for a single one.
    table: receives the results.
    store: keeps the results on disk; None to keep nothing.
    origin: compares the code of chunks with that of this process.
    limit: bytes of the memory budget, if programs depend on it.
    taken: bytes of memory that the largest program so far takes on a device.
  """

  fn: Callable[..., dict[str, Any]]
  plan: plan_lib.Plan
  width: int | None
  shared: dict[str, Any]
  mesh: jax.sharding.Mesh | None
  table: table_lib.Table
  store: chunks.Store | None
  origin: origin_lib.Origin
  limit: int | None
  taken: int = dataclasses.field(default=0, init=False)
  _traced: dict[int, jax.stages.Traced] = dataclasses.field(
    default_factory=dict, init=False
  )
  _programs: dict[int, str] = dataclasses.field(
    default_factory=dict, init=False
  )
  _template: table_lib.Template | None = dataclasses.field(
    default=None, init=False
  )
  _compiled: dict[int, jax.stages.Compiled] = dataclasses.field(
    default_factory=dict, init=False
  )

  @property
  def num_devices(self) -> int:
    """Number of devices of this process that the lanes are split over."""
    return 1 if self.mesh is None else self.mesh.shape['lanes']

  def trace(self, block: plan_lib.Block) -> jax.stages.Traced:
    """Traces the program of a block's static combination for all devices, once."""
    key = block.combination
    if key not in self._traced:
      lanes = self._lanes([block])
      traced = self._trace(key, lanes, self.shared, self.mesh)
      template = table_lib.template_of(traced.out_info)
      if self._template not in (None, template):
        raise TypeError(
          f'the outputs of the sweep {self.plan.name!r} must have the same names, '
          f'shapes and dtypes everywhere; they differ for {self.plan.label(block)}.'
        )
      self._traced[key], self._template = traced, template
    return self._traced[key]

  def compile(
    self, block: plan_lib.Block, reporter: progress.Silent
  ) -> jax.stages.Compiled:
    """Compiles the program of a block's static combination, once.

    Raises:
      memory.Exceeded: if it computes one lane at a time, and does not fit.
    """
    key = block.combination
    if key not in self._compiled:
      reporter.compiling(self.plan.label(block))
      lowered = self.trace(block).lower()
      if self.store is not None:
        self._program(key, lowered)
      self._compiled[key] = lowered.compile()
      found = memory.of(self._compiled[key])
      self.taken = max(self.taken, found.total if found else 0)
      if (self.width or 1) == 1:
        memory.check(f'one lane of the sweep {self.plan.name!r}', self.taken)
    return self._compiled[key]

  def drop(self, combination: int) -> None:
    """Forgets a compiled program, which takes memory of the process.

    JAX keeps it for as long as the function is there that was traced for it.
    """
    self._compiled.pop(combination, None)
    self._traced.pop(combination, None)

  def narrow(self, width: int) -> None:
    """Changes the width, and forgets the programs of the former one."""
    self.width, self.taken = width, 0
    for programs in (self._traced, self._programs, self._compiled):
      programs.clear()

  def fitting(self, combination: int) -> int:
    """Returns how many of a combination's lanes fit in the whole memory budget."""
    fn = functools.partial(self.fn, **self.plan.combinations[combination])
    first = plan_lib.Block(combination, 0, 0, self.plan.block_size)
    lanes = self.plan.traced(first, pad=True)
    with self._naming():
      return lanes_lib.fitting(fn, lanes, shared=self.shared, share=1.0)

  def agrees(self, block: plan_lib.Block, code: Any) -> bool:
    """Returns whether the code that computed a chunk would compute the same now."""
    return code == self._program(block.combination)

  def _program(
    self, combination: int, lowered: jax.stages.Lowered | None = None
  ) -> str:
    """Returns the digest of a combination's program, as one device computes it.

    On a mesh that program is traced too, only for this.
    """
    if combination not in self._programs:
      first = plan_lib.Block(combination, 0, 0, self.plan.block_size)
      if self.mesh is None:
        lowered = lowered or self.trace(first).lower()
      else:
        shared = jax.tree.map(
          lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, weak_type=leaf.weak_type
          ),
          self.shared,
        )
        lanes = self.plan.traced(first, pad=True)
        lowered = self._trace(combination, lanes, shared, None).lower()
      self._programs[combination] = code_lib.program(lowered)
    return self._programs[combination]

  def _trace(self, combination, lanes, shared, mesh) -> jax.stages.Traced:
    if getattr(jax.config, 'jax_disable_jit'):  # noqa: B009 - no stub has it.
      raise types.BadInput(
        'jax_disable_jit must be off for a sweep, which keeps what its compiled '
        'program computes; call the function itself to debug one lane.'
      )
    each = functools.partial(
      lanes_lib.each,
      functools.partial(self.fn, **self.plan.combinations[combination]),
      width=self.width,
      mesh=mesh,
    )

    def program(lane, shared):
      return each(lane, shared=shared)

    program.__name__ = program.__qualname__ = self.plan.name
    with self._naming():
      return jax.jit(program).trace(lanes, shared)

  @contextlib.contextmanager
  def _naming(self) -> Iterator[None]:
    """Makes bad input that is raised while tracing name the sweep and the line."""
    try:
      yield
    except memory.Exceeded as error:
      raise memory.Exceeded(f'{error} (sweep {self.plan.name!r})') from error
    except types.BadInput as error:
      frames = traceback.extract_tb(error.__traceback__)
      # Bitjax itself may be installed there too: then no frame is left.
      ours = [f for f in frames if 'site-packages' not in f.filename]
      last = (ours or frames)[-1]
      where = f'{pathlib.Path(last.filename).name}:{last.lineno}'
      raise TraceError(
        f'{error} (sweep {self.plan.name!r}, {where})'
      ) from error

  def run(
    self,
    missing: list[plan_lib.Block],
    reporter: progress.Silent,
  ) -> None:
    """Computes and saves this process's share of blocks; waits for the others.

    Args:
      missing: the blocks that have no usable chunk.
      reporter: is told of every finished block, whichever process computes it.
    """
    mine = self.share(missing)
    ours = set(itertools.chain.from_iterable(mine))
    others = [block for block in missing if block not in ours]
    for combination, same in itertools.groupby(
      mine, lambda group: group[0].combination
    ):
      same = list(same)
      label = self.plan.label(same[0][0])
      compiled = self.compile(same[0][0], reporter)
      code = self.store and self._program(combination)
      # Calls are asynchronous: while a group is written, the next one is computed.
      launched = (
        (group, compiled(self._lanes(group), self.shared)) for group in same
      )
      for group, outputs in _one_ahead(launched):
        self._finish(group, outputs, code, reporter, label)
        others = self.gather(others, reporter)
      self.drop(combination)
    self.wait(others, reporter)

  def share(self, missing: list[plan_lib.Block]) -> list[list[plan_lib.Block]]:
    """Returns the groups of blocks that this process computes."""
    groups = list(_groups(missing, self.num_devices))
    return groups[job.index() :: job.count()]

  def wait(
    self, blocks: list[plan_lib.Block], reporter: progress.Silent
  ) -> None:
    """Waits for blocks of other processes, and loads them as they appear."""
    while blocks := self.gather(blocks, reporter):
      time.sleep(_POLL)

  def gather(
    self, blocks: list[plan_lib.Block], reporter: progress.Silent
  ) -> list[plan_lib.Block]:
    """Loads the blocks of other processes that are on disk; returns the others."""
    if not blocks:
      return blocks
    # A sweep of several processes has a directory.
    assert self.store is not None
    self.store.refresh()
    waiting = []
    for block in blocks:
      try:
        found = self.store.load(block)
      except chunks.Damaged:  # An old chunk, which will be replaced.
        found = None
      if found is None or not _fits(self.table, found[0]):
        waiting.append(block)
      else:
        self.table.fill(block, found[0])
        reporter.advance(block.size, self.plan.label(block))
    return waiting

  def _finish(self, group, outputs, code, reporter, label) -> None:
    assert self.table.template is not None
    fetched = table_lib.host(outputs, self.table.template)
    for position, block in enumerate(group):
      start = position * self.plan.block_size
      lanes = slice(start, start + block.size)
      found = {name: array[lanes] for name, array in fetched.items()}
      if self.store is not None:
        self.store.save(block, found, code)
      self.table.fill(block, found)
      reporter.advance(block.size, label)

  def _lanes(self, group) -> dict[str, Any]:
    """Returns a group's lane values on the mesh; idle devices repeat its last block."""
    full = [*group, *[group[-1]] * (self.num_devices - len(group))]
    parts = [self.plan.traced(block, pad=True) for block in full]
    values = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
    if self.mesh is None:
      return values
    return jax.device_put(
      values, jax.sharding.NamedSharding(self.mesh, jax.P('lanes'))
    )


def load_blocks(task: Task) -> tuple[list[plan_lib.Block], int]:
  """Loads the blocks that are on disk into the table.

  Returns:
    The blocks that are missing, and how many of the loaded lanes other code computed.
  """
  assert task.store is not None
  task.store.refresh()
  missing, foreign = [], 0
  for block in task.plan.blocks:
    try:
      found = task.store.load(block)
      if found is not None and not _fits(task.table, found[0]):
        raise chunks.Damaged(f'{task.plan.label(block)} holds other outputs')
    except chunks.Damaged as problem:
      progress.say(f'{task.plan.name}: {problem}; computed again')
      found = None
    if found is None:
      missing.append(block)
      continue
    outputs, code = found
    task.table.fill(block, outputs)
    if not task.agrees(block, code):
      foreign += block.size
  return missing, foreign


def place(
  name: str,
  shared: Mapping[str, Any],
  batched: Mapping[str, int],
  mesh: jax.sharding.Mesh | None,
) -> dict[str, Any]:
  """Puts the shared inputs of the sweep ``name`` on the devices.

  Args:
    name: the sweep's name.
    shared: name -> pytree of arrays.
    batched: name of a shared input -> which of its axes is split over the mesh's
      axis `batch`.
    mesh: the devices; None for a single one.

  Returns:
    The shared inputs on the devices.

  Raises:
    BadInput: if ``batched`` names no shared input, or an input cannot be split as
      requested.
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
  """Yields groups of at most ``size`` blocks that share a program."""
  for _, same in itertools.groupby(blocks, lambda block: block.combination):
    same = list(same)
    for start in range(0, len(same), size):
      yield same[start : start + size]


def _one_ahead(items: Iterator[Any]) -> Iterator[Any]:
  """Yields the items, each only after the next one has been requested."""
  waiting = None
  for item in items:
    if waiting is not None:
      yield waiting
    waiting = item
  if waiting is not None:
    yield waiting
