"""Trains in full precision, and from there, or from the same random weights, in low bits.

A seed means the same random weights, order of examples and draws of mixup in every arm. The
full-precision training of a seed serves all arms and learning rates that start from it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np

from bitjax import data
from bitjax import nn
from bitjax import sweeps
from bitjax import training
from bitjax.studies import recipes
from bitjax.studies.pretrain_vs_scratch import arms as arms_lib

if TYPE_CHECKING:
  import xarray

  from bitjax.studies.pretrain_vs_scratch import study

__all__ = ['compare']

_PROBED = 128
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
      given, before = pretrained(arms[arm].mixup, seed)
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
    sweep,
    train,
    parts,
    name='trainings',
    static={'arm': list(arms)},
    rates=config.rates,
    seeds=config.seeds,
    tuning_seeds=config.tuning_seeds,
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
  """Trains in full precision.

  Returns:
    A function that returns, for an alpha of mixup and some seeds, a list of their
    variables, and their validation accuracy [seeds, epochs].
  """
  share, _ = arms_lib.STARTS['pretrained']
  rate = config.pretraining_rate * config.learning_rate
  model = build('none', 'none')
  mixups = sorted(config.mixups)
  phases = {
    mixup: _recipe(config, mixup, share, learning_rate=rate).phases(
      model, parts.train
    )
    for mixup in mixups
  }
  rows = _rows(config, parts, phases[mixups[0]])
  task = phases[mixups[0]][0].task
  images = task.prepare(jnp.asarray(parts.train.images[:1]))
  shapes = jax.eval_shape(
    lambda key: model.init(key, images, **nn.call_options(model, train=False)),
    jax.random.key(0),
  )
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
  flat, restored = flatten_util.ravel_pytree(zeros)
  # As many as `training.outcome` takes to describe the layers in the log.
  probed = min(_PROBED, len(parts.train.labels)) // 4 * 4

  def pretrain(*, mixup, seed, folder, mesh, report):
    seeds = seed.tolist()
    feeds = data.device_feeds(parts.train, config.batch_size, seeds)
    fitted = training.fit(
      phases[mixup],
      feeds,
      seeds,
      validation=data.padded_batches(parts.validation, config.batch_size),
      probe=data.Batch(
        jnp.asarray(parts.train.images[:probed]),
        jnp.asarray(parts.train.labels[:probed]),
      ),
      folder=folder,
      mesh=mesh,
      report=report,
    )
    variables = training.variables_of(fitted.state, average=True)
    each = (
      jax.tree.map(lambda leaf, at=at: np.asarray(leaf[at]), variables)
      for at in range(len(seeds))
    )
    vectors = [np.asarray(flatten_util.ravel_pytree(one)[0]) for one in each]
    curve = fitted.history['validation_accuracy'].T
    return {
      'weights': np.stack(vectors),
      'curve': curve,
    }

  found = sweep.hosted(
    pretrain,
    name='pretraining',
    lanes={'seed': (*config.seeds, *config.tuning_seeds)},
    static={'mixup': mixups},
    dims={'weights': ('weight',), 'curve': ('epoch',)},
    coords={'epoch': rows, 'weight': np.arange(flat.size)},
  )

  def of(mixup: float, seeds: Any) -> tuple[list[Any], Any]:
    at = found.sel(mixup=mixup, seed=list(seeds))
    return [restored(row) for row in at.weights.values], at.curve.values

  return of


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
