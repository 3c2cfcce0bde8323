r"""What does the window of the straight-through estimator do to a binary ResNet?

The study of the note's N18, and of N12 on a ResNet. Weights and activations are signs;
only the gradient of the activations differs. *By training*: a window of one half-width
from the first update to the last, in absolute units or in those of what enters each
layer; no window; one that shrinks; one that keeps its mass; and other shapes. Networks
start from random weights, or from their own training in full precision, one for
each seed. *Without training*, of networks at these starts and after a training with
window 1: the mean and variance of gradients with any window, threshold or shape, their
cosine with exact gains of flips, and what one step inside a ball saves on held-out images.

Primary contrast, declared beforehand: trained with window 1/2 against 1, absolute, from
full precision, test accuracy of the last epoch. The claim is that they are equivalent,
within half a point (two one-sided tests). The learning rate of each arm is the one
with the lowest mean validation loss of the tuning seeds, which are not tested. Other
seeds and other test images are both in the 95 % interval. The second contrast is the
loss after one step through all layers of the trained network, window 1/2 against 1,
equivalent within 0.005 of its log. All else is exploratory.

In this order, the commands train small networks on digits (minutes), and ResNet-8 on
10 000 images of CIFAR-10 at 16 x 16 pixels (seventeen hours of CPU time):

  bitjax resnet_windows
  bitjax resnet_windows --preset=cifar --data_dir=DIR
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from bitjax import cli
from bitjax import sweeps
from bitjax.studies import recipes
from bitjax.studies.resnet_windows import arms as arms_lib
from bitjax.studies.resnet_windows import estimators as estimators_lib
from bitjax.studies.resnet_windows import figure
from bitjax.studies.resnet_windows import findings
from bitjax.studies.resnet_windows import looks
from bitjax.studies.resnet_windows import models as models_lib
from bitjax.studies.resnet_windows import networks
from bitjax.studies.resnet_windows import statics
from bitjax.studies.resnet_windows import trainings

if TYPE_CHECKING:
  import xarray

__all__ = ['PRESETS', 'STUDY', 'Config', 'run']

_EXTRAS = (
  estimators_lib.NONE,
  estimators_lib.SHRINKING,
  estimators_lib.MASS,
)


@dataclasses.dataclass(frozen=True)
class Config(looks.Looks, recipes.Pretrained, recipes.TunedConfig):
  """Configuration of the study; each field is one flag."""

  optimizer: str = cli.flag(
    'adam',
    'Optimiser. With sgd the size of a gradient matters.',
    choices=('adam', 'sgd'),
  )
  network: str = cli.flag(
    'resnet8_narrow', 'The network that is trained.', choices=networks.NETWORKS
  )
  activation: str = cli.flag(
    'identity',
    'What follows every sum: identity, as in Bi-Real Net; hardtanh, so that nothing '
    'beyond 1 enters a sign, and wider windows do nothing.',
    choices=networks.ACTIVATIONS,
  )
  half_widths: tuple[float, ...] = cli.flag(
    (0.25, 0.5, 1.0, 2.0),
    'Half-widths of the windows that are trained with.',
    exclusive_minimum=0,
    unique=True,
    longest=16,
  )
  units: tuple[str, ...] = cli.flag(
    estimators_lib.UNITS,
    'Units of half-widths; relative: of the root mean square of what enters the layer.',
    choices=estimators_lib.UNITS,
    unique=True,
  )
  extras: tuple[str, ...] = cli.flag(
    _EXTRAS,
    'Further estimators that are trained from both starts.',
    choices=_EXTRAS,
    nonempty=False,
    unique=True,
  )
  shapes: tuple[str, ...] = cli.flag(
    ('Bi-Real', 'SwishSign', 'Gaussian'),
    'Further estimators that are trained from full precision.',
    choices=tuple(estimators_lib.SHAPES),
    nonempty=False,
    unique=True,
  )

  def __post_init__(self):
    super().__post_init__()
    self.every()
    self.check_looks(self.network, self.validation_examples)

  @property
  def together(self) -> int:
    """How many networks are trained in one call."""
    return len(self.tuning_seeds)

  def every(self) -> list[arms_lib.Arm]:
    """Returns the arms that are trained."""
    return arms_lib.every(
      self.half_widths, self.units, self.extras, self.shapes
    )

  def estimators(self) -> list[str]:
    """Returns the names of the estimators whose gradients are looked at."""
    trained = [arm.estimator for arm in self.every()]
    return estimators_lib.static(
      self.static_widths, trained, self.static_shapes
    )

  def model(self, num_classes: int) -> Any:
    """Returns the network that is trained, with window 1."""
    return networks.build(
      self.network,
      estimators_lib.of(estimators_lib.ONE).make(),
      num_classes,
      activation=self.activation,
      **self.arithmetic(),
    )

  def num_trainings(self) -> int:
    """Returns the number of networks that are trained."""
    tuned = len(self.rates) * len(self.tuning_seeds)
    kept = 2 * len(self.static_networks)
    seeds = len(self.seeds) + len(self.tuning_seeds)
    return len(self.every()) * (tuned + len(self.seeds)) + kept * seeds


PRESETS: dict[str, dict[str, Any]] = {
  'smoke': {'dataset': 'digits', 'network': 'resnet4', 'batch_size': 16}
  | {'epochs': 0.2, 'seeds': (0, 1, 2), 'tuning_seeds': (1000, 1001, 1002)}
  | {'half_widths': (0.5, 1.0), 'units': ('absolute',), 'extras': ()}
  | {'shapes': (), 'rates': (1.0,), 'static_networks': ('resnet4',)}
  | {'static_widths': (0.5, 1.0), 'static_shapes': (), 'thresholds': (0.5,)}
  | {'images': 16, 'num_parts': 2, 'sample': 16, 'augmentation': ()},
  'quick': {'dataset': 'digits', 'batch_size': 32, 'augmentation': ()}
  | {'validation_examples': 400, 'images': 100, 'epochs': 6.0}
  | {'seeds': tuple(range(12)), 'learning_rate': 0.03}
  | {'pretraining_rate': 0.3}
  | {'shapes': ('Bi-Real', 'Gaussian'), 'step_rates': (0.3, 1.0)}
  | {'static_shapes': ('SwishSign', 'EDE, end', 'DSQ', 'value clip')},
  'cifar': recipes.SMALL_CIFAR
  | {'epochs': 30.0, 'seeds': tuple(range(12)), 'images': 400, 'sample': 256}
  | {'static_networks': ('resnet8_narrow', 'resnet20_narrow')},
}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Trains every arm, then looks at the gradients of the networks of every seed."""
  parts = config.open(sweep)
  models = {
    name: models_lib.Models(config, parts.train, sweep, name)
    for name in config.static_networks
  }
  found = trainings.compare(config, parts, models[config.network], sweep)
  reference = arms_lib.Arm(estimators_lib.ONE, arms_lib.STARTS[-1])
  rate = trainings.rate_of(found, str(reference))
  looked = statics.measure(config, parts, models, rate, sweep)
  return found.merge(looked, join='outer').assign_attrs(found.attrs)


STUDY = cli.Study(
  'resnet_windows', __doc__, Config, PRESETS, run, findings.judge, figure.page
)
