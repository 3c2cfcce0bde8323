"""Runs one function at every point of a product of named axes, and labels the results.

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
from typing import TYPE_CHECKING, Any

import jax

from bitjax import extras
from bitjax import files
from bitjax import memory
from bitjax import types
from bitjax.sweeps import chunks
from bitjax.sweeps import compute
from bitjax.sweeps import hosted
from bitjax.sweeps import job
from bitjax.sweeps import manifest
from bitjax.sweeps import origin as origin_lib
from bitjax.sweeps import plan as plan_lib
from bitjax.sweeps import progress
from bitjax.sweeps import run as run_lib
from bitjax.sweeps import table as table_lib
from bitjax.sweeps import width as width_lib
from bitjax.sweeps.compute import TraceError

if TYPE_CHECKING:
  import xarray

__all__ = ['DEFAULT_CHUNK', 'Sweep', 'TraceError']

DEFAULT_CHUNK = 64


class Sweep:
  """Runs sweeps, all with the same directory, devices, chunk size and width.

  Args:
    directory: where finished blocks are kept; None keeps nothing on disk.
    chunk: the most lanes between two saves on each device; None leaves it to the
      call.
    width: lanes that are vectorised at a time; None leaves it to the call, and then to
      the memory budget (see `bitjax.memory`): 1 on a CPU, as many as fit on an
      accelerator.
    mesh: devices to use, with an axis 'lanes' and perhaps an axis 'batch'; None
      for a single one.
    report: whether to show progress on standard error.
    run: the run that owns the directory; ``check`` is called before anything is read,
      and ``begin`` before anything is computed.
    accept_other_code: whether to go on with chunks that other code computed;
      `other_code` then says which.
  """

  def __init__(
    self,
    directory: str | os.PathLike[str] | None = None,
    *,
    chunk: int | None = None,
    width: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    report: bool = False,
    run: run_lib.Run | None = None,
    accept_other_code: bool = False,
  ):
    self._directory = None if directory is None else files.expand(directory)
    self._chunk, self._width, self._mesh = chunk, width, mesh
    self._report, self._run = report, run
    self._accept = accept_other_code
    self._origins: list[origin_lib.Origin] = []
    self._records: dict[str, Any] = {}
    self._names: set[str] = set()

  @property
  def mesh(self) -> jax.sharding.Mesh | None:
    """The devices that sweeps use; None for a single one."""
    return self._mesh

  @property
  def records(self) -> dict[str, Any]:
    """The facts recorded so far."""
    return dict(self._records)

  @property
  def other_code(self) -> list[str]:
    """Sentences, one for each sweep so far that goes on with chunks of other code."""
    return [origin.mark for origin in self._origins if origin.mark]

  def record(self, **facts: Any) -> None:
    """Adds facts to ``config.json`` that distinguish this run from others.

    A checksum of the data is such a fact: a directory whose run recorded another
    checksum is refused.

    Args:
      **facts: JSON values.

    Raises:
      RuntimeError: after the first sweep, which has already relied on the facts.
      TypeError: for values that JSON cannot represent.
    """
    if self._names:
      raise RuntimeError('record facts before the first sweep, not after it.')
    self._records |= json.loads(files.json_text(facts))

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

    ``fn`` is traced once for each combination of static values, whose program is
    compared with that of the blocks on the disk; nothing is compiled if every block
    is found. A lane that diverges is stored as it is, counted and reported.

    Args:
      fn: keyword arguments -> dictionary, output name -> array of real numbers.
      name: name of the sweep and its chunks, unique in a run.
      lanes: axes of traced numbers, each a 1-D array.
      static: axes of strings, integers, floats or booleans.
      shared: large inputs that all points have in common: pytrees of arrays,
        arguments of the compiled program. They are part of a chunk's identity.
      batched: name of a shared input that may be split over the mesh's axis 'batch'
        -> which axis of its arrays holds the examples.
      dims: names of each output's own axes, for outputs that are not scalars.
      coords: labels along those axes.
      chunk: this sweep's default of the flag ``--chunk``.
      width: this sweep's default of the flag ``--width``.

    Returns:
      A dataset with axes (static, lanes, own); its ``attrs['diverged']`` counts the
      lanes with any non-finite output, and that of each variable counts the lanes
      where this variable is not finite.

    Raises:
      BadInput: for axes, names or sizes that do not fit together, or if other code
        computed some of the chunks.
      TypeError: if ``fn`` returns anything but a dictionary of real arrays.
    """
    clash = sorted({*(static or {}), *lanes} & set(shared or {}))
    if clash:
      raise types.BadInput(f'{clash[0]!r} is both an axis and a shared input.')
    inputs = compute.place(name, shared or {}, batched or {}, self.mesh)
    limit = width_lib.limit()
    plan, width, store, origin, resumes, limit = self._plan(
      name, static, lanes, inputs, chunk or DEFAULT_CHUNK, width, limit
    )
    table = table_lib.Table(plan, dims or {}, coords or {})
    task = compute.Task(
      fn, plan, width, inputs, self.mesh, table, store, origin, limit
    )
    with memory.limited(limit):
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
    spread: bool = False,
  ) -> xarray.Dataset:
    """Calls an ordinary Python function at every point, without tracing it.

    ``fn(folder=..., report=..., mesh=..., **static, **lanes)`` may train a network
    for hours. Each call receives a folder of its own, in which it may keep what it
    needs to resume (None without a directory); a ``progress.Work`` to report to; the
    devices; each static value; and, for each lane axis, a NumPy array with the values
    of the lanes of one chunk.

    Args:
      fn: keyword arguments -> dictionary, output name -> array of real numbers with
        a leading axis of those lanes.
      name: name of the sweep, its chunks and folders, unique in a run.
      lanes: axes of numbers, each a 1-D array.
      static: axes of strings, integers, floats or booleans.
      dims: names of each output's further axes.
      coords: labels along those axes.
      chunk: this sweep's default of the flag ``--chunk``, the most lanes in one call
        of ``fn``; None for 1 on a CPU and ``DEFAULT_CHUNK`` on an accelerator.
      spread: whether the processes of a job share the calls; not for an ``fn`` that
        saves anything together with other processes, as Orbax does.

    Returns:
      A dataset with axes (static, lanes, own), as calling the sweep returns it.

    Raises:
      BadInput: for axes, names or sizes that do not fit together, in a job without
        ``spread``, or if other code computed some of the chunks or began one.
      TypeError: if ``fn`` returns anything but such a dictionary.
    """
    if job.count() > 1 and not spread:
      raise types.BadInput(
        f'each lane of {name!r} runs in one process: instead of a job, start one '
        'command for each part of --seeds, each with its own --out.'
      )
    chunk = chunk or (1 if jax.default_backend() == 'cpu' else DEFAULT_CHUNK)
    plan, _, store, origin, resumes, _ = self._plan(
      name, static, lanes, {}, chunk, None, None
    )
    folder = self._directory and self._directory / hosted.FOLDER / name
    task = hosted.HostTask(
      fn,
      plan,
      None,
      {},
      self.mesh,
      table_lib.Table(plan, dims or {}, coords or {}),
      store,
      origin,
      None,  # A training is the same in every budget that it fits in.
      folder=folder,
      report=self._report and job.index() == 0,
    )
    missing = self._missing(task, store is not None and resumes)
    if missing:
      job.decide(lambda: self._begin(task))
      task.run_all(missing)
    elif task.report:
      progress.say(f'{plan.name}: {plan.total} lanes, all done before')
    self._end(task, missing)
    self._report_divergence(task)
    return task.table.dataset()

  def _plan(self, name, static, lanes, inputs, chunk, width, limit):
    """Returns plan, width, store, origin, whether the store may be used, and the limit."""
    extras.check('a sweep', 'xarray')
    if name in self._names:
      raise types.BadInput(f'two sweeps of one run are named {name!r}.')
    chunk, width = self._chunk or chunk, self._width or width
    plan = plan_lib.make(name, static or {}, lanes, chunk=chunk, width=width)
    if self._directory is None and job.count() > 1:
      raise types.BadInput('a sweep of several processes needs a directory.')
    self._names.add(name)
    store = folder = None
    if self._directory is not None:
      identity = self._run and self._run.identity(self._records)
      digest = chunks.digest(inputs)
      store = chunks.Store(self._directory, plan, digest, identity)
      folder = store.folder
    code = None if self._run is None else self._run.code
    origin = origin_lib.Origin(folder, code, self._accept)
    self._origins.append(origin)
    plan, width, resumes, limit = self._settle(
      plan, width, limit, store, origin
    )
    return plan, width, store, origin, resumes, limit

  def _settle(self, plan, width, limit, store, origin):
    """Decides how the lanes are cut, and whether existing chunks may be used.

    A sweep keeps the block size, width and memory budget that it began with, whatever
    the flags say now: otherwise it would lose finished chunks, and mix lanes of
    different widths. On an accelerator, one without a chunk begins anew.
    """

    def choose():
      if self._run is not None:
        self._run.check(self._records)
      resumes = store is not None and (self._run is None or self._run.resumes)
      found = manifest.read(store.folder) if resumes else None
      if resumes:
        origin.look()
      if found is not None and not manifest.matches(found, store):
        progress.say(
          f'{plan.name}: {store.folder} holds other lanes; computed again'
        )
        found = None
      if found and limit is not None and not chunks.names(store.folder):
        found = None  # Its budget may have been too small.
      if found is None:
        return plan.block_size, width, resumes, limit
      began = found['block'], found['width'], found.get('memory')
      if began != (plan.block_size, width or found['width'], limit):
        progress.say(
          f'{plan.name}: goes on as it began, {began[0]} lanes in a chunk, '
          f'{began[1] or "the default number"} vectorised'
          + (f', with {memory.shown(began[2])}' if began[2] else '')
        )
      return began[0], began[1], resumes, began[2]

    block_size, width, resumes, limit = job.decide(choose)
    plan = dataclasses.replace(plan, block_size=block_size)
    if store is not None:
      store.plan = plan
    return plan, width, resumes, limit

  def _fill(self, task: compute.Task, resumes: bool) -> None:
    """Loads the blocks that are on disk and computes the others."""
    plan = task.plan
    reports = self._report and job.index() == 0
    chosen = width_lib.choose(task)
    missing = self._missing(task, resumes)
    if missing:
      # Trace before anything is written: errors of tracing are often bad input.
      template = table_lib.template_of(task.trace(missing[0]).out_info)
      if task.table.template not in (None, template):
        raise types.BadInput(
          f'the chunks of {plan.name!r} that other code computed hold other '
          'outputs, so that they cannot be accepted; use --overwrite.'
        )
      if task.table.template is None:
        task.table.use(template)
      job.decide(lambda: self._begin(task))
      reporter: progress.Silent = progress.Silent()
      if reports:
        done = plan.total - sum(block.size for block in missing)
        reporter = progress.reporter(plan.name, plan.total, done)
      try:
        width_lib.fit(task, missing, chosen, reporter)
        if chosen:  # It may have been narrowed.
          job.decide(lambda: self._begin(task))
        if reports:
          width_lib.report(task)
        task.run(missing, reporter)
      finally:
        reporter.close()
    elif reports:
      progress.say(f'{plan.name}: {plan.total} lanes, all done before')
    self._end(task, missing)

  def _missing(self, task: compute.Task, resumes: bool) -> list[plan_lib.Block]:
    """Loads the blocks that are on disk, in process 0; returns the others."""
    plan = task.plan

    def look():
      if not resumes:
        return list(range(len(plan.blocks)))
      found, foreign = compute.load_blocks(task)
      # What other code began must not go on either.
      if isinstance(task, hosted.HostTask) and task.origin.changes:
        foreign += task.begun(found)
      task.origin.admit(plan.name, foreign, plan.total)
      waiting = set(found)
      return [i for i, block in enumerate(plan.blocks) if block in waiting]

    return [plan.blocks[i] for i in job.decide(look)]

  def _end(self, task: compute.Task, missing: list[plan_lib.Block]) -> None:
    """Marks the sweep as complete, once every process has all of it."""
    if job.index():  # Only process 0 has loaded finished blocks.
      task.wait([*{*task.plan.blocks} - {*missing}], progress.Silent())
    job.decide(lambda: self._seal(task, bool(missing)))

  def _seal(self, task: compute.Task, computed: bool) -> None:
    """Marks the sweep as complete in its manifest, unless it is already."""
    store = task.store
    if store is None:
      return
    if not manifest.complete(store.folder):
      if not computed:
        self._begin(task)
      store.refresh()
      task.origin.write()  # More may have been loaded since it began.
      manifest.write(store, task.width, task.limit, complete=True)

  def _begin(self, task: compute.Task) -> None:
    """Claims the directory and writes the manifest, before something is computed."""
    if self._run is not None:
      self._run.begin(self._records)
    if task.store is not None:
      folder = task.store.folder
      folder.mkdir(parents=True, exist_ok=True)
      files.remove_partial(folder)
      task.store.refresh()
      task.origin.write()
      manifest.write(task.store, task.width, task.limit, complete=False)

  def _report_divergence(self, task: compute.Task) -> None:
    total, counts = task.table.diverged()
    if total and job.index() == 0:
      which = ', '.join(f'{k} {v}' for k, v in counts.items() if v)
      progress.say(
        f'{task.plan.name}: {total} of {task.plan.total} lanes have outputs that '
        f'are not finite ({which})'
      )
