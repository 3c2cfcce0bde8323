r"""Do several small steps of STE beat one scanned step, inside one budget?

This is the study of the note's N4-N10. The first layer of a toy MLP moves
inside a ball around its initialisation (l2, radius 0.1). *Single-step STE*
scans the learning rate of one step along the gradient; *multi-step STE* takes
several steps of SGD, SGD with momentum or Adam, from a start with or without
noise, and is projected back onto the ball after each. Losses are reported on
the batch A that gives the gradients, and on a disjoint batch B.

The primary contrast, declared beforehand, is log(L_single / L_multi) on B, of
the binary network and SGD without noise, tuned on seeds that are never tested
(deployable). It is supported if its 95 % interval lies above 0.005, half a
percent of the loss, the margin of all equivalences. All else is exploratory.
The figure is the note's: (L_single - L_multi) / L_single.

The commands take 14 minutes of CPU time (embedded data), about 24 minutes (64
steps), and about 10 hours (the note's sizes); interrupted ones can go on:

  bitjax multistep_ste
  bitjax multistep_ste --preset=long
  bitjax multistep_ste --preset=note --data_dir=DIR
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, cast

from bitjax import cli
from bitjax import quantizers
from bitjax import sweeps
from bitjax import types
from bitjax.studies import toy
from bitjax.studies.multistep_ste import arms
from bitjax.studies.multistep_ste import figure
from bitjax.studies.multistep_ste import findings

if TYPE_CHECKING:
  import xarray

__all__ = ['PRESETS', 'STUDY', 'Config', 'run']


@dataclasses.dataclass(frozen=True)
class Config(toy.Tuned, toy.Augmented, toy.BallConfig):
  """Configuration of the study; each field is one flag."""

  batch_size: tuple[int, ...] = cli.flag(
    (256, 1024),
    'Examples in A, and in B: the study runs at the largest; the others serve '
    'to tell what the batch does.',
    minimum=1,
    unique=True,
    longest=16,
  )
  networks: tuple[str, ...] = cli.flag(
    ('full_precision', 'binary'),
    'Networks: what is binary in them.',
    choices=tuple(toy.NETWORKS),
    unique=True,
  )
  anchor: str = cli.flag(
    'start',
    'Centre of the ball: the original kernel, or the noised start.',
    choices=types.ANCHORS,
  )
  optimizers: tuple[str, ...] = cli.flag(
    ('sgd', 'sgdm', 'adam'),
    'Optimisers of the multi-step arms.',
    choices=tuple(toy.OPTIMIZERS),
    unique=True,
  )
  noise: tuple[float, ...] = cli.flag(
    (0.0, 0.3, 1.0),
    'Noise amplitudes, as fractions of the budget.',
    minimum=0,
    maximum=1,
    unique=True,
  )
  draws: int = cli.flag(1, 'Noise draws for each seed.', minimum=1)
  learning_rates: cli.Grid = cli.flag(
    cli.Grid('log:1e-4:1:200'),
    'Single-step learning rates, as fractions of the one that reaches the edge '
    'of the ball (1e-4 to 1 is 1e-5 to 1e-1 for a normalised gradient and the '
    'budget 0.1).',
    exclusive_minimum=0,
    maximum=1,
  )
  step_sizes: tuple[float, ...] = cli.flag(
    (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
    'Multi-step learning rates, in units of the one that reaches the edge.',
    exclusive_minimum=0,
    maximum=toy.MAX_STEP,
    unique=True,
  )
  num_steps: int = cli.flag(
    10,
    'Updates of the multi-step arms. Losses are reported after each of the first '
    'ten, and then after four in each doubling.',
    minimum=1,
  )

  def __post_init__(self):
    super().__post_init__()
    if 0 not in self.noise:
      raise types.BadInput(
        f'noise must list 0, the reference without noise; got {self.noise}.'
      )
    if self.draws > 1 and len(self.noise) == 1:
      raise types.BadInput(
        f'draws={self.draws} needs a noise besides 0: all draws would be equal.'
      )

  @property
  def ball(self) -> types.Budget:
    """The ball in which all methods move."""
    anchor = cast(types.Anchor, self.anchor)
    return dataclasses.replace(super().ball, anchor=anchor)

  @property
  def matched(self) -> int:
    """Points of a control, which evaluates as many losses as a multi-step arm does."""
    return len(self.step_sizes) * (2 * self.num_steps + 1)

  def cost(self) -> cli.Cost:
    """Returns what the arms cost at least: lanes, updates and results."""
    trials = len(self.networks) * len(self.all_seeds)
    noisy = len(self.noise) - 1
    starts = 1 + len(self.optimizers) * (1 + noisy * self.draws)
    paths = trials * len(self.step_sizes) * starts
    controls, scanned = 2 * trials * noisy, trials * len(self.batch_size)
    points = self.num_steps + paths * len(arms.schedule(self.num_steps))
    points += controls * self.matched + scanned * len(self.learning_rates)
    return cli.Cost(
      lanes=paths + controls + scanned,
      updates=paths * self.num_steps,
      numbers=len(toy.REPORTED) * points,
    )


PRESETS = {
  'smoke': {
    'dataset': 'digits',
    'batch_size': (64,),
    'hidden': (16, 16),
    'optimizers': ('sgd', 'adam'),
    'seeds': (0, 1, 2),
    'tuning_seeds': (1000, 1001),
    'noise': (0.0, 0.5),
    'learning_rates': cli.Grid('log:1e-2:1:5'),
    'step_sizes': (0.3, 1.0),
    'num_steps': 3,
  },
  'quick': {},
  'long': {
    'batch_size': (1024,),
    'optimizers': ('sgd', 'sgdm'),
    'noise': (0.0,),
    'num_steps': 64,
  },
  'note': {
    'dataset': 'cifar10',
    'batch_size': (1024, 8192),
    'draws': 2,
    'learning_rates': cli.Grid('lin:1e-4:1:10000'),
  },
}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Runs every arm and control, each as one sweep."""
  problems = config.open(sweep)
  rates = config.learning_rates.values
  multi = functools.partial(arms.multi, problems, config.num_steps)
  starts = arms.starts(sorted(config.noise), config.draws)
  study = [
    arms.single(problems, rates),
    multi('multi', {'optimizer': config.optimizers}, starts=starts),
    # One reading of the note: each element of the displacement is clipped.
    multi('clipped', {}, norm='linf'),
  ]
  if noisy := sorted(value for value in config.noise if value > 0):
    study.append(arms.noisy(problems, noisy, config.matched))
    study.append(arms.restarts(problems, noisy, config.matched))
  if smaller := sorted({*config.batch_size} - {max(config.batch_size)}):
    study.append(multi('batches', {'batch_size': smaller}))
  if config.norm in ('linf', 'l1'):
    study.append(arms.single(problems, rates, steepest=True))
  if 'binary' in config.networks:
    window = quantizers.window(0.5)
    study.append(
      arms.variant(problems, 'vste', rates, activation_estimator=window)
    )
  return arms.collect(problems, sweep, study)


STUDY = cli.Study(
  'multistep_ste', __doc__, Config, PRESETS, run, findings.judge, figure.page
)
