"""The origin of a sweep's chunks: did today's code compute them, or other code?

Each chunk names the program, or the sources, that computed it. ``code.json`` beside the
chunks holds what the latest process had loaded, so that a message can name what has
changed. Numbers of other code never enter a result unless the user accepts them; then
the results say so.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
import pathlib

from bitjax import files
from bitjax import types
from bitjax.sweeps import chunks
from bitjax.sweeps import code as code_lib
from bitjax.sweeps import manifest

__all__ = ['Origin', 'listed']


class Origin:
  """Compares the code that computed a sweep's chunks with today's.

  Args:
    folder: folder of the sweep; None if nothing is kept, and so nothing compared.
    code: the code that counts; None for all that this process has loaded.
    accept: whether the user accepts chunks of other code.

  Attributes:
    changes: how the code of the chunks may differ from it, see `look`.
    mark: a sentence that says which chunks of other code were accepted; empty if
      there are none.
  """

  def __init__(
    self,
    folder: pathlib.Path | None,
    code: code_lib.Code | None,
    accept: bool,
  ):
    self.changes: list[str] = []
    self.mark = ''
    self._folder, self._code, self._accept = folder, code, accept

  @functools.cached_property
  def code(self) -> code_lib.Code:
    """The code of this process."""
    return self._code or code_lib.Code()

  def look(self) -> None:
    """Finds out how today's code differs from that of the chunks on disk."""
    folder = self._folder
    assert folder is not None
    if not (chunks.names(folder) or (folder / manifest.NAME).is_file()):
      return
    try:
      then = files.read_json(folder / manifest.CODE)
      known = list(then['other_code'])
      self.changes = self.code.changes(then)
    except (OSError, ValueError, LookupError, TypeError):
      self.changes, known = self.code.changes(None), []
    self.changes += [name for name in known if name not in self.changes]

  def admit(self, name: str, foreign: int, total: int) -> None:
    """Refuses lanes of other code, or marks that they are there.

    Args:
      name: the sweep's name.
      foreign: how many lanes other code computed, or began to compute.
      total: how many lanes the sweep has.

    Raises:
      BadInput: if there are such lanes, unless the user accepts them.
    """
    if not foreign:
      self.changes = []
      return
    # No source has changed: the function closes over another value, say.
    changed = listed(self.changes) or f'what the function of {name!r} computes'
    said = (
      f'{foreign} of {total} lanes of {name!r} come from other code (changed: '
      f'{changed})'
    )
    if not self._accept:
      raise types.BadInput(
        f'{self._folder}: {said}; compute them again with --overwrite or '
        'elsewhere with --out, or go on with --accept_other_code, which marks '
        'results and verdicts.'
      )
    self.mark = said

  def write(self) -> None:
    """Writes what this process has loaded, and which other code was accepted."""
    assert self._folder is not None
    entry = self.code.record() | {'other_code': self.changes}
    files.write_json(self._folder / manifest.CODE, entry)


def listed(names: Sequence[str]) -> str:
  """Returns the first few names, and how many more there are."""
  more = f' and {len(names) - 3} more' if len(names) > 3 else ''
  return ', '.join(names[:3]) + more
