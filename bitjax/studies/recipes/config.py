"""The flags that studies of trainings share: data, recipe, seeds and network."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

from bitjax import cli
from bitjax import data
from bitjax import nn
from bitjax import quantizers
from bitjax import sweeps
from bitjax import training
from bitjax import types
from bitjax.studies.recipes import zoo

__all__ = ['FACTORS', 'NetworkConfig', 'Parts', 'TrainConfig']


FACTORS = (1e-6, 1e6)  # Of what a learning rate may be multiplied by.
_RECIPE = training.Recipe()  # The flags have the same defaults.


class Parts(NamedTuple):
  """The data: to train on, to choose a checkpoint by, and to test on once."""

  train: data.Dataset
  validation: data.Dataset
  test: data.Dataset


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """The flags for data, recipe and seeds of a training.

  A field that is named as one of `bitjax.training.Recipe` means the same.
  """

  dataset: str = cli.flag(
    'digits32',
    data.DESCRIPTION,
  )
  data_dir: str | None = cli.flag(
    None, 'Folder that holds the files of CIFAR or MNIST.'
  )
  validation_examples: int = cli.flag(
    200,
    'Examples of the training files that are not trained on, but choose the best '
    'checkpoint.',
    minimum=1,
  )
  train_examples: int | None = cli.flag(
    None,
    'Examples to train on, drawn with the shares of the classes; none: all.',
    minimum=1,
  )
  image_size: int | None = cli.flag(
    None,
    "Height and width of the images, means of squares of pixels; it divides the files' own. "
    'none: as they are.',
    minimum=1,
  )
  epochs: float = cli.flag(
    _RECIPE.epochs,
    'Passes over the training set; schedules keep their shape.',
    exclusive_minimum=0,
  )
  batch_size: int = cli.flag(
    _RECIPE.batch_size, 'Examples of an update.', minimum=1
  )
  optimizer: str = cli.flag(
    _RECIPE.optimizer,
    'Optimiser; bop flips the binary kernels itself and leaves the rest to Adam.',
    choices=training.OPTIMIZERS,
  )
  learning_rate: float = cli.flag(
    _RECIPE.learning_rate, 'Learning rate at its peak.', exclusive_minimum=0
  )
  schedule: str = cli.flag(
    _RECIPE.schedule,
    'How the learning rate falls; step: a tenth at half and at three quarters.',
    choices=training.SCHEDULES,
  )
  warmup: float = cli.flag(
    _RECIPE.warmup,
    'Share of the training before the peak.',
    minimum=0,
    exclusive_maximum=1,
  )
  momentum: float = cli.flag(
    _RECIPE.momentum, 'Momentum of sgd.', minimum=0, exclusive_maximum=1
  )
  weight_decay: float = cli.flag(
    _RECIPE.weight_decay, 'Weight decay.', minimum=0
  )
  decayed: str = cli.flag(
    _RECIPE.decayed,
    'Leaves that weight decay acts on; all: also scales and offsets of normalisations, biases and '
    'parameters of quantizers, as most published code has it.',
    choices=training.DECAYED,
  )
  quantizer_rate: float = cli.flag(
    _RECIPE.quantizer_rate,
    'Learning rate of the parameters of quantizers, as a multiple.',
    minimum=FACTORS[0],
    maximum=FACTORS[1],
  )
  quantizer_decay: float | None = cli.flag(
    _RECIPE.quantizer_decay,
    "Weight decay of the alphas of PACT and DSQ; none: with activations of PACT the weights', as "
    'in its paper, else as --decayed says.',
    minimum=0,
  )
  clip_latent: float | None = cli.flag(
    _RECIPE.clip_latent,
    'Bound on latent weights of quantized layers.',
    exclusive_minimum=0,
  )
  augmentation: tuple[str, ...] = cli.flag(
    _RECIPE.augmentation,
    'What is done to images: crop (after padding by 4), flip, and mixup or cutmix.',
    choices=data.AUGMENTATIONS,
    nonempty=False,
    unique=True,
  )
  border: str = cli.flag(
    _RECIPE.border,
    'Colour around cropped images; mean: of the training set.',
    choices=training.BORDERS,
  )
  offsets: str = cli.flag(
    _RECIPE.offsets,
    'Who draws an offset for the crop: every image, or a batch one for all.',
    choices=training.OFFSETS,
  )
  alpha: float = cli.flag(
    _RECIPE.alpha,
    'The shares of mixup and cutmix are drawn from Beta(alpha, alpha).',
    exclusive_minimum=0,
    maximum=1000,
  )
  smoothing: float = cli.flag(
    _RECIPE.smoothing, 'Label smoothing.', minimum=0, exclusive_maximum=1
  )
  average: float | None = cli.flag(
    _RECIPE.average,
    'Decay of a moving average of all weights, which is then evaluated.',
    exclusive_minimum=0,
    exclusive_maximum=1,
  )
  progress: str = cli.flag(
    _RECIPE.progress,
    'How quantizers that anneal go from soft (0) to hard (1); hard: at once.',
    choices=training.PROGRESS,
  )
  seeds: tuple[int, ...] = cli.flag(
    (0,),
    'Seeds: each has an initialisation and an order of examples of its own; the '
    'validation examples are the same.',
    minimum=0,
    unique=True,
  )
  precision: str = cli.precision_flag()
  dtype: str = cli.dtype_flag()

  def __post_init__(self):
    cli.check(self)
    data.check_name(self.dataset)

  def check_one_bit(self, holds: bool, weights: str) -> None:
    """Raises `BadInput` for options that only weights of 1 bit can have.

    Args:
      holds: whether all weights have 1 bit.
      weights: a description of the weights, for the message.
    """
    for name, wanted in (
      ('optimizer=bop', self.optimizer == 'bop'),
      ('clip_latent', self.clip_latent is not None),
    ):
      if wanted and not holds:
        raise types.BadInput(f'{name} needs weights of 1 bit; got {weights}.')

  def recipe(self) -> dict[str, Any]:
    """Returns the arguments of a `bitjax.training.Recipe`."""
    own = {field.name for field in dataclasses.fields(TrainConfig)}
    own -= {'dataset', 'data_dir', 'validation_examples', 'seeds'}
    own -= {'train_examples', 'image_size'}
    own -= self.arithmetic().keys()
    return {name: getattr(self, name) for name in sorted(own)}

  def arithmetic(self) -> dict[str, Any]:
    """Returns the ``precision`` and ``dtype`` with which all networks are built."""
    return {'precision': self.precision, 'dtype': self.dtype}

  def open(self, sweep: sweeps.Sweep) -> Parts:
    """Loads the data, splits off validation examples, and records which data they are.

    Raises:
      BadInput: for missing or malformed files, for validation examples or a batch
        that the data cannot supply, for more updates than can be counted, or for a
        batch that cannot be split evenly over the mesh's devices.
    """
    parts, records = self.load()
    self._check_length(len(parts.train.labels))
    training.check_batch_split(self.batch_size, sweep.mesh)
    sweep.record(**records)
    return parts

  def load(self) -> tuple[Parts, dict[str, Any]]:
    """Returns the data, and the facts by which a run records which data they are."""
    whole, test = (
      data.load(self.dataset, split=split, data_dir=self.data_dir)
      for split in ('train', 'test')
    )
    train, validation = data.split_validation(
      whole, self.validation_examples, 0
    )
    train = _reduced('train_examples', train, examples=self.train_examples)
    train, validation, test = (
      _reduced('image_size', part, side=self.image_size)
      for part in (train, validation, test)
    )
    return Parts(train, validation, test), {
      'train_checksum': whole.checksum,
      'test_checksum': test.checksum,
      'train_examples': len(train.labels),
    }

  def num_trainings(self) -> int:
    """Returns the number of networks that are trained."""
    return len(self.seeds)

  def _check_length(self, num_examples: int) -> None:
    """Refuses a training that cannot be counted or kept; announces a long one."""
    training.Recipe(**self.recipe()).num_steps(num_examples)

    def cost(config: TrainConfig) -> cli.Cost:
      number = config.num_trainings()
      curves = 4 * (math.ceil(config.epochs) + 1)  # Kept for every epoch.
      steps = round(config.epochs * (num_examples // config.batch_size))
      return cli.Cost(number, number * steps, number * curves)

    cli.admit(self, cost)


def _reduced(flag, dataset, **options):
  try:
    return data.reduced(dataset, **options)
  except types.BadInput as error:
    raise types.BadInput(f'{flag}: {error}') from None


@dataclasses.dataclass(frozen=True)
class NetworkConfig(TrainConfig):
  """The flags of a training of one network: its quantizers, start and teacher."""

  network: str = cli.flag(
    'resnet20', 'The network.', choices=tuple(zoo.NETWORKS)
  )
  variant: str = cli.flag(
    'plain',
    'Shortcuts: plain, around two convolutions; bireal, around each; react, with '
    'learned thresholds and activations too.',
    choices=nn.RESNET_VARIANTS,
  )
  weights: str = cli.flag(
    'none',
    'Quantizer of the kernels, first and last layer left alone; an estimator of your '
    'own is that of a scaled sign.',
    choices=tuple(zoo.WEIGHTS),
    own=quantizers.named,
  )
  activations: str = cli.flag(
    'none',
    'Quantizer of the inputs of quantized layers; an estimator of your own is that '
    'of a sign.',
    choices=tuple(zoo.ACTIVATIONS),
    own=quantizers.named,
  )
  half_width: float = cli.flag(
    1.0,
    'Half-width of the window through which gradients pass the activations "sign".',
    exclusive_minimum=0,
  )
  init_name: str = cli.flag(
    'kaiming_normal', 'Initialisation of kernels.', choices=tuple(nn.INITS)
  )
  last_init_name: str | None = cli.flag(
    None,
    "Initialisation of the classifier's kernel; none: as the others.",
    choices=tuple(nn.INITS),
  )
  staged: float = cli.flag(
    0.0,
    'Share of the training in which only activations are quantized; 0: none.',
    minimum=0,
    exclusive_maximum=1,
  )
  pretrained: str | None = cli.flag(
    None,
    'Folder of checkpoints to start from: a network of the same shape, full '
    'precision or not.',
  )
  which: str = cli.flag(
    'latest',
    'Which checkpoint of --pretrained to load; best: on validation examples.',
    choices=training.KEPT,
  )
  frozen: tuple[str, ...] = cli.flag(
    (),
    'Regular expressions: parameters whose path one of them matches do not change.',
    nonempty=False,
  )
  teacher: str | None = cli.flag(
    None,
    'Folder of checkpoints of a full-precision network of the same kind, to learn '
    'from.',
  )
  teaching: float = cli.flag(
    0.5, "Weight of the teacher's loss.", minimum=0, maximum=1
  )
  tensorboard: bool = cli.flag(
    False, 'Write event files for TensorBoard beside the checkpoints.'
  )

  def __post_init__(self):
    super().__post_init__()
    one_bit = zoo.weights_of(self.weights).bits == 1
    self.check_one_bit(one_bit, self.weights)
    if self.staged and 'none' in (self.weights, self.activations):
      raise types.BadInput(
        'staged needs quantized weights and activations; got weights '
        f'{self.weights} and activations {self.activations}.'
      )
    self.stages(2)  # Builds the networks, so that a bad combination is refused.

  def recipe(self) -> dict[str, Any]:
    """Returns the arguments of a `bitjax.training.Recipe`."""
    binary = (zoo.NETWORKS[self.network].binary,)
    decay = self.quantizer_decay
    if decay is None and self.activations in zoo.PACT:
      decay = self.weight_decay
    own = {'binary': binary, 'frozen': self.frozen, 'quantizer_decay': decay}
    return super().recipe() | own

  def own(self) -> str:
    """Names the user's own estimators, as in ``'weights m:f(1)'``; empty if none."""
    chosen = {'weights': self.weights, 'activations': self.activations}
    return ', '.join(f'{k} {v}' for k, v in chosen.items() if ':' in v)

  def stages(self, num_classes: int) -> list[tuple[float, Any]]:
    """Lists the stages of the training for `Recipe.phases`: (where it ends, network).

    There is one stage, or with ``staged`` two: in the first only activations are
    quantized. A stage ends at a share of the training.
    """
    names = ['none', self.weights] if self.staged else [self.weights]
    models = [
      zoo.build(
        self.network,
        self.variant,
        weights,
        self.activations,
        num_classes=num_classes,
        init_name=self.init_name,
        last_init_name=self.last_init_name,
        half_width=self.half_width,
        **self.arithmetic(),
      )
      for weights in names
    ]
    shares = [self.staged, 1.0] if self.staged else [1.0]
    return list(zip(shares, models, strict=True))

  def model(self, num_classes: int) -> Any:
    """Returns the network with which a training ends."""
    return self.stages(num_classes)[-1][1]

  def full_precision(self, num_classes: int) -> Any:
    """Builds the same network without quantizers, in its plain variant."""
    return zoo.build(
      self.network,
      'plain',
      'none',
      'none',
      num_classes=num_classes,
      init_name=self.init_name,
      last_init_name=self.last_init_name,
      **self.arithmetic(),
    )
