"""Jobs of several processes, on one machine or on several.

JAX's distributed runtime starts the processes of a job together, and ends all of them
when one is lost. A sweep divides its blocks among them and needs nothing else: each
process computes on its own devices and writes its own chunks into the directory that
all of them see. Process 0 takes every decision that must be taken once.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import json
import threading
from typing import Any, NoReturn

import jax
import numpy as np

from bitjax import process
from bitjax import types
from bitjax.sweeps import meeting

__all__ = ['Lost', 'count', 'decide', 'index', 'join', 'leave']

_GRACE = 5.0  # Seconds that a failing process waits for the others to end.


class Lost(RuntimeError):
  """Raised when another process of the job has stopped."""


def join(
  coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
  """Makes this process part of a job; call it before any computation.

  Args:
    coordinator: HOST:PORT of process 0; 'auto' if the cluster's environment
      says everything (SLURM, Open MPI, GKE, Cloud TPU); None for no job.
    num_processes: number of processes of the job.
    process_id: index of this process, from 0.

  Raises:
    BadInput: unless the three fit together, or if the job does not form.
  """
  numbers = {'num_processes': num_processes, 'process_id': process_id}
  given = [name for name, number in numbers.items() if number is not None]
  if coordinator is None or coordinator == 'auto':
    if given:
      raise types.BadInput(
        f'{given[0]} needs coordinator_address=HOST:PORT; got {coordinator}.'
      )
    if coordinator is None:
      return
    try:
      jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
      raise types.BadInput(
        'coordinator_address=auto finds no job in the environment '
        f'({error}); give coordinator_address=HOST:PORT, num_processes and '
        'process_id.'
      ) from error
    return
  host, _, port = coordinator.rpartition(':')
  digits = port.isascii() and port.isdigit()
  if not host or not digits or not 0 < int(port) < 1 << 16:
    raise types.BadInput(
      f"coordinator_address must be HOST:PORT or 'auto'; got {coordinator!r}."
    )
  if num_processes is None or process_id is None:
    raise types.BadInput(
      'coordinator_address=HOST:PORT needs num_processes and process_id.'
    )
  if num_processes < 1 or not 0 <= process_id < num_processes:
    raise types.BadInput(
      'num_processes must be >= 1 and process_id from 0 to num_processes - 1; '
      f'got {num_processes} and {process_id}.'
    )
  meeting.meet(coordinator, num_processes, process_id)
  try:
    jax.distributed.initialize(
      coordinator,
      num_processes,
      process_id,
      cluster_detection_method='deactivate',
    )
  except RuntimeError as error:
    raise types.BadInput(
      f'the job at {coordinator} did not form: {error}'
    ) from error


def index() -> int:
  """Returns the index of this process in its job, 0 without a job."""
  return jax.process_index() if jax.distributed.is_initialized() else 0


def count() -> int:
  """Returns the number of processes of the job, 1 without a job."""
  return jax.process_count() if jax.distributed.is_initialized() else 1


def decide(choose: Callable[[], Any]) -> Any:
  """Lets process 0 choose for all, once every process has made this call.

  Args:
    choose: called by process 0 only; returns a JSON value.

  Returns:
    The choice, in every process.

  Raises:
    types.BadInput: if ``choose`` raised it or an ``OSError``. Process 0 raises the
      original error.
    Lost: if another process has stopped.
  """
  if count() == 1:
    return choose()
  _tell(None)
  value, problem = None, None
  if index() == 0:
    try:
      value = choose()
    except (types.BadInput, OSError) as error:
      problem = error
  said = _tell({'value': value, 'problem': problem and str(problem)})
  if problem is not None:
    raise problem
  if said['problem'] is not None:
    raise types.BadInput(said['problem'])
  return said['value']


def leave(status: int) -> NoReturn:
  """Ends a process, and its part in a job.

  A process that has failed waits only shortly for the others: an ordinary end of a job
  waits until all are done, but they may be waiting for this one's chunks.
  """
  if jax.distributed.is_initialized():
    if status:
      timer = threading.Timer(_GRACE, process.leave, [status])
      timer.daemon = True
      timer.start()
    with contextlib.suppress(RuntimeError):
      jax.distributed.shutdown()
  process.leave(status)


def _tell(message: Any) -> Any:
  """Sends the message of process 0 to all processes, and returns it."""
  from jax.experimental import multihost_utils

  content = np.frombuffer(json.dumps(message).encode(), np.uint8)
  try:
    size = multihost_utils.broadcast_one_to_all(np.int32(content.size))
    padded = np.resize(content, int(size))
    told = multihost_utils.broadcast_one_to_all(padded)
  except jax.errors.JaxRuntimeError as error:
    raise Lost('another process of the job has stopped') from error
  return json.loads(np.asarray(told).tobytes())
