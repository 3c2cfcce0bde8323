"""Judges N12: does the threshold change how much a gradient varies over batches?

The threshold may be read as that of the window, in absolute units or in units of each
layer's spread, or as that of the quantizer. Two measures of variation are judged, both
of the first layer's gradient. One is the correlation of the gradients on A and B. The
other is the variance over parts of A, divided by the squared length of the mean: a
gradient that a window makes shorter varies less in a way that any learning rate undoes.
That length is without the noise that is left in a mean of a few parts; with it the ratio
could not exceed their number, and noisy gradients would all look alike.
Neither says whether the gradient is right. That is asked of its mean over the parts, which
is the gradient on A: how near it points to the discrete gradient on A, which has no
estimator. The mean over *coordinates* is in the details only: the learning rate undoes its
size, and nothing says what it should be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import verdicts
from bitjax.studies.variant_ste import arms
from bitjax.studies.variant_ste import effects

if TYPE_CHECKING:
  import xarray

__all__ = [
  'LARGER',
  'SMALLEST',
  'judge',
  'relative_variance',
  'replication',
  'thresholds',
  'windows',
]

SMALLEST = 0.01  # Differences of correlations below it do not matter.
# Nor do variances that are equal to a tenth: batches a tenth larger do as much.
LARGER = float(np.log(1.1))

_CORRELATION: dict[str, Any] = {
  'unit': 'correlation of the gradients on A and B',
  'bounds': (-2, 2),
  'protocol': 'A, B',
  'smallest': SMALLEST,
}
_VARIANCE: dict[str, Any] = {
  'unit': 'log variance ratio, relative to the squared mean',
  'protocol': 'parts of A',
  'smallest': LARGER,
}
_NEARNESS: dict[str, Any] = {
  'unit': 'cosine with the discrete gradient on A',
  'bounds': (-2, 2),
  'protocol': 'A',
  'smallest': SMALLEST,
}

Verdicts = Iterator[verdicts.Verdict]


def judge(results: xarray.Dataset, state: str) -> Verdicts:
  """Judges every reading of the threshold, for one state."""
  yield from replication(results, arms.PRIMARY, state)
  yield from windows(results, state)
  yield from thresholds(results, state)


def replication(results: xarray.Dataset, variant: str, state: str) -> Verdicts:
  """Judges N12 for the threshold of the window, in absolute units.

  Args:
    results: of `study.run`.
    variant: name of the variant.
    state: of the network.
  """
  found = results['reliability'].sel(state=state)
  details = {}
  for name in ('normal', variant):
    details |= {f'correlation A, B of {name}': found.sel(variant=name).mean()}
    for label, output in (
      ('signal to noise', 'signal_to_noise'),
      ('bias', 'bias'),
      ('mean over coordinates', 'mean'),
    ):
      values = results[f'gradient_{output}'].sel(state=state).isel(layer=0)
      details |= {f'{label} of {name}': values.sel(variant=name).mean()}
  variances = relative_variance(results.sel(state=state), 'gradient')
  nearness = results['discrete_cosine'].sel(state=state)
  judged = (
    contrasts.difference(
      'N12',
      f'{state}, first layer: {variant} makes the gradient replicate better '
      'from A to B.',
      found.sel(variant=variant) - found.sel(variant='normal'),
      details=details,
      **_CORRELATION,
    ),
    contrasts.difference(
      'N12 variance',
      f'{state}, first layer: {variant} makes the gradient vary less over batches, '
      'relative to its size.',
      variances.sel(variant=variant) - variances.sel(variant='normal'),
      direction=-1,
      **_VARIANCE,
    ),
    contrasts.difference(
      'N12 mean',
      f'{state}, first layer: {variant} makes the mean gradient point nearer to the '
      'discrete gradient, on A.',
      nearness.sel(variant=variant) - nearness.sel(variant='normal'),
      details={
        f'cosine of {name}': nearness.sel(variant=name).mean()
        for name in ('normal', variant)
      },
      **_NEARNESS,
    ),
  )
  for verdict in judged:
    if variant in effects.inert(results, state):
      verdict = dataclasses.replace(verdict, verdict='inert')
    yield verdict


def windows(results: xarray.Dataset, state: str) -> Verdicts:
  """Judges N12 for the threshold of the window, in units of each layer's spread."""
  names = effects.within_layers(results.variant)
  own = results.sel(state=state)
  yield from _either_way(
    'N12 relative windows',
    f"{state}, first layer: at least one of {len(names)} windows in units of a layer's "
    'spread',
    own['reliability'],
    relative_variance(own, 'gradient'),
    {name: {'variant': name} for name in names},
    {'variant': 'normal'},
  )


def thresholds(results: xarray.Dataset, state: str) -> Verdicts:
  """Judges N12 for the threshold of the quantizer, in units of each layer's spread."""
  if 'shifted_reliability' not in results:
    return
  own = results.sel(state=state)
  places = own.place.values.tolist()
  values = own.threshold.values[1:].tolist()
  cases = {
    f'threshold {value:g} in {place}': {'place': place, 'threshold': value}
    for place in places
    for value in values
  }
  losses = {
    name: divergence.finite_mean(own['shifted_loss'].sel(case))
    for name, case in cases.items()
  }
  normal = {'place': places[0], 'threshold': 0.0}
  before = divergence.finite_mean(own['shifted_loss'].sel(normal))
  yield from _either_way(
    'N12 quantizer threshold',
    f'{state}, first layer: at least one of {len(cases)} thresholds of the sign, in '
    "units of a layer's spread,",
    own['shifted_reliability'],
    relative_variance(own, 'shifted'),
    cases,
    normal,
    details={'loss on A (nats), no threshold': before}
    | {f'loss on A (nats), {name}': loss for name, loss in losses.items()},
  )


def relative_variance(results: xarray.Dataset, prefix: str) -> xarray.DataArray:
  """Returns the log of a first layer's variance over batches by its squared mean.

  Both are summed over coordinates; the squared mean is an unbiased estimate.

  Args:
    results: with the `measures.GradientStatistics` of each layer.
    prefix: of their names, ``'gradient'`` or ``'shifted'``.

  Returns:
    The log; NaN where that estimate is not positive, since no signal is seen.
  """
  signal = results[f'{prefix}_signal_to_noise'].isel(layer=0)
  return contrasts.log_ratio(1.0, signal.where(signal > 0))


def _either_way(
  finding: str,
  claim: str,
  correlation: xarray.DataArray,
  variance: xarray.DataArray,
  cases: Mapping[str, Mapping[str, object]],
  normal: Mapping[str, object],
  details: Mapping[str, Any] | None = None,
) -> Verdicts:
  """Judges whether some case varies less, and whether some case varies more."""
  if not cases:
    return
  for values, words, info in (
    (
      correlation,
      {1: 'more alike on A and B', -1: 'less alike on A and B'},
      _CORRELATION,
    ),
    (
      variance,
      {-1: 'vary less over batches', 1: 'vary more over batches'},
      _VARIANCE,
    ),
  ):
    differences = {
      name: values.sel(case) - values.sel(normal)
      for name, case in cases.items()
    }
    for sign, word in words.items():
      yield contrasts.any_arm(
        f'{finding}, {word}',
        f'{claim} makes the gradient {word} (simultaneous intervals).',
        {name: sign * each for name, each in differences.items()},
        details=details or {},
        **info,
      )
