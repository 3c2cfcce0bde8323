"""Trains every network of the grid, and counts what each costs."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from bitjax import sweeps
from bitjax import training
from bitjax.studies import recipes
from bitjax.studies.hardware import accelerators
from bitjax.studies.hardware import accounts
from bitjax.studies.hardware import arms as arms_lib
from bitjax.studies.hardware import boolnet
from bitjax.studies.recipes import families

if TYPE_CHECKING:
  import xarray

  from bitjax.studies.hardware import study

__all__ = ['compare']

_KEPT = ('test_accuracy', 'test_right', 'validation_loss')
_MICROJOULE = 1e6  # Picojoules.


def compare(
  config: study.Config, parts: recipes.Parts, sweep: sweeps.Sweep
) -> xarray.Dataset:
  """Trains every network.

  Returns:
    What `recipes.tuned` returns of `bitjax.training.outcome` over (arm, seed, ...), and
    what `accounts.counted` and `boolnet.counted` return. Along ``arm`` are the coordinates
    ``bits`` (a name), ``width``, ``operations``, ``memory`` (bytes), ``energy_low`` and
    ``energy_high`` (microjoules), ``latency`` (cycles at as many look-up tables, NaN if
    there is no such accelerator), and for each series whether an arm belongs to it.
  """
  shape = parts.train.images.shape[1:]
  family = families.Family(
    config.network, shape, parts.train.num_classes, config.arithmetic()
  )
  cells = {
    str(cell): cell
    for cell in arms_lib.every(
      family, config.bits, config.widths, config.base_width
    )
  }
  recipe = training.Recipe(**config.recipe(), binary=(family.quantized,))

  @functools.cache
  def phases_of(name):
    return recipe.phases(family.model(cells[name]), parts.train)

  dims, coords = training.layout(
    phases_of(next(iter(cells))), parts.train, config.batch_size
  )
  together, most = config.side_by_side(config.network)

  def train(parts, *, arm, rate, seed, **options):
    found = training.outcome(
      phases_of(arm),
      *parts,
      batch_size=config.batch_size,
      seeds=seed.tolist(),
      rates=rate.tolist(),
      together=together,
      **options,
    )
    return {name: found[name] for name in _KEPT}

  found = recipes.tuned(
    config,
    sweep,
    train,
    parts,
    static={'arm': list(cells)},
    dims={name: dims.get(name, ()) for name in _KEPT},
    coords={'epoch': coords['epoch']},
    chunk=most,
  )
  costs = {name: family.costs(cell) for name, cell in cells.items()}
  bands = {name: family.energy(cell) for name, cell in cells.items()}
  rows = arms_lib.series(family, config.bits, config.base_width)
  coordinates = {
    'bits': [cell.bits for cell in cells.values()],
    'width': [cell.width for cell in cells.values()],
    'operations': [float(one.total.operations) for one in costs.values()],
    'memory': [one.total.memory for one in costs.values()],
    'energy_low': [band.low / _MICROJOULE for band in bands.values()],
    'energy_high': [band.high / _MICROJOULE for band in bands.values()],
    'latency': [_latency(one, config.luts) for one in costs.values()],
    **{
      f'equal_{name}': [cell in row for cell in cells.values()]
      for name, row in rows.items()
    },
  }
  found = found.assign_coords(
    {name: ('arm', values) for name, values in coordinates.items()}
  )
  return found.merge(accounts.counted()).merge(boolnet.counted())


def _latency(costs, luts):
  chain = accelerators.fastest(costs, luts)
  return np.nan if chain is None else float(chain.latency)
