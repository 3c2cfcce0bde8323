"""Every seed's network in several states: as initialised, or after some training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.studies.toy.config import Problems
from bitjax.studies.toy.problem import Trial
from bitjax.studies.toy.training import trained

if TYPE_CHECKING:
  import xarray

__all__ = ['STATES', 'States']

STATES = ('initialised', 'trained')


@dataclasses.dataclass(frozen=True)
class States:
  """Every seed's binary network in several states, as lanes of a sweep.

  Pass `lanes` and `shared` to the sweep, let each lane pass what it is given to
  `trial`, and call `label` on the result.

  Attributes:
    problems: the toy problems of all seeds.
    names: the states, some of `STATES`.
    train_steps: number of updates that lead to the state ``'trained'``.
  """

  problems: Problems
  names: Sequence[str]
  train_steps: int

  @property
  def lanes(self) -> dict[str, Sequence[int]]:
    """The sweep's lane axes: ``state``, an index into `names`, and ``seed``."""
    return {
      'state': range(len(self.names)),
      'seed': self.problems.config.all_seeds,
    }

  @functools.cached_property
  def shared(self) -> dict[str, Any]:
    """The sweep's shared inputs ``arrays`` and ``starts``; trains the networks."""
    updates = {'initialised': 0, 'trained': self.train_steps}
    starts = [
      trained(self.problems, 'binary', updates[name]) for name in self.names
    ]
    return {
      'arrays': self.problems.arrays,
      'starts': jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts),
    }

  def trial(
    self,
    state: types.Array,
    seed: types.Array,
    arrays: Mapping[str, Any],
    starts: types.PyTree,
  ) -> Trial:
    """Returns what a seed has drawn, with its network in the given state.

    Args:
      state: index of the state in `names`; may be traced.
      seed: one of the configured seeds; may be traced.
      arrays: the shared input of that name, traced.
      starts: the shared input of that name, traced.
    """
    variables = jax.tree.map(lambda leaf: leaf[state], starts)
    trials = arrays['trials']._replace(variables=variables)
    return self.problems.trial(seed, {**arrays, 'trials': trials})

  def label(self, results: xarray.Dataset) -> xarray.Dataset:
    """Labels the axis ``state`` of the results with the names of the states."""
    return results.assign_coords(state=list(self.names))
