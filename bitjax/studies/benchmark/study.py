r"""How fast are the parts, as ratios within one run?

It times the toy network 784-256-256-10 at batch 8192, on synthetic images, and
training steps of a ResNet-20 at batch 128. Everything is compared with what the
same machine does in the same minute: the peak of its matrix product, one plain
forward pass, the import of the libraries underneath. Contestants take turns;
medians are reported, without compilation. It takes about fifteen minutes on two CPU
cores, which should have nothing else to do; --preset=gpu should take 90 seconds on a GPU:

  bitjax benchmark
  bitjax benchmark --preset=gpu
  bitjax benchmark --parts=seeds --networks=4
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import TYPE_CHECKING

import jax

from bitjax import cli
from bitjax import sweeps
from bitjax import types
from bitjax.evidence import targets
from bitjax.studies import toy
from bitjax.studies.benchmark import convolutions
from bitjax.studies.benchmark import estimators
from bitjax.studies.benchmark import figure
from bitjax.studies.benchmark import findings
from bitjax.studies.benchmark import limits
from bitjax.studies.benchmark import networks
from bitjax.studies.benchmark import peaks
from bitjax.studies.benchmark import race
from bitjax.studies.benchmark import scans
from bitjax.studies.benchmark import together
from bitjax.studies.benchmark import updates

if TYPE_CHECKING:
  import xarray

__all__ = ['PARTS', 'PRESETS', 'STUDY', 'Config', 'run']

PARTS = (
  'updates', 'lines', 'flips', 'convolutions', 'resnet', 'projections', 'estimators',
  'import', 'seeds', 'growth', 'memory',
)  # fmt: skip
_THOROUGH = {'seeds', 'growth', 'memory'}
_NEEDS = {'import': 'import', 'memory': 'flip gains, peak memory'}
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
    True,
    'Also measure memory, flip descents, how costs grow, and ways to run seeds.',
  )
  networks: int = cli.flag(
    2, 'Networks whose ways to run together are compared.', minimum=1
  )
  parts: tuple[str, ...] = cli.flag(
    PARTS, 'What is measured.', choices=PARTS, unique=True
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
    resnet = self.images * 32 * 32 * 16 * sum(self.stages) * self.networks
    estimators = 12 * self.weights**2
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
  'gpu': {
    'thorough': False,
    'gemm': 8192,
    'repeats': 5,
    'timed_rates': 200,
    'parts': ('updates', 'lines', 'flips', 'resnet', 'projections'),
  },
}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Measures everything."""
  del sweep  # Timings are not resumed.
  cli.admit(config, Config.cost)
  turns, network = config.repeats, (config.batch_size, config.hidden)
  resnet = config.images, config.stages
  few = max(turns // 2, 1)  # Some scans take many seconds.
  wanted = limits.of(jax.default_backend())
  measures: dict[str, Callable[[], dict[str, float]]] = {
    'updates': lambda: updates.multi_step(*network, config.gemm, turns),
    'lines': lambda: scans.line_scan(
      *network, config.rates, config.timed_rates, few
    ),
    'flips': lambda: scans.flip_gains(*network, few),
    'convolutions': lambda: convolutions.flip_gains(*resnet, few),
    'resnet': lambda: networks.resnet_step(*resnet, config.gemm, turns),
    'projections': updates.projections,
    'import': lambda: {'import': updates.import_ratio(turns)},
    'growth': lambda: scans.scaling(*network, few),
    'memory': lambda: scans.peak_memory(
      *network, config.rates, config.timed_rates
    ),
  }
  # Variable -> its axis, and its numbers by label.
  tables = {
    'peak': ('probe', peaks.peaks(config.gemm, 4 * config.weights**2, turns))
  }
  # What says nothing of this kind of device has no target.
  skipped = {part for part, case in _NEEDS.items() if case not in wanted}
  skipped |= set() if config.thorough else _THOROUGH
  measured = {}
  for part in config.parts:
    if part in skipped:
      continue
    if part == 'estimators':
      ratios = estimators.overheads(config.weights, turns)
      measured['estimator overhead'] = max(ratios.values())
      tables['overhead'] = 'estimator', ratios
    elif part == 'seeds':
      ways = together.measure(*resnet, config.networks, few)
      measured |= together.compared(ways)
      tables |= {f'{name}_together': ('way', ways[name]) for name in ways}
    else:
      measured |= measures[part]()
  results = targets.table(wanted, measured)
  for name, (axis, numbers) in tables.items():
    results = results.assign_coords({axis: list(numbers)}).assign(
      {name: (axis, list(numbers.values()))}
    )
  return results.assign_attrs(device_kind=jax.default_backend())


STUDY = cli.Study(
  'benchmark', __doc__, Config, PRESETS, run, findings.judge, figure.page
)
