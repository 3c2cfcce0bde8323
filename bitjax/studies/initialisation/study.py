r"""Which initialisation suits a binary network, and why is a small classifier better?

The study of the note's N16 (initialisation). Without training: for ResNets of
several depths, plain and with Bi-Real shortcuts, the share of the gradient that
passes the window of each activation, and how the gradient vanishes or grows from
layer to layer, for Kaiming's, Xavier's and orthogonal kernels, scaled ones, and
scales of normalisations fitted to the data. By training: what each does to the
accuracy; and for the classifier, which ends better if its first weights have
PyTorch's spread instead of Kaiming's, a factorial of this spread, its learning
rate and its weight decay.

Some arms must be inert: a sign forgets the scale of latent weights, and the
normalisation behind it forgets their mean magnitude (but for the epsilon that is
added to its variance), so that the scale only sets how fast signs flip; and what a
hardtanh has clipped passes the window of the sign behind it.

Primary contrast, declared beforehand: the test accuracy of the last epoch with
the small classifier less that with the large one, on average over both rates and
both decays. A difference within half a point does not matter. The learning rate of
each arm is the one with the lowest mean validation loss of the tuning seeds,
which are not tested. Other seeds and other test images are both in the 95 %
interval. All else is exploratory.

In this order, the commands train small networks on digits (minutes), and ResNet-8
on 10 000 images of CIFAR-10 at 16 x 16 pixels (four hours of CPU time, at 3 700
images a second):

  bitjax initialisation
  bitjax initialisation --preset=cifar --data_dir=DIR
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from bitjax import cli
from bitjax import nn
from bitjax import sweeps
from bitjax.studies import recipes
from bitjax.studies.initialisation import arms as arms_lib
from bitjax.studies.initialisation import figure
from bitjax.studies.initialisation import findings
from bitjax.studies.initialisation import passing
from bitjax.studies.initialisation import trainings

if TYPE_CHECKING:
  import xarray

__all__ = ['PRESETS', 'STUDY', 'Config', 'run']

_NETWORKS = ('resnet4', 'resnet8', 'resnet20', 'resnet32')


@dataclasses.dataclass(frozen=True)
class Config(recipes.TunedConfig):
  """Configuration of the study; each field is one flag."""

  optimizer: str = cli.flag(
    'sgd',
    'Optimiser. With adam the size of a gradient does not matter.',
    choices=('sgd', 'adam'),
  )
  network: str = cli.flag(
    'resnet8_narrow',
    'The network that is trained.',
    choices=('resnet4', 'resnet8_narrow', 'resnet8', 'resnet20', 'resnet32'),
  )
  variant: str = cli.flag(
    'bireal',
    'Its shortcuts: plain, around two convolutions; bireal, around each.',
    choices=('plain', 'bireal'),
  )
  starts: tuple[str, ...] = cli.flag(
    (
      'kaiming_fan_out',
      'xavier',
      'orthogonal',
      'scaled 0.1',
      'scaled 10',
      'fitted',
    ),
    f'Initialisations that are trained, beside {arms_lib.REFERENCE}.',
    choices=tuple(arms_lib.STARTS),
    unique=True,
  )
  classifier_rate: float = cli.flag(
    2.45,
    "Factor on the learning rate of a fast classifier; 2.45 is also Kaiming's spread "
    "over PyTorch's.",
    minimum=recipes.FACTORS[0],
    maximum=recipes.FACTORS[1],
  )
  classifier_decay: float = cli.flag(
    1e-3, 'Weight decay of a decayed classifier.', exclusive_minimum=0
  )
  rates: tuple[float, ...] = cli.flag(
    (0.41, 1.0, 2.45),
    'Factors on the learning rate, to choose from.',
    minimum=recipes.FACTORS[0],
    maximum=recipes.FACTORS[1],
    unique=True,
  )
  networks: tuple[str, ...] = cli.flag(
    ('resnet8', 'resnet20', 'resnet32'),
    'Networks whose gradient is measured without training.',
    choices=_NETWORKS,
    unique=True,
  )
  shortcuts: tuple[str, ...] = cli.flag(
    ('plain', 'bireal'),
    'Their shortcuts.',
    choices=('plain', 'bireal'),
    unique=True,
  )
  passing: tuple[str, ...] = cli.flag(
    tuple(n for n in arms_lib.PASSING if n not in ('scaled 0.3', 'scaled 3')),
    'Their initialisations.',
    choices=arms_lib.PASSING,
    unique=True,
  )
  channels: int = cli.flag(
    8, 'Channels of their first stage.', minimum=1, maximum=512
  )
  images: int = cli.flag(
    64,
    'Images by which a gradient is measured, and scales are fitted.',
    minimum=2,
  )

  def __post_init__(self):
    super().__post_init__()
    arms_lib.check(self.passing)
    self.model(2)

  def every(self) -> list[arms_lib.Arm]:
    """Returns the arms that are trained."""
    return arms_lib.every(self.starts)

  def model(self, num_classes: int) -> Any:
    """Returns the network that is trained."""
    return self._network(self.network, self.variant, num_classes)

  def measured(
    self, network: str, shortcut: str, num_classes: int
  ) -> nn.ResNet:
    """Returns a network whose gradient is measured."""
    stages = recipes.NETWORKS[network].make().stages
    widths = tuple(self.channels * 2**stage for stage in range(len(stages)))
    return self._network(network, shortcut, num_classes).clone(widths=widths)

  def _network(self, network, variant, num_classes):
    return recipes.build(
      network,
      variant,
      'sign',
      'sign',
      num_classes=num_classes,
      init_name=arms_lib.REFERENCE,
      **self.arithmetic(),
    )

  def num_trainings(self) -> int:
    """Returns the number of networks that are trained."""
    tuned = len(self.rates) * len(self.tuning_seeds)
    return len(self.every()) * (tuned + len(self.seeds))


PRESETS: dict[str, dict[str, Any]] = {
  'smoke': {'dataset': 'digits', 'network': 'resnet4', 'batch_size': 16}
  | {'epochs': 0.2, 'seeds': (0, 1, 2), 'tuning_seeds': (1000, 1001, 1002)}
  | {'starts': ('scaled 10',), 'rates': (1.0,), 'channels': 2, 'images': 8}
  | {'networks': ('resnet4',), 'shortcuts': ('bireal',), 'augmentation': ()}
  | {'passing': ('kaiming_normal', 'scaled 10', 'kaiming_normal, small')},
  'quick': {'dataset': 'digits', 'batch_size': 32, 'augmentation': ()}
  | {'epochs': 8.0, 'seeds': tuple(range(12)), 'classifier_decay': 1.5e-3}
  | {'learning_rate': 0.4},
  'cifar': recipes.SMALL_CIFAR
  | {'epochs': 15.0, 'seeds': tuple(range(12)), 'classifier_decay': 2.6e-4}
  | {'channels': 16, 'optimizer': 'sgd', 'learning_rate': 0.3},
}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Trains every arm, then measures the gradients of networks that are not trained."""
  parts = config.open(sweep)
  found = trainings.compare(config, parts, sweep)
  measured = passing.measure(config, parts.train, sweep)
  return found.assign(dict(measured.data_vars))


STUDY = cli.Study(
  'initialisation', __doc__, Config, PRESETS, run, findings.judge, figure.page
)
