"""Sweeps: one function at every point of a product of named axes, labelled.

A sweep is pure computation (`bitjax.lanes`) plus everything around it: one compiled
program for each combination of static values, blocks of lanes, a file for each
finished block so that a killed run loses at most one, and names on every axis of
the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import json
import os
import pathlib
from typing import TYPE_CHECKING, Any, Protocol

import jax

from bitjax import files
from bitjax import types
from bitjax.sweeps import chunks
from bitjax.sweeps import compute
from bitjax.sweeps import hosted
from bitjax.sweeps import job
from bitjax.sweeps import manifest
from bitjax.sweeps import plan as plan_lib
from bitjax.sweeps import progress
from bitjax.sweeps import table as table_lib
from bitjax.sweeps.compute import TraceError

if TYPE_CHECKING:
  import xarray

__all__ = ['DEFAULT_CHUNK', 'Run', 'Sweep', 'TraceError']

DEFAULT_CHUNK = 64


class Run(Protocol):
  """What a sweep asks of the run that owns its directory."""

  @property
  def resumes(self) -> bool:
    """Whether chunks of the same run may be there."""
    ...

  def identity(self, records: dict[str, Any]) -> Any:
    """What tells this run from others, as JSON knows it."""
    ...

  def check(self, records: dict[str, Any]) -> None:
    """Raises a `ValueError` if the run that is there recorded other facts."""
    ...

  def begin(self, records: dict[str, Any]) -> None:
    """Claims the directory, just before something is computed."""
    ...


class Sweep:
  """Runs sweeps, bound to a directory, devices, a chunk size and a report.

  Args:
    directory: where finished blocks are kept; None keeps nothing on disk.
    chunk: lanes between two saves, at most, on each device; None leaves it to
      the call.
    width: lanes that are vectorised at a time; None leaves it to the call.
    mesh: devices to use, with an axis 'lanes' and maybe an axis 'batch'; None
      for one.
    report: whether to show progress on standard error.
    run: the run that owns the directory; it is asked before anything is read,
      and told before anything is computed.
  """

  def __init__(
    self,
    directory: str | os.PathLike[str] | None = None,
    *,
    chunk: int | None = None,
    width: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    report: bool = False,
    run: Run | None = None,
  ):
    self._directory = None if directory is None else pathlib.Path(directory)
    self._chunk, self._width, self._mesh = chunk, width, mesh
    self._report, self._run = report, run
    self._records: dict[str, Any] = {}
    self._names: set[str] = set()

  @property
  def mesh(self) -> jax.sharding.Mesh | None:
    """The devices; None for one."""
    return self._mesh

  @property
  def records(self) -> dict[str, Any]:
    """The facts recorded so far."""
    return dict(self._records)

  def record(self, **facts: Any) -> None:
    """Adds facts to ``config.json`` that tell this run from others.

    A checksum of the data, for instance: a directory whose run recorded another
    one is refused.

    Args:
      **facts: values that JSON knows.

    Raises:
      RuntimeError: after the first sweep, which has already relied on them.
      TypeError: for values that JSON does not know.
    """
    if self._names:
      raise RuntimeError('record facts before the first sweep, not after it.')
    self._records |= json.loads(json.dumps(facts))

  def __call__(
    self,
    fn: Callable[..., dict[str, Any]],
    *,
    name: str,
    lanes: Mapping[str, Any],
    static: Mapping[str, Sequence[Any]] | None = None,
    shared: Mapping[str, Any] | None = None,
    batched: Mapping[str, int] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
    chunk: int | None = None,
    width: int | None = None,
  ) -> xarray.Dataset:
    """Returns ``fn(**static, **lane, **shared)`` for every point.

    ``fn`` is traced once for each combination of static values, and not at all
    where every block is found on the disk. A lane that diverges is stored as it
    is, counted and reported.

    Args:
      fn: keyword arguments -> dictionary, output name -> array of real numbers.
      name: names the sweep and its chunks; once in a run.
      lanes: axes of traced numbers, each a 1-D array.
      static: axes of strings, integers, floats or booleans.
      shared: large inputs that all points have in common: pytrees of arrays,
        arguments of the compiled program. They are part of a chunk's identity.
      batched: shared inputs that may be split over the mesh's axis 'batch', and
        which axis of their arrays holds the examples.
      dims: names of each output's own axes, for outputs that are not scalars.
      coords: labels along those axes.
      chunk: this sweep's default of the flag ``--chunk``.
      width: this sweep's default of the flag ``--width``.

    Returns:
      A dataset with axes (static, lanes, own); ``attrs['diverged']`` counts the
      lanes with any non-finite output, and each variable its own.

    Raises:
      ValueError: for axes, names or sizes that do not fit together.
      TypeError: if ``fn`` returns anything but a dictionary of real arrays.
    """
    clash = sorted({*(static or {}), *lanes} & set(shared or {}))
    if clash:
      raise types.BadInput(f'{clash[0]!r} is both an axis and a shared input.')
    inputs = compute.place(name, shared or {}, batched or {}, self.mesh)
    plan, width, store, resumes = self._plan(
      name, static, lanes, inputs, chunk or DEFAULT_CHUNK, width
    )
    table = table_lib.Table(plan, dims or {}, coords or {})
    task = compute.Task(fn, plan, width, inputs, self.mesh, table, store)
    self._fill(task, resumes)
    self._report_divergence(task)
    return table.dataset()

  def hosted(
    self,
    fn: Callable[..., dict[str, Any]],
    *,
    name: str,
    lanes: Mapping[str, Any],
    static: Mapping[str, Sequence[Any]] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
    chunk: int | None = None,
  ) -> xarray.Dataset:
    """Calls an ordinary Python function at every point; it is not traced.

    ``fn(folder=..., report=..., mesh=..., **static, **lanes)`` may train a network
    for hours. It gets a folder of its own, in which it may keep what it needs to
    resume; a `progress.Work` to report to; the devices; each static value; and for
    each lane axis a NumPy array with the values of the lanes of one chunk.

    Args:
      fn: keyword arguments -> dictionary, output name -> array of real numbers with
        a leading axis of those lanes.
      name: names the sweep, its chunks and folders; once in a run.
      lanes: axes of numbers, each a 1-D array.
      static: axes of strings, integers, floats or booleans.
      dims: names of each output's further axes.
      coords: labels along those axes.
      chunk: this sweep's default of the flag ``--chunk``, the lanes at a time; None
        for one on a CPU, as many as possible on an accelerator.

    Returns:
      A dataset with axes (static, lanes, own), as a call of the sweep.

    Raises:
      ValueError: for axes, names or sizes that do not fit together, or in a job
        of several processes.
      TypeError: if ``fn`` returns anything else.
    """
    if job.count() > 1:
      raise types.BadInput(
        f'each lane of {name!r} runs in one process: instead of a job, start one '
        'command for each part of --seeds, each with its own --out.'
      )
    if chunk is None:
      chunk = 1 if jax.default_backend() == 'cpu' else DEFAULT_CHUNK
    plan, _, store, resumes = self._plan(name, static, lanes, {}, chunk, None)
    table = table_lib.Table(plan, dims or {}, coords or {})
    folder = None
    if self._directory is not None:
      folder = self._directory / hosted.FOLDER / name
    task = hosted.HostTask(
      fn,
      plan,
      None,
      {},
      self.mesh,
      table,
      store,
      folder=folder,
      report=self._report,
    )
    missing = compute.load(task) if store and resumes else plan.blocks
    if missing:
      self._begin(task)
      task.run_all(missing)
    elif self._report:
      progress.say(f'{plan.name}: {plan.total} lanes, all done before')
    self._seal(task, bool(missing))
    self._report_divergence(task)
    return table.dataset()

  def _plan(self, name, static, lanes, inputs, chunk, width):
    """The lanes, where their chunks are kept, and whether any may be used."""
    if name in self._names:
      raise types.BadInput(f'two sweeps of one run are named {name!r}.')
    chunk, width = self._chunk or chunk, self._width or width
    plan = plan_lib.make(name, static or {}, lanes, chunk=chunk, width=width)
    if self._directory is None and job.count() > 1:
      raise types.BadInput('a sweep of several processes needs a directory.')
    self._names.add(name)
    store = None
    if self._directory is not None:
      store = chunks.Store(
        self._directory, plan, chunks.digest(inputs), self._configuration()
      )
    plan, width, resumes = self._settle(plan, width, store)
    return plan, width, store, resumes

  def _configuration(self) -> Any:
    """What tells the chunks of this run from those of others."""
    return None if self._run is None else self._run.identity(self._records)

  def _settle(self, plan, width, store):
    """How the lanes are cut, and whether chunks that are there may be used.

    A sweep goes on as it began, whatever the flags say now: else it would end in
    a mixture, and lose what it has.
    """

    def choose():
      if self._run is not None:
        self._run.check(self._records)
      resumes = store is not None and (self._run is None or self._run.resumes)
      found = manifest.read(store.folder) if resumes else None
      if found is None:
        return plan.block, width, resumes
      if not manifest.matches(found, store):
        progress.say(
          f'{plan.name}: {store.folder} holds other lanes; computed again'
        )
        return plan.block, width, resumes
      if (found['block'], found['width']) != (plan.block, width):
        progress.say(
          f'{plan.name}: goes on as it began, {found["block"]} lanes in a chunk, '
          f'{found["width"] or "the default number"} vectorised'
        )
      return found['block'], found['width'], resumes

    block, width, resumes = job.decide(choose)
    plan = dataclasses.replace(plan, block=block)
    if store is not None:
      store.plan = plan
    return plan, width, resumes

  def _fill(self, task: compute.Task, resumes: bool) -> None:
    """Loads the blocks that are on disk and computes the others."""
    plan = task.plan
    first, reports = job.index() == 0, self._report and job.index() == 0
    everything = range(len(plan.blocks))

    def look():
      if not resumes:
        return list(everything)
      missing = set(compute.load(task))
      return [i for i in everything if plan.blocks[i] in missing]

    missing = [plan.blocks[i] for i in job.decide(look)]
    if missing:
      # Traced before anything is written: what it raises is often bad input.
      traced = task.trace(missing[0])
      template = table_lib.template_of(traced.out_info)
      changed = task.table.template not in (None, template)
      if task.table.template != template:
        task.table.use(template)

      def begin():
        if changed:
          progress.say(
            f'{plan.name}: chunks hold other outputs; computed again'
          )
        self._begin(task)
        return changed

      if job.decide(begin):
        missing, traced = plan.blocks, task.trace(plan.blocks[0])
      reporter: progress.Silent = progress.Silent()
      if reports:
        done = plan.total - sum(block.size for block in missing)
        reporter = progress.reporter(plan.name, plan.total, done)
        _report_idle(task)
      try:
        task.run(missing, traced, reporter)
      finally:
        reporter.close()
    elif reports:
      progress.say(f'{plan.name}: {plan.total} lanes, all done before')
    if not first:  # Process 0 has them already.
      computed = set(missing)
      loaded = [block for block in plan.blocks if block not in computed]
      task.wait(loaded, progress.Silent())

    job.decide(lambda: self._seal(task, bool(missing)))

  def _seal(self, task: compute.Task, computed: bool) -> None:
    """Says in the manifest that every block is there."""
    store = task.store
    if store is not None and not manifest.complete(store.folder):
      if not computed:
        self._begin(task)
      store.refresh()
      manifest.write(store, task.width, complete=True)

  def _begin(self, task: compute.Task) -> None:
    """Claims the directory, just before something is computed."""
    if self._run is not None:
      self._run.begin(self._records)
    if task.store is not None:
      folder = task.store.folder
      folder.mkdir(parents=True, exist_ok=True)
      files.remove_partial(folder)
      task.store.refresh()
      manifest.write(task.store, task.width, complete=False)

  def _report_divergence(self, task: compute.Task) -> None:
    total, counts = task.table.diverged()
    if total and job.index() == 0:
      which = ', '.join(f'{k} {v}' for k, v in counts.items() if v)
      progress.say(
        f'{task.plan.name}: {total} of {task.plan.total} lanes have outputs that '
        f'are not finite ({which})'
      )


def _report_idle(task: compute.Task) -> None:
  blocks = len(task.plan.blocks) // len(task.plan.combinations)
  if blocks < task.num_devices:
    progress.say(
      f'{task.plan.name}: {blocks} chunks for each program leave some of '
      f'{task.num_devices} devices idle; a smaller --chunk uses them'
    )
