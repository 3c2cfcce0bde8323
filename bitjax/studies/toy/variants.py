"""Variants of the straight-through estimator: the same network, another gradient."""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
from typing import NamedTuple

import jax

from bitjax import quantizers
from bitjax import types

__all__ = ['NORMAL', 'Estimators', 'Variant', 'Windows']


class Estimators(NamedTuple):
  """The estimators of a binary network and their progress, as a pytree."""

  kernel: quantizers.Estimator
  activation: quantizers.Estimator
  progress: types.Scalar


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Windows:
  """Windows on the activations, of another half-width in each hidden layer.

  The half-width is ``absolute + relative * spread``, with the spread of what enters
  that layer's activations; it may be traced.

  Attributes:
    absolute: in the units of the pre-activations, [hidden layers].
    relative: in units of each layer's spread, [hidden layers].
  """

  absolute: tuple[types.Scalar, ...]
  relative: tuple[types.Scalar, ...]

  def half_widths(self, spreads: Iterable[types.Scalar]) -> list[types.Scalar]:
    """Returns each layer's half-width, given each layer's spread."""
    parts = zip(self.absolute, self.relative, spreads, strict=True)
    return [
      absolute + relative * spread for absolute, relative, spread in parts
    ]


@dataclasses.dataclass(frozen=True)
class Variant:
  """One estimator at one setting.

  Attributes:
    family: what is varied, such as ``'window on activations'``.
    setting: the value of what is varied; 0 if there is nothing to set.
    kernel: estimator of the weights; None for the identity.
    activation: estimator of the activations; None for ``window(1)``.
    progress: progress of estimators that anneal, in [0, 1].
    windows: windows of each layer's own, in place of ``activation``; None for none.
  """

  family: str
  setting: float
  kernel: quantizers.Estimator | None = None
  activation: quantizers.Estimator | None = None
  progress: float = 1.0
  windows: Windows | None = None

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
