"""Chunks: the files that hold the finished blocks of a sweep.

A chunk is the file of one block. It describes itself: besides its outputs it holds the
sweep's name, the static values, the lanes' values, and digests of the shared inputs
and of the run's configuration. It is used again only if all of them agree. It also
holds the code that computed it (see `code`), which the sweep compares. Its name
ends with the SHA-256 of its bytes, so that one rename publishes content and checksum
together, whatever kills the process; and chunks with the same numbers have the same
name, wherever they were computed. A damaged chunk is computed again.
"""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
import re
from typing import Any

import jax
import numpy as np

from bitjax import files
from bitjax import types
from bitjax.sweeps import plan

__all__ = [
  'FOLDER',
  'FORMAT',
  'Damaged',
  'Store',
  'checksum',
  'digest',
  'header',
  'names',
]

FOLDER = 'chunks'  # Relative to the directory of a run.
FORMAT = 2  # Version of the format of chunks and manifests.

_NAME = re.compile(r'(\d+-\d+)\.([0-9a-f]{64})\.npz')


class Damaged(Exception):
  """Raised for a chunk that cannot be used; the message says why."""


class Store:
  """The chunks of one sweep in ``directory/chunks/<name>``.

  Args:
    directory: directory of the run.
    sweep: plan of the sweep.
    shared: digest of the shared inputs.
    configuration: a JSON value that distinguishes the run from others.
  """

  def __init__(
    self,
    directory: pathlib.Path,
    sweep: plan.Plan,
    shared: str,
    configuration: Any = None,
  ):
    self.folder = directory / FOLDER / sweep.name
    self.shared = shared
    self.configuration = checksum(
      json.dumps(configuration, sort_keys=True).encode()
    )
    self.plan = sweep
    self._names: dict[str, list[str]] = {}

  def refresh(self) -> None:
    """Lists the chunks that are on disk now."""
    self._names = names(self.folder)

  def save(
    self, block: plan.Block, outputs: dict[str, np.ndarray], code: Any
  ) -> None:
    """Writes a block's chunk atomically, and removes its older chunks.

    Args:
      block: the block.
      outputs: its outputs, each of shape [lanes, *own axes].
      code: a JSON value that says which code computed them.
    """
    lanes = self.plan.traced(block)
    arrays: dict[str, Any] = {f'lane.{k}': v for k, v in lanes.items()}
    arrays |= {f'output.{k}': v for k, v in outputs.items()}
    facts = {
      'code': code,
      'outputs': list(outputs),
      'diverged': _diverged(outputs),
    }
    arrays['header'] = np.array(json.dumps(self._header(block) | facts))
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    content = buffer.getvalue()
    name = f'{_key(block)}.{checksum(content)}.npz'
    self.folder.mkdir(parents=True, exist_ok=True)
    files.write_bytes(self.folder / name, content)
    for other in self._names.get(_key(block), []):
      if other != name:
        (self.folder / other).unlink(missing_ok=True)
    self._names[_key(block)] = [name]

  def load(self, block: plan.Block) -> tuple[dict[str, np.ndarray], Any] | None:
    """Reads a block.

    Returns:
      The outputs and the code that computed them (None if it was not recorded), or
      None if there is no chunk, or only chunks of other lanes, inputs or
      configurations.

    Raises:
      Damaged: if a chunk is damaged and no other one can be used.
    """
    problem = None
    for name in self._names.get(_key(block), []):
      try:
        found = self._read(self.folder / name, block)
      except Damaged as damage:
        problem = damage
        continue
      if found is not None:
        # `checksums` reports the last name.
        self._names[_key(block)].remove(name)
        self._names[_key(block)].append(name)
        return found
    if problem is not None:
      raise problem
    return None

  def _read(self, path, block) -> tuple[dict[str, np.ndarray], Any] | None:
    try:
      content = path.read_bytes()
      if not path.name.endswith(f'.{checksum(content)}.npz'):
        raise types.BadInput('its checksum differs')
      with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
      facts = json.loads(str(arrays.pop('header')))
      outputs = {k: arrays.pop(f'output.{k}') for k in facts.pop('outputs')}
      facts.pop('diverged')
      code = facts.pop('code', None)
    except Exception as error:  # Reading a damaged zip file can raise anything.
      raise Damaged(f'{path} is damaged ({types.one_line(error)})') from error
    lanes = {f'lane.{k}': v for k, v in self.plan.traced(block).items()}
    if facts != self._header(block) or not _equal(arrays, lanes):
      return None
    return outputs, code

  def checksums(self) -> dict[str, str]:
    """Returns block (``combination-index``) -> checksum, for blocks with a chunk."""
    known = {_key(block) for block in self.plan.blocks}
    return {
      key: found[-1].split('.')[1]
      for key, found in sorted(self._names.items())
      if key in known
    }

  def _header(self, block: plan.Block) -> dict[str, Any]:
    return {
      'format': FORMAT,
      'sweep': self.plan.name,
      'configuration': self.configuration,
      'static': self.plan.combinations[block.combination],
      'shared': self.shared,
    }


def names(folder: pathlib.Path) -> dict[str, list[str]]:
  """Returns block (``combination-index``) -> names of its chunks in a folder."""
  found: dict[str, list[str]] = {}
  if folder.is_dir():
    for path in sorted(folder.iterdir()):
      if match := _NAME.fullmatch(path.name):
        found.setdefault(match[1], []).append(path.name)
  return found


def header(path: pathlib.Path) -> dict[str, Any]:
  """Reads what a chunk says about itself, without its outputs.

  Raises:
    Damaged: if the file is unreadable.
  """
  try:
    with np.load(path, allow_pickle=False) as archive:
      return json.loads(str(archive['header']))
  except Exception as error:
    raise Damaged(f'{path} is damaged') from error


def checksum(content: bytes) -> str:
  """Returns the SHA-256 in hexadecimal digits."""
  return hashlib.sha256(content).hexdigest()


def digest(shared: Any) -> str:
  """Returns the SHA-256 of the shared inputs: structure, dtypes, shapes, values."""
  leaves, structure = jax.tree.flatten(shared)
  # Functions in the structure are printed with addresses, which differ between runs.
  shape = re.sub(r' at 0x[0-9a-f]+', '', str(structure))
  found = hashlib.sha256(shape.encode())
  for leaf in leaves:
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(
      leaf.dtype, jax.dtypes.prng_key
    ):
      leaf = jax.random.key_data(leaf)
    array = np.ascontiguousarray(leaf)
    found.update(f'{array.dtype}{array.shape}'.encode())
    found.update(array.view(np.uint8).data if array.ndim else array.tobytes())
  return found.hexdigest()


def _key(block: plan.Block) -> str:
  return f'{block.combination}-{block.index}'


def _diverged(outputs: dict[str, np.ndarray]) -> int:
  """Counts the lanes that have an output that is not finite."""
  lanes: Any = False
  for output in outputs.values():
    if output.dtype.kind == 'f':
      lanes |= ~np.isfinite(output).reshape(len(output), -1).all(axis=1)
  return int(np.sum(lanes))


def _equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
  return a.keys() == b.keys() and all(
    a[name].dtype == b[name].dtype and np.array_equal(a[name], b[name])
    for name in a
  )
