"""Trains all networks of the study, and says what each has reached.

A seed means the same order of examples in every arm, and the same random weights
wherever the width is the same. All learn to the end of the same number of epochs. What
starts from full precision has had as many epochs there before.
"""

from __future__ import annotations

import dataclasses
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
from bitjax.studies.bits_vs_width import arms as arms_lib
from bitjax.studies.bits_vs_width import disturbed
from bitjax.studies.recipes import families

if TYPE_CHECKING:
  import xarray

  from bitjax.studies.bits_vs_width import study

__all__ = ['compare', 'shuffled']


def compare(
  config: study.Config, parts: recipes.Parts, sweep: sweeps.Sweep
) -> xarray.Dataset:
  """Trains every arm.

  Returns:
    What `recipes.tuned` returns over (arm, seed, ...). Of the last weights: ``train_loss``
    and ``train_accuracy`` on the labels that were learned, ``test_loss`` and
    ``test_accuracy``, ``noisy_accuracy`` by ``noise`` and ``flipped_accuracy`` by
    ``flips``. While it learns: ``curve``, the training loss of each epoch. Along ``arm``
    are the coordinates ``bits`` (a name), ``width``, ``kind``, ``weights`` (their number),
    ``total_bits``, ``operations``, and, for each series, whether an arm belongs to it.
  """
  shape = parts.train.images.shape[1:]
  family = families.Family(
    config.network, shape, parts.train.num_classes, config.arithmetic()
  )
  arms = {str(arm): arm for arm in config.every(family)}
  phases = functools.lru_cache(maxsize=None)(
    lambda cell: config.phases(family, cell, parts.train)
  )
  first = phases(next(iter(arms.values())).cell)
  _, coords = training.layout(first, parts.train, config.batch_size)
  fitted = _Fitted(config, phases, family)
  random = shuffled(parts.train)
  widths = [a.cell.width for a in arms.values() if a.kind == 'projected']
  starts = _pretrained(config, parts, sweep, family, fitted, widths)

  def train(parts, *, arm, rate, seed, folder, report, mesh):
    one, given = arms[arm], None
    if one.kind == 'projected':
      given = starts(one.cell.width, seed)
    if one.kind == 'random':
      parts = parts._replace(train=random)
    found = fitted(
      one.cell,
      parts,
      seed,
      rate,
      variables=given,
      folder=folder,
      report=report,
      mesh=mesh,
    )
    return fitted.outcome(one.cell, parts, seed, found.state, mesh) | {
      'curve': found.history['train_loss'].T.astype(np.float32)
    }

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
      'train_loss': (),
      'curve': ('epoch',),
      'noisy_accuracy': ('noise',),
      'flipped_accuracy': ('flips',),
    },
    coords={
      'epoch': coords['epoch'],
      'noise': list(config.noises),
      'flips': list(config.flips),
    },
    by='train_loss',
    chunk=fitted.most,
  )
  rows = arms_lib.series(family, config.bits, config.equal, config.base_width)
  cells = [arm.cell for arm in arms.values()]
  coordinates: dict[str, list[Any]] = {
    'bits': [cell.bits for cell in cells],
    'width': [cell.width for cell in cells],
    'kind': [arm.kind for arm in arms.values()],
    'weights': [*map(family.weights, cells)],
    'total_bits': [*map(family.total_bits, cells)],
    'operations': [*map(family.operations, cells)],
    **{
      f'equal_{name}': [cell in rows.get(name, ()) for cell in cells]
      for name in arms_lib.SERIES
    },
  }
  return found.assign_coords(
    {name: ('arm', values) for name, values in coordinates.items()}
  )


def shuffled(dataset: data.Dataset) -> data.Dataset:
  """Returns the images with each other's labels: one draw, the same for all networks."""
  order = np.random.default_rng(0).permutation(len(dataset.labels))
  return dataclasses.replace(dataset, labels=dataset.labels[order])


class _Fitted:
  """Trains networks of one cell side by side, and measures them."""

  def __init__(self, config, phases, family):
    self._config = config
    self._phases = phases
    self._family = family
    self.together, self.most = config.side_by_side(config.network)

  def __call__(self, cell, parts, seed, rate, **options):
    config, seeds = self._config, [int(one) for one in seed]
    return training.fit(
      self._phases(cell),
      data.device_feeds(parts.train, config.batch_size, seeds),
      seeds,
      rates=[float(one) for one in rate],
      together=self.together,
      **options,
    )

  def outcome(self, cell, parts, seed, state, mesh):
    """Returns what the last weights reach, name -> [seeds, ...]."""
    config, quantized = self._config, self._family.quantized
    evaluate = training.evaluator(
      self._phases(cell)[-1].task, len(seed), mesh, self.together
    )
    last = training.variables_of(state, average=True)

    found: dict[str, Any] = {}
    scored = functools.partial(recipes.scored, evaluate)
    for name, part in (('train', parts.train), ('test', parts.test)):
      one = scored(last, part)
      found[f'{name}_loss'], found[f'{name}_accuracy'] = one.loss, one.accuracy
    noisy = [
      scored(last, disturbed.noisy(parts.test, noise)).accuracy
      for noise in config.noises
    ]
    flipped = [
      scored(
        disturbed.flipped(last, seed, share, quantized), parts.test
      ).accuracy
      for share in config.flips
    ]
    found['noisy_accuracy'] = np.stack(noisy, axis=1)
    found['flipped_accuracy'] = np.stack(flipped, axis=1)
    return {name: v.astype(np.float32) for name, v in found.items()}


def _pretrained(config, parts, sweep, family, fitted, widths):
  """Trains in full precision.

  Returns:
    A function that returns, for a width and some seeds, a list of their variables.
  """
  widths = sorted(set(widths))
  if not widths:
    return lambda width, seeds: []
  cells = {width: families.Cell('32', width) for width in widths}
  restored, sizes = {}, {}
  for width, cell in cells.items():
    model = family.model(cell)
    image = families.blank(parts.train.images.shape[1:])
    shapes = jax.eval_shape(
      lambda key, model=model, image=image: model.init(
        key, image, **nn.call_options(model, train=False)
      ),
      jax.random.key(0),
    )
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    flat, restored[width] = flatten_util.ravel_pytree(zeros)
    sizes[width] = flat.size
  longest = max(sizes.values())

  def pretrain(*, width, seed, folder, mesh, report):
    rates = np.full(len(seed), config.pretraining_rate)
    found = fitted(
      cells[width],
      parts,
      seed,
      rates,
      folder=folder,
      mesh=mesh,
      report=report,
    )
    variables = training.variables_of(found.state, average=True)
    rows = [
      np.asarray(
        flatten_util.ravel_pytree(
          jax.tree.map(lambda leaf, at=at: jnp.asarray(leaf[at]), variables)
        )[0]
      )
      for at in range(len(seed))
    ]
    padded = [np.pad(row, (0, longest - row.size)) for row in rows]
    last = found.history['train_loss'][-1].astype(np.float32)
    return {'weights': np.stack(padded), 'train_loss': last}

  found = sweep.hosted(
    pretrain,
    name='pretraining',
    lanes={'seed': (*config.seeds, *config.tuning_seeds)},
    static={'width': widths},
    dims={'weights': ('weight',)},
    coords={'weight': np.arange(longest)},
    chunk=fitted.most,
  )

  def of(width: int, seeds: Any) -> list[Any]:
    rows = found.weights.sel(width=width, seed=list(seeds)).values
    return [restored[width](row[: sizes[width]]) for row in rows]

  return of
