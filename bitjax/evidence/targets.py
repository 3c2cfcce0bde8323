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
  targets: Mapping[str, Target],
  results: xarray.Dataset,
  *,
  labels: Mapping[str, str] | None = None,
  units: Mapping[str, str] | None = None,
) -> figure.Figure:
  """Draws how much of its limit each measured number uses: shorter is always better.

  A bar has the length measured / limit, or limit / measured where higher is better,
  so that it ends left of 1 if and only if the target is met. The numbers stand on the
  right. Where nothing was measured there is no bar.

  Args:
    targets: case -> target.
    results: the dataset that `table` returned.
    labels: case -> its label, where that differs.
    units: case -> its unit in print, where that differs.
  """
  pyplot = optional.load('matplotlib.pyplot')

  labels, units = labels or {}, units or {}
  names = results.case.values.tolist()
  fig, ax = pyplot.subplots(figsize=(6.75, 0.9 + 0.2 * len(targets)))
  longest = 1.0
  for row, name in enumerate(names):
    value, target = results['measured'].values[row].item(), targets[name]
    if np.isnan(value):
      text = 'not measured'
    else:
      sign = '≥' if target.higher_is_better else '≤'
      unit = units.get(name, target.unit)
      text = f'{value:.3g}  ({sign} {target.limit:g}) {unit}'
    used = _used(target, value)
    if not np.isnan(used):
      met = target.met(value)
      ax.barh(
        row, min(used, 3), height=0.7, edgecolor=plots.BLUE if met else plots.RED,
        color=plots.BLUE if met else 'white', hatch=None if met else '////',
      )  # fmt: skip
      longest = max(longest, used)
    ax.annotate(
      text, (1.02, row), xycoords=('axes fraction', 'data'), va='center',
      fontsize=7,
    )  # fmt: skip
  shown = [labels.get(name, name) for name in names]
  ax.set_yticks(range(len(names)), shown)
  ax.axvline(1, color='black', linewidth=1.2)
  ax.set_xlim(0, 1.03 * min(longest, 2))  # A longer bar is cut off.
  ax.set_ylim(len(names) - 0.5, -0.5)
  ax.grid(visible=False, axis='y')
  ax.set_xlabel(
    'share of the limit used (shorter is better):\n'
    'measured / limit for ≤, limit / measured for ≥',
    fontsize=8,
  )
  ax.set_title(
    'measured (limit)', loc='left', x=1.02, fontsize=8, fontweight='bold'
  )
  met, missed = (
    pyplot.Rectangle((0, 0), 1, 1, edgecolor=edge, facecolor=face, hatch=hatch)
    for edge, face, hatch in (
      (plots.BLUE, plots.BLUE, None),
      (plots.RED, 'white', '////'),
    )
  )
  fig.legend(
    [met, missed], ['met', 'not met'], loc='outside upper left', ncols=2
  )
  return fig


def _used(target, value):
  """Returns the share of the limit that a number uses, in the direction of worse."""
  above, below = value, target.limit
  if target.higher_is_better:
    above, below = below, above
  if below == 0:
    return np.inf if above > 0 else 0.0
  return above / below
