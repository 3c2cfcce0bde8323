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

  Pass `lanes` and `shared` to the sweep, turn what a lane is given into its `trial`,
  and call `label` on the result.

  Attributes:
    problems: those of all seeds.
    names: some of `STATES`.
    train_steps: updates of the trained state.
  """

  problems: Problems
  names: Sequence[str]
  train_steps: int

  @property
  def lanes(self) -> dict[str, Sequence[int]]:
    """Lane axes ``state``, by number, and ``seed``."""
    return {
      'state': range(len(self.names)),
      'seed': self.problems.config.seeds,
    }

  @functools.cached_property
  def shared(self) -> dict[str, Any]:
    """Shared inputs ``arrays`` and ``starts``; trains the networks."""
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
    """What a seed has drawn, with its network in a state.

    Args:
      state: number of the state; may be traced.
      seed: one of the configured seeds; may be traced.
      arrays: that shared input, traced.
      starts: that shared input, traced.
    """
    variables = jax.tree.map(lambda leaf: leaf[state], starts)
    trials = arrays['trials']._replace(variables=variables)
    return self.problems.trial(seed, {**arrays, 'trials': trials})

  def label(self, results: xarray.Dataset) -> xarray.Dataset:
    """Names the states along the axis ``state``."""
    return results.assign_coords(state=list(self.names))
