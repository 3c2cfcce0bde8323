"""The flags of the command, and how much each preset measures."""

from __future__ import annotations

import dataclasses
from typing import Any

from bitjax import cli
from bitjax import data
from bitjax import types
from bitjax.commands.report_card import names
from bitjax.studies import recipes
from bitjax.studies import toy
from bitjax.studies.toy import searches

__all__ = ['PRESETS', 'Config']


@dataclasses.dataclass(frozen=True)
class Config(toy.Tuned, toy.Config):
  """Configuration of the measurements; each field is one flag."""

  estimators: tuple[str, ...] = cli.flag(
    (),
    'Estimators of the activations to measure: a call such as window(1) or '
    'gaussian(0.3,relative), or your own, my_module:my_estimator. None: all '
    'built-in ones.',
    own=names.make,
    nonempty=False,
    unique=True,
  )
  batch_size: tuple[int, ...] = cli.flag(
    (64, 256, 1024),
    'Examples in A, and in B; balls are spent at the largest.',
    minimum=1,
    unique=True,
    longest=16,
  )
  hidden: tuple[int, ...] = cli.flag(
    (128, 128), 'Units of each hidden layer.', minimum=1, longest=64
  )
  train_steps: int = cli.flag(
    300,
    'Updates of the network that is called trained, by the normal STE (Adam, batches of '
    '128).',
    minimum=1,
  )
  draws: int = cli.flag(16, 'Draws of smoothed gains.', minimum=1, maximum=4096)
  flip_rate: float = cli.flag(
    0.05,
    'Probability that a weight is flipped in a draw.',
    minimum=0,
    maximum=1,
  )
  parts: int = cli.flag(
    8,
    'Equal parts of the largest batch, over which gradients vary.',
    minimum=2,
  )
  balls: tuple[str, ...] = cli.flag(
    ('l2:0.1', 'l1:1', 'linf:0.002', 'flips:200'),
    'Balls of the first layer, written norm:radius; the first is the primary one.',
    unique=True,
    longest=16,
  )
  num_rounds: int = cli.flag(
    4, 'Rounds of several steps.', minimum=4, maximum=1000
  )
  digits_steps: int = cli.flag(
    600, 'Updates of the networks trained on digits.', minimum=1
  )
  digits_examples: int = cli.flag(
    800, 'Digits to train on, and as many to test on.', minimum=8, maximum=898
  )
  digits_hidden: tuple[int, ...] = cli.flag(
    (64, 64), 'Their units of each hidden layer.', minimum=1, longest=64
  )
  adam_rates: tuple[float, ...] = cli.flag(
    (1e-3, 3e-3, 1e-2),
    'Their learning rates to choose from.',
    exclusive_minimum=0,
    unique=True,
    longest=16,
  )
  cifar_epochs: float = cli.flag(
    2.0,
    'Epochs on CIFAR-10, at 16 x 16 pixels; only with --data_dir.',
    exclusive_minimum=0,
  )
  cifar_examples: int = cli.flag(
    10_000, 'Images of CIFAR-10 to train on.', minimum=64
  )
  cifar_network: str = cli.flag(
    'resnet8', 'The network.', choices=tuple(recipes.NETWORKS)
  )
  cifar_seeds: tuple[int, ...] = cli.flag(
    tuple(range(6)), 'Seeds of networks.', minimum=0, unique=True
  )
  cifar_rates: tuple[float, ...] = cli.flag(
    (0.3, 1.0, 3.0),
    'Factors on their learning rate, to choose from.',
    exclusive_minimum=0,
    unique=True,
    longest=16,
  )
  turns: int = cli.flag(7, 'Repetitions of timings.', minimum=2)

  def __post_init__(self):
    super().__post_init__()
    searches.check(self.balls, ('first',), (self.num_rounds,))
    if (size := max(self.batch_size)) % self.parts:
      raise types.BadInput(
        f'parts must divide the largest batch size, {size}; got {self.parts}.'
      )
    if len(self.tuning_seeds) < 2:
      raise types.BadInput(
        f'tuning_seeds must list two seeds at least; got {self.tuning_seeds}.'
      )
    for name in self.estimators if self.with_cifar else ():
      names.make(name, images=True)

  @property
  def chosen(self) -> tuple[str, ...]:
    """The estimators to measure, the normal STE first: all are compared with it."""
    asked = self.estimators or names.BUILT_IN
    return tuple(dict.fromkeys(map(names.plain, (names.REFERENCE, *asked))))

  @property
  def with_cifar(self) -> bool:
    """Whether networks are trained on CIFAR-10."""
    return self.data_dir is not None

  def identity(self, name: str) -> dict[str, Any]:
    """Returns what distinguishes the numbers of one estimator from others, in JSON."""
    found = cli.encode(self) | {'estimators': [name]}
    # Where the files lie matters for nothing but whether there are any.
    return found | {'data_dir': None, 'with_cifar': self.with_cifar}

  def check_data(self, dataset: data.Dataset) -> None:
    """Raises `BadInput` for flags that the data cannot serve."""
    toy.check_trainable(self, dataset)
    super().check_data(dataset)

  def cost(self) -> cli.Cost:
    """Returns what one estimator costs at least: lanes, updates and results."""
    lanes = len(toy.STATES) * len(self.all_seeds)
    trainings = len(self.seeds) + len(self.adam_rates) * len(self.tuning_seeds)
    steps = len(self.all_seeds) * self.train_steps
    return cli.Cost(
      lanes=lanes * (len(self.batch_size) + 2 * len(self.balls)) + trainings,
      updates=steps + trainings * self.digits_steps,
      numbers=2 * self.train_steps,
    )

  def digits(self) -> toy.Config:
    """Returns the configuration of the networks that are trained on digits."""
    return toy.Config(
      dataset='digits',
      batch_size=(self.digits_examples,),
      hidden=self.digits_hidden,
      seeds=self.all_seeds,
      precision=self.precision,
      dtype=self.dtype,
    )


PRESETS: dict[str, dict[str, Any]] = {
  'smoke': {
    'dataset': 'digits',
    'batch_size': (32, 64),
    'hidden': (16, 16),
    'seeds': (0, 1, 2),
    'tuning_seeds': (1000, 1001),
    'train_steps': 20,
    'draws': 2,
    'parts': 4,
    'num_rounds': 4,
    'digits_steps': 20,
    'digits_examples': 64,
    'digits_hidden': (8, 8),
    'adam_rates': (1e-3, 1e-2),
    'cifar_epochs': 0.1,
    'cifar_network': 'resnet4',
    'cifar_seeds': (0, 1),
    'cifar_rates': (1.0,),
    'turns': 2,
  },
  'quick': {},
}
