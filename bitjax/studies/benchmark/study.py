r"""How fast are the parts, as ratios within one run?

It times the toy network 784-256-256-10 at batch 8192, on synthetic images, and
training steps of a ResNet-20 at batch 128. Everything is compared with what the
same machine does in the same minute: the peak of its matrix product, one plain
forward pass, the import of the libraries underneath. Contestants take turns;
medians are reported, without compilation. It takes about ten minutes on two CPU
cores, which should have nothing else to do:

  bitjax benchmark
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from bitjax import cli
from bitjax import sweeps
from bitjax import types
from bitjax.evidence import targets
from bitjax.studies import toy
from bitjax.studies.benchmark import estimators
from bitjax.studies.benchmark import figure
from bitjax.studies.benchmark import findings
from bitjax.studies.benchmark import limits
from bitjax.studies.benchmark import networks
from bitjax.studies.benchmark import race
from bitjax.studies.benchmark import scans
from bitjax.studies.benchmark import updates

if TYPE_CHECKING:
  import xarray

__all__ = ['PRESETS', 'STUDY', 'Config', 'run']

_MAX_ROWS = 46_340  # Of square matrices whose entries are numbered in int32.


@dataclasses.dataclass(frozen=True)
class Config:
  """Configuration of the study; each field is one flag."""

  batch_size: int = cli.flag(
    8192, 'Examples in a batch.', minimum=1, maximum=race.MAX_BATCH
  )
  hidden: tuple[int, ...] = cli.flag(
    (256, 256), 'Units of each hidden layer.', minimum=1, longest=64
  )
  gemm: int = cli.flag(
    4096,
    'Size of the matrix product that stands for the peak.',
    minimum=1,
    maximum=_MAX_ROWS,
  )
  repeats: int = cli.flag(7, 'Turns of each contestant.', minimum=1)
  rates: int = cli.flag(10_000, 'Learning rates of a line scan.', minimum=1)
  timed_rates: int = cli.flag(
    50,
    'Learning rates of the line scan that is timed by brute force.',
    minimum=1,
  )
  weights: int = cli.flag(
    4096,
    'Rows and columns of the kernel that estimators see.',
    minimum=1,
    maximum=_MAX_ROWS,
  )
  images: int = cli.flag(128, 'Images in a batch of the ResNet.', minimum=1)
  stages: tuple[int, ...] = cli.flag(
    (3, 3, 3),
    'Blocks of each stage of the ResNet.',
    minimum=1,
    maximum=100,
    longest=6,
  )
  thorough: bool = cli.flag(
    True, 'Also measure memory, flip descents, and how costs grow.'
  )

  def __post_init__(self):
    cli.check(self)
    if self.timed_rates > self.rates:
      raise types.BadInput(
        f'timed_rates must be at most rates, {self.rates}; got '
        f'{self.timed_rates}.'
      )
    toy.check_weights(race.weights(self.hidden))

  def cost(self) -> cli.Cost:
    """Returns what the largest contestants cost at least."""
    mlp = sum(race.weights(self.hidden)) + self.batch_size * max(self.hidden)
    resnet = self.images * 32 * 32 * 16 * sum(self.stages)
    estimators = 4 * self.weights**2
    largest = max(mlp, resnet, estimators, 2 * self.gemm**2, self.rates)
    return cli.Cost(lanes=1, updates=self.repeats, numbers=largest)


PRESETS = {
  'smoke': {
    'thorough': False,
    'batch_size': 64,
    'hidden': (16, 16),
    'gemm': 64,
    'repeats': 1,
    'rates': 100,
    'timed_rates': 5,
    'weights': 8,
    'images': 2,
    'stages': (1,),
  },
  'quick': {},
}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Measures everything."""
  del sweep  # Timings are not resumed.
  cli.admit(config, Config.cost)
  turns, network = config.repeats, (config.batch_size, config.hidden)
  few = max(turns // 2, 1)  # Some scans take many seconds.
  overheads = estimators.overheads(config.weights, turns)
  measured = {
    **updates.multi_step(*network, config.gemm, turns),
    **scans.line_scan(*network, config.rates, config.timed_rates, few),
    **scans.flip_gains(*network, few),
    **networks.resnet_step(config.images, config.stages, config.gemm, turns),
    **updates.projections(),
    'estimator overhead': max(overheads.values()),
    'import': updates.import_ratio(turns),
  }
  if config.thorough:
    measured |= scans.scaling(*network, few)
    measured |= scans.peak_memory(*network, config.rates, config.timed_rates)
  return targets.table(limits.TARGETS, measured).assign(
    overhead=('estimator', list(overheads.values())),
    estimator=list(overheads),
  )


STUDY = cli.Study(
  'benchmark', __doc__, Config, PRESETS, run, findings.judge, figure.page
)
