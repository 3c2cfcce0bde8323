r"""Does a soft staircase that hardens train better, and is its shape what matters?

The study of the note's N13: DSQ, "shrink the window during training", and its
own question, "hardtanh-like?". The forward pass is the same hard staircase with
a learned range everywhere. What differs is the gradient. It is the clipped
identity; DSQ's with a fixed alpha, with one that falls from 0.9 to 0.05 over
the training, or with a learned one (the paper's); or, instead of tanh steps, a
window of equal mass that shrinks on the same schedule. Networks have 1-bit
weights and real activations, or 2 bits for both.

Primary contrast, declared beforehand: 1-bit weights, test accuracy of the last
epoch, alpha that falls against alpha = 0.2 fixed. The learning rate of each is
the one with the lowest mean validation loss of the tuning seeds, which are not
tested. Other seeds and other test images are both in the 95 % interval. The
claim, that shrinking helps, is supported if it lies above half a point; within
half a point of 0 the two are equivalent. All else is exploratory, also that the
shape does not matter: tanh steps and the window, on the same schedule, end
within half a point of each other (two one-sided tests).

In this order, the commands run short trainings of tiny networks on small images
(digits, 48 seeds, 75 minutes of CPU time), one epoch of CIFAR-10 with the
primary arms only (16 seeds, 70 minutes), and what papers train (weeks on a CPU):

  bitjax dsq
  bitjax dsq --preset=cifar --data_dir=DIR
  bitjax dsq --preset=note --data_dir=DIR
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from bitjax import cli
from bitjax import quantizers
from bitjax import sweeps
from bitjax.studies import recipes
from bitjax.studies.dsq import arms as arms_lib
from bitjax.studies.dsq import figure
from bitjax.studies.dsq import findings
from bitjax.studies.dsq import trainings

if TYPE_CHECKING:
  import xarray

__all__ = ['PRESETS', 'STUDY', 'Config', 'run']


@dataclasses.dataclass(frozen=True)
class Config(recipes.TunedConfig):
  """Configuration of the study; each field is one flag."""

  network: str = cli.flag(
    'resnet8', 'The network.', choices=tuple(recipes.NETWORKS)
  )
  bits: tuple[int, ...] = cli.flag(
    (1, 2),
    'Bits of the weights; of activations too, where they are more than 1. The '
    'first is the primary one.',
    minimum=1,
    maximum=8,
    unique=True,
  )
  arms: tuple[str, ...] = cli.flag(
    tuple(arms_lib.ARMS),
    'Gradients; an estimator of your own sees each step as that of a sign.',
    choices=tuple(arms_lib.ARMS),
    own=quantizers.named,
    unique=True,
  )

  def __post_init__(self):
    super().__post_init__()
    arms_lib.check(self.arms)
    self.check_one_bit(self.bits == (1,), ', '.join(map(str, self.bits)))

  def model(self, num_classes: int, bits: int, arm: str) -> Any:
    """Returns the network of an arm."""
    quantizer = arms_lib.quantizer(arm, bits)
    return recipes.NETWORKS[self.network].make(
      num_classes=num_classes,
      kernel_quantizer=quantizer,
      input_quantizer=quantizer if bits > 1 else None,
      **self.arithmetic(),
    )

  def num_trainings(self) -> int:
    """Returns the number of networks that are trained."""
    gradients = len(self.bits) * len(self.arms)
    tuned = len(self.rates) * len(self.tuning_seeds)
    return gradients * (tuned + len(self.seeds))


PRESETS: dict[str, dict[str, Any]] = {
  'smoke': {'dataset': 'digits', 'network': 'resnet4', 'batch_size': 16}
  | {'epochs': 0.1, 'seeds': (0, 1, 2), 'tuning_seeds': (1000, 1001)}
  | {'bits': (1,), 'arms': arms_lib.PRIMARY, 'rates': (1.0,)},
  'quick': {'dataset': 'digits', 'network': 'resnet4', 'batch_size': 32}
  | {'epochs': 20.0, 'seeds': tuple(range(48)), 'augmentation': ()}
  | {'optimizer': 'adam', 'learning_rate': 0.04},
  'cifar': {'dataset': 'cifar10', 'validation_examples': 1000, 'epochs': 1.0}
  | {'bits': (1,), 'arms': ('fixed 0.2', 'falling'), 'rates': (1.0, 3.0)}
  | {'seeds': tuple(range(16)), 'batch_size': 64}
  | {'optimizer': 'adam', 'learning_rate': 4e-3},
  'note': {
    'dataset': 'cifar10',
    'validation_examples': 5000,
    'network': 'resnet20',
    'seeds': tuple(range(12)),
    'epochs': 200.0,
  },
}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Tunes the rate of every gradient, then trains every seed at the chosen one."""
  return trainings.compare(config, config.open(sweep), sweep)


STUDY = cli.Study(
  'dsq', __doc__, Config, PRESETS, run, findings.judge, figure.page
)
