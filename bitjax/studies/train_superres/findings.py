"""Judges a training: does it beat bicubic resampling, and reach what was published?

Intervals are over seeds, since all are tested on the same images; a single seed has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import verdicts

if TYPE_CHECKING:
  import xarray

__all__ = ['MARGIN', 'judge']

MARGIN = 0.1  # Decibels: a smaller difference does not matter.
_COSTS = ('operations', 'bit_operations', 'memory')


def judge(results: xarray.Dataset) -> list[verdicts.Verdict]:
  """Judges the PSNR of the last weights.

  Args:
    results: of `trainings.train`.
  """
  results = divergence.without(results, ['validation_loss'])
  psnr = results.psnr.transpose('seed', 'image').values
  gains = psnr - results.bicubic_psnr.values
  info: dict[str, Any] = {
    'unit': 'dB',
    'smallest': MARGIN,
    'protocol': 'last weights, luma, mean over test images, over seeds',
  }
  by_image = {
    f'dB above bicubic on {name}': divergence.finite_mean(
      results.psnr.isel(image=at)
    )
    - float(results.bicubic_psnr[at])
    for at, name in enumerate(results.image.values.tolist())
  }
  measured = {
    'PSNR, dB': divergence.finite_mean(results.psnr),
    'SSIM': divergence.finite_mean(results.ssim),
    'PSNR of bicubic, dB': results.bicubic_psnr.mean(),
    'SSIM of bicubic': results.bicubic_ssim.mean(),
  }
  costs = {name.replace('_', ' '): results.attrs[name] for name in _COSTS}
  details = {k: float(v) for k, v in (measured | by_image | costs).items()}
  found = [
    contrasts.difference(
      'gain',
      'The last weights end above bicubic resampling.',
      gains.mean(axis=1),
      primary=True,
      caveat='A training that is cut short ends lower than its recipe.',
      details=details,
      **info,
    )
  ]
  target = results.attrs.get('target')
  if target is not None:
    found.append(
      contrasts.difference(
        'published',
        f'The PSNR of the last weights is above {target:g} dB; within {MARGIN:g} dB it '
        'is the same.',
        np.mean(psnr, axis=1) - target,
        caveat='The number it is compared with has no interval here; it is of other '
        'training images, unless they are those of DIV2K.',
        **info,
      )
    )
  return found
