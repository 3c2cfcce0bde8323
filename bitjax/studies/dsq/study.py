r"""Does a soft staircase that hardens train better, and is its shape what matters?

The study of the note's N13: DSQ, "shrink the window during training", and its
own question, "hardtanh-like?". The forward pass is the same hard staircase with
a learned range everywhere. What differs is the gradient. It is the clipped
identity; DSQ's with a fixed alpha, with one that falls from 0.9 to 0.05 over
the training, or with a learned one (the paper's); or, instead of tanh steps, a
window of equal mass that shrinks on the same schedule. Networks have 1-bit
weights and real activations, or 2 bits for both.

Primary contrast, declared beforehand: 1-bit weights, test accuracy of the last
epoch, alpha that falls against alpha = 0.2 fixed, the learning rate of each
tuned on the validation loss of the other seeds. The claim, that shrinking
helps, is supported if the 95 % interval lies above 0. All else is exploratory.

In this order, the commands run short trainings of tiny networks on small images
(digits, an hour of CPU time), one epoch of CIFAR-10 with the primary arms only
(half an hour), and what papers train (days on a CPU):

  bitjax dsq
  bitjax dsq --preset=cifar --data_dir=DIR
  bitjax dsq --preset=note --data_dir=DIR
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

from bitjax import cli
from bitjax import quantizers
from bitjax import sweeps
from bitjax import training
from bitjax.studies import recipes
from bitjax.studies.dsq import arms as arms_lib
from bitjax.studies.dsq import figure
from bitjax.studies.dsq import findings

if TYPE_CHECKING:
  import xarray

__all__ = ['PRESETS', 'STUDY', 'Config', 'run']


@dataclasses.dataclass(frozen=True)
class Config(recipes.TrainConfig):
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
  rates: tuple[float, ...] = cli.flag(
    (0.3, 1.0, 3.0),
    'Factors on the learning rate, to choose from.',
    minimum=recipes.FACTORS[0],
    maximum=recipes.FACTORS[1],
    unique=True,
  )

  def __post_init__(self):
    super().__post_init__()
    arms_lib.check(self.arms)
    self.check_one_bit(self.bits == (1,), ', '.join(map(str, self.bits)))

  def num_trainings(self) -> int:
    """Returns the number of networks that are trained."""
    gradients = len(self.bits) * len(self.arms)
    return gradients * len(self.rates) * len(self.seeds)


PRESETS: dict[str, dict[str, Any]] = {
  'smoke': {'dataset': 'digits', 'network': 'resnet4', 'batch_size': 16}
  | {'epochs': 0.1, 'seeds': (0, 1), 'bits': (1,)}
  | {'arms': arms_lib.PRIMARY, 'rates': (1.0,)},
  'quick': {'dataset': 'digits', 'network': 'resnet4', 'batch_size': 32}
  | {'epochs': 20.0, 'seeds': tuple(range(16)), 'augmentation': ()}
  | {'optimizer': 'adam', 'learning_rate': 0.04},
  'cifar': {'dataset': 'cifar10', 'validation_examples': 1000, 'epochs': 1.0}
  | {'bits': (1,), 'arms': ('fixed 0.2', 'falling'), 'rates': (1.0, 3.0)}
  | {'seeds': tuple(range(6)), 'batch_size': 64}
  | {'optimizer': 'adam', 'learning_rate': 4e-3},
  'note': {
    'dataset': 'cifar10',
    'validation_examples': 5000,
    'network': 'resnet20',
    'seeds': tuple(range(8)),
    'epochs': 200.0,
  },
}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Trains every network with every gradient."""
  parts = config.open(sweep)
  network = recipes.NETWORKS[config.network]
  recipe = training.Recipe(**config.recipe(), binary=(network.binary,))

  def phases_of(bits, arm):
    quantizer = arms_lib.quantizer(arm, bits)
    model = network.make(
      num_classes=parts.train.num_classes,
      kernel_quantizer=quantizer,
      input_quantizer=quantizer if bits > 1 else None,
    )
    return recipe.phases(model, parts.train)

  every = itertools.product(config.bits, config.arms)
  phases = {(bits, arm): phases_of(bits, arm) for bits, arm in every}

  def train(folder, report, mesh, bits, arm, rate, seed):
    return training.outcome(
      phases[bits, arm],
      *parts,
      batch_size=config.batch_size,
      seeds=seed.tolist(),
      rates=rate.tolist(),
      folder=folder,
      mesh=mesh,
      report=report,
    )

  dims, coords = training.layout(
    next(iter(phases.values())), parts.train, config.batch_size
  )
  return sweep.hosted(
    train,
    name='dsq',
    static={'bits': config.bits, 'arm': config.arms},
    lanes={'rate': config.rates, 'seed': config.seeds},
    dims=dims,
    coords=coords,
  )


STUDY = cli.Study(
  'dsq', __doc__, Config, PRESETS, run, findings.judge, figure.page
)
