"""Compiled programs, kept between runs: starting again should not be compiling again.

JAX keeps what XLA compiled in a directory and finds it there by everything that
the program depends on. Ours is in the user's cache directory, private to the user
(a program that is read there is executed) and to the machine (homes are shared
between machines whose processors differ). It is never part of a run directory:
results must not depend on it, and they do not.
"""

from __future__ import annotations

import os
import pathlib
import platform
from typing import Any

import jax

from bitjax.data import cache

__all__ = ['keep']


def keep() -> pathlib.Path | None:
  """Makes JAX keep compiled programs from now on.

  Leaves a choice of the user's alone: a directory that JAX has been given
  (``JAX_COMPILATION_CACHE_DIR``), or ``JAX_ENABLE_COMPILATION_CACHE=0``.

  Returns:
    The directory, or None where nothing is kept: by choice, or because there is
    no home, it cannot be written, or belongs to somebody else.
  """
  settings: Any = jax.config  # It makes its attributes when it is imported.
  if not settings.jax_enable_compilation_cache:
    return None
  given = settings.jax_compilation_cache_dir
  if given is not None:
    return pathlib.Path(given)
  try:
    directory = cache.default_dir() / 'programs' / (platform.node() or 'local')
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, 'getuid') and directory.stat().st_uid != os.getuid():
      return None
    directory.chmod(0o700)
    usable = os.access(directory, os.W_OK | os.X_OK)
  except (OSError, RuntimeError):  # A RuntimeError says that there is no home.
    return None
  if not usable:
    return None
  jax.config.update('jax_compilation_cache_dir', str(directory))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)
  return directory
