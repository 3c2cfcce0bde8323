r"""In what sense does the discrete gradient bound the straight-through estimator?

The study of the note's N1-N3. The first layer of a binary MLP moves inside a ball
around its initialisation, or around a network trained on what the two batches leave
over. The *discrete gradient* scores every single flip, sorts, and flips until the
budget is spent. What makes it good or bad is taken apart by a factorial of the signal
(the exact gain; STE's linear prediction of it; random; the cost alone), the ranking
(as such, per cost, per squared cost) and the way (at once; in rounds that score again,
with an even or a growing budget), beside single- and multi-step STE, central
differences, a search move by move, and random points of the ball. Everything is read
on the batch it was chosen on (A) and on a disjoint one (B).

Primary contrast, declared beforehand: initialised network, first ball, log(L_STE /
L_DG) on A; DG as the note words it (exact gains, largest first, one round, the whole
budget), STE with its best learning rate on A. The claim, that DG bounds STE, is
supported if the 95 % interval lies above 0. All else is exploratory.

On embedded data (two CPU cores: minutes), with more balls, and at the note's sizes:

  python -m experiments.discrete_gradient
  python -m experiments.discrete_gradient --preset=full
  python -m experiments.discrete_gradient --preset=note --data_dir=DIR
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from bitjax import studies
from bitjax.studies import discrete_figures as figures
from bitjax.studies import discrete_findings as findings
from bitjax.studies import toy
from bitjax.studies import toy_discrete

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray


@dataclasses.dataclass(frozen=True)
class Config(studies.ToyConfig):
  """One field is one flag."""

  networks: tuple[str, ...] = studies.flag(
    ('binary',), 'The network whose signs flip.', choices=('binary',)
  )
  seeds: tuple[int, ...] = studies.flag(
    tuple(range(10)),
    'Seeds: each has an initialisation, an A and a B of its own.',
    minimum=0,
    unique=True,
  )
  more_balls: str | None = studies.flag(
    None, 'Further balls, as norm:radius, such as linf:0.002,flips:200.'
  )
  optimizers: tuple[str, ...] = studies.flag(
    ('sgd', 'sgdm', 'adam'),
    'Optimisers of multi-step STE; contrasts take the first.',
    choices=tuple(toy.OPTIMIZERS),
    unique=True,
  )
  learning_rates: studies.Grid = studies.flag(
    studies.Grid('log:1e-3:1:100'),
    'Learning rates of one step; 1 reaches the edge of the ball.',
    exclusive_minimum=0,
    maximum=1,
  )
  step_sizes: tuple[float, ...] = studies.flag(
    (0.1, 0.3, 1.0), 'Multi-step learning rates, likewise.', exclusive_minimum=0
  )
  num_steps: int = studies.flag(4, 'Rounds of DG, steps of STE.', minimum=1)
  num_candidates: int = studies.flag(
    2000, 'Moves that the search move by move tries.', minimum=1
  )
  train_steps: int = studies.flag(
    300, 'Updates of the trained network (Adam, batches of 128).', minimum=1
  )

  def __post_init__(self):
    super().__post_init__()
    for ball in self.balls:
      toy_discrete.ball(ball)

  @property
  def balls(self) -> tuple[str, ...]:
    """All balls, the primary one first."""
    more = self.more_balls.split(',') if self.more_balls else []
    return f'{self.norm}:{self.budget:g}', *more


PRESETS = {
  'smoke': {
    'dataset': 'digits',
    'batch_size': (64,),
    'hidden': (16, 16),
    'seeds': (0, 1, 2),
    'optimizers': ('sgd',),
    'learning_rates': studies.Grid('log:1e-2:1:5'),
    'step_sizes': (1.0,),
    'num_steps': 2,
    'num_candidates': 20,
    'train_steps': 20,
  },
  'quick': {},
  'full': {'num_steps': 8, 'more_balls': 'linf:0.002,flips:200'},
  'note': {
    'dataset': 'cifar10',
    'batch_size': (8192,),
    'num_steps': 8,
    'more_balls': 'linf:0.002,flips:200',
  },
}


def run(config: Config, sweep: studies.Sweep) -> xarray.Dataset:
  """Runs every arm on every seed."""
  return toy_discrete.compare(
    config.open(sweep),
    sweep,
    balls=config.balls,
    rates=config.learning_rates.values,
    step_sizes=config.step_sizes,
    optimizers=config.optimizers,
    num_steps=config.num_steps,
    num_candidates=config.num_candidates,
    train_steps=config.train_steps,
  )


def verdicts(results: xarray.Dataset) -> list[studies.Verdict]:
  """Judges N1-N3, and what causes them."""
  found: list[studies.Verdict] = []
  for ball in results.ball.values.tolist():
    for state in results.state.values.tolist():
      where = {'ball': ball, 'state': state}
      found += findings.bound(results, where, primary=not found)
      for judge in findings.EXPLORATORY:
        found += judge(results, where)
  return found


def plot(results: xarray.Dataset) -> figure.Figure:
  """What every arm saves, on A and on B."""
  return figures.page(results)


if __name__ == '__main__':
  studies.main(Config, PRESETS, run, verdicts, plot)
