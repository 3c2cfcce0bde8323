r"""Does training end at a local optimum of single flips, and would leaving it help?

The study of the note's N15 and N16. Binary MLPs are trained with each of
several estimators on a batch A, which is the whole training set; B is held out.
Then every single flip of every layer is evaluated exactly. The first layer
descends by the best flip each time until none lowers the training loss; from
there some weights are flipped at random, and the descent is repeated. Losses
are reported on A and on B.

Primary contrast, declared beforehand: normal STE, log(L_trained / L_descended)
on B, the learning rate tuned on other seeds. The claim, that STE leaves flips
undone which would help on other data, is supported if the 95 % interval lies
above 0. All else is exploratory; intervals over several estimators are
simultaneous.

In this order, the commands run on embedded data, on larger images with three
estimators, and on CIFAR-10 with two, where a descent is cut off after 200
flips:

  bitjax local_optima
  bitjax local_optima --preset=full
  bitjax local_optima --preset=note --data_dir=DIR
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from bitjax import cli
from bitjax import data
from bitjax import quantizers
from bitjax import sweeps
from bitjax import types
from bitjax.studies import toy
from bitjax.studies.local_optima import arms
from bitjax.studies.local_optima import figure
from bitjax.studies.local_optima import findings

if TYPE_CHECKING:
  import xarray

__all__ = ['PRESETS', 'STUDY', 'Config', 'run']


@dataclasses.dataclass(frozen=True)
class Config(toy.Augmented, toy.Config):
  """Configuration of the study; each field is one flag."""

  dataset: str = cli.flag('digits', data.DESCRIPTION)
  batch_size: tuple[int, ...] = cli.flag(
    (800,), 'Examples in the training set A, and in B.', minimum=1, longest=1
  )
  hidden: tuple[int, ...] = cli.flag(
    (64, 64), 'Units of each hidden layer.', minimum=1, longest=64
  )
  estimators: tuple[str, ...] = cli.flag(
    arms.ESTIMATORS,
    'What trains; contrasts are with the first.',
    choices=arms.ESTIMATORS,
    own=quantizers.named,
    unique=True,
  )
  adam_rates: tuple[float, ...] = cli.flag(
    (1e-3, 3e-3, 1e-2),
    'Learning rates to choose from.',
    exclusive_minimum=0,
    unique=True,
  )
  train_steps: int = cli.flag(
    600, 'Updates (Adam, batches of 128 from A).', minimum=1
  )
  max_flips: int = cli.flag(3000, 'Flips of a descent, at most.', minimum=1)
  perturbed: tuple[int, ...] = cli.flag(
    (8, 64), 'Weights that are flipped at random.', minimum=1, unique=True
  )
  num_pairs: int = cli.flag(64, 'Pairs of flips made together.', minimum=1)
  stream: int = cli.flag(
    1024, 'Examples whose gains are computed at a time.', minimum=1
  )

  def check_data(self, dataset: data.Dataset) -> None:
    """Raises `BadInput` for flags that the data cannot serve."""
    size, most = self.weights(dataset)[0], max(self.perturbed)
    if most > size:
      raise types.BadInput(
        f'perturbed must be at most {size}, the weights of the first layer; got '
        f'{most}.'
      )
    super().check_data(dataset)

  def cost(self) -> cli.Cost:
    """Returns what the run costs at least: lanes, updates and results."""
    networks = len(self.estimators) * len(self.seeds)
    trainings = networks * (len(self.adam_rates) + 1)
    results = 9 * (len(self.hidden) + 2) + 4 * len(self.perturbed)
    return cli.Cost(
      lanes=trainings,
      updates=trainings * self.train_steps,
      numbers=networks * results
      + 2 * (self.train_steps + self.max_flips + 2 * self.num_pairs),
    )


PRESETS = {
  'smoke': {
    'batch_size': (64,),
    'hidden': (8, 8),
    'seeds': (0, 1, 2),
    'estimators': ('normal', 'window 0.5', 'EDE'),
    'adam_rates': (1e-3, 1e-2),
    'train_steps': 20,
    'max_flips': 20,
    'perturbed': (4,),
    'num_pairs': 4,
    'stream': 48,
  },
  'quick': {},
  'full': {
    'dataset': 'mnist5k',
    'batch_size': (2048,),
    'hidden': (256, 256),
    'estimators': ('normal', 'window 0.5', 'Bi-Real'),
    'perturbed': (512,),
  },
  'note': {
    'dataset': 'cifar10',
    'batch_size': (8192,),
    'hidden': (256, 256),
    'estimators': ('normal', 'Bi-Real'),
    'adam_rates': (1e-3, 3e-3),
    'max_flips': 200,
    'perturbed': (64,),
  },
}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Trains and examines every network."""
  return arms.compare(
    config.open(sweep),
    sweep,
    estimators=config.estimators,
    learning_rates=config.adam_rates,
    train_steps=config.train_steps,
    max_flips=config.max_flips,
    perturbed=config.perturbed,
    num_pairs=config.num_pairs,
    stream=config.stream,
  )


STUDY = cli.Study(
  'local_optima', __doc__, Config, PRESETS, run, findings.judge, figure.page
)
