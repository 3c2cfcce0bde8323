"""Computes scales and quantized weights of stages once, for what runs them many times.

Unlike `_stages.freeze`, it keeps the order in which scales are applied.
"""

from __future__ import annotations

import dataclasses

from bitjax import types
from bitjax.scans import _stages

__all__ = ['scale', 'stages']


def stages(given: tuple[_stages.Stage, ...]) -> tuple[_stages.Stage, ...]:
  """Returns stages whose scales and quantized weights are constants."""
  return tuple(map(_stage, given))


def _stage(stage):
  if isinstance(stage, _stages.Residual):
    return _stages.Residual(stages(stage.body), stages(stage.shortcut))
  if isinstance(stage, _stages.Conv):
    return dataclasses.replace(stage, layer=_layer(stage.layer))
  return _layer(stage) if isinstance(stage, _stages.Dense) else stage


def _layer(layer):
  weights, layer = layer.quantized, scale(layer)
  return dataclasses.replace(layer, kernel=weights, quantizer=None)


def scale(layer: _stages.Dense) -> _stages.Dense:
  """Returns a layer whose scale is a constant."""
  if layer.scaling is None:
    return layer
  value = layer.scaling(layer.kernel)
  return dataclasses.replace(layer, scaling=_Held(value))


@dataclasses.dataclass(frozen=True)
class _Held:
  """A scale that does not depend on the kernel any more."""

  value: types.Array
  coupling: str = 'none'

  def __call__(self, kernel: types.Array) -> types.Array:
    """Returns the scale."""
    del kernel
    return self.value
