"""Imports packages that only the extra ``experiments`` installs, where they are used."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ['load']


def load(module: str) -> Any:
  """Returns a module; raises ``ModuleNotFoundError``, which names the extra."""
  try:
    return importlib.import_module(module)
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      f'bitjax.evidence needs {module.partition(".")[0]}, which this installation '
      "lacks; install the extra: pip install 'bitjax[experiments]'.",
      name=error.name,
    ) from error
