r"""Several small steps of STE against one scanned step, inside one budget.

The study of the note's N4-N10. The first layer of a toy MLP moves inside a ball
around its initialisation (l2, radius 0.1). *Single-step STE* scans the learning
rate of one step along the gradient; *multi-step STE* takes several steps of SGD,
SGD with momentum or Adam, from a start with or without noise, and is projected
back onto the ball after each. Everything is read on the batch it was chosen on (A)
and on a disjoint one (B).

Primary contrast, declared beforehand: the binary network, SGD without noise,
deployable protocol, log(L_single / L_multi) on B; supported if its 95 % interval
lies above 0. Equivalences have a margin of 5 % of the mean decrease. All else is
exploratory.

The figure is the note's: (L_single - L_multi) / L_single, against the amplitude of
the noise and against the number of steps; the more positive, the better multi-step
is. Red: full precision. Blue: binary.

Run on embedded data (two CPU cores, about 3 minutes):

  python -m experiments.multistep_ste

Run at the note's sizes (hours on two cores):

  python -m experiments.multistep_ste --preset=note --data_dir=DIR
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import numpy as np

from bitjax import quantizers
from bitjax import studies
from bitjax.studies import toy
from bitjax.studies import toy_arms as arms

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray


@dataclasses.dataclass(frozen=True)
class Config(studies.ToyConfig):
  """One field is one flag."""

  batch_size: tuple[int, ...] = studies.flag(
    (256, 1024),
    'Examples in A, and in B: the study runs at the largest; the others serve '
    'to tell what the batch does.',
    minimum=1,
    unique=True,
  )
  optimizers: tuple[str, ...] = studies.flag(
    ('sgd', 'sgdm', 'adam'),
    'Optimisers of the multi-step arms.',
    choices=tuple(toy.OPTIMIZERS),
    unique=True,
  )
  noise: tuple[float, ...] = studies.flag(
    (0.0, 0.1, 0.3, 1.0),
    'Noise amplitudes, as fractions of the budget.',
    minimum=0,
    maximum=1,
    unique=True,
  )
  draws: int = studies.flag(1, 'Noise draws for each seed.', minimum=1)
  learning_rates: studies.Grid = studies.flag(
    studies.Grid('log:1e-4:1:200'),
    'Single-step learning rates, as fractions of the one that reaches the edge '
    'of the ball (1e-4 to 1 is 1e-5 to 1e-1 for a normalised gradient and the '
    'budget 0.1).',
    exclusive_minimum=0,
    maximum=1,
  )
  step_sizes: tuple[float, ...] = studies.flag(
    (0.1, 0.3, 1.0),
    'Multi-step learning rates, in the same unit.',
    exclusive_minimum=0,
    unique=True,
  )
  num_steps: int = studies.flag(5, 'Updates of the multi-step arms.', minimum=1)


PRESETS = {
  'smoke': {
    'dataset': 'digits',
    'batch_size': (32, 64),
    'hidden': (16, 16),
    'seeds': (0, 1, 2),
    'noise': (0.0, 0.5),
    'learning_rates': studies.Grid('log:1e-2:1:5'),
    'step_sizes': (0.3, 1.0),
    'num_steps': 3,
  },
  'quick': {},
  'note': {
    'dataset': 'cifar10',
    'batch_size': (1024, 8192),
    'draws': 2,
    'learning_rates': studies.Grid('lin:1e-4:1:10000'),
    'num_steps': 10,
  },
}


def run(config: Config, sweep: studies.Sweep) -> xarray.Dataset:
  """Runs every arm and control, each as one sweep."""
  problem = config.open(sweep)
  rates = config.learning_rates.values
  noise = {'noise': config.noise}
  step_size = {'step_size': config.step_sizes}
  window = {'activation_estimator': quantizers.window(0.5)}
  multi = functools.partial(arms.multi, problem, config.num_steps)
  # Controls spend as many evaluations of loss and gradient as a multi-step arm.
  matched = len(config.step_sizes) * (2 * config.num_steps + 1)
  return arms.collect(
    problem,
    sweep,
    [
      arms.single(problem, rates),
      arms.variant(problem, 'vste', rates, **window),
      multi(
        'multi',
        static={'optimizer': config.optimizers},
        lanes=noise | {'draw': range(config.draws)} | step_size,
      ),
      multi(
        'batches', static={'batch_size': config.batch_size}, lanes=step_size
      ),
      # The note's mixture: each element of the displacement is clipped.
      multi('literal', lanes=step_size, norm='linf'),
      arms.noisy(problem, noise, matched),
      arms.restarts(problem, noise, matched),
    ],
  )


def verdicts(results: xarray.Dataset) -> list[studies.Verdict]:
  """Judges the note's findings N8-N10."""
  networks = [str(name) for name in results.network.values]
  found = []
  for network in networks:
    found += _steps(results, network, primary=network == 'binary')
    found += _noise(results, network)
    found += _batches(results, network)
  if {'full_precision', 'binary'} <= set(networks):
    gains = [_gain(results, n) for n in ('full_precision', 'binary')]
    claim = 'Full precision gains as much from several steps as binary does.'
    found.append(
      studies.equivalent('N9c', claim, gains[0] - gains[1], 0.05, **INFO)
    )
  return found


