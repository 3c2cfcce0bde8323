"""The flags that all studies of the toy problem share, and what follows from them."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, cast

import jax
import jax.numpy as jnp

from bitjax import data
from bitjax import nn
from bitjax import types
from bitjax.cli import flags
from bitjax.cli import grids
from bitjax.studies import toy
from bitjax.sweeps import sweep as sweeps

__all__ = ['NETWORKS', 'StepsConfig', 'Toy', 'ToyConfig']

NETWORKS = {
  'full_precision': nn.full_precision_mlp,
  'binary': nn.binary_mlp,
  'binary_weights': nn.binary_weights_mlp,
}


@dataclasses.dataclass(frozen=True)
class ToyConfig:
  """Data, networks, ball and seeds; studies add fields of their own."""

  dataset: str = flags.flag(
    'mnist5k',
    'Data set. mnist5k, digits and synthetic need no files.',
    choices=data.DATASETS,
  )
  data_dir: str | None = flags.flag(
    None, 'Folder that holds the files of mnist, fashion_mnist or cifar.'
  )
  split: str = flags.flag(
    'all', 'Examples from which batches are drawn.', choices=data.SPLITS
  )
  augment: str = flags.flag(
    'none',
    '"shift" moves images by up to 2 pixels, so that a batch may exceed the '
    'data; the results are marked as not independent.',
    choices=data.AUGMENTS,
  )
  batch_size: tuple[int, ...] = flags.flag(
    (1024,),
    'Examples in the search batch A, and in the held-out batch B. The study '
    'runs at the largest; others serve to tell what the batch does.',
    minimum=1,
    unique=True,
  )
  hidden: tuple[int, ...] = flags.flag(
    (256, 256), 'Units of each hidden layer.', minimum=1
  )
  networks: tuple[str, ...] = flags.flag(
    ('full_precision', 'binary'),
    'Networks: what is binary in them.',
    choices=tuple(NETWORKS),
    unique=True,
  )
  budget: float = flags.flag(
    0.1,
    "Radius of the ball around the initial kernel, in the norm's unit.",
    exclusive_minimum=0,
  )
  norm: str = flags.flag(
    'l2',
    'Norm of the ball; flips counts the signs that change.',
    choices=types.NORMS,
  )
  anchor: str = flags.flag(
    'start',
    'Centre of the ball: the original kernel, or the noised start.',
    choices=types.ANCHORS,
  )
  seeds: tuple[int, ...] = flags.flag(
    tuple(range(8)),
    'Seeds: each has an initialisation, an A and a B of its own.',
    minimum=0,
    unique=True,
  )

  def __post_init__(self):
    flags.check(self)

  def open(self, sweep: sweeps.Sweep) -> Toy:
    """Loads the data, checks that they suffice, and records which they are.

    Raises:
      ValueError: for missing or malformed files, or batches that the data
        cannot supply.
    """
    dataset = data.load(self.dataset, split=self.split, data_dir=self.data_dir)
    for size in self.batch_size:
      data.check_batch_size(
        len(dataset.labels), size, augment=cast(data.Augment, self.augment)
      )
    sweep.record(
      data_checksum=dataset.checksum,
      data_examples=len(dataset.labels),
      independent_examples=self.augment == 'none',
    )
    return Toy(self, dataset)


@dataclasses.dataclass(frozen=True)
class StepsConfig(ToyConfig):
  """And the ways to step: optimisers, noise, learning rates, lengths."""

  optimizers: tuple[str, ...] = flags.flag(
    ('sgd', 'sgdm', 'adam'),
    'Optimisers of the multi-step arms.',
    choices=tuple(toy.OPTIMIZERS),
    unique=True,
  )
  noise: tuple[float, ...] = flags.flag(
    (0.0, 0.3, 1.0),
    'Noise amplitudes, as fractions of the budget.',
    minimum=0,
    maximum=1,
    unique=True,
  )
  draws: int = flags.flag(1, 'Noise draws for each seed.', minimum=1)
  learning_rates: grids.Grid = flags.flag(
    grids.Grid('log:1e-4:1:200'),
    'Single-step learning rates, as fractions of the one that reaches the edge '
    'of the ball (1e-4 to 1 is 1e-5 to 1e-1 for a normalised gradient and the '
    'budget 0.1).',
    exclusive_minimum=0,
    maximum=1,
  )
  step_sizes: tuple[float, ...] = flags.flag(
    (0.1, 0.3, 1.0),
    'Multi-step learning rates, in the same unit.',
    exclusive_minimum=0,
    unique=True,
  )
  num_steps: int = flags.flag(5, 'Updates of the multi-step arms.', minimum=1)

  def __post_init__(self):
    super().__post_init__()
    if 0 not in self.noise:
      raise types.BadInput(
        f'noise must list 0, the reference without noise; got {self.noise}.'
      )


@dataclasses.dataclass(frozen=True)
class Toy:
  """A configured toy problem with its data.

  Attributes:
    config: what was asked for.
    dataset: the data.
  """

  config: ToyConfig
  dataset: data.Dataset

  @property
  def budget(self) -> types.Budget:
    """The ball in which all methods move."""
    return types.Budget(
      self.config.budget,
      cast(types.Norm, self.config.norm),
      cast(types.Anchor, self.config.anchor),
    )

  @functools.cached_property
  def arrays(self) -> dict[str, Any]:
    """What all lanes of a sweep share: the seeds and what each has drawn.

    Drawn once, outside, it spares every arm the random numbers: most of the time
    to compile them, and some of the time to run them.
    """
    seeds = jnp.asarray(self.config.seeds)
    experiments = toy.draw_experiments(
      self.model('full_precision'),
      seeds,
      jnp.asarray(self.dataset.images),
      jnp.asarray(self.dataset.labels),
      self.config.batch_size,
      augment=cast(data.Augment, self.config.augment),
    )
    return {'seeds': seeds, 'experiments': experiments}

  def pose(
    self,
    network: str,
    seed: types.Array | int,
    arrays: dict[str, Any],
    *,
    batch_size: int | None = None,
    **kwargs: Any,
  ) -> toy.Problem:
    """Poses one seed's problem to a network.

    Args:
      network: a name in `NETWORKS`.
      seed: one of the configured seeds; may be traced.
      arrays: what the attribute of that name holds, traced.
      batch_size: examples in A and in B; None for the largest configured.
      **kwargs: passed to the network's factory, such as an estimator.
    """
    return toy.pose_problem(
      self.model(network, **kwargs),
      self.experiment(seed, arrays),
      batch_size or max(self.config.batch_size),
    )

  def experiment(
    self, seed: types.Array | int, arrays: dict[str, Any]
  ) -> toy.Experiment:
    """What one seed has drawn; arguments as for `pose`."""
    place = jnp.argmax(arrays['seeds'] == seed)
    return jax.tree.map(lambda leaf: leaf[place], arrays['experiments'])

  def model(self, network: str, **kwargs: Any) -> nn.MLP:
    """The network of that name for these data."""
    return NETWORKS[network](
      hidden=self.config.hidden,
      num_classes=self.dataset.num_classes,
      input_scale=self.dataset.scale,
      **kwargs,
    )
