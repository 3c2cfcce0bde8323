r"""Several small steps of STE against one scanned step, inside one budget.

The study of the note's N4-N10. The first layer of a toy MLP moves inside a ball
around its initialisation (l2, radius 0.1). *Single-step STE* scans the learning
rate of one step along the gradient; *multi-step STE* takes several steps of SGD,
SGD with momentum or Adam, from a start with or without noise, and is projected
back onto the ball after each. Everything is read on the batch it was chosen on (A)
and on a disjoint one (B).

Primary contrast, declared beforehand: the binary network, SGD without noise,
deployable protocol, log(L_single / L_multi) on B; supported if its 95 % interval
lies above 0. Equivalences have a margin of 5 %. All else is exploratory.

The figure is the note's: (L_single - L_multi) / L_single, against the noise and the
number of steps. Red: full precision. Blue: binary.

On embedded data (two CPU cores: 3 minutes), and at the note's sizes (hours):

  python -m experiments.multistep_ste
  python -m experiments.multistep_ste --preset=note --data_dir=DIR
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from bitjax import cli
from bitjax import evidence
from bitjax import quantizers
from bitjax import studies
from bitjax import sweeps
from bitjax.studies import toy_arms as arms
from bitjax.studies import toy_figures as figures
from bitjax.studies import toy_findings as findings

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray


@dataclasses.dataclass(frozen=True)
class Config(studies.StepsConfig):
  """One field is one flag."""

  batch_size: tuple[int, ...] = cli.flag(
    (256, 1024),
    'Examples in A, and in B: the study runs at the largest; the others serve '
    'to tell what the batch does.',
    minimum=1,
    unique=True,
  )


PRESETS = {
  'smoke': {
    'dataset': 'digits',
    'batch_size': (64,),
    'hidden': (16, 16),
    'optimizers': ('sgd', 'adam'),
    'seeds': (0, 1, 2),
    'noise': (0.0, 0.5),
    'learning_rates': cli.Grid('log:1e-2:1:5'),
    'step_sizes': (0.3, 1.0),
    'num_steps': 3,
  },
  'quick': {},
  'note': {
    'dataset': 'cifar10',
    'batch_size': (1024, 8192),
    'draws': 2,
    'learning_rates': cli.Grid('lin:1e-4:1:10000'),
    'num_steps': 10,
  },
}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Runs every arm and control, each as one sweep."""
  problem = config.open(sweep)
  rates = config.learning_rates.values
  noise = sorted(config.noise)
  draws = {'noise': noise, 'draw': range(config.draws)}
  size = {'step_size': config.step_sizes}
  multi = functools.partial(arms.multi, problem, config.num_steps)
  # Controls spend as many evaluations of loss and gradient as a multi-step arm.
  matched = len(config.step_sizes) * (2 * config.num_steps + 1)
  study = [
    arms.single(problem, rates),
    multi('multi', {'optimizer': config.optimizers}, draws | size),
    # The note's mixture: each element of the displacement is clipped.
    multi('literal', {}, size, norm='linf'),
  ]
  if noisy := [value for value in noise if value > 0]:
    study.append(arms.noisy(problem, noisy, matched))
    study.append(arms.restarts(problem, noisy, matched))
  smaller = sorted(set(config.batch_size) - {max(config.batch_size)})
  if smaller:
    study.append(multi('batches', {'batch_size': smaller}, size))
  if config.norm in ('linf', 'l1'):
    study.append(arms.single(problem, rates, steepest=True))
  if 'binary' in config.networks:
    window = quantizers.window(0.5)
    study.append(
      arms.variant(problem, 'vste', rates, activation_estimator=window)
    )
  return arms.collect(problem, sweep, study)


def verdicts(results: xarray.Dataset) -> list[evidence.Verdict]:
  """Judges the note's findings N6 and N8-N10."""
  found: list[evidence.Verdict] = []
  for network in results.network.values.tolist():
    primary = network == 'binary'
    found += findings.several_steps(results, network, primary=primary)
    for judge in (
      findings.adam,
      findings.literal,
      findings.momentum,
      findings.noise,
      findings.batch,
    ):
      found += judge(results, network)
  if 'vste_search' in results:
    found += findings.variant(results, 'binary', 'vste')
  return [*found, *findings.interaction(results)]


def plot(results: xarray.Dataset) -> figure.Figure:
  """The note's curve against noise and steps, on A and on B."""
  from matplotlib import pyplot

  fig, axes = pyplot.subplots(
    2, 2, figsize=(6.75, 5.2), sharex='col', sharey='col'
  )
  for row, batch, name in zip(axes, ('search', 'holdout'), 'AB', strict=True):
    figures.against_noise(row[0], results, batch)
    figures.against_steps(row[1], results, batch)
    row[0].set_ylabel(f'$(L_1 - L_m) / L_1$ on {name}')
    for ax in row:
      ax.axhline(0, color='black', linewidth=0.8)
  for ax in axes[0]:
    ax.set_xlabel('')
  axes[0, 0].set_title('best of all steps and learning rates')
  axes[0, 1].set_title('best learning rate for each number of steps')
  lines = axes[0, 1].get_legend_handles_labels()
  fig.legend(*lines, loc='outside lower center', ncols=2, handlelength=3)
  return fig


STUDY = cli.Study(
  'multistep_ste', __doc__, Config, PRESETS, run, verdicts, plot
)

if __name__ == '__main__':
  cli.main(STUDY)
