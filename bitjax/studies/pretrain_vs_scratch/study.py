r"""Is a low-bit network better if it starts from full precision, and does mixup help?

The study of the note's N19, and of its question whether low-bit networks need
regularisation (N14). A network is trained in low bits from random weights
(scratch), or from its own training in full precision, which takes half of the
same number of epochs (pretrained); also from scratch for as many low-bit
epochs as a pretrained one has (half), and with activations quantized first,
weights later (staged). All are trained with and without mixup. The same in full
precision is the control: what helps there too does not help because of bits.

Primary contrast, declared beforehand: pretrained against scratch, 1-bit weights
and activations, no mixup, test accuracy of the last epoch, at an equal total
number of epochs. The learning rate of each arm is the one with the lowest mean
validation loss of the tuning seeds, which are not tested. Other seeds and
other test images are both in the 95 % interval. A difference within half a
point does not matter. All else is exploratory.

In this order, the commands train tiny networks on digits (minutes), ResNet-8
on 10 000 images of CIFAR-10 at 16 x 16 pixels (hours), and ResNet-20 on whole
CIFAR (weeks on a CPU):

  bitjax pretrain_vs_scratch
  bitjax pretrain_vs_scratch --preset=cifar --data_dir=DIR
  bitjax pretrain_vs_scratch --preset=note --data_dir=DIR
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from bitjax import cli
from bitjax import nn
from bitjax import sweeps
from bitjax import types
from bitjax.studies import recipes
from bitjax.studies.pretrain_vs_scratch import arms as arms_lib
from bitjax.studies.pretrain_vs_scratch import figure
from bitjax.studies.pretrain_vs_scratch import findings
from bitjax.studies.pretrain_vs_scratch import trainings

if TYPE_CHECKING:
  import xarray

__all__ = ['PRESETS', 'STUDY', 'Config', 'run']


@dataclasses.dataclass(frozen=True)
class Config(recipes.Pretrained, recipes.TunedConfig):
  """Configuration of the study; each field is one flag."""

  network: str = cli.flag(
    'resnet8', 'The network.', choices=tuple(recipes.NETWORKS)
  )
  variant: str = cli.flag(
    'bireal',
    'Shortcuts: plain, around two convolutions; bireal, around each; react, with '
    'learned thresholds and activations too.',
    choices=nn.RESNET_VARIANTS,
  )
  precisions: tuple[str, ...] = cli.flag(
    ('W1A1', 'FP'),
    'Bits of weights and activations; the first is the primary one, FP the control.',
    choices=tuple(arms_lib.PRECISIONS),
    unique=True,
  )
  starts: tuple[str, ...] = cli.flag(
    ('scratch', 'pretrained', 'half'),
    'Where trainings start; staged: where both weights and activations have few bits.',
    choices=tuple(arms_lib.STARTS),
    unique=True,
  )
  mixups: tuple[float, ...] = cli.flag(
    (0.0, 1.0),
    'The parameters alpha of mixup; 0: none.',
    minimum=0,
    maximum=1000,
    unique=True,
  )

  def __post_init__(self):
    super().__post_init__()
    if blended := sorted({'mixup', 'cutmix'} & set(self.augmentation)):
      raise types.BadInput(
        f'augmentation must leave {blended[0]} to --mixups, which the study varies.'
      )
    one_bit = all(name.startswith('W1') for name in self.precisions)
    self.check_one_bit(one_bit, ', '.join(self.precisions))
    self.every()

  def every(self) -> list[arms_lib.Arm]:
    """Returns the arms."""
    return arms_lib.every(self.precisions, self.starts, self.mixups)

  def model(
    self, num_classes: int, arm: str | None = None, mixup: float | None = None
  ) -> Any:
    """Returns the network with which an arm ends; without one, of the pretraining."""
    del mixup  # It is trained with mixup, and is the same.
    precisions = {str(one): one.precision for one in self.every()}
    precision = 'FP' if arm is None else precisions[arm]
    return self.network_of(num_classes, *arms_lib.PRECISIONS[precision])

  def network_of(self, num_classes: int, weights: str, activations: str) -> Any:
    """Returns the network with such quantizers of weights and activations."""
    return recipes.build(
      self.network,
      self.variant,
      weights,
      activations,
      num_classes=num_classes,
      init_name='kaiming_normal',
      **self.arithmetic(),
    )

  def num_trainings(self) -> int:
    """Returns the number of networks that are trained."""
    tuned = len(self.rates) * len(self.tuning_seeds)
    before = len(self.mixups) * (len(self.seeds) + len(self.tuning_seeds))
    return len(self.every()) * (tuned + len(self.seeds)) + before


_SMALL = recipes.SMALL_CIFAR | {'network': 'resnet8_narrow'}

PRESETS: dict[str, dict[str, Any]] = {
  'smoke': {'dataset': 'digits', 'network': 'resnet4', 'batch_size': 16}
  | {'epochs': 0.2, 'seeds': (0, 1, 2), 'tuning_seeds': (1000, 1001)}
  | {'precisions': ('W1A1',), 'mixups': (0.0,), 'rates': (1.0,)},
  'quick': {'dataset': 'digits', 'network': 'resnet4', 'batch_size': 32}
  | {'epochs': 10.0, 'seeds': tuple(range(12)), 'augmentation': ()}
  | {'optimizer': 'adam', 'learning_rate': 0.12},
  'cifar': _SMALL | {'epochs': 40.0, 'seeds': tuple(range(16))},
  'note': {
    'dataset': 'cifar10',
    'validation_examples': 5000,
    'network': 'resnet20',
    'precisions': ('W1A1', 'W2A2', 'W1A32', 'FP'),
    'starts': tuple(arms_lib.STARTS),
    'mixups': (0.0, 0.2, 1.0),
    'seeds': tuple(range(8)),
    'epochs': 200.0,
  },
}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Trains in full precision, tunes the rate of every arm, and tests every seed."""
  return trainings.compare(config, config.open(sweep), sweep)


STUDY = cli.Study(
  'pretrain_vs_scratch',
  __doc__,
  Config,
  PRESETS,
  run,
  findings.judge,
  figure.page,
)
