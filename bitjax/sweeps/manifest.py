"""The manifest of a sweep: a small file that describes the chunks beside it.

It names the digest of the run's configuration, the axes, the code that computes the
chunks, how the lanes are cut into blocks, and the checksum of each chunk that existed
when it was written: when a run starts or resumes, and when the sweep is finished (the
chunks in between carry their checksum in their name). It ends with a checksum of
itself, so that a manifest that was changed by hand is refused; its chunks are kept.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

from bitjax import files
from bitjax import types
from bitjax.sweeps import chunks
from bitjax.sweeps import provenance
from bitjax.version import __version__

__all__ = ['CODE', 'NAME', 'clear', 'complete', 'matches', 'read', 'write']

NAME = 'manifest.json'
CODE = 'code.json'  # See `origin`.


def write(
  store: chunks.Store, width: int | None, limit: int | None, *, complete: bool
) -> None:
  """Writes the manifest of a sweep.

  Args:
    store: the sweep's chunks.
    width: lanes that are vectorised at a time.
    limit: bytes of the memory budget, if programs depend on it.
    complete: whether all chunks exist.
  """
  entry = {
    'format': chunks.FORMAT,
    'bitjax': __version__,
    'git': provenance.git(),
    **_identity(store),
    'num_lanes': store.plan.num_lanes,
    'combinations': len(store.plan.combinations),
    'block': store.plan.block_size,
    'width': width,
    'memory': limit,
    'complete': complete,
    'chunks': store.checksums(),
  }
  entry = _stored(entry)
  files.write_json(store.folder / NAME, entry | {'sha256': _digest(entry)})


def matches(entry: dict[str, Any], store: chunks.Store) -> bool:
  """Returns whether a manifest describes the axes and shared inputs of a store.

  Raises:
    BadInput: if the manifest belongs to another configuration.
  """
  wanted = _stored(_identity(store))
  if entry['configuration'] != wanted['configuration']:
    raise types.BadInput(
      f'{store.folder / NAME} belongs to another configuration than the '
      'config.json of its run; choose another --out or replace it with '
      '--overwrite.'
    )
  return {name: entry.get(name) for name in wanted} == wanted


def complete(folder: pathlib.Path) -> bool:
  """Returns whether the manifest in a folder says that its sweep is finished."""
  entry = read(folder)
  return entry is not None and entry['complete']


def read(folder: pathlib.Path) -> dict[str, Any] | None:
  """Reads a manifest.

  Returns:
    Its entries, or None if there is none.

  Raises:
    BadInput: if it was changed since it was written, or was written by a newer
      version of bitjax.
  """
  path = folder / NAME
  try:
    entry = files.read_json(path)
    stamp = entry.pop('sha256')
  except FileNotFoundError:
    return None
  except (ValueError, AttributeError, TypeError, KeyError):
    entry, stamp = {}, None
  if isinstance(entry.get('format'), int) and entry['format'] > chunks.FORMAT:
    raise types.BadInput(
      f'{path} was written by a newer version of bitjax (format '
      f'{entry["format"]}, this one knows {chunks.FORMAT}); update bitjax, or '
      'choose another --out.'
    )
  if stamp != _digest(entry):
    raise types.BadInput(
      f'{path} is not as bitjax wrote it: changed by hand, or damaged. Restore '
      f'it, or remove it: chunks that are sound are used again.'
    )
  return entry


def clear(folder: pathlib.Path) -> None:
  """Removes what a sweep wrote, the manifest last, and its folder if then empty."""
  files.remove_partial(folder)
  for file in (*folder.glob('*.npz'), folder / CODE, folder / NAME):
    file.unlink(missing_ok=True)
  if not any(folder.iterdir()):
    folder.rmdir()


def _identity(store: chunks.Store) -> dict[str, Any]:
  plan = store.plan
  return {
    'sweep': plan.name,
    'configuration': store.configuration,
    'static': {name: list(values) for name, values in plan.static.items()},
    'lanes': {
      name: {
        'size': len(values),
        'dtype': str(values.dtype),
        'sha256': chunks.checksum(values.tobytes()),
      }
      for name, values in plan.lanes.items()
    },
    'shared': store.shared,
  }


def _stored(value: Any) -> Any:
  """Returns what a JSON file that `files` writes holds of a value."""
  return json.loads(files.json_text(value))


def _digest(value: Any) -> str:
  return chunks.checksum(json.dumps(value, sort_keys=True).encode())
