"""Which modules a module's code can reach, by its import statements.

Lazy imports inside functions count as well. A package's own file counts if the package, or
a name that it defines, is imported; ``from package import module`` reaches the module alone.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterable, Iterator
import importlib.util
import pathlib
from typing import Any

__all__ = ['reached']

Find = Callable[[str], pathlib.Path | None]


def reached(
  modules: Iterable[str], find: Find, *, without: Collection[str] = ()
) -> set[str]:
  """Returns the modules that some modules reach, and these themselves.

  Args:
    modules: names to start from.
    find: maps a name to the file of that module; None for what is not to be followed.
    without: names of modules that are not followed either, and not returned.
  """
  found: dict[str, pathlib.Path] = {}
  queue = list(modules)
  while queue:
    name = queue.pop()
    if name in found or name in without:
      continue
    path = find(name)
    if path is not None:
      found[name] = path
      queue.extend(_imports(name, path, find))
  return set(found)


def _imports(name: str, path: pathlib.Path, find: Find) -> list[str]:
  package = name if path.name == '__init__.py' else name.rpartition('.')[0]
  found = []
  for node in _statements(ast.parse(path.read_bytes())):
    if isinstance(node, ast.Import):
      found += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      source = '.' * node.level + (node.module or '')
      base = importlib.util.resolve_name(source, package)
      for alias in node.names:
        inner = f'{base}.{alias.name}'
        found.append(inner if find(inner) else base)
  return found


def _statements(node: Any) -> Iterator[ast.AST]:
  """Yields all statements below one; expressions, which are many more, import nothing."""
  for field in ('body', 'orelse', 'finalbody', 'handlers', 'cases'):
    for child in getattr(node, field, ()):
      yield child
      yield from _statements(child)
