"""Kills a run over and over, and says whether it ends as if nothing had happened.

Each run is a process of its own, forked before JAX is used. It is killed (SIGKILL) at a
random moment, or inside the write of a chunk or a manifest: with half of it written,
with all of it written but not renamed, or just after the renaming. Then the same
command resumes it.

  python -m bitjax.studies.scaling.soak DIRECTORY 50
"""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import fnmatch
import importlib
import io
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time
import traceback
from typing import Any
import warnings

from bitjax import cli
from bitjax import files
from bitjax.cli import lock
from bitjax.cli import rehearsal
from bitjax.studies.scaling import workload
from bitjax.sweeps import chunks

__all__ = ['FAULTS', 'fingerprint', 'leftovers', 'main', 'soak']

# (pattern of the files, fraction of the content written, whether it is renamed)
FAULTS = [
  (pattern, *when)
  for pattern in ('*.npz', 'manifest.json')
  for when in ((0.5, False), (1.0, False), (1.0, True))
]


def soak(
  directory: pathlib.Path, kills: int, argv: Sequence[str], seed: int = 0
) -> dict[str, Any]:
  """Kills runs of `workload` until ``kills`` have died, and finishes the last.

  Args:
    directory: an empty one.
    kills: how many runs to kill; the first ones inside of writes.
    argv: flags of the workload.
    seed: seed of the random moments.

  Returns:
    How many runs died (``kills``), how often one ended (``ends``), whether all
    ends were equal to that of an uninterrupted run (``equal``), which files
    were left over (``leftovers``), and the seconds of the fastest run.
  """
  for module in ('h5netcdf', 'matplotlib.backends.backend_agg', 'xarray'):
    importlib.import_module(module)  # Every run then inherits them.
  rehearsal.draw()  # And that figures can be drawn.
  draw = random.Random(seed)
  whole, cut = directory / 'whole', directory / 'cut'
  begun = time.monotonic()
  _check(_start(whole, argv))
  seconds = time.monotonic() - begun
  wanted, ends, equal, died = fingerprint(whole), 0, True, 0
  faults = [(*fault, draw.randrange(2)) for fault in FAULTS]
  left: list[str] = []
  while True:
    fault = faults.pop(0) if faults and died < kills else None
    begun = time.monotonic()
    process = _start(cut, argv, fault)
    if fault is None and died < kills:
      time.sleep(draw.uniform(0, seconds))
      with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
      died += 1
      continue
    if os.waitstatus_to_exitcode(status):
      raise RuntimeError(f'the run in {cut} failed')
    ends += 1
    seconds = min(seconds, time.monotonic() - begun)
    equal &= fingerprint(cut) == wanted
    left += leftovers(cut)
    shutil.rmtree(cut)
    if died >= kills:
      break
  return {
    'kills': died,
    'ends': ends,
    'equal': equal,
    'leftovers': left,
    'seconds': seconds,
  }


def fingerprint(directory: pathlib.Path) -> dict[str, str]:
  """Returns checksums of all numbers in a run's directory, by file or variable.

  The bytes of chunks, manifests and the table are compared, as these hold numbers only;
  of ``results.nc``, the values of its variables are.
  """
  from bitjax.cli import results

  paths = [directory / 'results.csv', *sorted(directory.glob('chunks/*/*'))]
  found = {
    str(path.relative_to(directory)): chunks.checksum(path.read_bytes())
    for path in paths
  }
  for name, variable in results.load(directory).variables.items():
    found[str(name)] = chunks.checksum(variable.values.tobytes())
  return found


def leftovers(directory: pathlib.Path) -> list[str]:
  """Returns names of temporary files and locks that a finished run should not leave."""
  return [
    path.name
    for path in directory.rglob('*')
    if files.is_partial(path) or path.name == lock.NAME
  ]


def _start(directory, argv, fault=None) -> int:
  """Starts a run in a forked process and returns the id of that process."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # JAX warns of forks, but is unused here.
    process = os.fork()
  if not process:
    _child(directory, argv, fault)
  return process


def _child(directory, argv, fault) -> None:
  """Runs the workload, says what went wrong, and ends the process."""
  status = 1
  try:
    if fault is not None:
      _sabotage(*fault)
    with (
      contextlib.redirect_stdout(io.StringIO()),
      contextlib.redirect_stderr(io.StringIO()) as said,
    ):
      status = cli.launch(workload.STUDY, [f'--out={directory}', *argv])
    if status:
      os.write(2, said.getvalue().encode())
  except BaseException:
    os.write(2, traceback.format_exc().encode())
  finally:
    os._exit(status)


def _sabotage(pattern: str, part: float, renamed: bool, skip: int) -> None:
  """Makes this process die in the write of a matching file, after ``skip`` others."""
  write, turns = files.write_bytes, itertools.count()

  def write_bytes(path: pathlib.Path, content: bytes | memoryview) -> None:
    fatal = fnmatch.fnmatch(path.name, pattern) and next(turns) >= skip
    if fatal and not renamed:
      with files.atomic(path) as temporary:
        temporary.write_bytes(content[: int(part * len(content))])
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, content)
    if fatal:
      os.kill(os.getpid(), signal.SIGKILL)

  files.write_bytes = write_bytes


def _check(process: int) -> None:
  _, status = os.waitpid(process, 0)
  if status:
    raise RuntimeError('the uninterrupted run failed')


def main(argv: Sequence[str] | None = None) -> int:
  """Prints as JSON what `soak` finds; returns 1 if an end differed or left files."""
  path, kills, *flags = sys.argv[1:] if argv is None else list(argv)
  directory = pathlib.Path(path)
  directory.mkdir(parents=True, exist_ok=True)
  found = soak(directory, int(kills), flags)
  print(json.dumps(found))
  return 0 if found['equal'] and not found['leftovers'] else 1


if __name__ == '__main__':
  sys.exit(main())
