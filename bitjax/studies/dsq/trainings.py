"""Trains a network with every gradient, at the rate that suits each."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from bitjax import sweeps
from bitjax import training
from bitjax.studies import recipes

if TYPE_CHECKING:
  import xarray

  from bitjax.studies.dsq import study

__all__ = ['compare']


def compare(
  config: study.Config, parts: recipes.Parts, sweep: sweeps.Sweep
) -> xarray.Dataset:
  """Trains every network with every gradient.

  Returns:
    What `recipes.tuned` returns of `bitjax.training.outcome`, over (bits, arm, seed, ...).
  """
  network = recipes.NETWORKS[config.network]
  recipe = training.Recipe(**config.recipe(), binary=(network.binary,))

  def phases_of(bits, arm):
    model = config.model(parts.train.num_classes, bits, arm)
    return recipe.phases(model, parts.train)

  every = itertools.product(config.bits, config.arms)
  phases = {(bits, arm): phases_of(bits, arm) for bits, arm in every}

  def train(parts, *, bits, arm, rate, seed, **options):
    return training.outcome(
      phases[bits, arm],
      *parts,
      batch_size=config.batch_size,
      seeds=seed.tolist(),
      rates=rate.tolist(),
      **options,
    )

  dims, coords = training.layout(
    next(iter(phases.values())), parts.train, config.batch_size
  )
  return recipes.tuned(
    config,
    sweep,
    train,
    parts,
    static={'bits': config.bits, 'arm': config.arms},
    dims=dims,
    coords=coords,
  )
