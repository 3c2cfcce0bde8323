"""Variants of the straight-through estimator: another gradient, the same network."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from bitjax import quantizers
from bitjax import types

__all__ = ['NORMAL', 'Estimators', 'Variant']


class Estimators(NamedTuple):
  """Estimators of a binary network, and their progress: a pytree."""

  kernel: quantizers.Estimator
  activation: quantizers.Estimator
  progress: types.Scalar


@dataclasses.dataclass(frozen=True)
class Variant:
  """One estimator at one setting.

  Attributes:
    family: what is varied, such as ``'window on activations'``.
    setting: its value.
    kernel: estimator of the weights; None for the identity.
    activation: estimator of the activations; None for ``window(1)``.
    progress: of the estimators, in [0, 1].
  """

  family: str
  setting: float
  kernel: quantizers.Estimator | None = None
  activation: quantizers.Estimator | None = None
  progress: float = 1.0

  @property
  def name(self) -> str:
    """Family and setting."""
    return f'{self.family} {self.setting:g}' if self.setting else self.family

  @property
  def estimators(self) -> Estimators:
    """What the gradient depends on."""
    return Estimators(
      self.kernel or quantizers.identity(),
      self.activation or quantizers.window(1.0),
      self.progress,
    )


NORMAL = Variant('normal', 0)
