"""The flags that all studies of the toy problem share, and the problems they pose.

What flags alone can tell is checked when a configuration is made; what depends on the
data is checked by `Config.open`, before a study computes or writes anything.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import itertools
import math
from typing import Any, Generic, TypeVar, cast

import jax
import jax.numpy as jnp

from bitjax import cli
from bitjax import data
from bitjax import nn
from bitjax import sums
from bitjax import sweeps
from bitjax import types
from bitjax.studies.toy import problem

__all__ = [
  'MAX_STEP',
  'NETWORKS',
  'RADII',
  'Augmented',
  'BallConfig',
  'Config',
  'Problems',
  'Tuned',
  'check_weights',
  'num_weights',
]

NETWORKS = {
  'full_precision': nn.full_precision_mlp,
  'binary': nn.binary_mlp,
  'binary_weights': nn.binary_weights_mlp,
}

# The radii whose squares, of many weights and at many times the rate, are still normal
# numbers in float32.
RADII = (1e-12, 1e12)
MAX_STEP = 1e6  # Times the learning rate that reaches the edge of the ball.
_MAX_WEIGHTS = 2**31 - 1  # Moves are numbered in int32.

C = TypeVar('C', bound='Config', covariant=True)
Self = TypeVar('Self', bound='Config')


def num_weights(
  num_inputs: int, hidden: Sequence[int], num_classes: int
) -> list[int]:
  """Returns the number of weights of each layer of an MLP."""
  sizes = (num_inputs, *hidden, num_classes)
  return [a * b for a, b in itertools.pairwise(sizes)]


def check_weights(sizes: Sequence[int]) -> None:
  """Raises `BadInput` if layers of these sizes have more weights than are numbered."""
  if sum(sizes) > _MAX_WEIGHTS:
    raise types.BadInput(
      f'hidden gives the network {sum(sizes)} weights; at most {_MAX_WEIGHTS} '
      'can be numbered.'
    )


@dataclasses.dataclass(frozen=True)
class Config:
  """The flags for data, sizes and seeds; studies add fields of their own."""

  dataset: str = cli.flag('mnist5k', data.DESCRIPTION)
  data_dir: str | None = cli.flag(
    None, 'Folder that holds the files of mnist, fashion_mnist or CIFAR.'
  )
  split: str = cli.flag(
    'all', 'Examples from which batches are drawn.', choices=data.SPLITS
  )
  batch_size: tuple[int, ...] = cli.flag(
    (1024,),
    'Examples in the search batch A, and in the held-out batch B. The study '
    'runs at the largest; others serve to tell what the batch does.',
    minimum=1,
    unique=True,
    longest=16,
  )
  hidden: tuple[int, ...] = cli.flag(
    (256, 256), 'Units of each hidden layer.', minimum=1, longest=64
  )
  seeds: tuple[int, ...] = cli.flag(
    tuple(range(12)),
    'Tested seeds: each has an initialisation, an A and a B of its own.',
    minimum=0,
    unique=True,
  )
  precision: str = cli.precision_flag()
  dtype: str = cli.dtype_flag()

  augment = 'none'  # No flag, but in studies that are `Augmented`,
  tuning_seeds = ()  # or `Tuned`.

  def __post_init__(self):
    cli.check(self)
    if both := sorted(set(self.seeds) & set(self.tuning_seeds)):
      raise types.BadInput(
        f'seeds and tuning_seeds must have no seed in common; both list {both[0]}.'
      )
    data.check_name(self.dataset)

  @property
  def all_seeds(self) -> tuple[int, ...]:
    """The tested seeds, and then those that only choose settings."""
    return (*self.seeds, *self.tuning_seeds)

  def cost(self) -> cli.Cost:
    """Returns what the study's own arms cost at least: lanes, updates and results."""
    return cli.Cost(lanes=len(self.all_seeds), updates=0, numbers=0)

  def check_data(self, dataset: data.Dataset) -> None:
    """Raises `BadInput` for flags that the data cannot serve; studies add checks."""
    for size in self.batch_size:
      data.check_batch_size(
        len(dataset.labels), size, augment=cast(data.Augment, self.augment)
      )
    check_weights(self.weights(dataset))
    cli.admit(self, lambda config: config.whole_cost(dataset))

  def weights(self, dataset: data.Dataset) -> list[int]:
    """Returns the number of weights of each layer."""
    pixels = math.prod(dataset.images.shape[1:])
    return num_weights(pixels, self.hidden, dataset.num_classes)

  def whole_cost(self, dataset: data.Dataset) -> cli.Cost:
    """Returns the `cost` with what all seeds have drawn, and the arrays of one lane."""
    num_all, own = sum(self.weights(dataset)), self.cost()
    pixels = math.prod(dataset.images.shape[1:])
    drawn = num_all + sum(2 * b * (pixels // 4) for b in self.batch_size)
    lane = num_all + max(self.batch_size) * max(self.hidden)
    numbers = own.numbers + len(self.all_seeds) * drawn + lane
    return dataclasses.replace(own, numbers=numbers)

  def open(self: Self, sweep: sweeps.Sweep) -> Problems[Self]:
    """Loads the data, checks the flags against it, and records which data they are.

    Raises:
      BadInput: for missing or malformed files, from `check_data`, or from `sums.check`:
        scans are exact where sums are.
    """
    dataset = data.load(self.dataset, split=self.split, data_dir=self.data_dir)
    self.check_data(dataset)
    sums.check()
    sums.check(self.precision, self.dtype)
    sweep.record(
      data_checksum=dataset.checksum,
      data_examples=len(dataset.labels),
      independent_examples=self.augment == 'none',
    )
    return Problems(self, dataset)


@dataclasses.dataclass(frozen=True)
class Augmented:
  """The flag of studies that need no examples besides A and B; name it before `Config`."""

  augment: str = cli.flag(
    'none',
    '"shift" moves images by up to 2 pixels, so that a batch may exceed the '
    'data; the results are marked as not independent.',
    choices=data.AUGMENTS,
  )


@dataclasses.dataclass(frozen=True)
class Tuned:
  """The flag of studies that choose settings by `deployable`; name it before `Config`."""

  tuning_seeds: tuple[int, ...] = cli.flag(
    tuple(range(1000, 1004)),
    'Seeds on which settings are chosen for all others; they are never tested.',
    minimum=0,
    unique=True,
  )


@dataclasses.dataclass(frozen=True)
class BallConfig(Config):
  """The flags of studies whose methods all move in one ball."""

  budget: float = cli.flag(
    0.1,
    "Radius of the ball around the initial kernel, in the norm's unit.",
    minimum=RADII[0],
    maximum=RADII[1],
  )
  norm: str = cli.flag(
    'l2',
    'Norm of the ball; flips counts the signs that change.',
    choices=types.NORMS,
  )

  @property
  def ball(self) -> types.Budget:
    """The ball in which all methods move."""
    return types.Budget(self.budget, cast(types.Norm, self.norm))


@dataclasses.dataclass(frozen=True)
class Problems(Generic[C]):
  """The toy problems of all seeds: a configuration and the data that it names.

  Attributes:
    config: the configuration.
    dataset: the data from which batches are drawn.
  """

  config: C
  dataset: data.Dataset

  @property
  def budget(self: Problems[BallConfig]) -> types.Budget:
    """The ball of a study that has one, as `BallConfig` says."""
    return self.config.ball

  @property
  def layers(self) -> list[str]:
    """The names of the layers in order, the same for all networks."""
    return [f'Dense_{number}' for number in range(len(self.config.hidden) + 1)]

  @functools.cached_property
  def arrays(self) -> dict[str, Any]:
    """The arrays that all lanes of a sweep share: the seeds and what each has drawn.

    They are drawn once, outside the programs of the arms. Inside, random numbers
    would take most of an arm's time to compile and some of its time to run.
    """
    seeds = jnp.asarray(self.config.all_seeds)
    trials = problem.draw_trials(
      self.model('full_precision'),
      seeds,
      jnp.asarray(self.dataset.images),
      jnp.asarray(self.dataset.labels),
      self.config.batch_size,
      augment=cast(data.Augment, self.config.augment),
    )
    return {'seeds': seeds, 'trials': trials}

  def pose(
    self,
    network: str,
    seed: types.Array | int,
    arrays: dict[str, Any],
    *,
    batch_size: int | None = None,
    **kwargs: Any,
  ) -> problem.Problem:
    """Returns one seed's problem for a network.

    Args:
      network: a name in `NETWORKS`.
      seed: one of the configured seeds; may be traced.
      arrays: the attribute of that name, traced.
      batch_size: examples in A and in B; None for the largest configured size.
      **kwargs: passed to the network's factory, such as an estimator.
    """
    return problem.pose_problem(
      self.model(network, **kwargs),
      self.trial(seed, arrays),
      batch_size or max(self.config.batch_size),
    )

  def trial(
    self, seed: types.Array | int, arrays: dict[str, Any]
  ) -> problem.Trial:
    """Returns what one seed has drawn; the arguments are those of `pose`."""
    index = jnp.argmax(arrays['seeds'] == seed)
    return jax.tree.map(lambda leaf: leaf[index], arrays['trials'])

  def model(self, network: str, **kwargs: Any) -> nn.MLP:
    """Builds a network of `NETWORKS` for the classes and scale of these data."""
    return NETWORKS[network](
      hidden=self.config.hidden,
      num_classes=self.dataset.num_classes,
      input_scale=self.dataset.scale,
      precision=self.config.precision,
      dtype=self.config.dtype,
      **kwargs,
    )
