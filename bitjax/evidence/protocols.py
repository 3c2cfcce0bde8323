"""Protocols that choose a method's best setting, by the same rule for every method.

Under the *oracle* protocol a method picks, seed by seed, the setting with the
lowest loss on the search batch A. Under the *deployable* protocol the setting for
a seed is tuned on all the other seeds, by their loss on the held-out batch B, so that
none of a seed's own data affects the choice. Either way the outcome is read on A and
on B.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bitjax.evidence import optional

if TYPE_CHECKING:
  import xarray

__all__ = ['PROTOCOLS', 'deployable', 'oracle', 'select', 'select_arm']

PROTOCOLS = ('oracle', 'deployable')


def select_arm(
  results: xarray.Dataset, name: str, **labels: object
) -> xarray.Dataset:
  """Returns the variables of one arm, without its prefix, at given labels.

  Args:
    results: dataset whose variables are named ``<arm>_<output>``.
    name: name of the arm.
    **labels: coordinates to select, by label.
  """
  prefix = f'{name}_'
  names = [str(name) for name in results.data_vars]
  own = {n: n.removeprefix(prefix) for n in names if n.startswith(prefix)}
  return results[list(own)].rename(own).sel(labels)


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
    All variables at the chosen setting, without the dimensions ``over``; the
    setting's labels stay as coordinates. NaN where every setting diverged.
  """
  return _pick(outcomes, outcomes['search'], over)


def deployable(
  outcomes: xarray.Dataset,
  over: Sequence[str],
  *,
  seed: str = 'seed',
  average: Sequence[str] = ('draw',),
) -> xarray.Dataset:
  """Picks, for each seed, the setting with the lowest mean loss on B of other seeds.

  Args:
    outcomes: dataset with at least ``holdout``, the loss on B.
    over: the dimensions that span the settings.
    seed: the dimension of independent experiments; if it has a single entry, nothing
      can be tuned, and the result is NaN.
    average: dimensions of repetitions within a seed, where present; tuning averages
      over them.

  Returns:
    All variables at the chosen setting, without the dimensions ``over``. NaN where at
    each setting some other seed diverged; seeds that diverged at all of them do not count.
  """
  losses = outcomes['holdout']
  losses = losses.mean([name for name in average if name in losses.dims])
  others = losses.sizes[seed] - 1
  if others < 1:
    return _pick(outcomes, losses, over).map(lambda x: x.where(False))
  # A setting that diverges for one of the tuning seeds must not be chosen; but a seed
  # that diverges at every setting does not tell them apart.
  losses = losses.fillna(float('inf'))
  losses = losses.where((losses < float('inf')).any(list(over)), 0.0)
  totals = [
    losses.drop_isel({seed: index}).mean(seed)
    for index in range(losses.sizes[seed])
  ]
  xr = optional.load('xarray')
  return _pick(outcomes, xr.concat(totals, outcomes[seed]), over)


def _pick(outcomes, losses, over):
  losses = losses.fillna(float('inf')).stack(setting=list(over))
  index = losses.argmin('setting')
  flat = outcomes.stack(setting=list(over))
  chosen = flat.isel(setting=index).drop_vars('setting', errors='ignore')
  diverged = losses.min('setting') == float('inf')
  if bool(diverged.any()):  # There is no setting to choose.
    chosen = chosen.where(~diverged)
  return chosen
