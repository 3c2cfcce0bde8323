r"""What do few bits save in energy, memory and time on hardware, and at what accuracy?

The study of the note's N17: simulation without hardware convinces nobody, and the
number of operations is no measure of energy. Networks of 1 to 4 bits and of full
precision are trained at several widths. What each costs is counted: energy by Horowitz's
table (arithmetic; weights, feature maps and shortcuts, each moved at its own width),
as a band, since nobody has published the energy of an XNOR with its share of a popcount;
memory; and the cycles of an accelerator of matrix-vector units that fits into a
number of look-up tables, whose model a circuit in this repository confirms. Published
networks are counted too, without training them.

Primary contrast, declared beforehand: test accuracy of the last epoch, of 1 bit less that
of 4 bits, where the width of the first is such that both take as much energy (the
geometric middle of the band). A difference within half a point does not matter. The
learning rate of each network is the one with the lowest mean validation loss of the
tuning seeds, which are not tested. Other seeds and other test images are both in the
95 % interval. All else is exploratory, or counted.

In this order, the commands train small MLPs on digits (minutes), and ResNet-8 on
10 000 images of CIFAR-10 at 16 x 16 pixels (hours):

  bitjax hardware
  bitjax hardware --preset=cifar --data_dir=DIR
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from bitjax import cli
from bitjax import sweeps
from bitjax.studies import recipes
from bitjax.studies.hardware import arms as arms_lib
from bitjax.studies.hardware import figure
from bitjax.studies.hardware import findings
from bitjax.studies.hardware import trainings
from bitjax.studies.recipes import families

if TYPE_CHECKING:
  import xarray

__all__ = ['PRESETS', 'STUDY', 'Config', 'run']


@dataclasses.dataclass(frozen=True)
class Config(families.Grid, recipes.TunedConfig):
  """Configuration of the study; each field is one flag."""

  luts: int = cli.flag(5000, 'Look-up tables of the accelerator.', minimum=1000)

  def __post_init__(self):
    super().__post_init__()
    self.check_one_bit(self.bits == ('1',), ', '.join(self.bits))
    self.check_bits(arms_lib.PRIMARY, arms_lib.REFERENCE)

  def num_trainings(self) -> int:
    """Returns the number of networks that are trained, or somewhat more."""
    arms = len(self.bits) * (len(self.widths) + len(arms_lib.SERIES))
    tuned = len(self.rates) * len(self.tuning_seeds)
    return arms * (tuned + len(self.seeds))


_BITS = ('1', '1.58', '2', '4', '32')
_DIGITS = {'dataset': 'digits', 'augmentation': (), 'batch_size': 32} | {
  'optimizer': 'adam',
  'learning_rate': 0.02,
  'weight_decay': 0.0,
}

PRESETS: dict[str, dict[str, Any]] = {
  'smoke': _DIGITS
  | {'epochs': 0.3, 'seeds': (0, 1, 2), 'tuning_seeds': (1000, 1001, 1002)}
  | {'bits': ('1', '4'), 'widths': (4,), 'base_width': 4, 'rates': (1.0,)},
  'quick': _DIGITS
  | {'epochs': 40.0, 'seeds': tuple(range(12)), 'bits': _BITS}
  | {'widths': (8, 16, 32, 64), 'base_width': 16},
  'cifar': recipes.SMALL_CIFAR
  | {'network': 'resnet8', 'widths': (4, 8, 16), 'base_width': 8}
  | {'luts': 50_000, 'bits': _BITS}
  | {'weight_decay': 0.0, 'epochs': 30.0, 'seeds': tuple(range(12))},
}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Counts what networks cost, tunes the rate of each, and tests every seed."""
  return trainings.compare(config, config.open(sweep), sweep)


STUDY = cli.Study(
  'hardware',
  __doc__,
  Config,
  PRESETS,
  run,
  findings.judge,
  figure.page,
)
