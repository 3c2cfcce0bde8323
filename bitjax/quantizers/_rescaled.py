r"""Staircases whose input or output has a scale of its own.

A scale that is computed from the weights couples them. Held constant, it leaves a
staircase that acts elementwise, and whose levels exact scans can ask for.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import tree
from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _channels
from bitjax.quantizers import _maths
from bitjax.quantizers import _scaling

__all__ = ['Rescaled', 'constant', 'divide', 'factor', 'staircase', 'usable']


def factor(scaling: _scaling.Scaling, x: types.Array) -> types.Array:
  """Returns the scale of ``x``, at least float32, so that it broadcasts against it."""
  wide = _maths.widen(x)  # The scale's gradient is a sum over many weights.
  return _channels.align('scale', scaling(wide), x, -1 if x.ndim else None)


def constant(scaling: _scaling.Scaling, x: types.Array) -> _scaling.Constant:
  """Returns the scaling by the scale of ``x``, whatever is scaled."""
  return _scaling.Constant(scaling(_maths.widen(x)))


def usable(scale: types.Array) -> types.Array:
  """Returns a scale to divide by: 1 where it is 0 or subnormal."""
  return jnp.where(scale < jnp.finfo(scale.dtype).tiny, 1, scale)


def divide(x: types.Array, scale: types.Array) -> types.Array:
  """Returns ``x`` in units of a scale of any size, at least float32."""
  scale = usable(scale)
  # A compiler may multiply by a reciprocal, which is 0 for the largest scales.
  power = tree.power_of_two(scale)
  return (_maths.widen(x) / power) / (scale / power)


def staircase(
  quantize: _attach.Quantize, scaling: _scaling.Scaling, *, relative: bool
) -> Rescaled | None:
  """Returns the staircase of a scaled quantizer; None unless it acts elementwise.

  Args:
    quantize: the quantizer inside.
    scaling: the scaling, which must be a `Constant`.
    relative: whether the input is divided by the scale, too.
  """
  found = _attach.staircase(quantize)
  fixed = isinstance(scaling, _scaling.Constant)
  if not fixed or not hasattr(found, 'neighbours'):
    return None
  return Rescaled(found, scaling, relative)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rescaled:
  """``scale * staircase(x)``, or ``scale * staircase(x / scale)`` if ``relative``."""

  inner: Any
  scaling: _scaling.Constant
  relative: bool = dataclasses.field(metadata={'static': True})

  @property
  def num_levels(self) -> int:
    """How many levels there are."""
    return self.inner.num_levels

  @property
  def uniform(self) -> bool:
    """Whether neighbouring levels are equally far apart for all weights."""
    return self.inner.uniform and jnp.ndim(self.scaling.scale) == 0

  def __call__(self, x: types.Array) -> types.Array:
    """Returns the levels of ``x``."""
    x = _channels.check_floating(x)
    scale = factor(self.scaling, x)
    if self.relative:
      return (self.inner(divide(x, scale)) * usable(scale)).astype(x.dtype)
    return (self.inner(x) * scale).astype(x.dtype)

  def neighbours(self, x: types.Array) -> tuple[types.Array, types.Array]:
    """Returns latent values of the next levels up and down; ``x`` if there is none."""
    if not self.relative:
      return self.inner.neighbours(x)
    scale = factor(self.scaling, x)
    inner = divide(x, scale)
    up, down = (
      jnp.where(there == inner, x, (there * usable(scale)).astype(x.dtype))
      for there in self.inner.neighbours(inner)
    )
    return up, down
