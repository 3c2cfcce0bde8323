r"""Can the normal and a variant straight-through estimator be told apart?

This is the study of the note's N11 and N12. The first layer of a binary MLP
takes one step inside a ball (l2, radius 0.1), at every learning rate of a grid;
only the gradient differs. The normal STE (nSTE) passes all of the weights'
gradient, and that of activations in [-1, 1]. Each variant steps from the initial
and from a trained network (by what A and B leave over), some through all layers.

The primary contrast, declared beforehand, is the paired difference of the
decreases on B, of window 0.5 on the activations against the normal STE:
initialised network, first layer, deployable protocol. The claim is equivalence
within 5 % of the normal STE's decrease (two one-sided tests). All else is
exploratory: windows in units of each layer's spread, layer by layer, and N12
for the threshold of the window and for that of the quantizer.

Quick takes 10.5 minutes of CPU time and note 15 (measured). By scale, full takes
about 22 minutes, and note_all about three hours and 6 GB of memory
(docs/studies/variant_ste.md).

  bitjax variant_ste
  bitjax variant_ste --preset=full
  bitjax variant_ste --preset=note[_all] --data_dir=DIR
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from bitjax import cli
from bitjax import data
from bitjax import quantizers
from bitjax import sweeps
from bitjax import types
from bitjax.evidence import protocols
from bitjax.studies import toy
from bitjax.studies.variant_ste import arms
from bitjax.studies.variant_ste import families
from bitjax.studies.variant_ste import figure
from bitjax.studies.variant_ste import findings
from bitjax.studies.variant_ste import thresholds

if TYPE_CHECKING:
  import xarray

__all__ = ['PRESETS', 'STUDY', 'Config', 'run']

_rates = functools.partial(cli.flag, exclusive_minimum=0, maximum=1)
_optional = functools.partial(
  cli.flag, exclusive_minimum=0, unique=True, nonempty=False, longest=16
)


@dataclasses.dataclass(frozen=True)
class Config(toy.Augmented, toy.Tuned, toy.BallConfig):
  """Configuration of the study; each field is one flag."""

  batch_size: tuple[int, ...] = cli.flag(
    (1024,), 'Examples in A, and in B.', minimum=1, longest=1
  )
  states: tuple[str, ...] = cli.flag(
    toy.STATES, 'Where the step begins.', choices=toy.STATES, unique=True
  )
  families: tuple[str, ...] = cli.flag(
    families.NAMES,
    'What is compared with nSTE.',
    choices=families.NAMES,
    unique=True,
  )
  estimators: tuple[str, ...] = cli.flag(
    (),
    'Estimators of your own for the activations, compared as well, at progress 1.',
    own=quantizers.named,
    nonempty=False,
    unique=True,
  )
  half_widths: tuple[float, ...] = cli.flag(
    (0.05, 0.1, 0.25, 0.5, 2.0),
    'Half-widths of the windows, besides the normal 1.',
    exclusive_minimum=0,
    unique=True,
    longest=64,
  )
  relative_widths: tuple[float, ...] = _optional(
    (0.25, 0.5, 1.0, 2.0, 3.0),
    "Half-widths of windows in one layer or all, in units of the layer's spread.",
  )
  thresholds: tuple[float, ...] = _optional(
    (0.25, 0.5, 1.0),
    'Thresholds of the sign in one layer or all, in the same units.',
  )
  learning_rates: cli.Grid = _rates(
    cli.Grid('log:1e-3:1:40'),
    'Learning rates; 1 is the one that reaches the edge of the ball.',
  )
  few_rates: cli.Grid = _rates(
    cli.Grid('log:1e-1:1:4'), 'Those of steps through all layers.'
  )
  num_groups: int = cli.flag(4, 'Parts of a batch.', minimum=2)
  train_steps: int = cli.flag(
    300, 'Updates of the trained network (Adam, batches of 128).', minimum=1
  )

  def __post_init__(self):
    super().__post_init__()
    if toy.STATES[0] not in self.states:
      raise types.BadInput(
        f'states must list {toy.STATES[0]}, that of the primary contrast; got '
        f'{", ".join(self.states)}.'
      )
    if 0.5 not in self.half_widths or families.WINDOWS[0] not in self.families:
      raise types.BadInput(
        f'half_widths must list 0.5 and families {families.WINDOWS[0]!r}, the '
        f'primary contrast; got {self.half_widths} and {self.families}.'
      )
    if (size := max(self.batch_size)) % self.num_groups:
      raise types.BadInput(
        f'num_groups must divide the batch size, {size}; got {self.num_groups}.'
      )

  def check_data(self, dataset: data.Dataset) -> None:
    """Raises `BadInput` for flags that the data cannot serve."""
    if len(self.states) > 1:
      toy.check_trainable(self, dataset)
    super().check_data(dataset)

  def cost(self) -> cli.Cost:
    """Returns what the run costs at least: lanes, updates and results."""
    lanes = len(self.states) * len(self.all_seeds)
    steps = self.train_steps if len(self.states) > 1 else 0
    rates = len(self.half_widths) * len(self.learning_rates)
    return cli.Cost(
      lanes=lanes,
      updates=len(self.all_seeds) * steps,
      numbers=lanes * rates * len(toy.REPORTED) + 2 * steps,
    )


_NOTE = {
  'dataset': 'cifar10',
  'batch_size': (8192,),
  'seeds': tuple(range(30)),
  'learning_rates': cli.Grid('log:1e-1:1:16'),
}
PRESETS = {
  'smoke': {
    'dataset': 'digits',
    'batch_size': (64,),
    'hidden': (16, 16),
    'seeds': (0, 1, 2),
    'tuning_seeds': (1000, 1001),
    'half_widths': (0.05, 0.5),
    'relative_widths': (0.5, 2.0),
    'thresholds': (0.5,),
    'learning_rates': cli.Grid('log:1e-2:1:5'),
    'few_rates': cli.Grid('log:1e-1:1:2'),
    'train_steps': 20,
  },
  'quick': {},
  'full': {'seeds': tuple(range(30))},
  'note': {
    **_NOTE,
    'families': (families.WINDOWS[0], 'identity'),
    'half_widths': (0.25, 0.5, 2.0),
    'relative_widths': (),
    'thresholds': (),
  },
  'note_all': _NOTE,
}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Compares all variants on every seed."""
  problems = config.open(sweep)
  part = max(config.batch_size) // config.num_groups
  networks = toy.States(problems, config.states, config.train_steps)
  found = arms.compare(
    networks,
    sweep,
    families.variants(
      config.families, config.half_widths, part, config.estimators
    )
    + families.layerwise(config.relative_widths, len(config.hidden)),
    config.learning_rates.values,
    everywhere=arms.EVERYWHERE,
    few_rates=config.few_rates.values,
    half_widths=sorted({*config.half_widths, 1.0}),
    num_groups=config.num_groups,
  )
  shifted = thresholds.compare(
    networks, sweep, config.thresholds, num_groups=config.num_groups
  )
  tuned_by = ('holdout', 'all_holdout')
  return protocols.apart(found.merge(shifted), config.tuning_seeds, tuned_by)


STUDY = cli.Study(
  'variant_ste', __doc__, Config, PRESETS, run, findings.judge, figure.page
)