INFO = {'unit': 'log loss ratio', 'protocol': 'deployable, B'}


def _gain(results, network, **options):
  """log(L_single / L_multi) of plain SGD without noise, by seed."""
  size = results.batch_size.max().item()
  read = functools.partial(arms.losses, results, network=network, **options)
  multi = read('multi').isel(optimizer=0, noise=0).mean('draw')
  return np.log(read('single', batch_size=size) / multi)


def _steps(results, network, *, primary):
  """N8: several steps against one; N9a, N9d: the optimisers."""
  size = results.batch_size.max().item()
  multi = arms.losses(results, 'multi', network=network).mean('draw')
  multi = multi.isel(noise=0)
  details = {
    f'{protocol} {batch}': _gain(
      results, network, protocol=protocol, batch=batch
    ).mean()
    for protocol in studies.PROTOCOLS
    for batch in ('search', 'holdout')
  }
  yield studies.difference(
    'N8',
    f'{network}: several steps reach a lower loss than one scanned step.',
    _gain(results, network),
    primary=primary,
    details=details,
    **INFO,
  )
  literal = arms.losses(results, 'literal', network=network)
  single = arms.losses(results, 'single', network=network, batch_size=size)
  yield studies.difference(
    'N6',
    f'{network}: so they do when each element is clipped instead (the note).',
    np.log(single / literal),
    caveat='Not the same ball: the l2 budget binds, the element-wise one '
    'reaches every sign pattern.',
    **INFO,
  )
  if {'sgd', 'sgdm'} <= set(multi.optimizer.values):
    start = studies.arm(results, 'batches', network=network, batch_size=size)[
      'holdout'
    ].isel(step=0, step_size=0)
    sgd, sgdm = (multi.sel(optimizer=name) for name in ('sgd', 'sgdm'))
    margin = 0.05 * abs(float(np.log(start / sgd).mean()))
    claim = f'{network}: SGD and SGD with momentum are equally good.'
    yield studies.equivalent('N9a', claim, np.log(sgd / sgdm), margin, **INFO)
  if {'sgd', 'adam'} <= set(multi.optimizer.values):
    final = studies.arm(results, 'multi', network=network)['holdout']
    final = np.log(final.isel(step=-1, noise=0)).mean('draw').std('step_size')
    yield studies.difference(
      'N8b',
      f'{network}: Adam depends on its learning rate more than SGD does.',
      final.sel(optimizer='adam') - final.sel(optimizer='sgd'),
      unit='std of log loss over learning rates',
      protocol='last step, B',
    )


def _noise(results, network):
  """N9b: noise helps on average, or merely finds a better point."""
  if results.sizes['noise'] < 2:
    return
  size = results.batch_size.max().item()
  multi = arms.losses(results, 'multi', network=network).isel(optimizer=0)
  multi = multi.mean('draw')
  yield studies.any_arm(
    'N9b mean',
    f'{network}: noise at the start lowers the loss on average.',
    {
      f'noise {value:g}': np.log(multi.isel(noise=0) / multi.sel(noise=value))
      for value in results.noise.values[1:]
    },
    **INFO,
  )
  read = functools.partial(
    arms.losses, results, network=network, protocol='oracle', batch='search'
  )
  single = read('single', batch_size=size)
  steps = read('multi').isel(optimizer=0)
  noised = {'noise': slice(1, None)}
  reached = {
    'without noise': steps.isel(noise=0).min('draw'),
    'noise and one step': read('noisy').isel(noised).min('noise'),
    'noise alone': read('restarts').isel(noised).min('noise'),
  }
  yield studies.difference(
    'N9b best',
    f'{network}: the best of all noise draws beats the single step.',
    np.log(single / steps.isel(noised).min(('noise', 'draw'))),
    unit='log loss ratio',
    protocol='oracle, A',
    details={n: np.log(single / loss).mean() for n, loss in reached.items()},
    caveat='Best-of-N shows that a better point exists, not that noise helps.',
  )


