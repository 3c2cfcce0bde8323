"""The trainings that the study compares: bits, where each starts, and how much mixup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bitjax import types

__all__ = ['PRECISIONS', 'STARTS', 'Arm', 'every']

# Name -> quantizers of weights and of activations, as `recipes.build` knows them.
PRECISIONS = {
  'W1A1': ('sign', 'sign'),
  'W2A2': ('lsq2', 'lsq2'),
  'W1A32': ('sign', 'none'),
  'FP': ('none', 'none'),
}

# Name -> (share of the epochs in full precision before, share of them in low bits).
STARTS = {
  'scratch': (0.0, 1.0),
  'pretrained': (0.5, 0.5),
  'half': (0.0, 0.5),
  'staged': (0.0, 1.0),
}


class Arm(NamedTuple):
  """One kind of training.

  Attributes:
    precision: a name in `PRECISIONS`.
    start: a name in `STARTS`.
    mixup: the parameter alpha of mixup; 0 for none.
  """

  precision: str
  start: str
  mixup: float

  def __str__(self) -> str:
    """Returns its label in results, such as ``'W1A1 pretrained, mixup 1'``."""
    mixup = f', mixup {self.mixup:g}' if self.mixup else ''
    return f'{self.precision} {self.start}{mixup}'

  @property
  def applies(self) -> bool:
    """Whether there is such a training: stages need weights and activations of few bits."""
    return self.start != 'staged' or 'none' not in PRECISIONS[self.precision]


def every(
  precisions: Sequence[str], starts: Sequence[str], mixups: Sequence[float]
) -> list[Arm]:
  """Returns the arms, the two of the primary contrast among them.

  Raises:
    BadInput: if starts lack one of the primary contrast, or mixups the 0.
  """
  if not {'scratch', 'pretrained'} <= set(starts):
    raise types.BadInput(
      'starts must list scratch and pretrained, the primary contrast; got '
      f'{", ".join(starts)}.'
    )
  if 0 not in mixups:
    raise types.BadInput(
      'mixups must list 0, the primary contrast; got '
      f'{", ".join(f"{alpha:g}" for alpha in mixups)}.'
    )
  arms = (
    Arm(precision, start, mixup)
    for precision in precisions
    for mixup in sorted(mixups)
    for start in starts
  )
  return [arm for arm in arms if arm.applies]
