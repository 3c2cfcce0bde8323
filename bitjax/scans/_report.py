"""Tells a caller how far a compiled loop is.

A public function decorated with `reports` receives the caller's ``report`` as a
`Progress`: a pytree that it passes on to its loops, cut into a `part` for each of
several passes. The loops send whole per cents to the host, which calls the function. A
`Progress` holds arrays only, so one compiled program serves every ``report``, and None
adds nothing to a program.

Callbacks are not ordered, as ordered ones work neither under ``vmap`` nor on several
devices; the host drops what comes late.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import itertools
import logging
import threading
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import lanes
from bitjax import types

__all__ = [
  'Progress',
  'Report',
  'each',
  'numbers',
  'part',
  'reports',
  'scan',
  'tick',
]

Report = Callable[[float], None]
_P = ParamSpec('_P')
_R = TypeVar('_R')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Progress:
  """Whose work is being done, and which part of it.

  Attributes:
    run: number of the run, int32.
    start: share of the whole work that is done before the part, float32.
    stop: share of the whole work that is done after the part, float32.
  """

  run: Any
  start: Any
  stop: Any


class _Run:
  """The host's side of a run: the function to call, and what it was told."""

  def __init__(self, report: Report):
    self._report = report
    self._lock = threading.Lock()
    self._told = 0
    self.error: BaseException | None = None

  def hear(self, percent: int) -> None:
    """Calls the function, unless it was told as much before, or has raised."""
    with self._lock:
      if self.error is None and percent > self._told:
        self._told = percent
        try:
          self._report(percent / 100)
        except BaseException as error:
          self.error = error
          logging.getLogger(__name__).error(
            'report raised an exception and is not called again; the scan goes on.',
            exc_info=error,
          )
      if percent == 100:  # The same compiled program may run once more.
        self._told, self.error = 0, None


_RUNS: dict[int, _Run] = {}
_NUMBERS = itertools.count()


def reports(fn: Callable[_P, _R]) -> Callable[_P, _R]:
  """Makes a function call its keyword argument ``report`` while it computes.

  The function itself receives a `Progress`, or None. A `Progress` from a function that
  is made of others is passed on as it is.

  What ``report`` raises is logged at once, and raised when the result is there: a
  device that stops while others wait for it would end the process. A traced function
  has no end on the host. It only logs, and its program says itself that it is done.
  """

  @functools.wraps(fn)
  def told(*args: _P.args, **kwargs: _P.kwargs) -> _R:
    report: Any = kwargs.get('report')
    if report is None or isinstance(report, Progress):
      return fn(*args, **kwargs)
    if not callable(report):
      raise types.BadInput(
        'report must be a function of the share that is done, such as print, or '
        f'None; got {types.shown(report)}.'
      )
    number, run = next(_NUMBERS), _Run(report)
    progress = Progress(np.int32(number), np.float32(0), np.float32(1))
    kwargs['report'] = progress
    _RUNS[number] = run
    traced = []
    try:
      result = fn(*args, **kwargs)
      leaves = jax.tree.leaves(result)
      traced = [leaf for leaf in leaves if isinstance(leaf, jax.core.Tracer)]
      if not traced:
        jax.block_until_ready(leaves)
        jax.effects_barrier()
    finally:
      # A program that is being traced needs it for as long as it may run.
      if not traced:
        del _RUNS[number]
    if traced:
      _send(progress, jnp.int32(100), jnp.int32(0), after=traced)
    elif run.error is not None:
      raise run.error
    else:
      report(1.0)
    return result

  return told


def part(report: Any, number: Any, total: int) -> Any:
  """Returns the progress of part ``number`` (from 0) of ``total`` equal parts."""
  if report is None:
    return None
  return Progress(
    report.run, _share(report, number, total), _share(report, number + 1, total)
  )


def numbers(report: Any, start: int, stop: int) -> types.Array | None:
  """Returns numbers of parts, to be scanned over; None for no report."""
  return None if report is None else jnp.arange(start, stop)


def tick(report: Any, done: Any, total: Any, by: int = 1) -> None:
  """Says that ``done`` of ``total`` steps are done, if that is a new per cent.

  To be called at the start of a loop's body. Under ``vmap`` the lane that is behind
  counts, under ``shard_map`` the first device.

  Args:
    report: the progress of the loop; None for no report.
    done: number of steps that are done; may be traced.
    total: number of steps in all; may be traced.
    by: how many steps were done since the last call.
  """
  if report is None:
    return
  now, before = (_percent(report, n, total) for n in (done, done - by))
  _send(report, now, before)


def scan(
  report: Any,
  body: Callable[[Any, Any], tuple[Any, Any]],
  begin: Any,
  xs: Any,
  length: int | None = None,
) -> tuple[Any, Any]:
  """Does what `jax.lax.scan` does, and says how many steps are done."""
  if report is None:
    return jax.lax.scan(body, begin, xs, length)
  total = jax.tree.leaves(xs)[0].shape[0] if length is None else length

  def step(carry, numbered):
    number, x = numbered
    tick(report, number, total)
    return body(carry, x)

  return jax.lax.scan(step, begin, (numbers(report, 0, total), xs))


def each(
  report: Any,
  fn: Callable[..., Any],
  points: lanes.Lanes,
  *,
  width: int | None = None,
) -> Any:
  """Does what `lanes.each` does, and says how many lanes are done."""
  if report is None:
    return lanes.each(fn, points, width=width)
  total = next(iter(points.values())).shape[0]

  def numbered(lane_number, **lane):
    tick(report, lane_number, total)
    return fn(**lane)

  points = {'lane_number': jnp.arange(total), **points}
  return lanes.each(numbered, points, width=width)


def _share(report, number, total):
  """Returns the share of the whole work at step ``number`` of a part, float32."""
  number, total, start, stop = (
    jnp.asarray(x).astype(jnp.float32)
    for x in (number, total, report.start, report.stop)
  )
  return start + (stop - start) * number / total


def _percent(report, number, total):
  """Returns whole per cents at step ``number``, int32: at most 99 in a loop."""
  percent = 100 * _share(report, number, total) + 1e-3  # Which may be rounded.
  return jnp.clip(percent, 0, 99).astype(jnp.int32)


def _send(report, now, before, after=()):
  """Sends ``now`` to the host, if it exceeds ``before`` and ``after`` is there."""
  if axes := jax.sharding.get_abstract_mesh().manual_axes:  # Of a `shard_map`.
    before = jnp.where(jax.lax.axis_index(axes) == 0, before, now)
  # A barrier would not do: XLA removes it before it schedules.
  sums = [jnp.sum(leaf).astype(jnp.float32) for leaf in after]
  _call_host(jnp.asarray(report.run), now, before, *sums)


@jax.custom_batching.custom_vmap
def _call_host(run, now, before, *after):
  jax.lax.cond(
    now > before,
    lambda: jax.debug.callback(_hear, run, now, *after),
    lambda: None,
  )
  return ()


@_call_host.def_vmap
def _call_host_once(size, batched, *args):
  """Sends what the lane that is behind would send."""
  del size
  one = [
    jnp.min(x, axis=0) if is_batched else x
    for x, is_batched in zip(args, batched, strict=True)
  ]
  return _call_host(*one), ()


def _hear(run, percent, *after):
  del after  # It only had to be there.
  if (found := _RUNS.get(int(run))) is not None:
    found.hear(int(percent))
