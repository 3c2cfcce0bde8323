r"""In what sense does the discrete gradient bound the straight-through estimator?

The study of the note's N1-N3. The weights of a binary MLP move inside a ball
around their initial values, or around those trained on the examples that are in
neither of two disjoint batches A and B. The *discrete gradient* (DG) scores
every single flip, sorts the flips by their score, and makes them until the
budget is spent. A factorial of signal, ranking and rounds tells what makes it
good or bad; another, of {true, smoothed} crossings of the threshold and the
{exact, linear} effect behind, tells why STE predicts other flips. All are
compared with single- and multi-step STE, central differences, a coordinate
search that tries one move after another, and random points. Every method
searches on A, and its losses are reported on A and on B.

Primary contrast, declared beforehand: initialised network, first layer, first
ball, log(L_STE / L_DG) on A; DG in a literal reading (exact gains, largest
first, one round, the whole budget), STE with its best learning rate on A. The
claim, that DG bounds STE, is supported if the 95 % interval lies above 0.005.
All else is exploratory.

In this order, the commands run a small study in two balls, one of more balls and
all layers, one of up to 64 rounds, and one of the note's size:

  bitjax discrete_gradient
  bitjax discrete_gradient --preset=full
  bitjax discrete_gradient --preset=rounds
  bitjax discrete_gradient --preset=note --data_dir=DIR
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from bitjax import cli
from bitjax import data
from bitjax import sweeps
from bitjax.studies import toy
from bitjax.studies.discrete_gradient import arms
from bitjax.studies.discrete_gradient import figure
from bitjax.studies.discrete_gradient import findings
from bitjax.studies.toy import arms as toy_arms
from bitjax.studies.toy import searches

if TYPE_CHECKING:
  import xarray

__all__ = ['PRESETS', 'STUDY', 'Config', 'run']


@dataclasses.dataclass(frozen=True)
class Config(toy.Tuned, toy.BallConfig):
  """Configuration of the study; each field is one flag."""

  more_balls: str | None = cli.flag(
    None, 'Further balls, as norm:radius, such as linf:0.002,flips:200.'
  )
  optimizers: tuple[str, ...] = cli.flag(
    ('sgd', 'sgdm', 'adam'),
    'Optimisers of multi-step STE; contrasts take the first.',
    choices=tuple(toy.OPTIMIZERS),
    unique=True,
  )
  learning_rates: cli.Grid = cli.flag(
    cli.Grid('log:1e-3:1:100'),
    'Learning rates of one step; 1 reaches the edge of the ball.',
    exclusive_minimum=0,
    maximum=1,
  )
  step_sizes: tuple[float, ...] = cli.flag(
    (0.1, 0.3, 1.0),
    'Multi-step learning rates, as fractions of the one that reaches the edge.',
    exclusive_minimum=0,
    maximum=toy.MAX_STEP,
    unique=True,
  )
  layers: tuple[str, ...] = cli.flag(
    ('first',),
    'The first, or also all.',
    choices=tuple(searches.LAYERS),
    unique=True,
  )
  num_rounds: tuple[int, ...] = cli.flag(
    (4,),
    'Rounds, growing; STE makes as many steps.',
    minimum=1,
    maximum=10_000,
    unique=True,
    longest=16,
  )
  round_rankings: tuple[str, ...] = cli.flag(
    ('gain', 'per squared cost'),
    'Rankings that are used in several rounds; a single round uses all.',
    choices=searches.RANKINGS,
    unique=True,
  )
  round_signals: tuple[str, ...] = cli.flag(
    searches.SCORED, 'Signals of rounds.', choices=searches.SIGNALS, unique=True
  )
  num_candidates: int = cli.flag(1000, 'Moves tried one by one.', minimum=1)
  train_steps: int = cli.flag(
    300, 'Updates of the trained network (Adam, batches of 128).', minimum=1
  )

  def __post_init__(self):
    super().__post_init__()
    names = self.layers, self.num_rounds, self.round_rankings
    searches.check(self.balls, *names, self.round_signals)

  @property
  def balls(self) -> tuple[str, ...]:
    """All balls, each as ``norm:radius``, the primary one first."""
    more = (self.more_balls or '').split(',')
    radius = repr(float(self.budget)).removesuffix('.0')
    return tuple(filter(None, [f'{self.norm}:{radius}', *map(str.strip, more)]))

  def check_data(self, dataset: data.Dataset) -> None:
    """Raises `BadInput` for flags that the data cannot serve."""
    toy.check_trainable(self, dataset)
    super().check_data(dataset)

  def cost(self) -> cli.Cost:
    """Returns what the arms cost at least: lanes, updates and results."""
    cells = len(self.balls) * len(self.layers)
    trials = cells * len(toy.STATES) * len(self.all_seeds)
    first = trials // len(self.layers)
    agreements = first // len(self.balls) * len(self.batch_size)
    steps = trials * len(self.optimizers) * len(self.step_sizes)
    last = self.num_rounds[-1]
    rounds = trials * len(self.round_signals) * len(searches.SPLITS)
    scanned = len(searches.DIRECTIONS) * len(self.learning_rates)
    return cli.Cost(
      lanes=3 * trials
      + 2 * first
      + agreements
      + steps
      + rounds * len(self.num_rounds),
      updates=steps * last
      + rounds * sum(self.num_rounds)
      + len(self.all_seeds) * self.train_steps,
      numbers=2 * (trials * scanned + steps * (last + 1) + self.train_steps),
    )


_QUICK = {'batch_size': (64, 256, 1024)}
_SHORT = _QUICK | {'optimizers': ('sgd',)}
_CROSSED = {
  'round_rankings': searches.RANKINGS,
  'round_signals': searches.SIGNALS,
}
PRESETS = {
  'smoke': {
    'dataset': 'digits',
    'batch_size': (32, 64),
    'hidden': (16, 16),
    'seeds': (0, 1, 2),
    'tuning_seeds': (1000, 1001),
    'optimizers': ('sgd',),
    'num_rounds': (2,),
  },
  'quick': _QUICK
  | {'round_rankings': searches.RANKINGS, 'more_balls': 'linf:0.002'},
  'full': _SHORT
  | {
    'layers': ('first', 'all'),
    'more_balls': 'linf:0.002,flips:200',
    'learning_rates': cli.Grid('log:1e-3:1:31'),
  },
  'rounds': _SHORT | _CROSSED | {'num_rounds': (1, 4, 16, 64)},
  'note': _SHORT | {'dataset': 'cifar10', 'batch_size': (512, 2048, 8192)},
}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Runs every arm on every seed."""
  problems = config.open(sweep)
  networks = toy.States(problems, toy.STATES, config.train_steps)
  every = arms.declared(problems)
  return toy_arms.collect(networks, sweep, every, chunk=arms.CHUNK)


STUDY = cli.Study(
  'discrete_gradient',
  __doc__,
  Config,
  PRESETS,
  run,
  findings.judge,
  figure.page,
)
