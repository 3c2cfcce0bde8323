r"""Does training end at a local optimum of single flips, and would leaving it help?

The study of the note's N15 and N16. Binary MLPs are trained with each of
several estimators on a batch A, which is the whole training set; B is held out.
Then every single flip of every layer is evaluated exactly. The first layer
descends by the best flip each time until none lowers the training loss; from
there some weights are flipped at random, and the descent is repeated. Losses
are reported on A and on B.

Primary contrast, declared beforehand: normal STE, log(L_trained / L_descended)
on B, the learning rate tuned on seeds that are never tested. The claim, that
STE leaves flips undone which would help on other data, is supported if the 95 %
interval lies above 0.005, half a percent of the loss. All else is exploratory;
intervals over several estimators are simultaneous.

Controls: the first estimator also trains with a rate that falls to 0, with more
updates, and with both; a full-precision network, whose gradient is exact, is
trained alike, and its weights are moved as far as a flip would. That the
gradient is wrong enough (a reading of N15) is supported only if flips still help
after the longest training with a falling rate, and those moves do not.

In this order, the commands run on embedded data, on larger images with three
estimators, and on CIFAR-10 with two, where a descent is cut off after 200
flips. Only the first has the full-precision network, whose moves are costly:

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
from bitjax.studies.local_optima import controls
from bitjax.studies.local_optima import figure
from bitjax.studies.local_optima import findings
from bitjax.studies.local_optima import networks

if TYPE_CHECKING:
  import xarray

__all__ = ['PRESETS', 'STUDY', 'Config', 'run']


@dataclasses.dataclass(frozen=True)
class Config(toy.Tuned, toy.Augmented, toy.Config):
  """Configuration of the study; each field is one flag."""

  dataset: str = cli.flag('digits', data.DESCRIPTION)
  batch_size: tuple[int, ...] = cli.flag(
    (800,), 'Examples in the training set A, and in B.', minimum=1, longest=1
  )
  hidden: tuple[int, ...] = cli.flag(
    (64, 64), 'Units of each hidden layer.', minimum=1, longest=64
  )
  estimators: tuple[str, ...] = cli.flag(
    networks.ESTIMATORS,
    'What trains; contrasts are with the first.',
    choices=networks.ESTIMATORS,
    own=quantizers.named,
    unique=True,
  )
  adam_rates: tuple[float, ...] = cli.flag(
    (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
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
  longer: int = cli.flag(4, 'Times the updates of longer controls.', minimum=2)
  few_flips: int = cli.flag(32, 'Moves at which controls compare.', minimum=1)
  full_precision: bool = cli.flag(
    True, 'Whether a full-precision network is trained as a control.'
  )
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
    tests, rates = len(self.seeds), len(self.adam_rates)
    trained = tests + rates * len(self.tuning_seeds)  # Of one arm.
    # The controls have two lengths and two schedules, or the two kinds of moves.
    binary, precise = 4, 2 * self.full_precision
    trainings = len(self.estimators) + binary + precise
    steps = len(self.estimators) + 2 * (1 + self.longer) + precise * self.longer
    main = 9 * (len(self.hidden) + 2) + 4 * len(self.perturbed) + 12
    paths = self.longer * self.train_steps + self.max_flips
    return cli.Cost(
      lanes=trained * trainings,
      updates=trained * steps * self.train_steps,
      numbers=tests * main * trainings + 2 * (paths + 2 * self.num_pairs),
    )


PRESETS = {
  'smoke': {
    'batch_size': (64,),
    'hidden': (8, 8),
    'seeds': (0, 1, 2),
    'tuning_seeds': (1000, 1001),
    'estimators': ('normal', 'window 0.5', 'EDE'),
    'adam_rates': (1e-3, 1e-2),
    'train_steps': 20,
    'max_flips': 20,
    'perturbed': (4,),
    'num_pairs': 4,
    'longer': 2,
    'few_flips': 4,
    'stream': 48,
  },
  'quick': {},
  'full': {
    'dataset': 'mnist5k',
    'batch_size': (2048,),
    'hidden': (256, 256),
    'estimators': ('normal', 'window 0.5', 'Bi-Real'),
    'perturbed': (512,),
    'full_precision': False,
  },
  'note': {
    'dataset': 'cifar10',
    'batch_size': (8192,),
    'hidden': (256, 256),
    'estimators': ('normal', 'Bi-Real'),
    'adam_rates': (1e-3, 3e-3, 1e-2),
    'max_flips': 200,
    'perturbed': (64,),
    'full_precision': False,
  },
}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Trains and examines every network, and the controls."""
  problems = config.open(sweep)
  found = arms.compare(
    problems,
    sweep,
    estimators=config.estimators,
    learning_rates=config.adam_rates,
    train_steps=config.train_steps,
    max_flips=config.max_flips,
    perturbed=config.perturbed,
    num_pairs=config.num_pairs,
    stream=config.stream,
  )
  others = controls.binary(
    problems,
    sweep,
    estimator=config.estimators[0],
    learning_rates=config.adam_rates,
    train_steps=config.train_steps,
    times=(1, config.longer),
    max_flips=config.max_flips,
    few_flips=config.few_flips,
    stream=config.stream,
  )
  found = found.assign(others.data_vars)
  if config.full_precision:
    precise = controls.full_precision(
      problems,
      sweep,
      learning_rates=config.adam_rates,
      num_steps=config.longer * config.train_steps,
      few_flips=config.few_flips,
    )
    found = found.assign(precise.data_vars)
  return found


STUDY = cli.Study(
  'local_optima', __doc__, Config, PRESETS, run, findings.judge, figure.page
)
