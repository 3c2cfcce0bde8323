"""A sample study, as small as one can be.

Run (CPU, 1 s; the line should fall):

  python -m tests.cli.sample_study
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from bitjax import cli
from bitjax import evidence
from bitjax import types


@dataclasses.dataclass(frozen=True)
class Config:
  """One field of every type."""

  num_steps: int = cli.flag(3, 'Updates of each descent.', minimum=1)
  budget: float = cli.flag(0.1, 'Radius of the ball.', minimum=0)
  networks: tuple[str, ...] = cli.flag(
    ('binary', 'full_precision'),
    'Networks.',
    choices=('binary', 'full_precision'),
  )
  seeds: tuple[int, ...] = cli.flag((0, 1, 2), 'Seeds.', minimum=0)
  noise: tuple[float, ...] = cli.flag(
    (0.0, 0.5), 'Noise, relative to the budget.', minimum=0, maximum=1
  )
  learning_rates: cli.Grid = cli.flag(
    cli.Grid('log:1e-3:1e-1:4'), 'Learning rates.', exclusive_minimum=0
  )
  split: str | None = cli.flag(None, 'Examples to use.')
  literal: bool = cli.flag(False, 'Whether to follow the note literally.')
  batch_size: int = cli.flag(5, 'Examples in a batch.', minimum=1)

  def __post_init__(self):
    cli.check(self)


PRESETS = {
  'smoke': {
    'seeds': [0],
    'learning_rates': '0.01,0.1',
    'networks': ('binary',),
  },
  'quick': {},
  'many': {'seeds': tuple(range(60)), 'networks': ('binary',)},
}


def run(config, sweep):
  if config.batch_size > 100:
    raise types.BadInput(
      f'a batch of {config.batch_size} needs 100 examples;\nuse fewer.'
    )
  sweep.record(checksum='abc', sizes=(1, 2))

  def fn(network, seed, noise, learning_rate, batch):
    scale = {'binary': 1.0, 'full_precision': 2.0}[network]
    start = noise * jnp.sin(7.0 * seed + jnp.arange(config.num_steps))
    loss = start + scale * jnp.mean(batch) - learning_rate
    return {'loss': loss, 'best': jnp.min(loss)}

  return sweep(
    fn,
    name='descent',
    static={'network': config.networks},
    lanes={
      'seed': config.seeds,
      'noise': config.noise,
      'learning_rate': config.learning_rates.values,
    },
    shared={'batch': np.linspace(0, config.budget, config.batch_size)},
    dims={'loss': ('step',)},
  )


def verdicts(results):
  found = evidence.interval(results.best.isel(network=0).mean('noise').values)
  return [
    evidence.Verdict(
      'N9a',
      'Noise at the start finds better points.',
      evidence.judge(found),
      found.mean,
      found.low,
      found.high,
      'nats',
      found.num,
      'oracle',
      primary=True,
      caveat='More seeds.',
    )
  ]


def plot(results):
  from matplotlib import pyplot

  figure, ax = pyplot.subplots()
  samples = results.best.isel(network=0, noise=-1).transpose(
    'learning_rate', 'seed'
  )
  evidence.plots.band(
    ax, results.learning_rate, samples.values, color='blue', label='binary'
  )
  ax.legend()
  return figure


STUDY = cli.Study('sample_study', __doc__, Config, PRESETS, run, verdicts, plot)

if __name__ == '__main__':
  cli.main(STUDY)
