r"""How near do gradients and searches come to the best point of a small ball?

The study is the reference for the note's N3. In a tiny binary layer, all sets
of flips inside the ball can be evaluated, so that the best one is known. Every
method is compared with it, at the method's best point on the batch A that it
searches. If the sum of the single gains, as far as the budget pays for them,
were near that optimum, it could serve as an upper bound in layers that are too
large for an exhaustive search.

Primary contrast: initialised network, the share of seeds in which that sum is
at least the optimum and at most three times it. The claim, that these are nine
of ten, is supported if the 95 % interval lies above 0.9. All else is
exploratory.

It needs no files, and takes one minute on two CPU cores:

  bitjax discrete_optimum
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from bitjax import cli
from bitjax import data
from bitjax import evidence
from bitjax import sweeps
from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import intervals
from bitjax.evidence import plots
from bitjax.studies import toy
from bitjax.studies.discrete_optimum import arms

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray

__all__ = ['PRESETS', 'STUDY', 'Config', 'plot', 'run', 'verdicts']


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
_PAIR = 'exact per squared cost', 'STE step, gradient'


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Searches every ball by every method."""
  return arms.compare(
    config.open(sweep),
    sweep,
    rates=config.learning_rates.values,
    train_steps=config.train_steps,
  )


def verdicts(results: xarray.Dataset) -> list[evidence.Verdict]:
  """Judges the bound, and how much of the optimum is reached."""
  found = []
  results = divergence.without(results, ['loss', 'optimum', 'bound'])
  for state in results.state.values.tolist():
    at = results.sel(state=state)
    rounding = 1e-6 * at.loss
    over = at.bound >= at.optimum - rounding
    near = at.bound <= 3 * at.optimum + rounding
    sound = at.bound.notnull()  # Comparisons with NaN are false.
    found.append(
      contrasts.difference(
        'N3 additive bound',
        f'{state}: in nine of ten networks the best point of the ball saves at most '
        'what single gains promise, and at least a third of it.',
        ((over & near) - 0.9).where(sound),
        primary=not found,
        details={
          'promised, nats': at.bound.mean(),
          'best, nats': at.optimum.mean(),
          'at most what is promised': over.where(sound).mean(),
          'at least a third of it': near.where(sound).mean(),
        },
        protocol='A',
        unit='share of the networks, less 0.9',
        bounds=(-0.9, 0.1),
      )
    )
    share = at.decrease / divergence.finite_mean(at.optimum)
    ours, ste = (share.sel(arm=arm) for arm in _PAIR)
    found.append(
      contrasts.difference(
        'N3 optimum',
        f'{state}: of the best decrease, {_PAIR[0]} reaches more than {_PAIR[1]}.',
        ours - ste,
        details={arm: share.sel(arm=arm).mean() for arm in arms.ARMS},
        protocol='oracle, A',
        unit='of the mean best decrease',
      )
    )
  return found


def plot(results: xarray.Dataset) -> figure.Figure:
  """Draws the share of the best decrease that every method reaches."""
  from matplotlib import pyplot

  fig, axes = pyplot.subplots(1, 2, figsize=(6.75, 4.2), sharey=True)
  for ax, state in zip(axes, results.state.values.tolist(), strict=True):
    at = results.sel(state=state)
    for row, arm in enumerate(arms.ARMS):
      share = (at.decrease.sel(arm=arm) / at.optimum.mean()).values
      plots.whisker(ax, row, intervals.interval(share), color=plots.BLUE)
    ax.axvline(1, color='black', linewidth=0.8)
    ax.set_title(state)
    ax.set_xlabel('share of the best decrease')
    ax.set_yticks(range(row + 1), arms.ARMS, fontsize=6.5)
  axes[0].invert_yaxis()
  return fig


STUDY = cli.Study(
  'discrete_optimum', __doc__, Config, PRESETS, run, verdicts, plot
)
