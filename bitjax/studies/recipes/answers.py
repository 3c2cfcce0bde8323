"""Which test examples a trained network guesses correctly, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
  import xarray

__all__ = ['right']


def right(results: xarray.Dataset) -> xarray.DataArray:
  """Returns 1 where a network guesses a test example correctly, else 0.

  Args:
    results: with ``test_right`` and ``test_accuracy`` of `bitjax.training.outcome`, and
      the attribute ``test_examples``, their number.

  Returns:
    The axes of ``test_accuracy`` and ``test_example``; NaN for a network that diverged,
    which has no accuracy.
  """
  packed = results.test_right.transpose(..., 'test_byte')
  bits = np.unpackbits(
    packed.values.astype(np.uint8), axis=-1, count=results.test_examples
  )
  guessed = packed.isel(test_byte=0, drop=True).astype(float)
  guessed = guessed.expand_dims(test_example=bits.shape[-1], axis=-1)
  return guessed.copy(data=bits).where(results.test_accuracy.notnull())
