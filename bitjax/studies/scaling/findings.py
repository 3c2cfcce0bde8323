"""Judges which targets of the study are met."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitjax.evidence import targets
from bitjax.evidence import verdicts
from bitjax.studies.scaling import limits

if TYPE_CHECKING:
  import xarray

__all__ = ['judge']


def judge(results: xarray.Dataset) -> list[verdicts.Verdict]:
  """Says which targets are met."""
  details = {'seconds of the sweep': results['seconds'].item()}
  return targets.judge(limits.TARGETS, results, {'chunks and files': details})
