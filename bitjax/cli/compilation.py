"""Keeps compiled programs between runs, so that a new run need not compile again.

JAX stores what XLA compiled in a directory, under a key of everything that the
program depends on. Ours is in the user's cache directory, private to the user
(programs that are read from it are executed) and to the machine (machines with
different processors may share a home directory). It is never part of a run
directory: results must not depend on it, and they do not.
"""

from __future__ import annotations

import os
import pathlib
import platform
from typing import Any

import jax

from bitjax import files

__all__ = ['keep']


def keep() -> pathlib.Path | None:
  """Makes JAX keep compiled programs from now on.

  It respects the user's own choice: a directory that JAX has been given
  (``JAX_COMPILATION_CACHE_DIR``), or ``JAX_ENABLE_COMPILATION_CACHE=0``.

  Returns:
    The directory, or None if nothing is kept: because the user chose so, there is no
    home directory, or the cache cannot be written or belongs to another user.
  """
  settings: Any = jax.config  # Type checkers do not know its attributes.
  if not settings.jax_enable_compilation_cache:
    return None
  given = settings.jax_compilation_cache_dir
  if given is not None:
    directory = files.expand(given)
    settings.update('jax_compilation_cache_dir', str(directory))
    return directory
  try:
    directory = files.cache_dir() / 'programs' / (platform.node() or 'local')
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, 'getuid') and directory.stat().st_uid != os.getuid():
      return None
    directory.chmod(0o700)
    usable = os.access(directory, os.W_OK | os.X_OK)
  except (OSError, RuntimeError):  # RuntimeError: there is no home directory.
    return None
  if not usable:
    return None
  jax.config.update('jax_compilation_cache_dir', str(directory))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)
  return directory
