r"""Do discrete methods train signs better than STE, and up to which dimension?

The study of the note's "originally a discrete problem, so discrete methods: ADMM, started
from an STE checkpoint; but genetic algorithms cope badly with high dimension" (N16). The
first layer of a binary MLP moves, and all else stays at a checkpoint of the
straight-through estimator (STE). A, on which the checkpoint was trained, is
searched; B is held out. From the checkpoint, or from random signs in its place, go on:
STE by Adam or SGD, Bop, ADMM, ProxQuant, PARQ, STE with random flips or noise, once or
at intervals, with flips that gains weigh or with a rate that restarts, a genetic
algorithm, annealing, random search, and the best flip each time. All but
the last have equally many settings, chosen on seeds that are never tested, and
spend equally many gradient-equivalents, a loss counting as a third of a gradient;
processor time is recorded too. In a tiny network the best of all signs is known.

Primary contrast, declared beforehand: from the checkpoint, largest number of signs, loss on
B, STE continued by Adam less ADMM after as many updates. The claim, that ADMM
is better, is supported if the 95 % interval lies above 0.01 nats. All else is
exploratory, with simultaneous intervals.

The commands run on embedded data (minutes), and on the note's 784-256-256-10 with images
of MNIST (hours; it can be stopped and resumed):

  bitjax discrete_optimisers
  bitjax discrete_optimisers --preset=note

and, for the methods of `methods.FEW`, the last ten epochs of a ResNet-8 on CIFAR-10 at 16 x 16:

  bitjax discrete_optimisers --preset=resnet --data_dir=DIR
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from bitjax import cli
from bitjax import data
from bitjax import sweeps
from bitjax import types
from bitjax.studies import toy
from bitjax.studies.discrete_optimisers import arms
from bitjax.studies.discrete_optimisers import figure
from bitjax.studies.discrete_optimisers import findings
from bitjax.studies.discrete_optimisers import methods
from bitjax.studies.discrete_optimisers import networks
from bitjax.studies.discrete_optimisers import residual

if TYPE_CHECKING:
  import xarray

__all__ = ['PRESETS', 'RESNETS', 'STUDY', 'Config', 'run']

RESNETS = ('resnet4', 'resnet8_narrow', 'resnet8')


@dataclasses.dataclass(frozen=True)
class Config(toy.Tuned, toy.Config):
  """Configuration of the study; each field is one flag."""

  dataset: str = cli.flag('digits', data.DESCRIPTION)
  batch_size: tuple[int, ...] = cli.flag(
    (512,), 'Examples in the training set A, and in B.', minimum=16, longest=1
  )
  hidden: tuple[int, ...] = cli.flag(
    (2, 16, 160, 1600, 3136),
    'Units of the first hidden layer, growing: one network each.',
    minimum=1,
    longest=16,
  )
  deeper: int = cli.flag(
    0, 'Units of a second hidden layer; 0 for none.', minimum=0
  )
  seeds: tuple[int, ...] = cli.flag(
    tuple(range(100, 112)),
    'Tested seeds: each has an initialisation, an A and a B of its own.',
    minimum=0,
    unique=True,
  )
  train_steps: int = cli.flag(
    64, 'Updates of the checkpoint (Adam at 0.001).', minimum=1
  )
  updates: int = cli.flag(
    128, 'Gradients that a method may spend, a multiple of 8.', minimum=8
  )
  max_flips: int = cli.flag(64, 'Flips of a descent, at most.', minimum=1)

  network: str = cli.flag(
    'mlp',
    'MLPs with hidden layers as --hidden says, whose first layer moves; or a Bi-Real '
    'ResNet, whose quantized layers move together, without random starts and flips by gains.',
    choices=('mlp', *RESNETS),
  )
  side: int = cli.flag(
    0, 'Height and width of the images, smaller than they are; 0: as they are.',
    minimum=0,
  )  # fmt: skip
  methods: str = cli.flag(
    'all', 'All methods, or few for long runs.', choices=('all', 'few')
  )

  def __post_init__(self):
    super().__post_init__()
    if self.network != 'mlp' and self.methods == 'all':
      raise types.BadInput(
        'methods must be few for a ResNet, which has no gains of all flips to weigh them.'
      )
    if len(self.hidden) < 2 or list(self.hidden) != sorted({*self.hidden}):
      raise types.BadInput(
        f'hidden must be at least two numbers, growing; got {self.hidden}.'
      )
    if self.updates % methods.SEGMENTS:
      raise types.BadInput(
        f'updates must be a multiple of {methods.SEGMENTS}; got {self.updates}.'
      )

  @property
  def names(self) -> list[str]:
    """The names of the methods."""
    return list(arms.METHODS) if self.methods == 'all' else list(methods.FEW)

  def reduced(self, dataset: data.Dataset) -> data.Dataset:
    """Returns the data with images as large as ``side`` says."""
    return data.reduced(dataset, side=self.side) if self.side else dataset

  def check_data(self, dataset: data.Dataset) -> None:
    """Raises `BadInput` for flags that the data cannot serve."""
    super().check_data(self.reduced(dataset))

  def weights(self, dataset: data.Dataset) -> list[int]:
    """Returns the number of weights of each layer of the largest network."""
    if self.network != 'mlp':
      return [residual.num_signs(self, dataset)]
    pixels = math.prod(dataset.images.shape[1:])
    largest = networks.every(self, pixels)[-1]
    return toy.num_weights(pixels, largest.hidden, dataset.num_classes)

  def cost(self) -> cli.Cost:
    """Returns what the arms cost at least: lanes, updates and results."""
    cells = len(networks.STARTS) * (1 + len(self.hidden))
    if self.network != 'mlp':
      cells = 1
    tried = arms.SETTINGS * len(self.tuning_seeds) + len(self.seeds)
    lanes = cells * len(self.names) * tried
    return cli.Cost(
      lanes=lanes,
      updates=lanes * self.updates,
      numbers=3 * lanes * len(methods.EFFORTS),
    )


PRESETS = {
  'smoke': {
    'batch_size': (32,),
    'hidden': (1, 2),
    'seeds': (0, 1, 2),
    'tuning_seeds': (1000, 1001),
    'train_steps': 8,
    'updates': 16,
    'max_flips': 8,
  },
  'quick': {},
  'note': {
    'dataset': 'mnist5k',
    'batch_size': (2048,),
    'hidden': (2, 13, 128, 256),
    'deeper': 256,
    'updates': 1024,
    'max_flips': 256,
  },
  'resnet': {
    'dataset': 'cifar10',
    'network': 'resnet8_narrow',
    'methods': 'few',
    'side': 16,
    'batch_size': (4096,),
    'train_steps': 960,
    'updates': 320,
    'seeds': tuple(range(100, 116)),
  },
}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Runs every method on every network."""
  return arms.compare(config.open(sweep), sweep)


STUDY = cli.Study(
  'discrete_optimisers',
  __doc__,
  Config,
  PRESETS,
  run,
  findings.judge,
  figure.page,
)
