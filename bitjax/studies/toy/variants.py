"""Variants of the straight-through estimator: the same network, another gradient."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from bitjax import quantizers
from bitjax import types

__all__ = ['NORMAL', 'Estimators', 'Variant']


class Estimators(NamedTuple):
  """The estimators of a binary network and their progress, as a pytree."""

  kernel: quantizers.Estimator
  activation: quantizers.Estimator
  progress: types.Scalar


@dataclasses.dataclass(frozen=True)
class Variant:
  """One estimator at one setting.

  Attributes:
    family: what is varied, such as ``'window on activations'``.
    setting: the value of what is varied; 0 if there is nothing to set.
    kernel: estimator of the weights; None for the identity.
    activation: estimator of the activations; None for ``window(1)``.
    progress: progress of estimators that anneal, in [0, 1].
  """

  family: str
  setting: float
  kernel: quantizers.Estimator | None = None
  activation: quantizers.Estimator | None = None
  progress: float = 1.0

  @property
  def name(self) -> str:
    """The family, followed by the setting unless that is 0."""
    return f'{self.family} {self.setting:g}' if self.setting else self.family

  @property
  def estimators(self) -> Estimators:
    """The estimators and the progress on which the gradient depends."""
    return Estimators(
      self.kernel or quantizers.identity(),
      self.activation or quantizers.window(1.0),
      self.progress,
    )


NORMAL = Variant('normal', 0)
