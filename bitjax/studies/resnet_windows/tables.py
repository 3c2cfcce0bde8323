"""Looks up what arms reach, and what gradients do; what diverged is NaN."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import functools
from typing import TYPE_CHECKING

import numpy as np

from bitjax.evidence import divergence
from bitjax.evidence import protocols
from bitjax.studies import recipes
from bitjax.studies.recipes import outcomes
from bitjax.studies.resnet_windows import arms as arms_lib
from bitjax.studies.resnet_windows import estimators

if TYPE_CHECKING:
  import xarray

__all__ = ['Looked', 'Trained', 'half_widths']

_PREFIX = 'all_'  # Of the losses after steps through all layers.


class Trained:
  """What arms reach.

  Args:
    results: of the study.
  """

  def __init__(self, results: xarray.Dataset):
    names = [
      n for n, values in results.data_vars.items() if 'arm' in values.dims
    ]
    found = results[names]
    self.found = outcomes.tested(found)
    losses = found.tuning_validation_loss
    self.rates = recipes.chosen(losses)
    self._doubt = protocols.unsettled(
      losses.to_dataset(name='tuning_holdout'), ['rate']
    )

  def names(self, start: str) -> list[str]:
    """Returns the estimators that were trained from a start."""
    return self.found.of.values[self.found.start.values == start].tolist()

  def right(self, estimator: str, start: str) -> np.ndarray:
    """Returns the answers of an arm in points, [seeds, test examples]."""
    found = self.found.right.sel(arm=str(arms_lib.Arm(estimator, start)))
    return found.transpose('seed', 'test_example').values

  def accuracy(self, estimator: str, start: str) -> np.ndarray:
    """Returns the accuracy of an arm in points, [seeds]."""
    return self.right(estimator, start).mean(1)

  def difference(self, estimator: str, against: str, start: str) -> np.ndarray:
    """Returns the paired differences of two arms, [seeds, test examples]."""
    return self.right(estimator, start) - self.right(against, start)

  def details(self, names: Sequence[str], start: str) -> dict[str, float]:
    """Returns accuracy and rate of arms, and whether their rate is in doubt."""
    found: dict[str, float] = {}
    for name in names:
      label = str(arms_lib.Arm(name, start))
      found |= {
        f'accuracy, {label}': float(
          divergence.finite_mean(self.found.right.sel(arm=label))
        ),
        f'rate, {label}': float(self.rates.sel(arm=label)),
      }
    return found | self.unsettled(names, start)

  def unsettled(self, names: Iterable[str], start: str) -> dict[str, float]:
    """Returns how often other tuning seeds would choose another rate, for each arm."""
    labels = [str(arms_lib.Arm(name, start)) for name in names]
    return {
      f'tuned otherwise, {label}': float(self._doubt.sel(arm=label))
      for label in labels
    }


class Looked:
  """What the gradients of one network do, in one state.

  Args:
    results: of the study.
    network: the network.
    state: its state.
  """

  def __init__(self, results: xarray.Dataset, network: str, state: str):
    names = [
      n for n, values in results.data_vars.items() if 'network' in values.dims
    ]
    found = results[names].sel(network=network, state=state)
    found = found.dropna('position', how='all')
    self.found = divergence.without(found, ['start_search', 'start_holdout'])
    self.network, self.state = network, state
    self._chosen = functools.cache(self._select)

  @property
  def names(self) -> list[str]:
    """The estimators."""
    return self.found.estimator.values.tolist()

  def layered(self, name: str) -> xarray.DataArray:
    """Returns a number by layer, without the last: no window is behind that.

    Args:
      name: of the variable.
    """
    return self.found[name].isel(position=slice(None, -1))

  def mean(self, name: str, **labels: object) -> np.ndarray:
    """Returns a number as its mean over these layers, [seeds].

    Args:
      name: of the variable.
      **labels: what to select.
    """
    return self.layered(name).sel(labels).mean('position').values

  def reached(self, estimator: str) -> np.ndarray:
    """Returns the loss on B after a step through all layers, [seeds].

    The length of the step is the one with the lowest mean loss on B of tuning seeds.

    Args:
      estimator: its name.
    """
    return self._chosen(_PREFIX).holdout.sel(estimator=estimator).values

  def saved(self, estimator: str) -> np.ndarray:
    """Returns how far such a step lowers the loss on B, in nats, [seeds]."""
    return self.found.start_holdout.values - self.reached(estimator)

  def reached_alone(self, estimator: str) -> xarray.DataArray:
    """Returns the loss on B after a step of one layer alone, (position, seed).

    Args:
      estimator: the name of a window.
    """
    found = self._chosen('layer_').holdout.sel(alone=estimator)
    return found.transpose('position', 'seed')

  def unsettled(self, names: Iterable[str]) -> dict[str, float]:
    """Returns how often other tuning seeds would choose another length of the step."""
    found = protocols.unsettled(self._losses(_PREFIX), ['step_rate'])
    return {
      f'tuned otherwise, {name}': float(found.sel(estimator=name))
      for name in names
    }

  def unsettled_alone(self, names: Iterable[str], position: int):
    """Returns the same of steps of one layer alone.

    Args:
      names: of windows.
      position: of the layer.
    """
    own = self._losses('layer_').sel(position=position)
    found = protocols.unsettled(own, ['step_rate'])
    return {
      f'tuned otherwise, {name}': float(found.sel(alone=name)) for name in names
    }

  def _select(self, prefix):
    return protocols.select(self._losses(prefix), ['step_rate'], 'deployable')

  def _losses(self, prefix):
    names = {
      f'{prefix}search': 'search',
      f'{prefix}holdout': 'holdout',
      f'tuning_{prefix}holdout': 'tuning_holdout',
    }
    return self.found[list(names)].rename(names)


def half_widths(names: Iterable[str], family: str) -> dict[float, str]:
  """Returns the windows of a family by half-width, narrow ones first.

  Args:
    names: of estimators.
    family: as `estimators.of` has it.
  """
  found = {
    width: name
    for name in names
    if estimators.of(name).family == family
    and (width := estimators.of(name).half_width) is not None
  }
  return dict(sorted(found.items()))
