r"""Is the straight-through estimator a smoothed discrete gradient?

The exact gain of a flip is what it saves while all other weights stay as they are. Its
*co-flip* mean is what it saves on average while each of the others is flipped with
probability 0.05: no derivative is used for it. The straight-through estimator (STE)
predicts gains by a window of some width and a gradient. The weights of a binary MLP
move inside an l2 ball, by the flips that each of these signals ranks first; they search
on a batch A, and losses are reported on A and on a disjoint B.

Primary contrast, declared beforehand: trained network, first layer, largest batch,
log(L_STE / L_co-flip) on B. Flips are ranked by STE's linear prediction or by the mean
over 32 draws, per squared cost; their number is chosen on tuning seeds. The claim, that
co-flip gains are better than STE's prediction, is supported if the 95 % interval lies
above 0.005.

What would kill "STE is a smoothed discrete gradient", stated beforehand: in the first layer,
initialised or trained, one of these claims is not supported but contradicted, or its effect
is too small to matter,

1. STE's prediction correlates more (by 0.01) with co-flip gains of 32 draws than with the
   exact gains of the same batch;
2. it correlates more (by 0.01) with those of 32 draws than with those of 2;
3. flips ranked by co-flip gains reach a lower loss on B (by 0.005 of its log) than flips
   ranked by exact gains.

All else is exploratory. In this order, the commands run a small study on embedded
data, one of all layers and up to 64 rounds, and one on CIFAR-10 with large batches:

  bitjax smoothed_gradient
  bitjax smoothed_gradient --preset=full
  bitjax smoothed_gradient --preset=cifar --data_dir=DIR
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from bitjax import cli
from bitjax import data
from bitjax import sweeps
from bitjax import types
from bitjax.studies import toy
from bitjax.studies.smoothed_gradient import arms
from bitjax.studies.smoothed_gradient import figure
from bitjax.studies.smoothed_gradient import findings
from bitjax.studies.toy import arms as toy_arms
from bitjax.studies.toy import searches

if TYPE_CHECKING:
  import xarray

__all__ = ['PRESETS', 'STUDY', 'Config', 'run']


@dataclasses.dataclass(frozen=True)
class _Tuned(toy.Tuned):
  """The flag of tuning seeds, of which this study has more."""

  tuning_seeds: tuple[int, ...] = cli.flag(
    tuple(range(1000, 1008)),
    'Seeds on which numbers of flips and rounds are chosen; they are never tested.',
    minimum=0,
    unique=True,
  )


@dataclasses.dataclass(frozen=True)
class Config(_Tuned, toy.BallConfig):
  """Configuration of the study; each field is one flag."""

  batch_size: tuple[int, ...] = cli.flag(
    (256, 1024),
    'Examples in A, and in B; contrasts are about the largest.',
    minimum=1,
    unique=True,
    longest=16,
  )
  seeds: tuple[int, ...] = cli.flag(
    tuple(range(30)),
    'Tested seeds: each has an initialisation, an A and a B of its own.',
    minimum=0,
    unique=True,
  )
  draws: tuple[int, ...] = cli.flag(
    (2, 8, 32),
    'Draws over which co-flip gains are averaged, growing.',
    minimum=1,
    maximum=4096,
    unique=True,
    longest=8,
  )
  flip_rate: float = cli.flag(
    0.05,
    'Probability that a weight is flipped in a draw.',
    minimum=0,
    maximum=1,
  )
  layers: tuple[str, ...] = cli.flag(
    ('first',),
    'The first, or also all.',
    choices=tuple(searches.LAYERS),
    unique=True,
  )
  num_rounds: tuple[int, ...] = cli.flag(
    (4,),
    'Rounds, growing, each of which scores all flips again.',
    minimum=1,
    maximum=10_000,
    unique=True,
    longest=16,
  )
  round_draws: int = cli.flag(
    8, 'Draws of co-flip gains in each round.', minimum=1, maximum=4096
  )
  train_steps: int = cli.flag(
    300, 'Updates of the trained network (Adam, batches of 128).', minimum=1
  )

  def __post_init__(self):
    super().__post_init__()
    searches.check([self.ball_name], self.layers, self.num_rounds)
    if list(self.draws) != sorted(self.draws) or len(self.draws) < 2:
      raise types.BadInput(
        f'draws must be at least two numbers, growing; got {self.draws}.'
      )

  @property
  def ball_name(self) -> str:
    """The ball, written ``norm:radius``."""
    return f'{self.norm}:{float(self.budget)!r}'.removesuffix('.0')

  def check_data(self, dataset: data.Dataset) -> None:
    """Raises `BadInput` for flags that the data cannot serve."""
    toy.check_trainable(self, dataset)
    super().check_data(dataset)

  def cost(self) -> cli.Cost:
    """Returns what the arms cost at least: lanes, updates and results."""
    trials = len(toy.STATES) * len(self.all_seeds)
    once = trials * len(self.layers) * len(self.batch_size)
    rounds = trials * len(self.layers) * len(arms.ROUND_SIGNALS)
    return cli.Cost(
      lanes=once + trials + rounds * len(self.num_rounds),
      updates=rounds * sum(self.num_rounds)
      + len(self.all_seeds) * self.train_steps,
      numbers=2 * once * len(arms.names(self.draws)) + 2 * self.train_steps,
    )


PRESETS = {
  'smoke': {
    'dataset': 'digits',
    'batch_size': (32, 64),
    'hidden': (16, 16),
    'seeds': (0, 1, 2),
    'tuning_seeds': (1000, 1001),
    'draws': (2, 8),
    'num_rounds': (2,),
    'round_draws': 2,
  },
  'quick': {},
  'full': {
    'batch_size': (256, 512, 1024, 2048),
    'layers': ('first', 'all'),
    'num_rounds': (4, 16, 64),
  },
  'cifar': {
    'dataset': 'cifar10',
    'batch_size': (512, 2048, 8192),
    'num_rounds': (4, 16),
  },
}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Runs every arm on every seed."""
  problems = config.open(sweep)
  networks = toy.States(problems, toy.STATES, config.train_steps)
  every = arms.declared(problems)
  return toy_arms.collect(networks, sweep, every, chunk=arms.CHUNK)


STUDY = cli.Study(
  'smoothed_gradient',
  __doc__,
  Config,
  PRESETS,
  run,
  findings.judge,
  figure.page,
)
