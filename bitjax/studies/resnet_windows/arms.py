"""The trainings that the study compares: an estimator, and where it starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bitjax import types
from bitjax.studies.resnet_windows import estimators

__all__ = ['STARTS', 'Arm', 'every']

STARTS = ('initialised', 'pretrained')


class Arm(NamedTuple):
  """One kind of training.

  Attributes:
    estimator: a name that `estimators.of` knows.
    start: one of `STARTS`.
  """

  estimator: str
  start: str

  def __str__(self) -> str:
    """Returns its label in results, such as ``'window 1, pretrained'``."""
    return f'{self.estimator}, {self.start}'


def every(
  half_widths: Sequence[float],
  units: Sequence[str],
  extras: Sequence[str],
  shapes: Sequence[str],
) -> list[Arm]:
  """Returns the arms: windows and extras at both starts, shapes at the pretrained one.

  Args:
    half_widths: of the windows.
    units: some of `estimators.UNITS`.
    extras: names of further estimators.
    shapes: names in `estimators.SHAPES`.

  Raises:
    BadInput: unless both windows of the primary contrast are among them.
  """
  if not {0.5, 1.0} <= {*half_widths} or estimators.UNITS[0] not in units:
    raise types.BadInput(
      'half_widths must list 0.5 and 1, and units absolute, the primary contrast; got '
      f'{", ".join(f"{c:g}" for c in half_widths)} and {", ".join(units)}.'
    )
  makes = dict(
    zip(
      estimators.UNITS,
      (estimators.absolute, estimators.relative),
      strict=True,
    )
  )
  windows = [makes[unit](c) for unit in units for c in sorted(half_widths)]
  return [
    *(Arm(name, start) for start in STARTS for name in (*windows, *extras)),
    *(Arm(name, STARTS[-1]) for name in shapes),
  ]
