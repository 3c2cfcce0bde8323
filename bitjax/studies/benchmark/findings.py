"""Judges which targets of the benchmark are met."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitjax.evidence import targets
from bitjax.evidence import verdicts
from bitjax.studies.benchmark import limits

if TYPE_CHECKING:
  import xarray

__all__ = ['judge']

# Case -> the variable whose numbers its verdict tells besides.
_DETAILS = {
  'multi-step, full precision': 'peak',
  'estimator overhead': 'overhead',
  'seeds together': 'seeds_together',
  'flips of a convolution together': 'flips_together',
}


def judge(results: xarray.Dataset) -> list[verdicts.Verdict]:
  """Says which targets of the device's kind are met."""
  wanted = limits.of(results.attrs.get('device_kind', 'cpu'))
  details = {
    case: results[name].to_series().to_dict()
    for case, name in _DETAILS.items()
    if name in results
  }
  return targets.judge(wanted, results, details)
