r"""How near do gradients and searches come to the best point of a small ball?

The study is the reference for the note's N3. In a tiny binary layer, all sets
of flips inside the ball can be evaluated, so that the best one is known. Every
method is compared with it, at the method's best point on the batch A that it
searches. If the sum of the single gains, as far as the budget pays for them,
were near that optimum, it could serve as an upper bound in layers that are too
large for an exhaustive search.

Primary contrast: initialised network, the share of seeds in which that sum is
at least the optimum and at most three times it. The claim, that these are nine
of ten, is supported if the exact 95 % interval (Clopper and Pearson) lies above
0.9. All else is exploratory. Shares of the best decrease are ratios of means
over networks; a difference of 0.01 does not matter.

It needs no files, and takes one minute on two CPU cores:

  bitjax discrete_optimum
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from bitjax import cli
from bitjax import data
from bitjax import sweeps
from bitjax.studies import toy
from bitjax.studies.discrete_optimum import arms
from bitjax.studies.discrete_optimum import figure
from bitjax.studies.discrete_optimum import findings

if TYPE_CHECKING:
  import xarray

__all__ = ['PRESETS', 'STUDY', 'Config', 'run']


@dataclasses.dataclass(frozen=True)
class Config(toy.BallConfig):
  """Configuration of the study; each field is one flag."""

  dataset: str = cli.flag('digits', data.DESCRIPTION)
  batch_size: tuple[int, ...] = cli.flag(
    (256,), 'Examples in A, which is searched.', minimum=1, longest=1
  )
  hidden: tuple[int, ...] = cli.flag(
    (4, 4),
    'Units of each hidden layer; at most 20 weights between the first two.',
    minimum=1,
    longest=64,
  )
  budget: float = cli.flag(
    1.0,
    'Radius of the ball around the kernel.',
    minimum=toy.RADII[0],
    maximum=toy.RADII[1],
  )
  seeds: tuple[int, ...] = cli.flag(
    tuple(range(40)), 'Seeds, each a network.', minimum=0, unique=True
  )
  learning_rates: cli.Grid = cli.flag(
    cli.Grid('log:1e-3:1:100'),
    'Learning rates of one step; 1 reaches the edge of the ball.',
    exclusive_minimum=0,
    maximum=1,
  )
  train_steps: int = cli.flag(
    300, 'Updates of the trained network (Adam, batches of 128).', minimum=1
  )

  def __post_init__(self):
    super().__post_init__()
    arms.check(self.hidden)

  def check_data(self, dataset: data.Dataset) -> None:
    """Raises `BadInput` for flags that the data cannot serve."""
    toy.check_trainable(self, dataset)
    super().check_data(dataset)

  def cost(self) -> cli.Cost:
    """Returns what the run costs at least: lanes, updates and results."""
    lanes = len(toy.STATES) * len(self.seeds)
    return cli.Cost(
      lanes=lanes,
      updates=len(self.seeds) * self.train_steps,
      numbers=lanes * len(arms.ARMS) + 2 * self.train_steps,
    )


PRESETS = {
  'smoke': {'batch_size': (32,), 'hidden': (2, 3), 'seeds': (0, 1, 2)},
  'quick': {},
}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Searches every ball by every method."""
  return arms.compare(
    config.open(sweep),
    sweep,
    rates=config.learning_rates.values,
    train_steps=config.train_steps,
  )


STUDY = cli.Study(
  'discrete_optimum',
  __doc__,
  Config,
  PRESETS,
  run,
  findings.judge,
  figure.page,
)
