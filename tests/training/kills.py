"""Kills a training at every operation on its files, and says how it ends.

``python kills.py FOLDER`` forks a process for each number n. It trains until its n-th
operation on a file below its folder (an opening to write, a renaming, a deletion, a
new folder), at which it is killed; a file that it was about to write is left half
written. Then another process trains to the end. It prints as JSON the operations of an
uninterrupted training, and for each n whether the process was killed and whether the
end was as if it had not been. ``python kills.py FOLDER few`` takes two numbers only:
within the naming and the deletion of a checkpoint.

The updates are arithmetic in NumPy, so that thousands of them cost nothing; log and
checkpoints are those of `fit`, in its order.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sys
import traceback
import warnings

import jax
import numpy as np

from bitjax import training
from bitjax.training import _archive

STEPS = 6
# By step; the best moves from step 2 to 5, so that either kind is deleted.
ACCURACIES = {2: 0.4, 3: None, 5: 0.9, 6: 0.1}
_OPERATIONS = ('open', 'os.rename', 'os.remove', 'os.mkdir', 'os.rmdir')


def train(folder: pathlib.Path) -> None:
  """Trains to the end, from the latest checkpoint."""
  keeper = training.Checkpoints(folder / 'checkpoints')
  state = _start()
  described = keeper.description()
  if described:
    state = keeper.restore(state, described)
  log = training.Log(folder)
  log.resume(int(state.step[0]), keeper.log())
  for step in range(int(state.step[0]) + 1, STEPS + 1):
    weights = np.asarray(state.params['w']) * np.float32(1.5) + step
    state = state._replace(
      step=np.array([step], np.int32), params={'w': weights.astype(np.float32)}
    )
    if step in ACCURACIES:
      log.add(step, {'loss': weights.sum(), 'other': np.nan})
    keeper.save(state, {'phase': '0'}, ACCURACIES.get(step), log.digest)


def _start():
  zero = np.zeros(1, np.float32)
  return training.TrainState(
    np.zeros(1, np.int32),
    jax.vmap(jax.random.key)(np.zeros(1, np.uint32)),
    {'w': np.arange(3, dtype=np.float32)[None]},
    {},
    {},
    None,
    training.Totals(np.zeros(1, np.int32), zero, zero, {}),
  )


def result(folder: pathlib.Path) -> dict:
  """Returns everything that a training leaves; names of files that Orbax draws apart."""
  kept = folder / 'checkpoints'
  found = {
    name: (folder / name).read_text()
    for name in ('history.jsonl', 'history.csv')
  }
  found['names'] = sorted(
    path.name for path in [*folder.iterdir(), *kept.iterdir()]
  )
  for step in _archive.steps(kept):
    about = _archive.facts(kept / str(step))
    found[f'{step}'] = [about['accuracy'], about['description']]
    for name, leaf in _archive.load(kept / str(step)).items():
      found[f'{step} {name}'] = [str(leaf.dtype), leaf.tolist()]
  return found


def watch(folder: pathlib.Path, fatal: int | None) -> list[list[str]]:
  """Lists operations below a folder, and dies at one of them."""
  seen: list[list[str]] = []

  def hook(event, arguments):
    if event not in _OPERATIONS or not isinstance(
      arguments[0], str | os.PathLike
    ):
      return
    path = os.fspath(arguments[0])
    if event == 'open' and not _writes(*arguments[1:3]):
      return
    if isinstance(path, bytes) or not path.startswith(str(folder)):
      return
    seen.append([event, path.removeprefix(str(folder))])
    if len(seen) - 1 == fatal:
      if event == 'open':
        descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.write(descriptor, b'{"half": ')
      os.kill(os.getpid(), signal.SIGKILL)

  sys.addaudithook(hook)
  return seen


def _writes(mode, flags):
  if isinstance(mode, str):
    return any(letter in mode for letter in 'wax+')
  return bool(flags & (os.O_WRONLY | os.O_RDWR))


def _child(folder, work):
  """Forks a process that works; returns whether it was killed, and what it wrote."""
  read, write = os.pipe()
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # JAX warns of forks, but is unused here.
    process = os.fork()
  if not process:
    status = 1
    try:
      warnings.simplefilter('error')
      os.write(write, json.dumps(work(folder)).encode())
      status = 0
    except BaseException:
      traceback.print_exc()
    finally:
      os._exit(status)
  os.close(write)
  with os.fdopen(read, 'rb') as pipe:
    said = pipe.read()
  _, status = os.waitpid(process, 0)
  if os.WIFSIGNALED(status):
    return True, None
  if status:
    raise RuntimeError(f'the training in {folder} failed')
  return False, json.loads(said)


def _whole(folder):
  seen = watch(folder, None)
  train(folder)
  return seen


def _again(folder):
  train(folder)
  return result(folder)


def _few(operations):
  """Returns operations within the naming and the deletion of a checkpoint."""
  return [
    max(n for n, each in enumerate(operations) if kind(*each))
    for kind in (
      lambda event, path: event == 'os.rename' and path.endswith('.partial'),
      lambda event, path: event == 'os.remove' and '.old.' in path,
    )
  ]


def main(directory: str, few: str = '') -> None:
  base = pathlib.Path(directory)
  whole = base / 'whole'
  whole.mkdir(parents=True)
  _, operations = _child(whole, _whole)
  _, wanted = _child(whole, _again)
  ends = {}
  for n in _few(operations) if few else range(len(operations)):
    folder = base / str(n)
    folder.mkdir()

    def cut(folder, n=n):
      watch(folder, n)
      train(folder)
      return 0

    killed, _ = _child(folder, cut)
    _, found = _child(folder, _again)
    ends[n] = [killed, found == wanted]
  print(json.dumps({'operations': operations, 'ends': ends}))


if __name__ == '__main__':
  main(*sys.argv[1:])
