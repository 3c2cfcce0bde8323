"""Draws how much of its limit each measurement of the study uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitjax.evidence import targets
from bitjax.studies.scaling import limits

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray

__all__ = ['page']

_LABELS = {
  'ends that differ': 'killed runs with another end',
  'files left over': 'files left over by killed runs',
  'chunks and files': 'extra time of chunks and files',
  'resume': 'a finished sweep, run again',
  'memory': 'memory of many lanes',
  'weak scaling': 'two devices',
}
_UNITS = {'weak scaling': 'of the speed of two processes'}


def page(results: xarray.Dataset) -> figure.Figure:
  """Draws each measurement relative to its target."""
  return targets.bars(limits.TARGETS, results, labels=_LABELS, units=_UNITS)
