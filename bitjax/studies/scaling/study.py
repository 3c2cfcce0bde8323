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
from bitjax import sweeps
from bitjax.evidence import targets
from bitjax.studies.scaling import figure
from bitjax.studies.scaling import findings
from bitjax.studies.scaling import limits
from bitjax.studies.scaling import timings

if TYPE_CHECKING:
  import xarray

__all__ = ['PRESETS', 'STUDY', 'Config', 'run']

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
  return targets.table(limits.TARGETS, measured).assign(seconds=seconds)


STUDY = cli.Study(
  'scaling', __doc__, Config, PRESETS, run, findings.judge, figure.page
)
