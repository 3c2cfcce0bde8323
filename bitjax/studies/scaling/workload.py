r"""A tiny sweep with everything that a large one has: what scaling is tested with.

Every lane trains one binary layer for a few steps. The sweep has a scan, optax
states, an attached quantizer, two compiled programs, and learning rates at
which lanes diverge.

  python -m bitjax.studies.scaling.workload --seeds=40
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bitjax import cli
from bitjax import evidence
from bitjax import quantizers
from bitjax import sweeps
from bitjax import types

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray

__all__ = ['STUDY', 'Config', 'run']

OPTIMIZERS = {'sgd': optax.sgd, 'adam': optax.adam}


@dataclasses.dataclass(frozen=True)
class Config:
  """Configuration of the study; each field is one flag."""

  seeds: int = cli.flag(7, 'Seeds.', minimum=1)
  rates: cli.Grid = cli.flag(
    cli.Grid('0.01,0.1,1e30'), 'Learning rates.', exclusive_minimum=0
  )
  optimizers: tuple[str, ...] = cli.flag(
    ('sgd', 'adam'), 'Optimisers.', choices=tuple(OPTIMIZERS)
  )
  num_steps: int = cli.flag(3, 'Updates of each lane.', minimum=1)
  units: int = cli.flag(8, 'Units of the layer.', minimum=1)
  examples: int = cli.flag(16, 'Examples in the batch.', minimum=1)

  def __post_init__(self):
    cli.check(self)


PRESETS = {'quick': {}}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Trains every lane."""
  draw = np.random.default_rng(0)
  features, targets = (
    draw.normal(size=(config.examples, size)).astype(np.float32)
    for size in (config.units, 1)
  )
  quantize = quantizers.attach(quantizers.sign(), quantizers.window(1.0))

  def lane(optimizer, seed, rate, features, targets):
    key = jax.random.fold_in(jax.random.key(0), seed)
    shapes = {'hidden': (config.units, config.units), 'out': (config.units, 1)}
    params = {
      name: jax.random.normal(
        jax.random.fold_in(key, index), shape, jnp.float32
      )
      for index, (name, shape) in enumerate(shapes.items())
    }
    tx = OPTIMIZERS[optimizer](rate)

    def loss(params):
      hidden = jnp.tanh(features @ quantize(params['hidden']))
      return jnp.mean((hidden @ params['out'] - targets) ** 2)

    def step(carry, _):
      params, state = carry
      value, grads = jax.value_and_grad(loss)(params)
      with types.as_optax():
        updates, state = tx.update(grads, state, params)
      return (optax.apply_updates(params, updates), state), value

    start = params, tx.init(params)
    (end, _), losses = jax.lax.scan(step, start, None, config.num_steps)
    flips = (end['hidden'] >= 0) != (params['hidden'] >= 0)
    return {'loss': losses, 'flips': flips.sum()}

  return sweep(
    lane,
    name='train',
    static={'optimizer': config.optimizers},
    lanes={'seed': np.arange(config.seeds), 'rate': config.rates.values},
    shared={'features': features, 'targets': targets},
    batched={'features': 0, 'targets': 0},
    dims={'loss': ('step',)},
  )


def verdicts(results: xarray.Dataset) -> list[evidence.Verdict]:
  """Returns no verdicts, as the workload asks nothing."""
  del results
  return []


def plot(results: xarray.Dataset) -> figure.Figure:
  """Draws the mean loss at every step."""
  from matplotlib import figure

  fig = figure.Figure(figsize=(3, 2))
  fig.subplots().plot(results.loss.mean(('optimizer', 'seed', 'rate')))
  return fig


STUDY = cli.Study('workload', __doc__, Config, PRESETS, run, verdicts, plot)

if __name__ == '__main__':
  cli.main(STUDY)
