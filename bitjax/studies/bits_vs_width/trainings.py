"""Trains all networks of the study, and says what each has reached.

A seed means the same order of examples in every arm, and the same random weights
wherever the width is the same. All learn to the end of the same number of epochs. What
starts from full precision has had as many epochs there before.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax import data
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
  starts: Any = _pretrained(config, parts, sweep, phases, fitted, widths)

  def train(parts, *, arm, rate, seed, folder, report, mesh):
    one, given = arms[arm], None
    if one.kind == 'projected':
      given = starts.variables(one.cell.width, seed)
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
    config,
    sweep,
    train,
    parts,
    static={'arm': list(arms)},
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


def _pretrained(config, parts, sweep, phases, fitted, widths):
  """Trains in full precision, at every width; None without widths."""
  cells = {width: families.Cell('32', width) for width in widths}
  if not cells:
    return None
  return recipes.keep(
    sweep,
    {width: phases(cell) for width, cell in cells.items()},
    parts.train,
    name='pretraining',
    axis='width',
    seeds=(*config.seeds, *config.tuning_seeds),
    batch_size=config.batch_size,
    rate=config.pretraining_rate,
    together=fitted.together,
    chunk=fitted.most,
  )
