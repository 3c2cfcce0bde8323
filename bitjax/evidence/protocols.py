"""Protocols that choose a method's best setting, by the same rule for every method.

Under the *oracle* protocol a method picks, seed by seed, the setting with the
lowest loss on the search batch A. Under the *deployable* protocol it takes, for all
seeds, the setting with the lowest mean loss on the held-out batches of *tuning seeds*,
which are not tested. Either way the outcome is read on A and on B of the tested seeds.

Tuning on the other tested seeds would make seeds depend on each other: each seed's
batches would choose for all others, and intervals that take seeds to be independent
would cover less than they say, however many seeds there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bitjax.evidence import optional

if TYPE_CHECKING:
  import xarray

__all__ = [
  'PROTOCOLS',
  'apart',
  'deployable',
  'losses',
  'oracle',
  'select',
  'select_arm',
  'unsettled',
]

PROTOCOLS = ('oracle', 'deployable')
_TUNING = 'tuning_'
_TUNING_SEED = 'tuning_seed'


def apart(
  results: xarray.Dataset,
  tuning_seeds: Sequence[int],
  names: Iterable[str],
) -> xarray.Dataset:
  """Sets the tuning seeds apart, so that nothing that reads seeds can test them.

  Args:
    results: results of tested and tuning seeds along the dimension ``seed``.
    tuning_seeds: labels of the tuning seeds.
    names: variables by which settings are chosen: losses on B.

  Returns:
    The results of the other seeds, and with them each variable NAME of ``names`` for the
    tuning seeds, named ``tuning_NAME``, along the dimension ``tuning_seed``.
  """
  labels = {'seed': list(tuning_seeds)}
  tuning = results[list(names)].sel(labels).rename(seed=_TUNING_SEED)
  tuning = tuning.rename(
    {name: f'{_TUNING}{name}' for name in tuning.data_vars}
  )
  return results.drop_sel(labels).assign(tuning.data_vars)


def select_arm(
  results: xarray.Dataset, name: str, **labels: object
) -> xarray.Dataset:
  """Returns the variables of one arm, without its prefix, at given labels.

  Args:
    results: dataset whose variables are named ``<arm>_<output>``, or, for tuning seeds,
      ``tuning_<arm>_<output>``, which become ``tuning_<output>``.
    name: name of the arm.
    **labels: coordinates to select, by label.
  """
  prefix = f'{name}_'
  names = [str(name) for name in results.data_vars]
  own = {n: n.removeprefix(prefix) for n in names if n.startswith(prefix)}
  tuning = f'{_TUNING}{prefix}'
  own |= {
    n: _TUNING + n.removeprefix(tuning) for n in names if n.startswith(tuning)
  }
  return results[list(own)].rename(own).sel(labels)


def losses(outcomes: xarray.Dataset) -> xarray.Dataset:
  """Returns the losses alone: ``search``, ``holdout`` and ``tuning_holdout``, if any."""
  names = ('search', 'holdout', f'{_TUNING}holdout')
  return outcomes[[name for name in names if name in outcomes]]


def select(
  outcomes: xarray.Dataset, over: Sequence[str], protocol: str
) -> xarray.Dataset:
  """Picks settings by the protocol of the given name, ``oracle`` or ``deployable``."""
  return {'oracle': oracle, 'deployable': deployable}[protocol](outcomes, over)


def oracle(outcomes: xarray.Dataset, over: Sequence[str]) -> xarray.Dataset:
  """Picks the setting with the lowest loss on A, at every index of other dimensions.

  Args:
    outcomes: dataset with at least ``search``, the loss on A; NaN counts as infinite.
    over: the dimensions that span the settings.

  Returns:
    All variables of tested seeds at the chosen setting, without the dimensions ``over``;
    the setting's labels stay as coordinates. NaN where every setting diverged.
  """
  return _pick(outcomes, outcomes['search'], over)


def deployable(
  outcomes: xarray.Dataset,
  over: Sequence[str],
  *,
  average: Sequence[str] = ('draw',),
) -> xarray.Dataset:
  """Picks, for all seeds, the setting with the lowest mean loss on B of tuning seeds.

  Args:
    outcomes: dataset with at least ``tuning_holdout``, the loss on B over the dimension
      ``tuning_seed``, as `apart` makes it.
    over: the dimensions that span the settings.
    average: dimensions of repetitions within a seed, where present; tuning averages
      over them.

  Returns:
    All variables of tested seeds at the chosen setting, without the dimensions ``over``.
    NaN where at each setting some tuning seed diverged; tuning seeds that diverged at all
    of them do not count.
  """
  tuning = _tuning(outcomes, over, average)
  return _pick(outcomes, tuning.mean(_TUNING_SEED), over)


def unsettled(
  outcomes: xarray.Dataset,
  over: Sequence[str],
  *,
  average: Sequence[str] = ('draw',),
  num_resamples: int = 1000,
) -> xarray.DataArray:
  """Returns how often other tuning seeds would have led to another choice.

  Args:
    outcomes: as for the deployable protocol.
    over: the dimensions that span the settings.
    average: as for the deployable protocol.
    num_resamples: number of resamples (bootstrap) of the tuning seeds.

  Returns:
    The share of resamples whose mean loss is lowest at another setting.
  """
  xr = optional.load('xarray')
  tuning = _tuning(outcomes, over, average)
  tuning = tuning.stack(setting=list(over), create_index=False)
  num = tuning.sizes[_TUNING_SEED]
  counts = np.random.default_rng(0).multinomial(
    num, np.full(num, 1 / num), size=num_resamples
  )
  kept, repeats = np.unique(counts, axis=0, return_counts=True)
  drawn = xr.DataArray(kept, dims=('resample', _TUNING_SEED))
  share = xr.DataArray(repeats / num_resamples, dims='resample')
  known = np.isfinite(tuning)
  totals = xr.dot(drawn, tuning.where(known, 0.0), dim=_TUNING_SEED)
  lost = xr.dot(drawn, (~known).astype(int), dim=_TUNING_SEED) > 0
  others = totals.where(~lost, float('inf')).argmin('setting')
  chosen = tuning.mean(_TUNING_SEED).argmin('setting')
  return xr.dot((others != chosen).astype(float), share, dim='resample')


def _tuning(outcomes, over, average):
  """Returns the losses of tuning seeds; infinite where a setting must not be chosen."""
  name = f'{_TUNING}holdout'
  if name not in outcomes:
    raise ValueError(f'the deployable protocol needs {name!r}; see `apart`.')
  found = outcomes[name]
  found = found.mean(
    [dim for dim in average if dim in found.dims], skipna=False
  )
  # A setting that diverges for one of the tuning seeds must not be chosen; but a seed
  # that diverges at every setting does not tell them apart.
  found = found.fillna(float('inf'))
  some = (found < float('inf')).any(list(over))
  # Unless all seeds do: then there is no setting to choose.
  return found.where(some | ~some.any(_TUNING_SEED), 0.0)


def _pick(outcomes, losses, over):
  outcomes = outcomes.drop_dims(_TUNING_SEED, errors='ignore')
  # An index of all settings would take longer than all else.
  losses, flat = (
    found.stack(setting=list(over), create_index=False)
    for found in (losses.fillna(float('inf')), outcomes)
  )
  chosen = flat.isel(setting=losses.argmin('setting'))
  diverged = losses.min('setting') == float('inf')
  if bool(diverged.any()):  # There is no setting to choose.
    chosen = chosen.where(~diverged)
  return chosen
