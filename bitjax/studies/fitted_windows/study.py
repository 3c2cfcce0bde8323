r"""Do windows that fit their layer train a binary network better?

The straight-through estimator's window of half-width 1 is one number for all layers,
whatever the spread of what enters them. Compared with it are another half-width;
widths in units of each layer's spread, of a window and of a Gaussian, one number for all
layers; widths that are fitted while the network trains, layer by layer, to exact
gains of flips (`bitjax.training.Refit`); and Bi-Real, EDE, SwishSign and ReSTE. Only
the gradient differs: weights and activations are signs everywhere.

Primary contrast, declared beforehand: the relative Gaussian, whose one width is chosen
on the tuning seeds for all layers, against window 1, test accuracy of the last epoch.
Each arm chooses among nine settings, three learning rates times three values of its
parameter, or nine learning rates if it has none: the one with the lowest mean
validation loss of the tuning seeds, which are not tested. Other seeds and other
test images are both in the 95 % interval. The claim is supported if it lies above half
a point; within half a point of 0 the two are equivalent. All else is exploratory.

As an optimiser: the preset bop asks whether Bop's rule, which flips a weight once an
average over updates speaks against it, ends better by gains of flips that are averaged
over random flips of the other weights, without any derivative, than by the
straight-through estimator's gradient. That is its primary contrast, by the same rules: each
signal has three rates of forgetting times three factors on the signal.

In this order, the commands train small MLPs on MNIST (minutes), and ResNet-8 on 10 000
images of CIFAR-10 at 16 x 16 pixels, for 5, 15 and 45 epochs (hours each):

  bitjax fitted_windows
  bitjax fitted_windows --preset=bop
  bitjax fitted_windows --preset=short --data_dir=DIR
  bitjax fitted_windows --preset=cifar --data_dir=DIR
  bitjax fitted_windows --preset=long --data_dir=DIR
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from bitjax import cli
from bitjax import quantizers
from bitjax import sweeps
from bitjax.studies import recipes
from bitjax.studies.fitted_windows import arms as arms_lib
from bitjax.studies.fitted_windows import figure
from bitjax.studies.fitted_windows import findings
from bitjax.studies.fitted_windows import networks
from bitjax.studies.fitted_windows import trainings

if TYPE_CHECKING:
  import xarray

__all__ = ['PRESETS', 'STUDY', 'Config', 'run']


@dataclasses.dataclass(frozen=True)
class Config(recipes.TunedConfig):
  """Configuration of the study; each field is one flag."""

  network: str = cli.flag(
    'mlp',
    'mlp: all layers binary, with normalisations; mlp_of_signs: without, for Bop; '
    'others: with Bi-Real shortcuts, first and last layer in full precision.',
    choices=networks.NETWORKS,
  )
  hidden: tuple[int, ...] = cli.flag(
    (64, 64), 'Units of each hidden layer of an MLP.', minimum=1, maximum=4096
  )
  arms: tuple[str, ...] = cli.flag(
    tuple(arms_lib.ARMS),
    "Estimators of the activations, or signals of Bop's rule.",
    choices=(*arms_lib.ARMS, *arms_lib.FLIPPED),
    own=quantizers.named,
    unique=True,
  )
  refit_epochs: float = cli.flag(
    1.0, 'Epochs between two fits of widths.', exclusive_minimum=0
  )
  fit_widths: tuple[float, ...] = cli.flag(
    (0.1, 0.14, 0.2, 0.28, 0.4, 0.56, 0.8, 1.1, 1.6, 2.2),
    'Widths from which fits choose, in units of the spread.',
    exclusive_minimum=0,
    unique=True,
  )
  sample: int = cli.flag(
    256, 'Weights of a layer whose exact gains are fitted to.', minimum=1
  )
  flip_rate: float = cli.flag(
    0.05,
    'Bop: probability that each of the other weights is flipped in a draw.',
    minimum=0,
    maximum=1,
  )
  draws: int = cli.flag(
    4, 'Bop: draws of random flips in each update.', minimum=1, maximum=256
  )

  def __post_init__(self):
    super().__post_init__()
    arms_lib.check(self.arms, self.network)

  def model(self, num_classes: int, sign: Any = None) -> Any:
    """Returns the network with a sign; without one, that of the first arm."""
    if sign is None:
      sign = arms_lib.arm_of(self.arms[0]).quantizer(0)
    return networks.build(
      self.network, sign, num_classes, self.hidden, self.arithmetic()
    )

  def num_trainings(self) -> int:
    """Returns the number of networks that are trained."""
    settings = len(self.rates) * len(arms_lib.SHAPES)
    tuned = settings * len(self.tuning_seeds)
    return len(self.arms) * (tuned + len(self.seeds))


_ADAM = {'optimizer': 'adam', 'weight_decay': 0.0}
_SMALL = recipes.SMALL_CIFAR | {
  'network': 'resnet8_narrow',
  'weight_decay': 0.0,
  'seeds': tuple(range(12)),
}

PRESETS: dict[str, dict[str, Any]] = {
  'smoke': {'dataset': 'digits', 'hidden': (8, 8), 'augmentation': ()}
  | {'batch_size': 32, 'epochs': 0.3, 'seeds': (0, 1, 2), 'rates': (1.0,)}
  | {'tuning_seeds': (1000, 1001, 1002), 'sample': 16, 'learning_rate': 0.02}
  | {'arms': ('window 1', 'relative Gaussian', 'fitted')}
  | _ADAM,
  'quick': {'dataset': 'mnist5k', 'augmentation': (), 'batch_size': 64}
  | {'epochs': 15.0, 'seeds': tuple(range(12)), 'learning_rate': 0.01}
  | _ADAM,
  'bop': {'dataset': 'mnist5k', 'augmentation': (), 'batch_size': 64}
  | {'epochs': 5.0, 'seeds': tuple(range(12)), 'rates': (0.7, 1.4, 2.8)}
  | {
    'hidden': (32, 32),
    'network': networks.SIGNS,
    'arms': tuple(arms_lib.FLIPPED),
  },
  'short': _SMALL | {'epochs': 5.0},
  'cifar': _SMALL | {'epochs': 15.0},
  'long': _SMALL | {'epochs': 45.0},
  'note': {'dataset': 'cifar10', 'network': 'resnet20', 'epochs': 200.0}
  | {'validation_examples': 5000, 'seeds': tuple(range(12))},
}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Tunes every estimator, then trains every seed at the chosen setting."""
  return trainings.compare(config, config.open(sweep), sweep)


STUDY = cli.Study(
  'fitted_windows',
  __doc__,
  Config,
  PRESETS,
  run,
  findings.judge,
  figure.page,
)
