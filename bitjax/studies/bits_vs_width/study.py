r"""Are more bits in each weight, or more weights, easier to train, and why?

The study of the note's N14. Low bits, it says, have three challenges: capacity
(is what we want in the space of models?), optimisation (can it be found?) and
generalisation (do large networks overfit?); and more bits in all, in each unit
or as width, are easier to optimise. Networks of 1 to 8 bits and of full
precision are trained at several widths, among them, for each number of bits,
those that equal the 4-bit network of one width in width, in total bits of the
weights, and in operations. Capacity is how well random labels are fitted,
optimisation how much lower a loss is reached from a projected full-precision
network than from random weights, generalisation the gap between training and
test, and robustness the accuracy under noise on images and flips of weights.

Primary contrast, declared beforehand: at equal total bits, the training loss that
1 bit reaches in a wide network less the one that 4 bits reach in a narrow one.
A difference within 0.05 nats does not matter. The learning rate of each arm is
the one with the lowest mean training loss of the tuning seeds, which are not
tested. All else is exploratory.

In this order, the commands train small MLPs on digits (minutes), and ResNet-8 on
10 000 images of CIFAR-10 at 16 x 16 pixels (hours):

  bitjax bits_vs_width
  bitjax bits_vs_width --preset=cifar --data_dir=DIR
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from bitjax import cli
from bitjax import data
from bitjax import sweeps
from bitjax import training
from bitjax import types
from bitjax.studies import recipes
from bitjax.studies.bits_vs_width import arms as arms_lib
from bitjax.studies.bits_vs_width import figure
from bitjax.studies.bits_vs_width import findings
from bitjax.studies.bits_vs_width import trainings
from bitjax.studies.recipes import families

if TYPE_CHECKING:
  import xarray

__all__ = ['PRESETS', 'STUDY', 'Config', 'run']


@dataclasses.dataclass(frozen=True)
class Config(families.Grid, recipes.Pretrained, recipes.TunedConfig):
  """Configuration of the study; each field is one flag."""

  equal: tuple[str, ...] = cli.flag(
    arms_lib.SERIES,
    'What equals that of the 4-bit network, beside the grid.',
    choices=arms_lib.SERIES,
    unique=True,
  )
  kinds: tuple[str, ...] = cli.flag(
    arms_lib.KINDS,
    'Trainings: of the labels, of random labels, and of the labels from a trained '
    'full-precision network on.',
    choices=arms_lib.KINDS,
    unique=True,
  )
  noises: tuple[float, ...] = cli.flag(
    (0.1, 0.2, 0.4),
    'Standard deviations of the noise on test images; white is 1.',
    minimum=0,
    maximum=10,
    unique=True,
  )
  flips: tuple[float, ...] = cli.flag(
    (0.01, 0.05, 0.1),
    'Shares of the weights that change their sign.',
    minimum=0,
    maximum=1,
    unique=True,
  )

  def __post_init__(self):
    super().__post_init__()
    self.check_one_bit(self.bits == ('1',), ', '.join(self.bits))
    self.check_bits(arms_lib.PRIMARY, arms_lib.REFERENCE)
    for name, wanted in (
      ('equal', ('bits',)),
      ('kinds', ('scratch',)),
    ):
      if missing := [w for w in wanted if w not in getattr(self, name)]:
        raise types.BadInput(
          f'{name} must list {" and ".join(missing)}, for the primary contrast; '
          f'got {", ".join(getattr(self, name))}.'
        )

  def every(self, family: families.Family) -> list[arms_lib.Arm]:
    """Returns the arms."""
    return arms_lib.every(
      family, self.bits, self.widths, self.kinds, self.equal, self.base_width
    )

  def phases(
    self, family: families.Family, cell: families.Cell, train: data.Dataset
  ) -> list[training.Phase]:
    """Returns the phases of a training."""
    recipe = training.Recipe(**self.recipe(), binary=(family.quantized,))
    return recipe.phases(family.model(cell), train)

  def num_trainings(self) -> int:
    """Returns the number of networks that are trained, or somewhat more."""
    few = len(self.bits) * len(set(self.equal) - {'operations'})
    arms = len(self.bits) * (len(self.widths) + len(self.equal))
    arms += few * (len(self.kinds) - 1)
    seeds = len(self.seeds) + len(self.tuning_seeds)
    before = few * seeds if 'projected' in self.kinds else 0
    tuned = len(self.rates) * len(self.tuning_seeds)
    return arms * (tuned + len(self.seeds)) + before


_SMALL = recipes.SMALL_CIFAR | {
  'network': 'resnet8',
  'bits': ('1', '2', '4', '32'),
  'widths': (8,),
  'equal': ('width', 'bits'),
  'weight_decay': 0.0,
}
_DIGITS = {'dataset': 'digits', 'augmentation': (), 'batch_size': 32} | {
  'optimizer': 'adam',
  'learning_rate': 0.02,
  'weight_decay': 0.0,
}

PRESETS: dict[str, dict[str, Any]] = {
  'smoke': _DIGITS
  | {'epochs': 0.3, 'seeds': (0, 1, 2), 'tuning_seeds': (1000, 1001, 1002)}
  | {'bits': ('1', '4'), 'widths': (4,), 'base_width': 4, 'rates': (1.0,)}
  | {'equal': ('width', 'bits')},
  'quick': _DIGITS | {'epochs': 40.0, 'seeds': tuple(range(12))},
  'cifar': _SMALL | {'epochs': 30.0, 'seeds': tuple(range(12))},
}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Trains in full precision, tunes the rate of every arm, and tests every seed."""
  return trainings.compare(config, config.open(sweep), sweep)


STUDY = cli.Study(
  'bits_vs_width',
  __doc__,
  Config,
  PRESETS,
  run,
  findings.judge,
  figure.page,
)
