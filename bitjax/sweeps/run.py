"""What a sweep needs to know of the run that owns its directory."""

from __future__ import annotations

from typing import Any, Protocol

from bitjax.sweeps import code as code_lib

__all__ = ['Run']


class Run(Protocol):
  """What a sweep needs to know of the run that owns its directory."""

  @property
  def resumes(self) -> bool:
    """Whether the directory may hold chunks of the same run."""
    ...

  @property
  def code(self) -> code_lib.Code:
    """The code that the run's numbers come from."""
    ...

  def identity(self, records: dict[str, Any]) -> Any:
    """Returns a JSON value that distinguishes this run from others."""
    ...

  def check(self, records: dict[str, Any]) -> None:
    """Raises `BadInput` if the run in the directory recorded other facts."""
    ...

  def begin(self, records: dict[str, Any]) -> None:
    """Claims the directory, just before a sweep computes something."""
    ...
