"""Trains all networks of the study, and measures each on whole images.

A seed means the same random numbers and the same order of patches in every arm. Networks
of equal width begin from the same random weights.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bitjax import data
from bitjax import nn
from bitjax import sweeps
from bitjax import training
from bitjax.studies import recipes
from bitjax.studies.recipes import image_costs
from bitjax.studies.recipes import pairs as pairs_lib
from bitjax.studies.super_resolution import arms as arms_lib
from bitjax.studies.super_resolution import networks
from bitjax.studies.super_resolution import probes as probes_lib

if TYPE_CHECKING:
  import xarray

  from bitjax.studies.super_resolution import study

__all__ = ['compare']

_ROWS = 4  # How often a training is evaluated.
_TILE = 32  # Height and width of what is evaluated while training.
_BATCH = 8
_PROBES, _SIDE = 16, 64  # Crops whose activations and gradients are measured.
_DIFFERENTIATED = 4


def compare(
  config: study.Config, parts: pairs_lib.Parts, sweep: sweeps.Sweep
) -> xarray.Dataset:
  """Trains every arm.

  Returns:
    What `recipes.tuned` returns over (arm, seed, ...). Of the last weights: ``psnr`` and
    ``ssim`` by ``image``; for each convolution of the body and the upsampler, ``layer``,
    the share of the gradient that passes its input quantizer and the activation behind it,
    ``passing`` (1 without them),
    and, by ``probe``, the ``range`` (largest less least value) and the standard deviation,
    ``deviation``, of its inputs for one image. While it learns: ``curve``, decibels of
    the validation images by ``update``. Beside them are ``bicubic_psnr`` and
    ``bicubic_ssim`` by image; along ``arm`` are the coordinates of `image_costs.costs`.
  """
  steps = config.num_steps(len(parts.train))
  models = {name: config.model(name) for name in config.arms}
  tasks = {name: _task(config, model, steps) for name, model in models.items()}
  period = max(1, steps // _ROWS)
  rows = [*range(period, steps + 1, period)]
  rows += [steps] * (rows[-1] != steps)
  layers = networks.layers(models[arms_lib.ONE])
  tile = min(_TILE, *(min(size) for size in parts.validation.sizes))
  validation = data.padded_tiles(parts.validation, _BATCH, side=tile)
  probes = probes_lib.crops(parts, _PROBES, _SIDE)

  def train(parts, *, arm, rate, seed, folder, report, mesh):
    seeds = seed.tolist()
    fitted = training.fit(
      training.Phase(tasks[arm], steps),
      pairs_lib.feeds(config, parts.train, seeds),
      seeds,
      rates=rate.tolist(),
      validation=validation,
      period=period,
      folder=folder,
      mesh=mesh,
      report=report,
    )
    found = {'validation_loss': fitted.history['validation_loss'][-1]}
    if parts.test is parts.validation:  # It only tunes.
      return found
    variables = training.variables_of(fitted.state)
    each = [
      _measured(
        models[arm],
        jax.tree.map(lambda leaf, at=at: leaf[at], variables),
        parts.test,
        probes,
        layers,
      )
      for at in range(len(seeds))
    ]
    found |= {name: np.stack([one[name] for one in each]) for name in each[0]}
    found['curve'] = fitted.history['validation_psnr'].T
    return {name: np.float32(values) for name, values in found.items()}

  found = recipes.tuned(
    config,
    sweep,
    train,
    parts,
    static={'arm': config.arms},
    dims={
      'psnr': ('image',),
      'ssim': ('image',),
      'passing': ('layer',),
      'range': ('layer', 'probe'),
      'deviation': ('layer', 'probe'),
      'curve': ('update',),
    },
    coords={
      'image': list(parts.test.names),
      'layer': layers,
      'update': rows,
    },
  )
  bicubic = training.image_scores(
    functools.partial(data.bicubic_on_host, scale=config.scale), parts.test
  )
  costs = [image_costs.costs(model) for model in models.values()]
  return found.assign(
    bicubic_psnr=('image', bicubic.psnr), bicubic_ssim=('image', bicubic.ssim)
  ).assign_coords(
    {name: ('arm', [cost[name] for cost in costs]) for name in costs[0]}
  )


def _task(config, model, steps) -> training.Task:
  """Returns how a network is trained for so many updates."""
  rate = training.learning_rate('cosine', config.learning_rate, steps)
  return training.reconstruction(
    model,
    training.optimizer('adam', rate),
    border=config.scale,
    progress=training.progress('linear', steps),
  )


def _measured(model, variables, test, probes, layers) -> dict[str, Any]:
  """Returns what the last weights of one network reach, and its activations."""
  scores = training.image_scores(
    lambda low: training.enlarge(model, variables, low), test
  )
  low, high = (array.astype(np.float32) / 255 for array in probes)
  ranges = _ranges(model)(variables, low)
  passing = nn.gradient_passing(
    model,
    variables,
    low[:_DIFFERENTIATED],
    high[:_DIFFERENTIATED],
    loss=_absolute,
  )
  masses = {
    row.path: row.input_mass
    for row in passing.layers
    if row.input_mass is not None
  }
  return {
    'psnr': scores.psnr,
    'ssim': scores.ssim,
    'passing': np.array(
      [
        masses.get(name, 1.0)
        * masses.get(name.replace('Conv', 'Activation'), 1.0)
        for name in layers
      ]
    ),
    'range': np.stack([ranges[n].high - ranges[n].low for n in layers]),
    'deviation': np.stack([ranges[layer].std for layer in layers]),
  }


_absolute = training.Reconstruction().loss


@functools.lru_cache(maxsize=32)
def _ranges(model):
  """Returns the compiled `nn.input_ranges` of a network."""
  return jax.jit(functools.partial(nn.input_ranges, model))
