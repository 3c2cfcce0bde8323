"""Trains a network with every estimator, at the setting that suits each."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from bitjax import sweeps
from bitjax import training
from bitjax.studies import recipes
from bitjax.studies.fitted_windows import arms as arms_lib
from bitjax.studies.fitted_windows import flips
from bitjax.studies.fitted_windows import networks

if TYPE_CHECKING:
  import xarray

  from bitjax.studies.fitted_windows import study

__all__ = ['compare']

_KEPT = (
  'test_accuracy',
  'test_right',
  'clean_train_accuracy',
  'validation_loss',
  'validation_accuracy',
  'flip_ratio',
)


def compare(
  config: study.Config, parts: recipes.Parts, sweep: sweeps.Sweep
) -> xarray.Dataset:
  """Trains every arm.

  Returns:
    What `recipes.tuned` returns of `bitjax.training.outcome`, over (arm, seed, ...), with
    the choice ``shape``, a position in an arm's ``values``; and ``width``, by epoch and
    layer, the fitted widths, 0 elsewhere.
  """
  arms = {name: arms_lib.arm_of(name) for name in config.arms}
  recipe = training.Recipe(
    **config.recipe(), binary=(networks.binary(config.network),)
  )

  @functools.cache
  def phases_of(name, shape):
    model = config.model(parts.train.num_classes, arms[name].quantizer(shape))
    phases = recipe.phases(model, parts.train)
    if name not in arms_lib.FLIPPED:
      return phases
    gamma = arms[name].values[shape]
    return flips.led(phases, name, gamma, config.flip_rate, config.draws)

  dims, coords = training.layout(
    phases_of(config.arms[0], 0), parts.train, config.batch_size
  )
  period = len(parts.train.labels) // config.batch_size
  refit = training.Refit(
    every=max(1, round(config.refit_epochs * period)),
    widths=config.fit_widths,
    sample=config.sample,
  )
  mlp = config.network in networks.MLPS
  together, most = config.side_by_side('mlp' if mlp else config.network)

  def train(parts, *, arm, shape, rate, seed, **options):
    own = arms[arm]
    fitted = own.make is None
    found = training.outcome(
      phases_of(arm, shape if own.values else 0),
      *parts,
      batch_size=config.batch_size,
      seeds=seed.tolist(),
      rates=(rate * own.factor(shape)).tolist(),
      together=together,
      refit=refit if fitted else None,
      **options,
    )
    kept = {name: found[name] for name in _KEPT}
    none = np.zeros_like(found['flip_ratio'])
    return kept | {'width': found.get('width', none)}

  return recipes.tuned(
    config,
    sweep,
    train,
    parts,
    static={'arm': config.arms},
    dims={name: dims[name] for name in dims if name in _KEPT}
    | {'width': ('epoch', 'layer')},
    coords=coords,
    chunk=most,
    choices={'shape': arms_lib.SHAPES},
  )
