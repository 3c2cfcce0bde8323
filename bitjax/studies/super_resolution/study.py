r"""Which parts of a super-resolution network do not suit low bits, and by how much?

The study of the note's N20. One network that enlarges images is made low-bit part
by part. In its declared design the body has one bit for weights and activations
(W1A1), a shortcut around every convolution, beside which the branch is multiplied by
0.1, no normalisation, and head, upsampler and tail of full precision. Every other arm
departs from it in one part: a shortcut a block; no factor on the branch; BatchNorm;
one bit for head and tail, or for the upsampler; another estimator; as many bit
operations spent on more bits in fewer channels. Of two bits
it is the range of activations that is varied: learned, learned at both ends,
fixed, or of the batch. References are the network of full precision and bicubic
resampling.

Primary contrast, declared beforehand: PSNR (luma, mean over the test images, last
update) at the scale 2 of the declared design, less that with a shortcut a block.
The learning rate of each arm is the one with the lowest mean validation loss of the
tuning seeds, which are not tested. The 95 % interval is over seeds, since all are
tested on the same images; the effect on each image is in its details. A difference
within 0.1 dB does not matter. What each part costs has intervals that hold for all
parts at once; that and all else is exploratory.

In this order, the commands train on eight photographs that come with packages
(minutes), and on photographs in DIR/train, tested on Set5 in DIR/Set5 (half a day):

  bitjax super_resolution
  bitjax super_resolution --preset=full --data_dir=DIR
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from bitjax import cli
from bitjax import nn
from bitjax import sweeps
from bitjax import training
from bitjax.studies import recipes
from bitjax.studies.recipes import pairs as pairs_lib
from bitjax.studies.super_resolution import arms as arms_lib
from bitjax.studies.super_resolution import figure
from bitjax.studies.super_resolution import findings
from bitjax.studies.super_resolution import networks
from bitjax.studies.super_resolution import trainings

if TYPE_CHECKING:
  import xarray

__all__ = ['PRESETS', 'STUDY', 'Config', 'run']


@dataclasses.dataclass(frozen=True)
class Config(recipes.Tuned, pairs_lib.PairsConfig):
  """Configuration of the study; each field is one flag."""

  blocks: int = cli.flag(
    2, 'Residual blocks of two convolutions.', minimum=1, maximum=64
  )
  channels: int = cli.flag(
    16,
    'Channels of the body; a multiple of 4 for the arm "4 bits at equal BOPs".',
    minimum=1,
    maximum=1024,
  )
  arms: tuple[str, ...] = cli.flag(
    tuple(arms_lib.ARMS), 'Networks.', choices=tuple(arms_lib.ARMS), unique=True
  )

  def __post_init__(self):
    cli.check(self)
    self.check_seeds(self.seeds)
    arms_lib.check(self.arms, self.channels)

  def model(self, arm: str) -> nn.SuperResolution:
    """Returns the network of an arm."""
    return networks.build(
      arms_lib.ARMS[arm].design,
      scale=self.scale,
      blocks=self.blocks,
      width=self.channels,
      precision=self.precision,
      dtype=self.dtype,
    )

  def num_trainings(self) -> int:
    """Returns the number of networks that are trained."""
    tuned = len(self.rates) * len(self.tuning_seeds)
    return len(self.arms) * (tuned + len(self.seeds))

  def open(self, sweep: sweeps.Sweep) -> pairs_lib.Parts:
    """Reads the images, records which they are, and refuses what cannot be trained."""
    parts, records = self.load()
    training.check_batch_split(self.batch_size, sweep.mesh)
    # Refuses patches that images do not hold.
    pairs_lib.feeds(self, parts.train, (0,))
    steps = self.num_steps(len(parts.train))

    def cost(config: Config) -> cli.Cost:
      number, pixels = config.num_trainings(), config.side**2
      held = config.batch_size * pixels * config.channels * config.blocks
      return cli.Cost(number, number * steps, held)

    cli.admit(self, cost)
    sweep.record(**records)
    return parts


PRESETS: dict[str, dict[str, Any]] = {
  'smoke': {'epochs': 0.25, 'seeds': (0, 1, 2), 'tuning_seeds': (1000, 1001)}
  | {'rates': (1.0,), 'blocks': 1, 'channels': 4, 'side': 8}
  | {'arms': (arms_lib.FULL, *arms_lib.PRIMARY)},
  'quick': {'tuning_seeds': (1000, 1001), 'rates': (0.5, 1.5)}
  | {'epochs': 16.0, 'learning_rate': 8e-3, 'arms': arms_lib.FEWER},
  'full': {'images': 'folder', 'validation_images': 10, 'blocks': 4}
  | {'side': 24, 'batch_size': 16, 'epochs': 12.5}
  | {'tuning_seeds': (1000, 1001)},
}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Tunes the rate of every arm, then trains every seed at the chosen one."""
  return trainings.compare(config, config.open(sweep), sweep)


STUDY = cli.Study(
  'super_resolution', __doc__, Config, PRESETS, run, findings.judge, figure.page
)
