"""One finished block of lanes on the disk.

A chunk describes itself: beside its outputs it holds the sweep's name, the static
values, the lanes' values and a digest of the shared inputs. It is read again only
where all of them agree; anything else, damage included, is computed again.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
from typing import Any

import jax
import numpy as np

from bitjax.studies import files
from bitjax.studies import plan

__all__ = ['Damaged', 'Store', 'digest']

_FORMAT = 1


class Damaged(Exception):
  """A chunk that cannot be used; says why."""


class Store:
  """The chunks of one sweep in ``directory/chunks/<name>``."""

  def __init__(self, directory: pathlib.Path, sweep: plan.Plan, shared: str):
    self.folder = directory / 'chunks' / sweep.name
    self._plan = sweep
    self._shared = shared

  def path(self, block: plan.Block) -> pathlib.Path:
    """The file of a block."""
    return self.folder / f'{block.combination}-{block.index}.npz'

  def save(self, block: plan.Block, outputs: dict[str, np.ndarray]) -> None:
    """Writes a block; afterwards the file is whole, or absent."""
    arrays: dict[str, Any] = {
      f'lane.{k}': v for k, v in self._plan.traced(block).items()
    }
    arrays |= {f'output.{k}': v for k, v in outputs.items()}
    header = self._header(block) | {'outputs': list(outputs)}
    arrays['header'] = np.array(json.dumps(header))
    self.folder.mkdir(parents=True, exist_ok=True)
    with (
      files.atomic(self.path(block)) as temporary,
      open(temporary, 'wb') as file,
    ):
      np.savez(file, **arrays)

  def load(self, block: plan.Block) -> dict[str, np.ndarray] | None:
    """Reads a block.

    Returns:
      The outputs, or None if there is no file.

    Raises:
      Damaged: if the file is unreadable or that of other lanes.
    """
    path = self.path(block)
    if not path.is_file():
      return None
    try:
      with (
        open(path, 'rb') as file,
        np.load(file, allow_pickle=False) as archive,
      ):
        arrays = {name: archive[name] for name in archive.files}
      header = json.loads(str(arrays.pop('header')))
      names = header.pop('outputs')
      outputs = {name: arrays.pop(f'output.{name}') for name in names}
    except Exception as error:  # A damaged zip file can fail in any way.
      reason = f'{type(error).__name__}: {error}'
      raise Damaged(f'is damaged ({" ".join(reason.split())})') from error
    lanes = {f'lane.{k}': v for k, v in self._plan.traced(block).items()}
    if header != self._header(block) or not _equal(arrays, lanes):
      raise Damaged('holds other lanes')
    if any(output.shape[:1] != (block.size,) for output in outputs.values()):
      raise Damaged('holds another number of lanes')
    return outputs

  def _header(self, block: plan.Block) -> dict[str, Any]:
    return {
      'format': _FORMAT,
      'sweep': self._plan.name,
      'static': self._plan.combinations[block.combination],
      'shared': self._shared,
    }


def digest(shared: Any) -> str:
  """SHA-256 of the shared inputs: their structure, dtypes, shapes, values."""
  leaves, structure = jax.tree.flatten(shared)
  # Functions within a pytree are printed with their addresses.
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


def _equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
  return a.keys() == b.keys() and all(
    a[name].dtype == b[name].dtype and np.array_equal(a[name], b[name])
    for name in a
  )
