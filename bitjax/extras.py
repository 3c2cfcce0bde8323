"""Optional packages: what needs one that is missing names the extra that installs it."""

from __future__ import annotations

import importlib.util

from bitjax import types

__all__ = ['EXPORT', 'EXTRA', 'STUDIES', 'check', 'missing']

EXTRA, EXPORT = 'experiments', 'export'
# What every study needs.
STUDIES = ('h5netcdf', 'h5py', 'matplotlib', 'scipy', 'tqdm', 'xarray')


def missing(name: str, *packages: str, extra: str = EXTRA) -> types.BadInput:
  """Returns the error for something that lacks packages.

  Args:
    name: what needs them, the subject of the message.
    *packages: the packages, by the names by which they are installed.
    extra: the extra that installs them.
  """
  return types.BadInput(
    f'{name} needs {", ".join(packages)}, which this installation lacks; install '
    f"the extra: pip install 'bitjax[{extra}]'."
  )


def check(name: str, *packages: str, extra: str = EXTRA) -> None:
  """Raises `types.BadInput`, which names the extra, if a package is missing.

  Args:
    name: what needs the packages.
    *packages: the packages, by the names by which they are imported.
    extra: the extra that installs them.
  """
  lacking = [
    package for package in packages if importlib.util.find_spec(package) is None
  ]
  if lacking:
    raise missing(name, *lacking, extra=extra)
