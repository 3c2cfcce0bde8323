"""Compares measured numbers with the targets that they should meet."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax.evidence import optional
from bitjax.evidence import plots
from bitjax.evidence import verdicts

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray

__all__ = ['Target', 'bars', 'judge', 'table']


@dataclasses.dataclass(frozen=True)
class Target:
  """A bound that a measured number should meet.

  Attributes:
    unit: unit of the number.
    limit: the largest value that meets the target; the smallest if
      ``higher_is_better``.
    higher_is_better: whether larger numbers are better.
  """

  unit: str
  limit: float
  higher_is_better: bool = False

  def met(self, value: float) -> bool:
    """Returns whether a number meets the target; NaN does not."""
    return value >= self.limit if self.higher_is_better else value <= self.limit


def table(
  targets: Mapping[str, Target], measured: Mapping[str, float]
) -> xarray.Dataset:
  """Returns measured numbers and targets by case; NaN where nothing was measured.

  Raises:
    ValueError: if a case has no target.
  """
  xr = optional.load('xarray')
  odd = sorted(measured.keys() - targets.keys())
  if odd:
    raise ValueError(f'the case {odd[0]!r} needs a target.')
  limits = [target.limit for target in targets.values()]
  return xr.Dataset(
    {
      'measured': ('case', [measured.get(name, np.nan) for name in targets]),
      'target': ('case', limits),
    },
    coords={'case': list(targets)},
  )


def judge(
  targets: Mapping[str, Target],
  results: xarray.Dataset,
  details: Mapping[str, dict[str, Any]],
) -> list[verdicts.Verdict]:
  """Returns a verdict for each target: whether the measured number meets it.

  Args:
    targets: case -> target.
    results: the dataset that `table` returned.
    details: case -> further numbers, for some of the cases.
  """
  found = []
  for name, target in targets.items():
    value = results['measured'].sel(case=name).item()
    word = 'least' if target.higher_is_better else 'most'
    verdict = 'supported' if target.met(value) else 'contradicted'
    found.append(
      verdicts.Verdict(
        finding=name,
        claim=f'At {word} {target.limit:g} {target.unit}.',
        verdict='inconclusive' if np.isnan(value) else verdict,
        effect=value,
        low=-np.inf,
        high=np.inf,
        unit=target.unit,
        num_seeds=1,
        protocol='median of turns, one machine',
        details=details.get(name, {}),
      )
    )
  return found


def bars(
  targets: Mapping[str, Target], results: xarray.Dataset
) -> figure.Figure:
  """Draws each measured number relative to its target, which lies at 1."""
  pyplot = optional.load('matplotlib.pyplot')

  fig, ax = pyplot.subplots(figsize=(6.75, 0.6 + 0.24 * len(targets)))
  names = results.case.values.tolist()
  measured = results['measured'].values
  relative = measured / results['target'].values
  for row, name in enumerate(names):
    if np.isnan(measured[row]):
      continue
    target = targets[name]
    color = plots.BLUE if target.met(measured[row]) else plots.RED
    ax.barh(row, relative[row], color=color)
    text = f' {measured[row]:.3g} {target.unit}'
    ax.text(relative[row], row, text, va='center', fontsize=7)
  ax.set_yticks(range(len(names)), names)
  ax.axvline(1, color='black', linewidth=0.8)
  ax.set_xlim(0, 1.6 * max(1, np.nanmax(relative)))
  ax.set_xlabel('measured / target (blue: target met)')
  ax.invert_yaxis()
  return fig
