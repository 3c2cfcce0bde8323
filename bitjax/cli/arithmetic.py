"""The flags that say how networks compute their products; see `bitjax.sums`."""

from __future__ import annotations

from typing import Any

from bitjax import sums
from bitjax.cli import flags

__all__ = ['dtype_flag', 'precision_flag']


def precision_flag() -> Any:
  """Declares the field ``precision: str`` of a configuration, as `flag` does."""
  return flags.flag(
    'highest',
    'Precision of all products in networks; high and default are faster on '
    'accelerators (TF32 on recent GPUs), and the same on a CPU.',
    choices=sums.PRECISIONS,
  )


def dtype_flag() -> Any:
  """Declares the field ``dtype: str`` of a configuration, as `flag` does."""
  return flags.flag(
    'float32',
    'What networks multiply is rounded to it, and activations of convolutional ones '
    'are; signs and bytes do not change. Latent weights, sums, statistics and losses '
    'are float32.',
    choices=sums.DTYPES,
  )
