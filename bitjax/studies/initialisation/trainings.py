"""Trains networks from every start, and with every change of the classifier.

A seed means the same order of examples in every arm, and the same random bits.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bitjax import data
from bitjax import sweeps
from bitjax import training
from bitjax.studies import recipes
from bitjax.studies.initialisation import arms as arms_lib
from bitjax.studies.initialisation import passing
from bitjax.studies.initialisation import starts

if TYPE_CHECKING:
  import xarray

  from bitjax.studies.initialisation import study

__all__ = ['compare', 'phases']


def compare(
  config: study.Config, parts: recipes.Parts, sweep: sweeps.Sweep
) -> xarray.Dataset:
  """Trains every arm.

  Returns:
    What `recipes.tuned` returns over (arm, seed, ...). Of the last weights:
    ``test_accuracy``, ``test_right`` (as `bitjax.training.outcome` has it),
    ``train_loss``, ``train_accuracy`` (without augmentation), ``validation_loss`` and
    ``spread``, the standard deviation of the classifier's kernel. By epoch: ``curve``,
    the training loss, and ``flips``, the mean share of latent weights of a layer that
    change their sign in an update. Along ``arm`` are the coordinates ``begun``
    (the start), ``small``, ``fast`` and ``decayed``.
  """
  arms = {str(arm): arm for arm in config.every()}
  made = functools.lru_cache(maxsize=None)(
    lambda fast, decayed: phases(config, parts.train, fast, decayed)
  )
  first = made(False, False)
  _, coords = training.layout(first, parts.train, config.batch_size)
  model = first[0].task.model
  quantized = recipes.NETWORKS[config.network].binary

  @functools.cache
  def start(arm, seed):
    batch = passing.batch(parts.train, config.images, seed)
    return starts.variables(model, arm, seed, *batch, quantized=quantized)

  def train(parts, *, arm, rate, seed, folder, report, mesh):
    one = arms[arm]
    seeds = [int(number) for number in seed]
    phase = made(one.fast, one.decayed)
    own = one._replace(fast=False, decayed=False)
    fitted = training.fit(
      phase,
      data.device_feeds(parts.train, config.batch_size, seeds),
      seeds,
      rates=[float(number) for number in rate],
      variables=[start(own, number) for number in seeds],
      folder=folder,
      report=report,
      mesh=mesh,
    )
    return _measured(config, phase, parts, seeds, fitted, mesh)

  found = recipes.tuned(
    config,
    sweep,
    train,
    parts,
    static={'arm': list(arms)},
    dims={
      'curve': ('epoch',),
      'flips': ('epoch',),
      'test_right': ('test_byte',),
      'validation_loss': (),
    },
    coords={'epoch': coords['epoch']},
    chunk=len(config.tuning_seeds),
  )
  fields = {
    name: ('arm', [getattr(arm, name) for arm in arms.values()])
    for name in arms_lib.CHANGES
  }
  begun = ('arm', [arm.start for arm in arms.values()])
  return found.assign_coords(fields | {'begun': begun})


def phases(
  config: study.Config, train: data.Dataset, fast: bool, decayed: bool
) -> list[training.Phase]:
  """Returns the phases of a training, with the classifier treated apart.

  A classifier's own decay is added to its gradient, and its own rate is a factor on its
  update; both leave all else as it is.
  """
  recipe = training.Recipe(
    **config.recipe(), binary=(recipes.NETWORKS[config.network].binary,)
  )
  found = recipe.phases(config.model(train.num_classes), train)
  if not (fast or decayed):
    return found
  (phase,) = found
  links: list[Any] = [phase.task.tx]
  if decayed:
    decay = optax.add_decayed_weights(config.classifier_decay)
    links = [optax.masked(decay, _is_kernel), *links]
  if fast:
    links.append(
      optax.masked(optax.scale(config.classifier_rate), _is_classifier)
    )
  task = dataclasses.replace(phase.task, tx=optax.chain(*links))
  return [dataclasses.replace(phase, task=task)]


def _is_classifier(params):
  return jax.tree.map_with_path(
    lambda path, _: path[0].key == starts.CLASSIFIER, params
  )


def _is_kernel(params):
  return jax.tree.map_with_path(
    lambda path, _: (
      (path[0].key, path[-1].key) == (starts.CLASSIFIER, 'kernel')
    ),
    params,
  )


def _measured(config, phase, parts, seeds, fitted, mesh):
  """Returns what the last weights reach, and how, name -> [seeds, ...]."""
  evaluate = training.evaluator(phase[-1].task, len(seeds), mesh)
  last = training.variables_of(fitted.state, average=True)
  found = recipes.reached(evaluate, last, parts)
  kernel = last['params'][starts.CLASSIFIER]['kernel']
  layers = [
    row.T
    for name, row in fitted.history.items()
    if name.startswith('flip_ratio/Block_')
  ]
  return found | {
    'spread': np.asarray(jnp.std(kernel, axis=(1, 2)), np.float32),
    'curve': np.asarray(fitted.history['train_loss'].T, np.float32),
    'flips': np.mean(layers, axis=0, dtype=np.float32),
  }
