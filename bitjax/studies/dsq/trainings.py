"""Trains in two stages: rates are tuned on seeds of their own, then others are tested."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax import sweeps
from bitjax import training
from bitjax import types
from bitjax.evidence import protocols
from bitjax.studies import recipes
from bitjax.studies.dsq import arms

if TYPE_CHECKING:
  import xarray

  from bitjax.studies.dsq import study

__all__ = ['chosen', 'compare']


def compare(
  config: study.Config, parts: recipes.Parts, sweep: sweeps.Sweep
) -> xarray.Dataset:
  """Trains every network with every gradient.

  Returns:
    What `bitjax.training.outcome` measures, over (bits, arm, seed, ...), at the
    ``chosen_rate``; and the last validation loss of networks that were only trained to
    choose it, ``tuning_validation_loss`` over (bits, arm, rate, tuning_seed). The
    attribute ``test_examples`` is their number.
  """
  network = recipes.NETWORKS[config.network]
  recipe = training.Recipe(**config.recipe(), binary=(network.binary,))

  def phases_of(bits, arm):
    quantizer = arms.quantizer(arm, bits)
    model = network.make(
      num_classes=parts.train.num_classes,
      kernel_quantizer=quantizer,
      input_quantizer=quantizer if bits > 1 else None,
      **config.arithmetic(),
    )
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
  axes: dict[str, Any] = {
    'static': {'bits': config.bits, 'arm': config.arms},
    'dims': dims,
    'coords': coords,
  }
  # What tunes sees no test image: it is scored on the validation images again.
  untested = functools.partial(train, parts._replace(test=parts.validation))
  tuning = sweep.hosted(
    untested,
    name='tuning',
    lanes={'rate': config.rates, 'seed': config.tuning_seeds},
    **axes,
  )
  losses = tuning.validation_loss.isel(epoch=-1, drop=True)
  losses = losses.rename(seed='tuning_seed')
  best = chosen(losses)

  def test(*, bits, arm, seed, **options):
    rate = np.full(seed.shape, best.sel(bits=bits, arm=arm).item())
    found = train(parts, bits=bits, arm=arm, rate=rate, seed=seed, **options)
    return found | {'chosen_rate': rate}

  found = sweep.hosted(test, name='dsq', lanes={'seed': config.seeds}, **axes)
  if bool((found.chosen_rate != best).any()):
    raise types.BadInput(
      'some networks were trained at a rate other than the one that is chosen now, '
      'since rates were tuned again and it came out differently; use --overwrite.'
    )
  found = found.assign(tuning_validation_loss=losses)
  return found.assign_attrs(test_examples=len(parts.test.labels))


def chosen(losses: xarray.DataArray) -> xarray.DataArray:
  """Returns the rate with the lowest mean validation loss, by bits and arm.

  Args:
    losses: validation losses of the tuning seeds, (bits, arm, rate, tuning_seed).
  """
  outcomes = losses.to_dataset(name='tuning_holdout')
  return protocols.select(outcomes, ['rate'], 'deployable').rate
