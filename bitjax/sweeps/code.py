"""The code that numbers come from, and whether it has changed since.

Three things are recorded: the *environment* (versions of the libraries that compute, and
the kind of device), the *sources* (what was really loaded, lazy imports included), and,
for what JAX traces, the *program* that computed a chunk. The program decides: a source
may change in any way that leaves the program as it was. Where there is no program, as
in a training, the sources decide.

A source counts by its syntax tree without docstrings, so comments, docstrings and layout
may change. Of installed packages only the versions in the environment count, except
bitjax, which counts by its sources wherever it lies; Python and its library do not.
Left aside is what works on finished numbers only: command lines, figures, and verdicts,
with all modules that nothing else reaches.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import sys
import sysconfig
from typing import Any

import jax

from bitjax.sweeps import reach

__all__ = ['Code', 'environment', 'identify', 'only_for', 'program']

_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy')
# Settings of JAX with which the same source computes other numbers.
_SETTINGS = (
  'jax_default_matmul_precision',
  'jax_default_prng_impl',
  'jax_enable_x64',
  'jax_threefry_partitionable',
)
# The number of virtual devices changes no number.
_DEVICES = '--xla_force_host_platform_device_count'
_ASIDE = (
  'bitjax.__main__',
  'bitjax.cli',
  'bitjax.evidence.plots',
  'bitjax.evidence.verdicts',
  'bitjax.sweeps.progress',
)


class Code:
  """The code of this process, as it was when it was first looked at.

  Args:
    aside: names of further modules that do not count; modules below them do.
    script: whether the script that Python was started with counts.
  """

  def __init__(self, aside: Iterable[str] = (), *, script: bool = True):
    self._aside = frozenset(aside)
    self._script = script
    # Files may be edited while the process runs; it goes on with what it has loaded.
    self._seen: dict[str, list[str]] = {}
    self.sources()

  def sources(self) -> dict[str, list[str]]:
    """Returns module -> digests of its file and of its syntax tree."""
    for name, module in list(sys.modules.items()):
      if name in self._seen:
        continue
      path = _source(getattr(module, '__file__', None))
      if path is not None and self._counts(name):
        self._seen[name] = _digests(path)
    return dict(sorted(self._seen.items()))

  def record(self) -> dict[str, Any]:
    """Returns environment and sources in JSON values."""
    return {'environment': environment(), 'sources': self.sources()}

  def changes(self, then: Mapping[str, Any] | None) -> list[str]:
    """Names what differs from a record: versions first, then modules.

    Args:
      then: what `record` returned; None if nothing was recorded.

    Returns:
      Names, with what has changed of a version; empty if nothing has changed.
    """
    try:
      record: Any = then
      was = dict(record['environment'])
      sources = {name: (a, b) for name, (a, b) in record['sources'].items()}
    except (LookupError, TypeError, ValueError, AttributeError):
      return ['code that was not recorded']
    now = environment()
    found = [
      f'{name} {was.get(name)} (now {now.get(name)})'
      for name in [*was, *(name for name in now if name not in was)]
      if now.get(name) != was.get(name)
    ]
    ours = self.sources()
    for name, (text, tree) in sources.items():
      here = ours.get(name) or _elsewhere(name)
      if here is None or (here[0] != text and here[1] != tree):
        found.append(name)
    return found

  def _counts(self, name: str) -> bool:
    if name == '__mp_main__':  # An alias of the script.
      return False
    if name == '__main__':
      return self._script
    return name not in self._aside and not _below(name)


def only_for(judges: Iterable[str], homes: Iterable[str]) -> set[str]:
  """Returns the modules that are needed for what ``judges`` do, and for nothing else.

  Args:
    judges: modules that work on finished numbers.
    homes: the modules that compute numbers; they may import judges, to name them. If the
      source of one is not known, judges alone are returned.
  """
  judges, homes = set(judges), {_imported_as(home) for home in homes}
  find = functools.cache(_followed)
  own = reach.reached(homes, find, without=judges)
  if not homes <= own:
    return judges
  return judges | reach.reached(judges, find, without=own)


def _followed(name: str) -> pathlib.Path | None:
  """Returns the file of a module whose imports are followed, None for any other."""
  if _below(name):
    return None
  if name == '__main__':
    return _source(getattr(sys.modules[name], '__file__', None))
  try:
    # To look below an installed package imports it, which may take seconds.
    top = importlib.util.find_spec(name.partition('.')[0])
    if top is None or (top.origin and _source(top.origin) is None):
      return None
    spec = importlib.util.find_spec(name)
  except (ImportError, ValueError):
    return None
  return _source(spec.origin) if spec else None


def _imported_as(name: str) -> str:
  """Returns the name of a module that ``python -m`` may have started."""
  spec = getattr(sys.modules.get(name), '__spec__', None)
  return spec.name if spec else name


def _below(name: str) -> bool:
  """Returns whether a module is one of those left aside, or below one of them."""
  return any(name == each or name.startswith(each + '.') for each in _ASIDE)


def environment() -> dict[str, str]:
  """Returns versions of libraries, settings of JAX and XLA, and the kind of device."""
  flags = os.environ.get('XLA_FLAGS', '').split()
  kept = sorted(flag for flag in flags if not flag.startswith(_DEVICES))
  return (
    _versions()
    | {'device': jax.devices()[0].device_kind, 'XLA_FLAGS': ' '.join(kept)}
    | {name: str(getattr(jax.config, name)) for name in _SETTINGS}
  )


@functools.cache
def _versions() -> dict[str, str]:
  return {name: importlib.metadata.version(name) for name in _PACKAGES}


def program(lowered: jax.stages.Lowered) -> str:
  """Returns the digest of a program and of the environment that compiles it."""
  found = hashlib.sha256(lowered.as_text().encode())
  found.update(json.dumps(environment(), sort_keys=True).encode())
  return found.hexdigest()


def identify(record: Mapping[str, Any]) -> str:
  """Returns a short name of recorded code, equal for code that counts as the same."""
  trees = {name: tree for name, (_, tree) in record['sources'].items()}
  content = json.dumps([record['environment'], trees], sort_keys=True)
  return _short(content.encode())[:10]


@functools.cache
def _source(file: str | None) -> pathlib.Path | None:
  """Returns a module's file if its source counts, None for any other module."""
  if not file or not file.endswith('.py'):
    return None
  path = pathlib.Path(file).absolute()
  ours = path.is_relative_to(_bitjax())
  installed = any(path.is_relative_to(folder) for folder in _installed())
  return path if path.is_file() and (ours or not installed) else None


