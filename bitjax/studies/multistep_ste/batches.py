"""Judges N10: what the batch, and another single step, do to the note's curve.

The curve is (L1 - Lm) / L1, read on A with the setting that each seed chooses there. Its
variance over seeds is compared as a log ratio.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import verdicts
from bitjax.studies.multistep_ste import choices
from bitjax.studies.multistep_ste import margins

if TYPE_CHECKING:
  import xarray

__all__ = ['batch', 'variant']

Verdicts = Iterator[verdicts.Verdict]


def batch(results: xarray.Dataset, network: str) -> Verdicts:
  """Judges N10: what a larger batch does to the note's curve."""
  sizes = sorted(results.batch_size.values.tolist())
  if len(sizes) < 2:
    return
  small, large = (
    _curve(results, network, 'single', size) for size in (sizes[0], sizes[-1])
  )
  verdict = contrasts.variances(
    'N10 batch, variance',
    f'{network}: with batch {sizes[-1]} instead of {sizes[0]} the curve varies '
    'less over seeds.',
    large,
    small,
    smallest=margins.VARIANCE,
    protocol='oracle, A',
    details={
      f'std {sizes[0]}': _spread(small),
      f'std {sizes[-1]}': _spread(large),
    },
  )
  quarter = results.attrs['examples'] // 4
  if sizes[-1] > quarter and verdict.verdict != divergence.DIVERGED:
    verdict = dataclasses.replace(
      verdict,
      verdict='inconclusive',
      caveat=f'A batch above a quarter of the data ({quarter}) says nothing '
      'about variance over batches: they overlap.',
    )
  yield verdict
  yield contrasts.equivalent(
    'N10 batch, mean',
    f'{network}: the mean of the curve is the same with either batch.',
    large - small,
    margins.LOSS,
    unit='(L1 - Lm) / L1',
    protocol='oracle, A',
  )


def variant(results: xarray.Dataset, network: str, arm: str) -> Verdicts:
  """Judges N10: what another estimator of the single step does to the curve.

  Args:
    results: with the arm.
    network: the network of which the arm is a variant.
    arm: name of the arm.
  """
  size = results.batch_size.max().item()
  normal = _curve(results, network, 'single', size)
  other = _curve(results, network, arm, size)
  affected = results[f'{arm}_affected'].sel(batch_size=size).mean().item()
  # The details are a table of batch sizes by estimators, which separates the two.
  details = {'share of gradient affected': affected}
  for batch_size in sorted(results.batch_size.values.tolist()):
    for name, source in (('normal', 'single'), (arm, arm)):
      curve = _curve(results, network, source, batch_size)
      details[f'mean {name}, batch {batch_size}'] = curve.mean()
      details[f'std {name}, batch {batch_size}'] = curve.std()
  verdict = contrasts.variances(
    f'N10 {arm}, variance',
    f'{network}: with {arm} as the single step the curve varies less over '
    'seeds than with the normal STE.',
    other,
    normal,
    smallest=margins.VARIANCE,
    protocol='oracle, A',
    details=details,
  )
  if affected == 0:
    verdict = dataclasses.replace(verdict, verdict='inert')
  yield verdict


def _curve(results, network, arm, size):
  """Returns the note's (L1 - Lm) / L1 at one batch size, by seed."""
  options: dict[str, Any] = {'protocol': 'oracle', 'batch': 'search'}
  labels = {'network': network} if arm == 'single' else {}
  single = choices.losses(results, arm, batch_size=size, **labels, **options)
  if size == results.batch_size.max():
    several = choices.losses(results, 'multi', network=network, **options)
    several = several.isel(optimizer=0, noise=0, draw=0)
  else:
    options |= {'network': network, 'batch_size': size}
    several = choices.losses(results, 'batches', **options)
  return (single - several) / single


def _spread(values):
  """Returns the standard deviation of what is finite; NaN if nothing is."""
  finite = np.asarray(values)[np.isfinite(values)]
  return float(finite.std()) if finite.size else math.nan
