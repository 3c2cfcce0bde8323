"""The gradients that the study compares, by name, and its primary contrast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bitjax import quantizers
from bitjax import types

__all__ = ['ARMS', 'PRIMARY', 'check', 'quantizer']

_FALLING = {'alpha': 0.9, 'alpha_end': 0.05}

# Arm -> the arguments of `quantizers.learned_dsq` that determine its gradient.
ARMS: dict[str, dict[str, Any]] = {
  'clipped identity': {'alpha': 0.99, 'alpha_end': 0.99},
  'fixed 0.4': {'alpha': 0.4, 'alpha_end': 0.4},
  'fixed 0.2': {'alpha': 0.2, 'alpha_end': 0.2},
  'fixed 0.05': {'alpha': 0.05, 'alpha_end': 0.05},
  'falling': _FALLING,
  'falling window': _FALLING | {'step': 'hardtanh'},
  'learned': {'alpha': 0.2},
}

PRIMARY = ('falling', 'fixed 0.2')


def check(arms: Sequence[str]) -> None:
  """Raises `BadInput` unless both arms of the primary contrast are listed."""
  if not set(PRIMARY) <= set(arms):
    raise types.BadInput(
      f'arms must list {" and ".join(PRIMARY)}, the primary contrast; got '
      f'{", ".join(arms)}.'
    )


def quantizer(arm: str, bits: int) -> quantizers.Quantizer:
  """Returns the quantizer of an arm.

  Args:
    arm: a name in `ARMS`, or one for `quantizers.named`.
    bits: bits of what it quantizes.
  """
  # The published results have the ends of the range learn by the hard level.
  options = ARMS.get(arm) or {'step': quantizers.named(arm)}
  return quantizers.learned_dsq(bits, level='hard', **options)
