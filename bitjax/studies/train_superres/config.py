"""The flags of a training of one network that enlarges images."""

from __future__ import annotations

import dataclasses
from typing import Any

from bitjax import cli
from bitjax import nn
from bitjax import sweeps
from bitjax import training
from bitjax import types
from bitjax.studies.recipes import pairs as pairs_lib
from bitjax.studies.train_superres import quantizing

__all__ = ['PARTS', 'Config']

PARTS = ('head', 'upsampler', 'tail')
_ACTIVATIONS = ('usual', 'relu', 'hardtanh', 'identity', 'rprelu')


@dataclasses.dataclass(frozen=True)
class Config(pairs_lib.PairsConfig):
  """Configuration of the study; each field is one flag."""

  seeds: tuple[int, ...] = cli.flag(
    (0,),
    'Seeds: each has an initialisation and an order of patches of its own.',
    minimum=0,
    unique=True,
  )
  blocks: int = cli.flag(
    4, 'Residual blocks of two convolutions.', minimum=1, maximum=64
  )
  channels: int = cli.flag(16, 'Channels of the body.', minimum=1, maximum=1024)
  shortcut: str = cli.flag(
    'block',
    'Around each block of two convolutions, or around each convolution.',
    choices=nn.SR_SHORTCUTS,
  )
  multiplier: float = cli.flag(
    1.0, 'Of the branch beside a shortcut.', exclusive_minimum=0
  )
  norm: bool = cli.flag(
    False, 'Whether a batch normalisation follows each convolution of the body.'
  )
  upsampler: str = cli.flag(
    'shuffle',
    'shuffle: convolutions and pixel shuffles, then the tail at the high resolution; '
    'direct: a tail at the low one, and one pixel shuffle.',
    choices=nn.SR_UPSAMPLERS,
  )
  base: str = cli.flag(
    'none', 'Enlarged image that the output is added to.', choices=nn.SR_BASES
  )
  activation: str = cli.flag(
    'usual',
    'Activations; usual: hardtanh before one-bit inputs, else ReLU.',
    choices=_ACTIVATIONS,
  )
  thresholds: bool = cli.flag(
    False, 'Whether learned thresholds precede the quantizers of inputs.'
  )
  kernels: str = cli.flag(
    'none',
    'Quantizer of the kernels of the body, and of --quantized.',
    choices=tuple(quantizing.KERNELS),
  )
  inputs: str = cli.flag(
    'none',
    'Quantizer of the inputs of the same layers.',
    choices=tuple(quantizing.INPUTS),
  )
  quantized: tuple[str, ...] = cli.flag(
    (),
    'Parts that are quantized besides the body.',
    choices=PARTS,
    nonempty=False,
    unique=True,
  )
  schedule: str = cli.flag(
    'cosine',
    'How the learning rate falls; step: by --factor at each of --milestones.',
    choices=training.SCHEDULES,
  )
  milestones: tuple[float, ...] = cli.flag(
    (0.5, 0.75),
    'Shares of the training, for the schedule step.',
    exclusive_minimum=0,
    exclusive_maximum=1,
    unique=True,
  )
  factor: float = cli.flag(
    0.5,
    'On the learning rate, for the schedule step.',
    exclusive_minimum=0,
    maximum=1,
  )
  pretrained: str | None = cli.flag(
    None,
    'Folder of checkpoints to start from: a network of the same shape, of full '
    'precision or not.',
  )
  which: str = cli.flag(
    'latest',
    'Which checkpoint of --pretrained to load; best: on validation images.',
    choices=training.KEPT,
  )
  target: float | None = cli.flag(
    None,
    'PSNR to compare with, in dB: of luma, on --test_set; none: bicubic alone.',
    exclusive_minimum=0,
    maximum=100,
  )

  def __post_init__(self):
    cli.check(self)
    training.learning_rate(
      'step', 1.0, 100, milestones=self.milestones, factor=self.factor
    )  # Refuses milestones that do not grow, whatever the schedule.
    if self.quantized and (self.kernels, self.inputs) == ('none', 'none'):
      raise types.BadInput(
        f'quantized={",".join(self.quantized)} needs a quantizer of kernels or of '
        'inputs; got none of either.'
      )
    self.model()  # So that a bad combination is refused.

  def model(self) -> nn.SuperResolution:
    """Returns the network."""
    kernels = quantizing.KERNELS[self.kernels]
    usual = self.activation == 'usual'
    return nn.SuperResolution(
      scale=self.scale,
      blocks=self.blocks,
      width=self.channels,
      norm=self.norm,
      shortcut=self.shortcut,
      multiplier=self.multiplier,
      upsampler=self.upsampler,
      base=self.base,
      kernel_quantizer=kernels.quantizer,
      input_quantizer=quantizing.INPUTS[self.inputs],
      scaling=kernels.scaling,
      thresholds=self.thresholds,
      activation=None if usual else self.activation,
      precision=self.precision,
      dtype=self.dtype,
      quantize_head='head' in self.quantized,
      quantize_upsampler='upsampler' in self.quantized,
      quantize_tail='tail' in self.quantized,
    )

  def shown(self) -> str:
    """Returns what is quantized, in a few words."""
    if (self.kernels, self.inputs) == ('none', 'none'):
      return 'full precision'
    return f'kernels {self.kernels}, inputs {self.inputs}'

  def rate(self, num_steps: int) -> Any:
    """Returns the schedule of the learning rate of so many updates."""
    return training.learning_rate(
      self.schedule,
      self.learning_rate,
      num_steps,
      milestones=self.milestones,
      factor=self.factor,
    )

  def task(self, num_steps: int) -> training.Task:
    """Returns how the network is trained in so many updates."""
    return training.reconstruction(
      self.model(),
      training.optimizer('adam', self.rate(num_steps)),
      border=self.scale,
      progress=training.progress('linear', num_steps),
    )

  def open(self, sweep: sweeps.Sweep) -> pairs_lib.Parts:
    """Reads the images, records which they are, and refuses what cannot be trained."""
    parts, records = self.load()
    training.check_batch_split(self.batch_size, sweep.mesh)
    # Refuses patches that images do not hold.
    pairs_lib.feeds(self, parts.train, (0,))
    steps = self.num_steps(len(parts.train))

    def cost(config: Config) -> cli.Cost:
      number, pixels = len(config.seeds), config.side**2
      held = config.batch_size * pixels * config.channels * config.blocks
      return cli.Cost(number, number * steps, held)

    cli.admit(self, cost)
    sweep.record(**records)
    return parts
