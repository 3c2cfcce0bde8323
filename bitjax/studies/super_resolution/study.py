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
from bitjax import types
from bitjax.studies import recipes
from bitjax.studies.super_resolution import arms as arms_lib
from bitjax.studies.super_resolution import figure
from bitjax.studies.super_resolution import findings
from bitjax.studies.super_resolution import images as images_lib
from bitjax.studies.super_resolution import networks
from bitjax.studies.super_resolution import trainings

if TYPE_CHECKING:
  import xarray

__all__ = ['PRESETS', 'STUDY', 'Config', 'run']

_MOST = (1 << 31) - 1  # Updates that can be counted.


@dataclasses.dataclass(frozen=True)
class Config(recipes.Tuned):
  """Configuration of the study; each field is one flag."""

  images: str = cli.flag(
    'photographs',
    'photographs: those of scikit-image and scikit-learn, without files; folder: DIR/train '
    'and a test set in --data_dir=DIR.',
    choices=images_lib.SOURCES,
  )
  data_dir: str | None = cli.flag(None, 'Folder of train and of the test set.')
  test_set: str = cli.flag('Set5', 'Folder of the test images in --data_dir.')
  validation_images: int = cli.flag(
    2, 'Training images that choose learning rates instead.', minimum=1
  )
  scale: int = cli.flag(
    2, 'How many times larger images become.', choices=(2, 3, 4)
  )
  blocks: int = cli.flag(
    2, 'Residual blocks of two convolutions.', minimum=1, maximum=64
  )
  channels: int = cli.flag(
    16,
    'Channels of the body; even for equal BOPs.',
    minimum=1,
    maximum=1024,
  )
  side: int = cli.flag(
    16, 'Height and width of a patch at low resolution.', minimum=4
  )
  batch_size: int = cli.flag(8, 'Patches of an update.', minimum=1)
  repeats: int = cli.flag(
    16, 'Patches that an epoch takes from each image.', minimum=1
  )
  epochs: float = cli.flag(
    25.0,
    'Passes over the training images; the learning rate falls to 0 as a cosine.',
    exclusive_minimum=0,
  )
  learning_rate: float = cli.flag(
    4e-3, 'Learning rate of Adam at its peak.', exclusive_minimum=0
  )
  seeds: tuple[int, ...] = cli.flag(
    tuple(range(8)),
    'Seeds: each has an initialisation and an order of patches of its own.',
    minimum=0,
    unique=True,
  )
  arms: tuple[str, ...] = cli.flag(
    tuple(arms_lib.ARMS), 'Networks.', choices=tuple(arms_lib.ARMS), unique=True
  )
  precision: str = cli.precision_flag()
  dtype: str = cli.dtype_flag()

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

  def num_steps(self, num_images: int) -> int:
    """Returns the number of updates of a training on so many images."""
    an_epoch = num_images * self.repeats // self.batch_size
    steps = round(self.epochs * an_epoch)
    if not 1 <= steps <= _MOST:
      raise types.BadInput(
        f'epochs must give from 1 to {_MOST} updates of {self.batch_size} of the '
        f'{num_images * self.repeats} patches of an epoch; got {self.epochs:g}.'
      )
    return steps

  def num_trainings(self) -> int:
    """Returns the number of networks that are trained."""
    tuned = len(self.rates) * len(self.tuning_seeds)
    return len(self.arms) * (tuned + len(self.seeds))

  def load(self) -> tuple[images_lib.Parts, dict[str, Any]]:
    """Returns the images, and the facts by which a run records which they are."""
    parts = images_lib.load(
      self.images,
      self.data_dir,
      self.test_set,
      self.scale,
      self.validation_images,
    )
    records = {
      f'{name}_checksum': images_lib.checksum(part)
      for name, part in parts._asdict().items()
    }
    return parts, records | {'train_examples': len(parts.train)}

  def open(self, sweep: sweeps.Sweep) -> images_lib.Parts:
    """Reads the images, records which they are, and refuses what cannot be trained."""
    parts, records = self.load()
    training.check_batch_split(self.batch_size, sweep.mesh)
    # Refuses patches that images do not hold.
    trainings.feeds(self, parts.train, (0,))
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
