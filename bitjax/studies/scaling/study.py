r"""Does a sweep that is cut, killed and spread cost little and end the same?

Runs are killed over and over, at random moments and inside of writes, and must
end as if nothing had happened. Chunks and files are timed against one call of
one program, and two devices against two processes. The memory of 100 000 lanes
is measured. It takes about ten minutes on two CPU cores, which should have
nothing else to do:

  bitjax scaling
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from bitjax import cli
from bitjax import evidence
from bitjax import sweeps
from bitjax.evidence import targets
from bitjax.studies.scaling import timings

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray

__all__ = ['PRESETS', 'STUDY', 'TARGETS', 'Config', 'plot', 'run', 'verdicts']

_MAX_LANES = 2**24  # They are numbered in float32.
_MAX_SEEDS = 1_000_000


@dataclasses.dataclass(frozen=True)
class Config:
  """Configuration of the study; each field is one flag."""

  kills: int = cli.flag(50, 'Runs to kill.', minimum=1)
  seeds: int = cli.flag(
    100, 'Seeds of the runs to kill.', minimum=1, maximum=_MAX_SEEDS
  )
  lanes: int = cli.flag(
    7000, 'Lanes of the sweep to time.', minimum=1, maximum=_MAX_LANES
  )
  steps: int = cli.flag(2000, 'Steps of each lane to time.', minimum=1)
  block: int = cli.flag(100, 'Lanes in a file.', minimum=1, maximum=_MAX_LANES)
  large: int = cli.flag(
    100_000,
    'Lanes of the sweep whose memory is measured.',
    minimum=timings.FEW_LANES,
  )
  turns: int = cli.flag(3, 'Turns of weak scaling.', minimum=1)

  def __post_init__(self):
    cli.check(self)

  def cost(self) -> cli.Cost:
    """Returns what the largest sweep costs at least."""
    lanes = max(self.large, self.lanes, self.seeds)
    updates = self.lanes * self.steps
    numbers = max(timings.CURVE * self.large, self.steps, self.seeds)
    return cli.Cost(lanes, updates, numbers)


PRESETS = {
  'smoke': {
    'kills': 1,
    'seeds': 1,
    'lanes': 10,
    'steps': 50,
    'block': 10,
    'large': 1000,
    'turns': 1,
  },
  'quick': {},
}

TARGETS = {
  'killed runs': targets.Target('runs', 1.0, higher_is_better=True),
  'ends that differ': targets.Target('runs', 0.0),
  'files left over': targets.Target('files', 0.0),
  'chunks and files': targets.Target('of the time of one call', 0.03),
  'resume': targets.Target('seconds', 5.0),
  'memory': targets.Target('times the results', 1.8),
  'weak scaling': targets.Target(
    'of two processes', 0.9, higher_is_better=True
  ),
}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Measures everything."""
  del sweep  # Timings are not resumed.
  cli.admit(config, Config.cost)
  measured = {
    **timings.soak(config.kills, f'--seeds={config.seeds}', '--chunk=2'),
    **timings.overheads(config.lanes, config.steps, config.block),
    **timings.memory(config.large, timings.FEW_LANES),
    **timings.weak_scaling(config.block, config.steps, config.turns),
  }
  seconds = measured.pop('sweep')
  return targets.table(TARGETS, measured).assign(seconds=seconds)


def verdicts(results: xarray.Dataset) -> list[evidence.Verdict]:
  """Says which targets are met."""
  details = {'seconds of the sweep': results['seconds'].item()}
  return targets.judge(TARGETS, results, {'chunks and files': details})


def plot(results: xarray.Dataset) -> figure.Figure:
  """Draws a table of all measurements and their targets."""
  from matplotlib import pyplot

  fig, ax = pyplot.subplots(figsize=(6.75, 3.0))
  ax.axis('off')
  rows = [
    [f'{value:.3g}', f'{target.limit:g}', target.unit]
    for value, target in zip(
      results.measured.values, TARGETS.values(), strict=True
    )
  ]
  ax.table(
    rows,
    rowLabels=list(TARGETS),
    colLabels=['measured', 'target', 'unit'],
    loc='center',
  )
  return fig


STUDY = cli.Study('scaling', __doc__, Config, PRESETS, run, verdicts, plot)
