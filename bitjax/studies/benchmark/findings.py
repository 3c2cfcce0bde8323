"""Judges which targets of the benchmark are met."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitjax.evidence import targets
from bitjax.evidence import verdicts
from bitjax.studies.benchmark import limits

if TYPE_CHECKING:
  import xarray

__all__ = ['judge']


def judge(results: xarray.Dataset) -> list[verdicts.Verdict]:
  """Says which targets are met."""
  overheads = results['overhead'].to_series().to_dict()
  return targets.judge(
    limits.TARGETS, results, {'estimator overhead': overheads}
  )
