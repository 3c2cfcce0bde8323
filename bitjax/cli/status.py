"""Says how far a run is, without disturbing it: only its directory is read.

bitjax status runs/multistep_ste/quick
"""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
import sys

from bitjax import files
from bitjax import process
from bitjax import types
from bitjax.cli import lock
from bitjax.cli import results
from bitjax.cli import rundir
from bitjax.sweeps import chunks
from bitjax.sweeps import manifest
from bitjax.sweeps import progress

__all__ = ['describe', 'main', 'usage']


def describe(directory: pathlib.Path) -> list[str]:
  """Describes who runs in a directory, and how far each of its sweeps is.

  Returns:
    Lines of text: the run, then its sweeps in the order in which they began.

  Raises:
    BadInput: if this is not the directory of a run.
  """
  if not (directory / rundir.CONFIG).is_file():
    raise types.BadInput(f'{directory} is not the directory of a run.')
  who = lock.holder(directory)
  if who is not None:
    state = f'running, process {who.get("pid", "?")} on {who.get("host", "?")}'
  elif (directory / results.ARCHIVE).is_file():
    state = 'finished'
  else:
    state = 'interrupted; the command that began it goes on'
  manifests = list(directory.glob(f'{chunks.FOLDER}/*/{manifest.NAME}'))
  manifests.sort(key=lambda path: _modified(path))
  sweeps = [_sweep(path, who is not None) for path in manifests]
  return [f'{directory}: {state}', *(f'  {line}' for line in sweeps)]


def _sweep(path: pathlib.Path, running: bool) -> str:
  """Describes a sweep: lanes done, lanes that diverged, rate since the last start."""
  entry = manifest.read(path.parent)
  assert entry is not None
  num_lanes, block, began = entry['num_lanes'], entry['block'], _modified(path)
  total = num_lanes * entry['combinations']
  done = fresh = diverged = 0
  latest = began
  for key, names in chunks.names(path.parent).items():
    chunk = path.parent / names[-1]
    try:
      diverged += chunks.header(chunk)['diverged']
    except chunks.Damaged:  # Or replaced by the running process just now.
      continue
    size = min(block, num_lanes - int(key.split('-')[1]) * block)
    done += size
    if _modified(chunk) > began:
      fresh += size
      latest = max(latest, _modified(chunk))
  text = f'{entry["sweep"]}: {done}/{total} lanes'
  if diverged:
    text += f', {diverged} of them not finite'
  if running and done < total and fresh:
    rate = fresh / max(latest - began, 1e-9)
    left = progress.duration((total - done) / rate)
    text += f', {rate:.3g} lanes/s, {left} left'
  return text


def _modified(path: pathlib.Path) -> float:
  try:
    return path.stat().st_mtime
  except FileNotFoundError:
    return 0.0


def main(argv: Sequence[str] | None = None) -> int:
  """Prints the status of each directory; returns the exit status."""
  directories = sys.argv[1:] if argv is None else list(argv)
  if not directories or any(name.startswith('-') for name in directories):
    return usage('bitjax status DIRECTORY...', directories)
  for name in directories:
    process.write('\n'.join(describe(files.expand(name))) + '\n')
  return 0


def usage(text: str, argv: Sequence[str]) -> int:
  """Prints how a command is used: asked for (status 0), or called wrongly (2)."""
  asked = list(argv) in (['--help'], ['-h'])
  print(f'usage: {text}', file=sys.stdout if asked else sys.stderr)
  return 0 if asked else 2
