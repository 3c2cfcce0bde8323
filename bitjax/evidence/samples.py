"""Arithmetic of clustered samples: their means, their spread, their resamples.

Equal samples have a spread of exactly 0 here, whatever their mean is rounded to.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

__all__ = ['centred', 'clusters', 'variance', 'weights']


def clusters(samples: Any) -> tuple[np.ndarray, int]:
  """Returns the clusters' means over finite values, and the count of other values.

  Clusters without a finite value are left out.

  Args:
    samples: [clusters] or [clusters, repeats].
  """
  values = np.asarray(samples, float)
  if values.ndim not in (1, 2):
    raise ValueError(
      f'samples must be [clusters] or [clusters, repeats]; got {values.shape}.'
    )
  values = values.reshape(len(values), *(values.shape[1:] or (1,)))
  finite = np.isfinite(values)
  counts = finite.sum(axis=1)
  sums = np.where(finite, values, 0.0).sum(axis=1)
  means = sums[counts > 0] / counts[counts > 0]
  return means, int((~finite).sum())


@functools.lru_cache(maxsize=4)
def weights(num: int, num_resamples: int, seed: int) -> np.ndarray:
  """Returns the share of each cluster in each resample, [resamples, clusters]."""
  counts = np.random.default_rng(seed).multinomial(
    num, np.full(num, 1 / num), size=num_resamples
  )
  return counts / num


def centred(values: np.ndarray) -> np.ndarray:
  """Returns values minus their mean along the last axis; equal ones become 0.

  The mean of equal numbers is rounded; their differences from the first are not.
  """
  differences = values - values[:, :1]
  return differences - differences.mean(axis=1, keepdims=True)


def variance(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Returns the variances of weighted values; 0 where it is only rounding."""
  squares = weights @ values**2
  spread = squares - (weights @ values) ** 2
  noise = 8 * np.finfo(float).eps * squares
  return np.where(spread > noise, spread, 0.0)
