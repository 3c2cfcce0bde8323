"""Trains one network on several seeds, and measures it once on whole test images."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import data
from bitjax import sweeps
from bitjax import training
from bitjax.studies.recipes import image_costs
from bitjax.studies.recipes import pairs as pairs_lib

if TYPE_CHECKING:
  import xarray

  from bitjax.studies.train_superres import config as config_lib

__all__ = ['train']

_ROWS = 20  # How often a training is evaluated.
_TILE = 48  # Height and width of what is evaluated while training.
_BATCH = 16


def train(
  config: config_lib.Config, parts: pairs_lib.Parts, sweep: sweeps.Sweep
) -> xarray.Dataset:
  """Trains every seed.

  Returns:
    Over seeds: of the last weights ``psnr`` and ``ssim`` by ``image``, and the
    ``validation_loss``; ``train_psnr`` and ``validation_psnr`` by ``update``. Beside them
    are ``bicubic_psnr`` and ``bicubic_ssim`` by image, and as attributes the ``target``, if
    there is one, and what `image_costs.costs` returns.
  """
  steps = config.num_steps(len(parts.train))
  task = config.task(steps)
  period = max(1, steps // _ROWS)
  rows = [*range(period, steps + 1, period)]
  rows += [steps] * (rows[-1] != steps)
  tile = min(_TILE, *(min(size) for size in parts.validation.sizes))
  validation = data.padded_tiles(parts.validation, _BATCH, side=tile)
  start = _start(config, task)

  def one(folder, report, mesh, seed):
    seeds = seed.tolist()
    fitted = training.fit(
      training.Phase(task, steps),
      pairs_lib.feeds(config, parts.train, seeds),
      seeds,
      validation=validation,
      variables=start,
      period=period,
      folder=folder,
      mesh=mesh,
      report=report,
    )
    history = fitted.history
    variables = training.variables_of(fitted.state)
    scores = [
      _measured(
        task.model,
        jax.tree.map(lambda leaf, at=at: leaf[at], variables),
        parts.test,
      )
      for at in range(len(seeds))
    ]
    found: dict[str, Any] = {
      'psnr': np.stack([score.psnr for score in scores]),
      'ssim': np.stack([score.ssim for score in scores]),
      'validation_loss': history['validation_loss'][-1],
    }
    for name in ('train_psnr', 'validation_psnr'):
      found[name] = history[name].T
    return {name: np.float32(values) for name, values in found.items()}

  found = sweep.hosted(
    one,
    name='train',
    lanes={'seed': config.seeds},
    dims={
      'psnr': ('image',),
      'ssim': ('image',),
      'train_psnr': ('update',),
      'validation_psnr': ('update',),
    },
    coords={'image': list(parts.test.names), 'update': rows},
  )
  bicubic = training.image_scores(
    functools.partial(data.bicubic_on_host, scale=config.scale), parts.test
  )
  target = {} if config.target is None else {'target': config.target}
  return found.assign(
    bicubic_psnr=('image', bicubic.psnr), bicubic_ssim=('image', bicubic.ssim)
  ).assign_attrs(image_costs.costs(config.model()) | target)


def _start(config, task):
  """Returns the variables to start from, after a check; None for random ones."""
  if config.pretrained is None:
    return None
  found = training.load_variables(config.pretrained, which=config.which)
  shape = (1, config.side, config.side, 3)
  training.check_fits(task.model, found, jnp.zeros(shape, jnp.float32))
  return found


def _measured(model, variables, test):
  return training.image_scores(
    lambda low: training.enlarge(model, variables, low), test
  )
