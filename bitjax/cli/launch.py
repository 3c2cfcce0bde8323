"""Runs a study from the command line, from flags to figure.

Bad input, which the user can correct, ends in one line on standard error and status
2, before anything is written. Errors of the program keep their traceback.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import errno
import os
import pathlib
import sys
import traceback
from typing import Any, NoReturn

from bitjax import extras
from bitjax import files
from bitjax import memory
from bitjax import process
from bitjax import types
from bitjax.cli import command
from bitjax.cli import compilation
from bitjax.cli import costs
from bitjax.cli import flags
from bitjax.cli import lock
from bitjax.cli import manual
from bitjax.cli import rehearsal
from bitjax.cli import results as results_lib
from bitjax.cli import rundir
from bitjax.cli import signals
from bitjax.cli.study import Study
from bitjax.evidence import plots
from bitjax.evidence import verdicts as verdicts_lib
from bitjax.sweeps import code as code_lib
from bitjax.sweeps import job
from bitjax.sweeps import meshes
from bitjax.sweeps import progress
from bitjax.sweeps import sweep as sweep_lib

__all__ = ['launch', 'main']

BAD_INPUT = 2
_SIGPIPE = 13  # Windows has no such signal.

_MARK = 'other_code'  # Attribute of results with chunks of other code.


def main(
  study: Study[Any],
  argv: Sequence[str] | None = None,
  *,
  program: str | None = None,
) -> NoReturn:
  """Runs a study and ends the process; the arguments are those of `launch`."""
  process.prepare()
  argv = sys.argv[1:] if argv is None else list(argv)
  try:
    with signals.watched(lambda: _abandoned(study, argv)):
      status = launch(study, argv, program=program)
  except Exception:
    with contextlib.suppress(OSError):
      traceback.print_exc()
    status = 1
  job.leave(status)


def launch(
  study: Study[Any],
  argv: Sequence[str] | None = None,
  *,
  program: str | None = None,
) -> int:
  """Runs a study.

  If the directory holds the results of the same configuration, nothing is computed:
  these results are judged and drawn again, and verdicts say if the code has changed
  since.

  Args:
    study: what to run.
    argv: arguments, without the name of the program; None for those of ``sys.argv``.
    program: the command that runs the study, for the manual page; None for the one
      that started this process.

  Returns:
    The exit status: 0; 1 if another process of the job stopped; 2 for bad input and
      errors of the file system; 128 plus the number of the signal for an interrupt
      (130), a termination (143), a terminal that is closed (129) and a reader of
      the output that has gone (141).
  """
  argv = sys.argv[1:] if argv is None else list(argv)
  try:
    with signals.raised():
      return _launch(study, argv, program)
  except BrokenPipeError:
    return signals.SIGNALLED + _SIGPIPE
  except (types.BadInput, OSError) as error:
    return _complain(study, error, BAD_INPUT)
  except job.Lost as error:
    return _complain(study, error, 1)
  except KeyboardInterrupt as interrupt:
    _interrupted(study, argv)
    number = getattr(interrupt, 'number', signals.Signalled().number)
    return signals.SIGNALLED + number


def _abandoned(study, argv):
  with contextlib.suppress(OSError):
    lock.release_all()
  _interrupted(study, argv)


def _interrupted(study, argv):
  again = 'the same command'
  if any(argument.startswith('--overwrite') for argument in argv):
    again += ' without --overwrite'
  # The terminal may have been closed.
  with contextlib.suppress(OSError):
    progress.say(f'{study.name}: interrupted; {again} goes on from here')


def _launch(study, argv, program) -> int:
  if command.wants_help(argv):
    process.write(manual.page(study, program or _program()))
    return 0
  with contextlib.ExitStack() as stack:
    directory, results, changes = _results(study, argv, stack)
    if job.index():  # Only process 0 judges and draws.
      return 0
    judged = _marked(study.verdicts(results), results, changes)
    written = _conclude(directory, results, judged, study.plot)
  process.write(verdicts_lib.text(judged) + '\n')
  process.write(''.join(f'{_relative(path)}\n' for path in written))
  return 0


def _results(study, argv, stack):
  """Returns the directory of a run, its results, and how the code has changed since."""
  request = command.parse(study, argv)
  extras.check('a study', *extras.STUDIES)
  address = request.coordinator_address or None
  if address is None:
    meshes.split_cpu(request.mesh)
  job.join(address, request.num_processes, request.process_id)
  if address is not None:
    meshes.start()
    # JAX's runtime handles SIGTERM too, so our handler has to be set again.
    stack.enter_context(signals.raised())
  out = request.out or os.path.join('runs', study.name, request.preset or 'run')
  settings = {
    'preset': request.preset,
    'chunk': request.chunk,
    'width': request.width,
    'memory': request.memory,
    'mesh': request.mesh,
    'processes': job.count(),
  }
  directory = rundir.RunDirectory(
    out,
    study=study.name,
    config=flags.encode(request.config),
    code=_code(study),
    settings=settings,
    overwrite=request.overwrite,
  )
  stack.callback(directory.close)
  if not job.index():
    rehearsal.draw()
  if directory.complete:
    if not job.index():
      directory.claim()
    try:
      results = results_lib.load(directory.path)
    except results_lib.Damaged as error:
      _say(study, f'{error}; made again')
    else:
      changes = directory.changes()
      _say(study, _origin(directory, changes))
      return directory.path, results, changes
  if request.compilation_cache:
    compilation.keep()
  sweep = sweep_lib.Sweep(
    directory.path,
    chunk=request.chunk,
    width=request.width,
    mesh=meshes.make(request.mesh),
    report=True,
    run=directory,
    accept_other_code=request.accept_other_code,
  )
  try:
    with memory.limited(request.memory):
      computed = study.run(request.config, sweep)
  except memory.Exceeded as error:
    raise types.BadInput(f'{error}{costs.smaller(request.config)}') from error
  if job.index():
    return directory.path, computed, ''
  directory.begin(sweep.records)  # Does nothing if a sweep has begun.
  if sweep.other_code:
    computed.attrs[_MARK] = '; '.join(sweep.other_code)
  directory.finish()  # The results, once there, are never without their code.
  results_lib.save(computed, directory.path)
  del computed  # Large results must not be in memory twice.
  # Draw the numbers in the file, as later runs will, so that the figures are equal.
  return directory.path, results_lib.load(directory.path), ''


def _code(study: Study[Any]) -> code_lib.Code:
  """Returns the code that counts: all but what judges and draws finished numbers."""
  home, *aside = (
    getattr(function, '__module__', '')
    for function in (study.run, study.verdicts, study.plot)
  )
  homes = {home, study.config.__module__}
  aside = code_lib.only_for(set(aside) - homes, homes)
  return code_lib.Code(aside, script=home == '__main__')


def _origin(directory: rundir.RunDirectory, changes: str) -> str:
  """Says where the results of a finished run come from, and what to know of them."""
  said = directory.source()
  if not results_lib.has_checksum(directory.path):
    said += (
      '; its results.nc has no checksum, so damage would go unnoticed: remove it to '
      'make it again'
    )
  if changes:
    said += (
      f'; the code has changed since ({changes}): --overwrite computes '
      'everything again; without results.nc, the same command takes over the '
      'chunks whose programs are the same'
    )
  return said


def _marked(judged, results, changes) -> list[verdicts_lib.Verdict]:
  """Returns verdicts whose caveats say if other code computed the numbers."""
  marks = []
  if _MARK in results.attrs:
    marks.append(f'{results.attrs[_MARK]}.')
  if changes:
    marks.append(
      f'The code has changed since these numbers were computed ({changes}).'
    )
  return [
    dataclasses.replace(
      verdict, caveat=' '.join([*marks, verdict.caveat]).strip()
    )
    for verdict in judged
  ]


def _say(study: Study[Any], text: str) -> None:
  """Reports to standard error, once for all processes of a job."""
  if not job.index():
    progress.say(f'{study.name}: {text}')


def _conclude(directory, results, judged, plot) -> list[pathlib.Path]:
  """Writes verdicts and figures, and returns the paths of all files for readers."""
  files.remove_partial(directory)
  archive, table = (
    directory / name for name in (results_lib.ARCHIVE, results_lib.TABLE)
  )
  if not results_lib.sound(table):
    if table.is_file():
      progress.say(f'{table} is not as it was written; made again')
    results_lib.save_table(results, directory)
  written = [directory / rundir.CONFIG, archive, table]
  written.append(results_lib.save_verdicts(judged, directory))
  with plots.style():
    drawn = plot(results)
    try:
      return written + results_lib.save_figure(drawn, directory)
    finally:
      # pyplot keeps every figure alive until it is closed.
      if 'matplotlib.pyplot' in sys.modules:
        for one in drawn.values() if isinstance(drawn, Mapping) else [drawn]:
          sys.modules['matplotlib.pyplot'].close(one)


def _complain(study: Study[Any], error: Exception, status: int) -> int:
  with contextlib.suppress(OSError):  # Nobody may be listening.
    print(f'{study.name}: {_line(error)}', file=sys.stderr)
  return status


def _line(error: Exception) -> str:
  text = types.one_line(error)
  disk = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)
  if isinstance(error, OSError) and error.filename and error.errno in disk:
    text += '; what is finished is kept, the same command goes on'
  return text


def _program() -> str:
  """Returns the command that started this process, without its arguments."""
  main_module = sys.modules['__main__']
  spec = getattr(main_module, '__spec__', None)
  if spec is not None:
    return f'python -m {spec.name}'
  file = getattr(main_module, '__file__', None) or 'study'
  return f'python {_relative(file)}'


def _relative(path: str | os.PathLike[str]) -> str:
  try:
    return os.path.relpath(path)
  except (
    OSError,
    ValueError,
  ):  # The working directory has gone, or another drive.
    return os.fspath(path)
