"""Trains networks with every estimator, from every start, each at the rate that suits it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from bitjax import data
from bitjax import sweeps
from bitjax import training
from bitjax.studies import recipes
from bitjax.studies.resnet_windows import arms as arms_lib
from bitjax.studies.resnet_windows import estimators
from bitjax.studies.resnet_windows import models as models_lib

if TYPE_CHECKING:
  import xarray

__all__ = ['compare', 'rate_of']


def compare(
  config: Any,
  parts: recipes.Parts,
  models: models_lib.Models,
  sweep: sweeps.Sweep,
) -> xarray.Dataset:
  """Trains every arm.

  Args:
    config: of the study.
    parts: the data.
    models: the networks, and their starts.
    sweep: the run.

  Returns:
    What `recipes.tuned` returns of `recipes.reached`, over (arm, seed, ...), and by
    epoch the training loss, ``curve``. Along ``arm`` are the coordinates ``of``, the name
    of the estimator, and ``start``.
  """
  arms = {str(arm): arm for arm in config.every()}
  # All seeds are pretrained before any of them goes on.
  models.variables(arms_lib.STARTS[-1], config.seeds)
  # Estimators change the backward pass only, so one program evaluates all.
  evaluated = models.phases(estimators.ONE)
  _, coords = training.layout(evaluated, parts.train, config.batch_size)

  @functools.cache
  def evaluator(number, mesh):
    return training.evaluator(evaluated[-1].task, number, mesh)

  def train(parts, *, arm, rate, seed, folder, report, mesh):
    seeds = seed.tolist()
    fitted = training.fit(
      models.phases(arms[arm].estimator),
      data.device_feeds(parts.train, config.batch_size, seeds),
      seeds,
      rates=rate.tolist(),
      variables=models.variables(arms[arm].start, seeds),
      folder=folder,
      report=report,
      mesh=mesh,
    )
    last = training.variables_of(fitted.state, average=True)
    found = recipes.reached(evaluator(len(seeds), mesh), last, parts)
    return found | {'curve': fitted.history['train_loss'].T}

  found = recipes.tuned(
    config,
    sweep,
    train,
    parts,
    static={'arm': list(arms)},
    dims={
      'curve': ('epoch',),
      'test_right': ('test_byte',),
      'validation_loss': (),
    },
    coords={'epoch': coords['epoch']},
    chunk=config.together,
  )
  return found.assign_coords(
    {
      'of': ('arm', [arm.estimator for arm in arms.values()]),
      'start': ('arm', [arm.start for arm in arms.values()]),
    }
  )


def rate_of(trained: xarray.Dataset, arm: str) -> float:
  """Returns the rate that tuning seeds chose for an arm.

  Args:
    trained: of `compare`.
    arm: its label.
  """
  return float(recipes.chosen(trained.tuning_validation_loss).sel(arm=arm))