def _batches(results, network):
  """N10: what the larger batch, and the variant STE, do to the variance."""
  sizes = sorted(results.batch_size.values.tolist())
  options = {'protocol': 'oracle', 'batch': 'search'}

  def curve(arm, size):
    single = arms.losses(results, arm, batch_size=size, **labels[arm])
    multi = arms.losses(results, 'batches', batch_size=size, **labels['single'])
    return (single - multi) / single

  labels = {'single': {'network': network} | options, 'vste': options}
  info = {'protocol': 'oracle, A', 'caveat': ''}
  if max(sizes) > results.attrs['examples'] / 4:
    info['caveat'] = 'Batches beyond a quarter of the data overlap over seeds.'
  small, large = curve('single', sizes[0]), curve('single', sizes[-1])
  if len(sizes) > 1:
    yield studies.variances(
      'N10 batch',
      f'{network}: batch {sizes[-1]} makes (L1 - Lm) / L1 vary less over seeds '
      f'than batch {sizes[0]}.',
      large,
      small,
      details={f'std {sizes[0]}': small.std(), f'std {sizes[-1]}': large.std()},
      **info,
    )
    yield studies.equivalent(
      'N10 trend',
      f'{network}: its mean is the same at both batches.',
      large - small,
      0.05,
      unit='(L1 - Lm) / L1',
      **info,
    )
  if network == 'binary':
    affected = results['vste_affected'].sel(batch_size=sizes[-1]).mean()
    other = curve('vste', sizes[-1])
    yield studies.variances(
      'N10 window',
      'binary: the window 0.5 instead of 1 makes it vary less.',
      other,
      large,
      details={'share of gradient affected': affected, 'std': other.std()},
      **info,
    )


def plot(results: xarray.Dataset) -> figure.Figure:
  """(L1 - Lm) / L1 against noise and steps, on A and on B."""
  from matplotlib import pyplot

  size = results.batch_size.max().item()
  fig, axes = pyplot.subplots(2, 2, figsize=(6.75, 5.0), sharey='col')
  for row, batch in zip(axes, ('search', 'holdout'), strict=True):
    for network in results.network.values:
      read = functools.partial(
        arms.losses, results, network=network, protocol='oracle', batch=batch
      )
      single = read('single', batch_size=size)
      color = studies.plots.COLORS[str(network)]
      for style, name in zip(
        studies.plots.LINE_STYLES, results.optimizer.values, strict=False
      ):
        look = {'color': color, 'linestyle': style}
        label = f'{str(network).replace("_", " ")}, {str(name).upper()}'
        curve = (single - read('multi', optimizer=name)) / single
        samples = curve.transpose('noise', 'seed', 'draw')
        studies.plots.band(
          row[0], results.noise, samples, label=label, marker='o', **look
        )
        steps = arms.losses(
          results,
          'multi',
          network=network,
          protocol='oracle',
          batch=batch,
          optimizer=name,
          keep=('step',),
        ).isel(noise=0)
        curve = ((single - steps) / single).isel(step=slice(1, None))
        samples = curve.transpose('step', 'seed', 'draw')
        studies.plots.band(row[1], curve.step, samples, label=label, **look)
        if name == 'adam':
          every = arms.losses(
            results,
            'multi',
            network=network,
            protocol='oracle',
            batch=batch,
            optimizer=name,
            keep=('step', 'step_size'),
          ).isel(noise=0)
          spread = ((single - every) / single).mean(('seed', 'draw'))
          spread = spread.isel(step=slice(1, None))
          row[1].plot(
            spread.step,
            spread.transpose('step', 'step_size'),
            color=color,
            linestyle=style,
            linewidth=0.5,
            alpha=0.6,
          )
    for ax in row:
      ax.axhline(0, color='black', linewidth=0.8)
    row[0].set_ylabel(f'(L1 − Lm) / L1 on {"A" if batch == "search" else "B"}')
  axes[1, 0].set_xlabel('noise amplitude / budget')
  axes[1, 1].set_xlabel('number of steps, without noise')
  axes[0, 0].set_title('any number of steps')
  axes[0, 1].set_title('exactly as many steps (thin: Adam, each learning rate)')
  axes[0, 0].legend(ncols=2, fontsize=7)
  return fig


if __name__ == '__main__':
  studies.main(Config, PRESETS, run, verdicts, plot)
