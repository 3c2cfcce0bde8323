"""Trains in full precision, and from there, or from the same random weights, in low bits.

A seed means the same random weights, order of examples and draws of mixup in every arm. The
full-precision training of a seed serves all arms and learning rates that start from it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from bitjax import sweeps
from bitjax import training
from bitjax.studies import recipes
from bitjax.studies.pretrain_vs_scratch import arms as arms_lib

if TYPE_CHECKING:
  import xarray

  from bitjax.studies.pretrain_vs_scratch import study

__all__ = ['compare']

_KEPT = (
  'test_accuracy',
  'test_right',
  'clean_train_accuracy',
  'clean_train_loss',
)


def compare(
  config: study.Config, parts: recipes.Parts, sweep: sweeps.Sweep
) -> xarray.Dataset:
  """Trains every arm.

  Returns:
    What `recipes.tuned` returns over (arm, seed, ...), with the validation accuracy by
    epoch of the whole training, ``curve``: at first in full precision where an arm starts
    from there, and constant from where it ends. Along ``arm`` are the coordinates
    ``precision``, ``start`` and ``alpha`` of mixup.
  """
  arms = {str(arm): arm for arm in config.every()}
  build = functools.partial(config.network_of, parts.train.num_classes)
  phases = {name: _phases(config, parts, arm, build) for name, arm in arms.items()}  # fmt: skip
  whole = _rows(config, parts, phases[str(config.every()[0])])
  pretrained = _pretrained(config, parts, sweep, build)

  def train(parts, *, arm, rate, seed, folder, **options):
    given, before = None, None
    if arms[arm].start == 'pretrained':
      mixup = arms[arm].mixup
      given = pretrained.variables(mixup, seed)
      before = pretrained.curve(mixup, seed)
    found = training.outcome(
      phases[arm],
      *parts,
      batch_size=config.batch_size,
      seeds=seed.tolist(),
      rates=rate.tolist(),
      variables=given,
      folder=folder,
      **options,
    )
    kept = {name: found[name] for name in _KEPT}
    kept['curve'] = _curve(before, found['validation_accuracy'], len(whole))
    return kept | {'validation_loss': found['validation_loss'][:, -1]}

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
    coords={'epoch': whole},
  )
  named = arms.values()
  return found.assign_coords(
    precision=('arm', [arm.precision for arm in named]),
    start=('arm', [arm.start for arm in named]),
    alpha=('arm', [arm.mixup for arm in named]),
  )


def _recipe(config, mixup, share, **options):
  own = config.recipe()
  own |= {'epochs': share * config.epochs}
  if mixup:
    own |= {'augmentation': (*config.augmentation, 'mixup'), 'alpha': mixup}
  binary = (recipes.NETWORKS[config.network].binary,)
  return training.Recipe(**own | options, binary=binary)


def _phases(config, parts, arm, build):
  """Returns the phases of an arm in low bits."""
  weights, activations = arms_lib.PRECISIONS[arm.precision]
  stages = [(1.0, build(weights, activations))]
  if arm.start == 'staged':
    stages = [(0.5, build('none', activations)), *stages]
  _, share = arms_lib.STARTS[arm.start]
  return _recipe(config, arm.mixup, share).phases(stages, parts.train)


def _rows(config, parts, phases):
  """Returns the numbers of epochs after which a whole training is evaluated."""
  _, coords = training.layout(phases, parts.train, config.batch_size)
  return coords['epoch']


def _pretrained(config, parts, sweep, build):
  """Trains in full precision, with each alpha of mixup."""
  share, _ = arms_lib.STARTS['pretrained']
  rate = config.pretraining_rate * config.learning_rate
  model = build('none', 'none')
  phases = {
    mixup: _recipe(config, mixup, share, learning_rate=rate).phases(
      model, parts.train
    )
    for mixup in config.mixups
  }
  return recipes.keep(
    sweep,
    phases,
    parts.train,
    name='pretraining',
    axis='mixup',
    seeds=(*config.seeds, *config.tuning_seeds),
    batch_size=config.batch_size,
    validation=parts.validation,
  )


def _curve(before, after, size):
  """Returns accuracies of a whole training, [seeds, size].

  Args:
    before: those of the part in full precision, [seeds, epochs]; None for none.
    after: those of the part in low bits, [seeds, epochs].
    size: number of epochs of the longest training.
  """
  parts = [part for part in (before, after) if part is not None]
  found = np.concatenate(parts, axis=1)[:, :size]
  missing = size - found.shape[1]
  return np.pad(found, [(0, 0), (0, missing)], mode='edge').astype(np.float32)
