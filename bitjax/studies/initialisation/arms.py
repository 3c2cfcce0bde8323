"""What the study compares: initialisations, and three changes of the classifier."""

from __future__ import annotations

from collections.abc import Sequence
import itertools
from typing import NamedTuple

from bitjax import types

__all__ = [
  'CHANGES',
  'PASSING',
  'REFERENCE',
  'SMALL',
  'STARTS',
  'Arm',
  'Start',
  'check',
  'every',
  'measured',
]

REFERENCE = 'kaiming_normal'
# PyTorch's spread of a classifier, 1 / sqrt(3 fan_in), in units of Kaiming's.
SMALL = 6**-0.5


class Start(NamedTuple):
  """An initialisation of all layers but the classifier.

  Attributes:
    init: name in `bitjax.nn.INITS`.
    scale: factor on the latent weights of quantized layers.
    gain: scale of all normalisations; None for the one that gives what enters each
      activation unit variance on a batch.
  """

  init: str = REFERENCE
  scale: float = 1.0
  gain: float | None = 1.0


STARTS = {
  REFERENCE: Start(),
  'kaiming': Start('kaiming'),
  'kaiming_fan_out': Start('kaiming_fan_out'),
  'xavier': Start('xavier'),
  'orthogonal': Start('orthogonal'),
  'scaled 0.1': Start(scale=0.1),
  'scaled 0.3': Start(scale=0.3),
  'scaled 3': Start(scale=3.0),
  'scaled 10': Start(scale=10.0),
  'gain 0.5': Start(gain=0.5),
  'gain 2': Start(gain=2.0),
  'fitted': Start(gain=None),
}
# What is done to the classifier: its first weights have PyTorch's spread; it has a larger
# learning rate than all else; it has a weight decay of its own.
CHANGES = ('small', 'fast', 'decayed')
PASSING = (*STARTS, f'{REFERENCE}, small')  # What is measured without training.


class Arm(NamedTuple):
  """One kind of training.

  Attributes:
    start: a name in `STARTS`.
    small: whether the classifier begins with PyTorch's spread, else with Kaiming's.
    fast: whether the classifier has a larger learning rate than all else.
    decayed: whether the classifier has a weight decay of its own.
  """

  start: str = REFERENCE
  small: bool = False
  fast: bool = False
  decayed: bool = False

  def __str__(self) -> str:
    """Returns its label, such as ``'kaiming_normal, small, fast'``."""
    changes = [name for name in CHANGES if getattr(self, name)]
    return ', '.join([self.start, *changes])


def every(starts: Sequence[str]) -> list[Arm]:
  """Returns the arms: the classifier's factorial, and other initialisations.

  Args:
    starts: names in `STARTS`; the reference is among the arms anyway.
  """
  # All that share a program stand together.
  factorial = [
    Arm(small=small, fast=fast, decayed=decayed)
    for fast, decayed, small in itertools.product((False, True), repeat=3)
  ]
  others = [Arm(start) for start in starts if start != REFERENCE]
  return [*factorial[:2], *others, *factorial[2:]]


def measured(label: str) -> Arm:
  """Returns the arm of a label in `PASSING`."""
  start, *rest = label.split(', small')
  return Arm(start, small=bool(rest))


def check(passing: Sequence[str]) -> None:
  """Raises `BadInput` unless the reference is measured."""
  if REFERENCE not in passing:
    raise types.BadInput(
      f'passing must list {REFERENCE}, with which others are compared; got '
      f'{", ".join(passing)}.'
    )
