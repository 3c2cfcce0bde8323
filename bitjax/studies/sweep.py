"""Sweeps: one function at every point of a product of named axes, labelled.

A sweep is pure computation (`bitjax.lanes`) plus everything around it: one compiled
program for each combination of static values, blocks of lanes, a file for each
finished block so that a killed run loses at most one, and names on every axis of
the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import functools
import itertools
import json
import os
import pathlib
import traceback
from typing import TYPE_CHECKING, Any

import jax

from bitjax import lanes as lanes_lib
from bitjax.studies import chunks
from bitjax.studies import files
from bitjax.studies import plan as plan_lib
from bitjax.studies import progress
from bitjax.studies import table as table_lib

if TYPE_CHECKING:
  import xarray

  from bitjax.studies import rundir

__all__ = ['DEFAULT_CHUNK', 'Sweep', 'TraceError']

DEFAULT_CHUNK = 64


class TraceError(ValueError):
  """A `ValueError` that a sweep's function raised while it was traced."""


class Sweep:
  """Runs sweeps, bound to a directory, a chunk size and a progress report.

  Args:
    directory: where finished blocks are kept; None keeps nothing on disk.
    chunk: lanes between two saves, at most; None leaves it to the call.
    width: lanes that are vectorised at a time; None leaves it to the call.
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
    report: bool = False,
    run: rundir.RunDirectory | None = None,
  ):
    self._directory = None if directory is None else pathlib.Path(directory)
    self._chunk, self._width = chunk, width
    self._report, self._run = report, run
    self._records: dict[str, Any] = {}
    self._names: set[str] = set()

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
    if name in self._names:
      raise ValueError(f'two sweeps of one run are named {name!r}.')
    inputs = jax.device_put(dict(shared or {}))
    chunk = self._chunk or chunk or DEFAULT_CHUNK
    width = self._width or width
    plan = plan_lib.make(name, static or {}, lanes, chunk=chunk, width=width)
    clash = sorted(set(plan.dims) & set(inputs))
    if clash:
      raise ValueError(f'{clash[0]!r} is both an axis and a shared input.')
    self._names.add(name)
    table = table_lib.Table(plan, dims or {}, coords or {})
    trace = functools.partial(_trace, fn, plan, width, inputs)
    self._fill(plan, table, trace, inputs)
    _report_divergence(plan, table)
    return table.dataset()

  def _fill(self, plan, table, trace, shared) -> None:
    """Loads the blocks that are on disk and computes the others."""
    store = None
    if self._run is not None:
      self._run.check(self._records)
    if self._directory is not None:
      store = chunks.Store(self._directory, plan, chunks.digest(shared))
    resumes = store is not None and (self._run is None or self._run.resumes)
    missing = _load(plan, table, store) if resumes else plan.blocks
    if not missing:
      if self._report:
        progress.say(f'{plan.name}: {plan.total} lanes, all done before')
      return

    # Traced before anything is written: what it raises is often bad input.
    traced = trace(missing[0])
    template = table_lib.template_of(traced.out_info)
    if table.template != template:
      if table.template is not None:
        progress.say(f'{plan.name}: chunks hold other outputs; computed again')
        missing, traced = plan.blocks, trace(plan.blocks[0])
      table.use(template)
    if self._run is not None:
      self._run.begin(self._records)
    if store is not None:
      store.folder.mkdir(parents=True, exist_ok=True)
      files.remove_partial(store.folder)

    reporter: progress.Silent = progress.Silent()
    if self._report:
      done = plan.total - sum(block.size for block in missing)
      reporter = progress.reporter(plan.name, plan.total, done)
    try:
      _compute(plan, table, store, missing, (trace, traced), shared, reporter)
    finally:
      reporter.close()


def _load(plan, table, store) -> list[plan_lib.Block]:
  """Fills in the blocks that are on disk; returns the others."""
  missing = []
  for block in plan.blocks:
    try:
      outputs = store.load(block)
      known = table.template
      if outputs is not None and known is not None:
        found = {k: (v.shape[1:], v.dtype) for k, v in outputs.items()}
        if found != known:
          raise chunks.Damaged('holds other outputs')
    except chunks.Damaged as problem:
      path = store.path(block)
      progress.say(f'{plan.name}: {path} {problem}; computed again')
      outputs = None
    if outputs is None:
      missing.append(block)
    else:
      table.fill(block, outputs)
  return missing


def _compute(plan, table, store, missing, program, shared, reporter) -> None:
  """Computes, saves and fills in the missing blocks."""
  trace, traced = program
  template = table.template
  for combination, blocks in itertools.groupby(
    missing, lambda block: block.combination
  ):
    blocks = list(blocks)
    label = plan.label(blocks[0])
    if combination != missing[0].combination:
      traced = trace(blocks[0])
    if table_lib.template_of(traced.out_info) != template:
      raise TypeError(
        f'the outputs of the sweep {plan.name!r} must have the same names, '
        f'shapes and dtypes everywhere; they differ for {label}.'
      )
    reporter.compiling(label)
    compiled = traced.lower().compile()
    for block in blocks:
      outputs = compiled(plan.traced(block, pad=True), shared)
      fetched = table_lib.host(outputs, template, block.size)
      if store is not None:
        store.save(block, fetched)
      table.fill(block, fetched)
      reporter.advance(block.size, label)


def _trace(fn, plan, width, shared, block) -> jax.stages.Traced:
  """Traces the program of a block's static combination."""
  bound = functools.partial(fn, **plan.combinations[block.combination])

  def program(lane, shared):
    return lanes_lib.each(bound, lane, width=width, shared=shared)

  program.__name__ = program.__qualname__ = plan.name
  try:
    return jax.jit(program).trace(plan.traced(block, pad=True), shared)
  except ValueError as error:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if 'site-packages' not in frame.filename]
    where = f'{pathlib.Path(ours[-1].filename).name}:{ours[-1].lineno}'
    raise TraceError(f'{error} (sweep {plan.name!r}, {where})') from error


def _report_divergence(plan, table) -> None:
  total, counts = table.diverged()
  if total:
    which = ', '.join(f'{k} {v}' for k, v in counts.items() if v)
    progress.say(
      f'{plan.name}: {total} of {plan.total} lanes have outputs that are not '
      f'finite ({which})'
    )
