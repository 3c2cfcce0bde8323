"""Chooses the path of a question from static facts, and says why not a faster one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from bitjax import types

__all__ = ['Choice', 'choose']


class Choice(NamedTuple):
  """A path, and why no faster one was chosen; '' if there is none."""

  path: str
  reason: str


def choose(
  path: str,
  obstacles: Mapping[str, str | None],
  unwise: Mapping[str, str] | None = None,
) -> Choice:
  """Returns the requested path, or for ``'auto'`` the first that applies.

  Args:
    path: the requested path, or ``'auto'``.
    obstacles: why each path does not apply, or None if it does; the fastest first.
      The last one always applies.
    unwise: why paths that apply are not worth it, so that ``'auto'`` passes them over.

  Raises:
    BadInput: if the requested path does not apply.
  """
  if path != 'auto':
    if obstacles[path] is not None:
      others = [name for name, reason in obstacles.items() if reason is None]
      raise types.BadInput(
        f'path {path!r} does not apply: {obstacles[path]}. Use one of '
        f'{", ".join(others)}.'
      )
    return Choice(path, 'it was asked for')
  against = {name: reason for name, reason in obstacles.items() if reason}
  against = dict(unwise or {}) | against
  path = next(name for name in obstacles if name not in against)
  skipped: dict[str, list[str]] = {}
  for name in list(obstacles)[: list(obstacles).index(path)]:
    skipped.setdefault(against[name], []).append(name)
  reasons = [f'not {", ".join(n)}: {why}' for why, n in skipped.items()]
  return Choice(path, '; '.join(reasons))
