"""How claims and details of the study call networks, starts and methods.

Also how settled a method's tuning is: how often other tuning seeds would choose another
setting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitjax.evidence import protocols
from bitjax.studies.discrete_optimisers import arms

if TYPE_CHECKING:
  from collections.abc import Iterable, Sequence

  import xarray

__all__ = ['FROM', 'by_signs', 'doubted', 'unsettled', 'where', 'words']

FROM = {'checkpoint': 'from the checkpoint', 'random': 'from random signs'}
_WORDS = {
  'genetic': 'the genetic algorithm',
  arms.DESCENT: 'the best flip each time',
}


def doubted(results: xarray.Dataset) -> xarray.Dataset:
  """Returns results with how often other tuning seeds would choose another setting."""
  tuning = results[['tuning_holdout']].sel(effort=1)
  return results.assign(doubt=protocols.unsettled(tuning, ['choice']))


def unsettled(at: xarray.Dataset, names: Iterable[str]) -> dict[str, Any]:
  """Returns it for details; the best flip each time has no setting."""
  return {
    f'tuned otherwise, {arm}': at.doubt.sel(arm=arm)
    for arm in names
    if arm != arms.DESCENT
  }


def by_signs(
  at: xarray.Dataset, signs: Sequence[int], names: Iterable[str]
) -> dict[str, Any]:
  """Returns the same of several networks."""
  names = list(names)
  return {
    f'{label}, {number} signs': share
    for number in signs
    for label, share in unsettled(at.sel(signs=number), names).items()
  }


def where(signs: int, start: str) -> str:
  """Returns how a claim begins."""
  return f'{signs} signs, {FROM[start]}'


def words(arm: str) -> str:
  """Returns how a method is called within a sentence."""
  return _WORDS.get(arm, arm)
