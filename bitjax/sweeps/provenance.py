"""Provenance of results: versions, commit, device, command and time."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
from typing import Any

from bitjax.version import __version__

__all__ = ['collect', 'git']

_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy', 'xarray', 'scipy')


def collect() -> dict[str, Any]:
  """Returns a description of this process in JSON values; initialises JAX's devices."""
  import jax

  device = jax.devices()[0]
  return {
    'started': datetime.datetime.now(datetime.UTC).isoformat(
      timespec='seconds'
    ),
    'command': [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]],
    'bitjax': __version__,
    'git': git(),
    'versions': {'python': platform.python_version(), **_versions()},
    'device': {
      'platform': device.platform,
      'kind': device.device_kind,
      'count': jax.device_count(),
    },
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
  }


@functools.cache
def git() -> dict[str, Any] | None:
  """Returns the commit that bitjax runs from, or None outside its own checkout."""
  root = pathlib.Path(__file__).resolve().parents[2]
  # A virtual environment may lie inside the checkout of another project.
  if not (root / '.git').exists():
    return None
  commit = _git(root, 'rev-parse', 'HEAD')
  if commit is None:
    return None
  status = _git(root, 'status', '--porcelain', '--untracked-files=no')
  return {'commit': commit, 'dirty': bool(status)}


def _versions() -> dict[str, str | None]:
  found: dict[str, str | None] = {}
  for package in _PACKAGES:
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      found[package] = None
  return found


def _git(root: pathlib.Path, *arguments: str) -> str | None:
  try:
    done = subprocess.run(
      ['git', '-C', str(root), *arguments],
      capture_output=True,
      text=True,
      timeout=10,
      check=True,
    )
  except (OSError, subprocess.SubprocessError):
    return None
  return done.stdout.strip()