def _elsewhere(name: str) -> list[str] | None:
  """Returns the digests of a module that is not loaded yet, None if it is gone."""
  try:
    spec = importlib.util.find_spec(name)
  except (ImportError, ValueError):
    return None
  if spec is None or not spec.has_location or spec.origin is None:
    return None
  path = pathlib.Path(spec.origin)
  return _digests(path) if path.is_file() else None


@functools.cache
def _bitjax() -> pathlib.Path:
  return pathlib.Path(__file__).absolute().parents[1]


@functools.cache
def _installed() -> tuple[pathlib.Path, ...]:
  """Returns the folders of the standard library and of installed packages."""
  names = ('stdlib', 'platstdlib', 'purelib', 'platlib')
  paths = sysconfig.get_paths()
  return tuple({pathlib.Path(paths[name]).absolute() for name in names})


def _digests(path: pathlib.Path) -> list[str]:
  stat = path.stat()
  return list(_digests_of(path, stat.st_mtime_ns, stat.st_size))


@functools.cache
def _digests_of(
  path: pathlib.Path, modified: int, size: int
) -> tuple[str, str]:
  """Returns the digests of a file's bytes and of its syntax tree."""
  del modified, size  # They distinguish the versions of a file.
  content = path.read_bytes()
  parts: list[str] = []
  try:
    _write(ast.parse(content), parts)
  except (SyntaxError, ValueError):  # It is being edited.
    parts = [repr(content)]
  return _short(content), _short(''.join(parts).encode())


def _write(node: Any, parts: list[str]) -> None:
  """Appends a syntax tree as text that all versions of Python agree on."""
  if isinstance(node, list):
    for item in node:
      _write(item, parts)
    parts.append(';')
  elif isinstance(node, ast.AST):
    parts.append(type(node).__name__)
    for name in node._fields:
      value: Any = getattr(node, name, None)
      if isinstance(node, ast.JoinedStr) and name == 'values':
        # Python 3.12 has empty texts in format specifications.
        value = [part for part in value if getattr(part, 'value', None) != '']
      if name == 'body' and _has_docstring(node):
        value = value[1:]
      # Later versions of Python have more fields, which are then empty.
      if value is not None and value != []:
        parts.append(f' {name}=')
        _write(value, parts)
    parts.append('.')
  else:
    parts.append(repr(node))


def _has_docstring(node: ast.AST) -> bool:
  documented = (
    ast.Module,
    ast.ClassDef,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
  )
  return isinstance(node, documented) and ast.get_docstring(node) is not None


def _short(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()[:16]
