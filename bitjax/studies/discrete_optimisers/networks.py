"""The networks of the study, by how many signs may move, and what every seed begins with."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from jax import flatten_util
import jax.numpy as jnp

from bitjax import data
from bitjax import types
from bitjax.studies import toy
from bitjax.studies.discrete_optimisers import residual

if TYPE_CHECKING:
  from bitjax.studies.discrete_optimisers import study

__all__ = ['STARTS', 'TINY', 'Network', 'Networks', 'every', 'opened']

# The kernel of the checkpoint, or random latent weights in its place.
STARTS = ('checkpoint', 'random')
TINY = (
  4,
  4,
)  # Hidden layers of the network whose best signs are found by trying all.
_FRESH = 1 << 21  # Folded into a seed's key for what no other stream draws.


class Network(NamedTuple):
  """One network of the study.

  Attributes:
    signs: how many signs may move.
    hidden: units of its hidden layers.
    layer: the layer whose signs they are.
  """

  signs: int
  hidden: tuple[int, ...]
  layer: str


def every(config: study.Config, pixels: int) -> list[Network]:
  """Returns the tiny network, and one for each width.

  Args:
    config: the configuration of the study.
    pixels: inputs of the first layer.
  """
  deeper = (config.deeper,) if config.deeper else ()
  return [
    Network(math.prod(TINY), TINY, 'Dense_1'),
    *(Network(pixels * w, (w, *deeper), 'Dense_0') for w in config.hidden),
  ]


def opened(
  config: study.Config, dataset: data.Dataset
) -> list[Networks | residual.Residual]:
  """Returns the networks of a configuration on its data."""
  if config.network != 'mlp':
    signs = residual.num_signs(config, dataset)
    return [residual.Residual(Network(signs, (), ''), config, dataset)]
  pixels = math.prod(dataset.images.shape[1:])
  return [Networks(one, config, dataset) for one in every(config, pixels)]


@dataclasses.dataclass(frozen=True)
class Networks:
  """One network with the checkpoints of all seeds.

  Attributes:
    network: which.
    config: the configuration of the study.
    dataset: the data.
  """

  network: Network
  config: study.Config
  dataset: data.Dataset

  starts = STARTS
  exact = True  # Gains of all flips are cheap.

  @property
  def arrays(self) -> dict[str, Any]:
    """What all lanes share: the seeds, and what each has drawn."""
    return self.problems.arrays

  @functools.cached_property
  def problems(self) -> toy.Problems:
    """The toy problems of all seeds, A being the training set."""
    config = self.config
    return toy.Problems(
      toy.Config(
        dataset=config.dataset,
        batch_size=config.batch_size,
        hidden=self.network.hidden,
        seeds=config.all_seeds,
        precision=config.precision,
        dtype=config.dtype,
      ),
      self.dataset,
    )

  @property
  def examples(self) -> int:
    """Examples in A, and in B."""
    return max(self.config.batch_size)

  def checkpoint(
    self, seed: types.Array, arrays: Mapping[str, Any]
  ) -> types.Array:
    """Trains a seed's network on A by STE; returns its weights, flat."""
    trial = self.problems.trial(seed, dict(arrays))
    variables = toy.train(
      self.problems.model('binary'),
      trial.variables,
      trial.batches[self.examples][0],
      jnp.arange(self.examples),
      jax.random.wrap_key_data(trial.noise),
      num_steps=self.config.train_steps,
      batch_size=min(self.examples, 128),
    )
    return flatten_util.ravel_pytree(variables)[0]

  def pose(
    self,
    start: types.Array,
    seed: types.Array,
    weights: types.Array,
    arrays: Mapping[str, Any],
  ) -> tuple[toy.Problem, types.Array]:
    """Returns the layer of a seed at a start, and a key for what methods draw.

    Args:
      start: index into `STARTS`; may be traced.
      seed: one of all seeds; may be traced.
      weights: those of the seed's checkpoint, flat.
      arrays: those of the problems.
    """
    trial = self.problems.trial(seed, dict(arrays))
    _, restored = flatten_util.ravel_pytree(trial.variables)
    posed = toy.pose_problem(
      self.problems.model('binary'),
      trial._replace(variables=restored(weights)),
      self.examples,
      layer=self.network.layer,
    )
    key = jax.random.fold_in(posed.noise_key, _FRESH)
    drawing, key = jax.random.split(key)
    drawn = jax.random.normal(drawing, posed.kernel.shape, posed.kernel.dtype)
    kernel = jnp.where(start == 0, posed.kernel, drawn)
    search, holdout = (
      dataclasses.replace(view, kernel=kernel)
      for view in (posed.search, posed.holdout)
    )
    return toy.Problem(search, holdout, posed.noise_key), key
